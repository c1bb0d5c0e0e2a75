"""Blindspot: follow a proxy that never saw the forget set, and fit the retain targets.

For regression. Tarun, Chundawat, Mandal and Kankanhalli, "Deep Regression Unlearning", ICML 2023,
arXiv 2210.08196.

    proxy:    fresh weights, trained on D_r for a few epochs
    unlearn:  L = r [ |f(x_f) − f_proxy(x_f)| + w Σ_l mean (A(a_l) − A(a_l^proxy))² ]
                  + (1 − r) |f(x_r) − y_r|

r is the forget share of the batch, A the attention map of a layer's activations
(`mu.functional.regression.attention_map`). The retain term is the regressor's own loss, L1 unless
it was built otherwise. The released code never steps its learning-rate schedule, so the rate is
constant. Defaults: proxy 2 epochs of Adam 0.01, then 1 epoch of Adam 1e-3 over all data, w = 50,
batch 256 (AgeDB notebook): `max_epochs` is 3.
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu import functional
from mu.backbones import Backbone, Regressor
from mu.data.batch import Batch, concatenate
from mu.data.plan import Phases, Retain, Union
from mu.methods.bases.activations import hidden_layers, layer_outputs
from mu.methods.bases.two_models import AUXILIARY, TwoModelMethod
from mu.utils.errors import InputError
from mu.utils.rng import stream_id


class Blindspot(TwoModelMethod):
    """Epochs that train the proxy on retain, then epochs that unlearn on all data.

    Args:
        backbone: the original.
        optimizer: of both models; the proxy's group has `proxy_lr`.
        proxy_lr: learning rate of the proxy.
        proxy_epochs: epochs that train the proxy, at least 1.
        attention_weight: w.
        layers: modules of the network whose outputs are compared; None takes every nonlinearity, or
            every weight layer but the last where no nonlinearity is a module.
    """

    default_epochs = 3
    plan = Phases(Retain(), Union())
    auxiliary_activity = "trains its proxy"

    def __init__(
        self,
        backbone: Regressor,
        optimizer: OptimizerCallable = lambda params: torch.optim.Adam(params, lr=1e-3),
        proxy_lr: float = 0.01,
        proxy_epochs: int = 2,
        attention_weight: float = 50.0,
        layers: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, proxy_epochs, proxy_lr, optimizer=optimizer, **kwargs)
        if proxy_epochs < 1:
            raise InputError(
                f"proxy_epochs is {proxy_epochs}; an untrained proxy has nothing to teach, so give "
                "it at least 1."
            )
        self.attention_weight = attention_weight
        hidden = hidden_layers(backbone.network)
        self.layers = hidden if layers is None else list(layers)
        unknown = sorted(set(self.layers) - {name for name, _ in backbone.network.named_modules()})
        if unknown:
            raise InputError(
                f"the network has no layer {unknown[0]!r}; its hidden ones are {', '.join(hidden)}."
            )
        self.plan = Phases(Retain(epochs=proxy_epochs), Union(after=proxy_epochs))
        self.proxy: Backbone | None = None

    @property
    def auxiliary_model(self) -> Backbone:
        """The proxy."""
        assert self.proxy is not None, "configure_model makes it"
        return self.proxy

    def configure_model(self) -> None:
        """The proxy begins from weights drawn from the seed, and is in the checkpoint."""
        if self.proxy is None:
            self.proxy = self.backbone.fresh(stream_id("proxy", self.seed))
        super().configure_model()

    def set_mode(self) -> None:
        """The proxy learns in train mode and teaches in eval mode."""
        super().set_mode()
        self.auxiliary_model.train(self.current_epoch < self.auxiliary_epochs)

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        proxy = self.auxiliary_model
        if self.phase == AUXILIARY:
            assert retain is not None
            return {"proxy": self.reduce(proxy.loss(retain), retain)}
        # one forward pass of both parts
        sizes = [0 if part is None else len(part["index"]) for part in (forget, retain)]
        with layer_outputs(self.backbone.network, self.layers) as student_layers:  # type: ignore[arg-type]
            forget_output, retain_output = self.backbone.predict(concatenate(forget, retain)).split(
                sizes
            )
        # forget: outputs and layers of the proxy
        terms = {}
        if forget is not None:
            with torch.no_grad(), layer_outputs(proxy.network, self.layers) as proxy_layers:  # type: ignore[arg-type]
                target = proxy.predict(forget)
            values = functional.blindspot_loss(
                forget_output,
                target,
                target,
                [layer[: sizes[0]] for layer in student_layers],
                proxy_layers,
                torch.ones_like(target, dtype=torch.bool),
                self.attention_weight,
            )
            terms["forget"] = self.mean(values, forget)
        # retain: true targets
        if retain is not None:
            loss = self.backbone.loss(retain, prediction=retain_output)
            terms["retain"] = self.reduce(loss, retain)
        return terms

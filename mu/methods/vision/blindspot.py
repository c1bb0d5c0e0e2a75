"""Blindspot: on the forget set, follow a proxy that never saw it; elsewhere, the true targets. For
regression.

Tarun, Chundawat, Mandal and Kankanhalli, "Deep Regression Unlearning", ICML 2023, arXiv 2210.08196.

    proxy:    fresh weights, trained on D_r for a few epochs
    unlearn:  L = r [ |f(x_f) − f_proxy(x_f)| + w Σ_l mean (A(a_l) − A(a_l^proxy))² ] + (1 − r) |f(x_r) − y_r|

r is the forget share of the batch, A the attention map of a layer's activations
(`mu.functional.regression.attention_map`). The retain term is the regressor's own loss, L1 unless
it was built otherwise. The released code's learning-rate schedule is never stepped, so there is
none. Defaults: proxy 2 epochs of Adam 0.01, then 1 epoch of Adam 1e-3 over all data, w = 50, batch
256 (AgeDB notebook): `max_epochs` is 3.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from mu import functional
from mu.backbones import Backbone, Regressor
from mu.backbones.vision.networks import layers_in_order
from mu.core.module import UnlearningModule
from mu.data.batch import Batch, concatenate
from mu.data.plan import Phases, Retain, Union
from mu.utils.errors import InputError
from mu.utils.rng import stream_id

_PROXY = 0


class Blindspot(UnlearningModule):
    """The first `proxy_epochs` epochs of a fit train the proxy, the others unlearn.

    Proxy and backbone are two groups of one optimizer; in each step one of them is idle and left
    alone.

    Args:
        backbone: the original.
        optimizer: of both; the proxy's group has `proxy_lr`.
        proxy_lr: learning rate of the proxy.
        proxy_epochs: epochs that train the proxy, at least 1.
        attention_weight: w.
        layers: modules of the network whose outputs are compared; None takes every nonlinearity, or
            every weight layer but the last where the network has no nonlinearity that is a module.
    """

    plan = Phases(Retain(), Union())

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
        super().__init__(backbone, optimizer=optimizer, **kwargs)
        if proxy_epochs < 1:
            raise InputError(
                f"proxy_epochs is {proxy_epochs}; an untrained proxy knows nothing to follow, so "
                "give it at least 1."
            )
        self.proxy_lr = proxy_lr
        self.proxy_epochs = proxy_epochs
        self.attention_weight = attention_weight
        self.layers = hidden_layers(backbone.network) if layers is None else list(layers)
        unknown = sorted(set(self.layers) - {name for name, _ in backbone.network.named_modules()})
        if unknown:
            raise InputError(
                f"the network has no layer {unknown[0]!r}; its hidden ones are "
                f"{', '.join(hidden_layers(backbone.network))}."
            )
        self.plan = Phases(Retain(epochs=proxy_epochs), Union(after=proxy_epochs))
        self.proxy: Backbone | None = None

    def setup(self, stage: str) -> None:
        """Refuse a fit that would end before it unlearns."""
        super().setup(stage)
        epochs = self.trainer.max_epochs
        if stage == "fit" and epochs is not None and 0 <= epochs <= self.proxy_epochs:
            raise InputError(
                f"Blindspot trains its proxy for {self.proxy_epochs} epochs before it unlearns; "
                f"set trainer.max_epochs to at least {self.proxy_epochs + 1}, not {epochs}."
            )

    def configure_model(self) -> None:
        """The proxy begins from weights drawn from the seed, and is in the checkpoint."""
        if self.proxy is None:
            self.proxy = self.backbone.fresh(stream_id("proxy", self.seed))
        super().configure_model()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """A group for each model; the proxy has its own learning rate."""
        assert self.proxy is not None
        proxy = list(self.proxy.parameters())
        return [*super().parameter_groups(), {"params": proxy, "lr": self.proxy_lr}]

    def set_mode(self) -> None:
        """The proxy learns in train mode and teaches in eval mode."""
        super().set_mode()
        assert self.proxy is not None
        self.proxy.train(self.current_epoch < self.proxy_epochs)

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """On several ranks every weight must take part in every loss, so the idle model adds
        zero.
        """
        loss = super().training_step(batch, batch_idx)
        return loss + 0 * torch.stack([p.sum() for p in self._idle()]).sum()

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Without a gradient the idle model is left alone; with one of zero, momentum and weight
        decay would move it.
        """
        for p in self._idle():
            p.grad = None
        super().on_before_optimizer_step(optimizer)

    def _idle(self) -> list[nn.Parameter]:
        idle = self.backbone if self.phase == _PROXY else self.proxy
        assert idle is not None
        return [p for p in idle.parameters() if p.requires_grad]

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert self.proxy is not None
        if self.phase == _PROXY:
            assert retain is not None
            return {"proxy": self.reduce(self.proxy.loss(retain), retain)}
        sizes = [0 if part is None else len(part["index"]) for part in (forget, retain)]
        with activations(self.backbone.network, self.layers) as seen:  # type: ignore[arg-type]
            of_forget, of_retain = self.backbone.predict(concatenate(forget, retain)).split(sizes)
        terms = {}
        if forget is not None:
            with torch.no_grad(), activations(self.proxy.network, self.layers) as shown:  # type: ignore[arg-type]
                goal = self.proxy.predict(forget)
            values = functional.blindspot_loss(
                of_forget,
                goal,
                goal,
                [layer[: sizes[0]] for layer in seen],
                shown,
                torch.ones_like(goal, dtype=torch.bool),
                self.attention_weight,
            )
            terms["forget"] = self.mean(values, forget)
        if retain is not None:
            terms["retain"] = self.reduce(self.backbone.loss(retain, prediction=of_retain), retain)
        return terms


def hidden_layers(network: nn.Module) -> list[str]:
    """Names of the network's nonlinearities, or of its weight layers but the last where it has none
    as modules.
    """
    found = [
        name
        for name, layer in network.named_modules()
        if type(layer).__module__ == "torch.nn.modules.activation"
        and not isinstance(layer, nn.MultiheadAttention)
    ]
    return found or [name for name, _ in layers_in_order(network)[:-1]]


@contextmanager
def activations(network: nn.Module, layers: list[str]) -> Iterator[list[Tensor]]:
    """Collects the outputs of the named layers, in the order in which they are computed (a layer
    used twice gives two).
    """
    collected: list[Tensor] = []

    def collect(layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        collected.append(output)

    handles = [network.get_submodule(name).register_forward_hook(collect) for name in layers]
    try:
        yield collected
    finally:
        for handle in handles:
            handle.remove()

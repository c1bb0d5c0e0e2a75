"""RMU (representation misdirection for unlearning): steer the hidden states of forget texts to a
random vector. For language models.

Li et al., "The WMDP Benchmark: Measuring and Reducing Malicious Use With Unlearning", ICML 2024,
arXiv 2403.03218.

    min_θ E_f [1/L_f Σ_t mean_d (h_θ(t) − c)²] + α E_r [1/L_r Σ_t mean_d (h_θ(t) − h_θo(t))²],    c = s u / ‖u‖,  u ~ U[0, 1)^D

h is the output of decoder layer ℓ; u has no negative entry, is drawn once and stays. Forward passes
stop at ℓ, and only `mlp.down_proj` of layers ℓ − 2, ℓ − 1 and ℓ are trained: everything else is
frozen, so that no gradient is made for it. The reference shares what is frozen, and holds second
copies of the trained matrices alone. (Its states are not cached: with as many retain as forget
samples in an epoch, a retain sample is hardly shown twice.) s must be of the order of the norm of h
at ℓ, so ℓ, s and α are to be tuned for each model. Released code: the mean runs over *all*
positions of the batch, padding too (`positions: all`). OpenUnlearning counts the positions of
answer tokens, trains whatever stands before ℓ, and has s = 2, α = 1
(`configs/method/rmu_reference_code.yaml`). It gives gradients back to all weights after the
optimizer has been made, so that its clipping sees more than it moves; that is not here. Defaults: ℓ
= 7 (of the 32 layers of Zephyr-7B; the layer in the middle, (n − 1) // 2, where that is less), s =
20, α = 100, AdamW 5e-5, batches of 4, 80 steps (the code's arguments; Zephyr-7B: s = 6.5, α = 1200,
150 steps).
"""

import re
from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import CausalLM
from mu.core.module import UnlearningModule
from mu.data.batch import Batch, concatenate
from mu.data.plan import Paired
from mu.functional.tokens import IGNORED, hidden_distance
from mu.utils import rng
from mu.utils.errors import InputError

Positions = Literal["attention", "labels", "all"]


class RMU(UnlearningModule):
    """Squared distance of hidden states: of forget to a fixed random vector, of retain to the
    original's.

    Args:
        backbone: the original.
        layer: ℓ, 0-based; None is 7, or the middle of shallow models.
        layers: trained layers; None is ℓ − 2 to ℓ. None of them lies after ℓ.
        weights: of these layers, those whose names this regular expression is found in; None trains
            all that stands up to ℓ, embeddings included, as far as the backbone's `part` does, and
            reads no `layers`.
        scale: s > 0, norm of the control vector.
        alpha: α >= 0, weight of the retain term.
        positions: where states are compared: at all tokens (`attention`), at those of answers
            (`labels`), or at padding too (`all`).
        optimizer: see the file's head.
    """

    plan = Paired(length="forget")
    control: Tensor

    def __init__(
        self,
        backbone: CausalLM,
        layer: int | None = None,
        layers: list[int] | None = None,
        weights: str | None = "down_proj",
        scale: float = 20.0,
        alpha: float = 100.0,
        positions: Positions = "attention",
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=5e-5),
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, optimizer=optimizer, **kwargs)
        if scale <= 0 or alpha < 0:
            raise InputError(
                f"RMU needs a scale above 0 and an alpha of at least 0, not {scale} and {alpha}."
            )
        if positions not in ("attention", "labels", "all"):
            raise InputError(f"positions is {positions!r}; it is attention, labels or all.")
        self.alpha = alpha
        self.positions: Positions = positions
        self.layer = steered_layer(backbone.layers, layer)
        self.layers = (
            [k for k in range(self.layer - 2, self.layer + 1) if k >= 0]
            if layers is None
            else sorted(layers)
        )
        if not self.layers or not 0 <= self.layers[0] <= self.layers[-1] <= self.layer:
            raise InputError(
                f"RMU trains layers from 0 to the steered one, {self.layer}, not {self.layers}."
            )
        freeze_but(backbone, self.layer, self.layers, weights)
        config: Any = backbone.network.config
        u = rng.uniform(
            self.seed, torch.zeros(1, dtype=torch.int64), 0, "control-vector", config.hidden_size
        )[0]
        self.register_buffer("control", scale * u / u.norm())

    @property
    def needs_reference(self) -> bool:  # type: ignore[override]
        """For the retain term."""
        return self.alpha > 0

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert forget is not None and retain is not None and isinstance(self.backbone, CausalLM)
        sizes = [len(forget["index"]), len(retain["index"])]
        of_forget, of_retain = self.backbone.hidden(concatenate(forget, retain), self.layer).split(
            sizes
        )
        terms = {"misdirect": self.distance(of_forget, self.control, forget)}
        if self.alpha:
            assert isinstance(self.reference, CausalLM)
            with torch.no_grad():
                original = self.reference.hidden(retain, self.layer)
            terms["retain"] = self.alpha * self.distance(of_retain, original, retain)
        return terms

    def distance(self, hidden: Tensor, target: Tensor, part: Batch) -> Tensor:
        """Mean over texts of the mean over the positions that count.

        Args:
            hidden: `[B, ≥ L, D]`, of a joint pass perhaps wider than the part.
            target: `[D]` or `[B, L, D]`, without gradient.
            part: whose mask is taken.
        """
        masks = {
            "attention": part["attention_mask"],
            "labels": part["labels"] != IGNORED,
            "all": None,
        }
        values, weight = hidden_distance(
            hidden[:, : part["labels"].shape[1]], target, masks[self.positions]
        )
        return self.mean(values / weight.clamp_min(1), part)


def steered_layer(count: int, layer: int | None) -> int:
    """The layer of a model with `count` of them; None is the 8th, or the one in the middle of
    shallow models.

    Raises:
        InputError: when there is no such layer.
    """
    found = min(7, (count - 1) // 2) if layer is None else layer
    if not 0 <= found < count:
        raise InputError(
            f"there is no layer {layer} to steer; the model has {count}, counted from 0."
        )
    return found


def freeze_but(model: CausalLM, last: int, layers: list[int], weights: str | None) -> None:
    """Leave a gradient to the weights that are trained, of those that the model's `part` trains.

    What lies after the exit gets no gradient at all, which several ranks would wait for.

    Args:
        model: its weights are frozen in place.
        last: the layer after which the forward pass stops.
        layers: trained layers.
        weights: regular expression of names; None is everything up to the exit.

    Raises:
        InputError: when nothing is left.
    """
    names = {p: name for name, p in model.named_parameters() if p.requires_grad}
    inside = {p for k in layers for p in model.decoder_layers[k].parameters()}
    embedded = set(model.network.get_input_embeddings().parameters())  # type: ignore[operator]
    before = {
        p for layer in model.decoder_layers[: last + 1] for p in layer.parameters()
    } | embedded
    allowed = (
        before if weights is None else {p for p in inside if re.search(weights, names.get(p, ""))}
    )
    if not allowed & set(names):
        some = (
            ", ".join(sorted(name for p, name in names.items() if p in inside)[:3])
            or "none, because the backbone's part trains others"
        )
        raise InputError(
            f"RMU finds no weight to train by {weights!r} in layers {layers}; names there are "
            f"like {some}."
        )
    for p in model.parameters():
        p.requires_grad_(p in allowed and p in names)

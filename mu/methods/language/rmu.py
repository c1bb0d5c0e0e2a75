"""RMU: representation misdirection, which steers hidden states of forget texts to a random vector.

For language models. Li et al., "The WMDP Benchmark: Measuring and Reducing Malicious Use With
Unlearning", ICML 2024, arXiv 2403.03218.

    min_θ E_f [1/L_f Σ_t mean_d (h_θ(t) − c)²] + α E_r [1/L_r Σ_t mean_d (h_θ(t) − h_θo(t))²]
    c = s u / ‖u‖,  u ~ U[0, 1)^D

h is the output of decoder layer ℓ; u has no negative entry and is drawn once. Forward passes stop
at ℓ. Only `mlp.down_proj` of layers ℓ − 2, ℓ − 1 and ℓ is trained; all other weights are frozen and
get no gradient. The reference shares the frozen weights and holds second copies of the trained
matrices alone. Its hidden states are not cached: with as many retain as forget samples in an epoch,
a retain sample is rarely repeated. s must be of the order of the norm of h at ℓ, so tune ℓ, s and α
for each model.

Other code: the released code takes the mean over *all* positions of the batch, padding included
(`positions: all`). OpenUnlearning counts the positions of answer tokens, trains all weights up to
ℓ, and has s = 2, α = 1; it divides the sum of each text by the length of *every* text of the batch
(`mu.methods.compat.RMUReference`, preset `rmu_reference_code`). It enables the gradients of all
weights after the optimizer is created, so that its gradient clipping includes weights that the
optimizer does not update, which is not reproduced here.

Defaults: ℓ = 7 (of the 32 layers of Zephyr-7B; the middle layer, (n − 1) // 2, where that is less),
s = 20, α = 100, AdamW 5e-5, batches of 4, 80 steps (the code's arguments; Zephyr-7B: s = 6.5, α =
1200, 150 steps).
"""

from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import CausalLM
from mu.core.module import UnlearningModule
from mu.data.batch import Batch, concatenate
from mu.data.plan import Paired
from mu.functional.tokens import IGNORED, hidden_distance
from mu.methods.bases.layer_choice import freeze_but, steered_layer
from mu.utils import rng
from mu.utils.errors import InputError

Positions = Literal["attention", "labels", "all"]


class RMU(UnlearningModule):
    """Squared distance of hidden states: forget to a random vector, retain to the original's.

    Args:
        backbone: the original.
        layer: ℓ, 0-based; None is 7, or the middle of shallow models.
        layers: trained layers; None is ℓ − 2 to ℓ. None of them lies after ℓ.
        weights: regular expression found in the names of the trained weights of these layers; None
            ignores `layers` and trains all weights up to ℓ, embeddings included, of those that the
            backbone's `part` trains.
        scale: s > 0, norm of the control vector.
        alpha: α >= 0, weight of the retain term.
        positions: where states are compared: at all tokens (`attention`), at those of answers
            (`labels`), or at padding too (`all`).
        optimizer: optimizer factory; for the source of the default see above.
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
        hidden = self.backbone.hidden(concatenate(forget, retain), self.layer)
        forget_states, retain_states = hidden.split([len(forget["index"]), len(retain["index"])])
        terms = {"misdirect": self.distance(forget_states, self.control, forget)}
        if self.alpha:
            assert isinstance(self.reference, CausalLM)
            with torch.no_grad():
                original = self.reference.hidden(retain, self.layer)
            terms["retain"] = self.alpha * self.distance(retain_states, original, retain)
        return terms

    def distance(self, hidden: Tensor, target: Tensor, part: Batch) -> Tensor:
        """Mean over texts of the mean over the compared positions.

        Args:
            hidden: `[B, ≥ L, D]`, of a joint pass perhaps wider than the part.
            target: `[D]` or `[B, L, D]`, without gradient.
            part: gives the mask.
        """
        masks = {
            "attention": part["attention_mask"],
            "labels": part["labels"] != IGNORED,
            "all": None,
        }
        values, weight = hidden_distance(
            hidden[:, : part["labels"].shape[1]], target, masks[self.positions]
        )
        return self.average(values, weight, part)

    def average(self, values: Tensor, weight: Tensor, part: Batch) -> Tensor:
        """Mean over texts of `values / weight`.

        Args:
            values: sums over the compared positions, `[B]`.
            weight: numbers of these positions, `[B]`.
            part: gives padded rows.
        """
        return self.mean(values / weight.clamp_min(1), part)

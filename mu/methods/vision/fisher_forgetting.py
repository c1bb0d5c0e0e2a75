"""Fisher forgetting (FF): noise on the weights that the retain set does not need.

Golatkar, Achille and Soatto, "Eternal Sunshine of the Spotless Net: Selective Forgetting in Deep
Networks", CVPR 2020, arXiv 1911.04933.

    F_i = E_{x ∈ D_r} Σ_y p_θ(y|x) (∂ℓ(x, y)/∂θ_i)²
    θ_u = θ_o + sqrt(variance(F)) · N(0, 1),    variance ≈ α / F

F is per sample (batch size 1 in the authors' code and in SSD's and SCRUB's), so the batch size has
no effect here. The clamps of the variance are the released code's
(`mu.functional.curvature.fisher_noise_variance`). When a whole class is forgotten, its row of the
classifier gets mean 0 and variance 1e-4 instead. The OPTML code squares batch-mean gradients of 32
samples, and draws that row with 1e-3: `mu.methods.compat.FisherForgettingReference`. Defaults: α =
1e-6 (SSD, SCRUB); OPTML's maintainers suggest about 1e-9 for random samples. Eval mode, no
augmentation, no labels.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mu.backbones import Classifier
from mu.core.edit import Edit
from mu.core.gradients.per_sample import Choice, PerSample
from mu.core.gradients.summed import RunningSum
from mu.data.batch import Batch
from mu.data.plan import Retain
from mu.functional.curvature import fisher_class_rows, fisher_noise_variance
from mu.methods.bases.classes import forgotten_classes
from mu.utils import rng
from mu.utils.errors import InputError


class FisherForgetting(Edit):
    """Gaussian noise by the diagonal Fisher matrix of the retain set, equal on every rank.

    Args:
        backbone: the original.
        alpha: scale of the noise's variance, >= 0.
        forget_class: a class whose row of the classifier is erased; None takes the classes that the
            task forgets as a whole.
        row_variance: variance of the noise in that row.
        batch_size: samples of one pass; affects speed and memory only.
        per_sample: how per-sample gradients are made, see `mu.core.gradients.per_sample`.
    """

    shard = "rows"
    needs_forget = False
    needs_labels = False

    def __init__(
        self,
        backbone: Classifier,
        alpha: float = 1e-6,
        forget_class: int | None = None,
        row_variance: float = 1e-4,
        batch_size: int = 64,
        per_sample: Choice = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        if alpha < 0 or row_variance < 0:
            raise InputError(
                f"Fisher forgetting needs alpha and row_variance of at least 0, not {alpha} and "
                f"{row_variance}."
            )
        self.alpha = alpha
        self.forget_class = forget_class
        self.row_variance = row_variance
        self.num_classes = backbone.num_classes
        self.plan = Retain(shuffle=False, batch_size=batch_size)
        self.per_sample: Choice = per_sample
        self.squares = RunningSum()
        self._gradients: PerSample | None = None

    def expected_scores(self, part: Batch) -> Tensor:
        """`sqrt(p(y|x)) log p(y|x)`, `[B, C]`, whose squared gradients add up to F.

        The probability takes no gradient; padded samples give 0.
        """
        log_p = self.backbone.predict(part).log_softmax(1)
        scores = (log_p.detach() / 2).exp() * log_p
        return scores * (~part["padded"])[:, None] if "padded" in part else scores

    def observe(self, forget: Batch | None, retain: Batch | None) -> None:
        """Add the batch's squared gradients, from one backward pass a class."""
        assert retain is not None
        if self._gradients is None:
            self._gradients = PerSample(
                self.backbone, self.trainable(), self.expected_scores, self.per_sample
            )
        count = (~retain["padded"]).sum() if "padded" in retain else len(retain["index"])
        self.squares.add(self._gradients.squares(retain), float(count))

    def fisher(self) -> dict[str, Tensor]:
        """Diagonal of F by parameter name, over all ranks."""
        names = [name for name, _ in self.trainable()]
        return dict(zip(names, self.squares.mean(self), strict=True))

    def edited(self) -> Mapping[str, Tensor]:
        """Noisy weights."""
        fisher = self.fisher()
        classes = forgotten_classes(self, self.forget_class, self.num_classes)
        noisy: dict[str, Tensor] = {}
        for name, p in self.trainable():
            mean = p.detach()
            variance = fisher_noise_variance(fisher[name], self.alpha, self.num_classes)
            for label in classes:
                mean, variance = fisher_class_rows(
                    mean, variance, label, self.num_classes, self.row_variance
                )
            entries = torch.arange(p.numel(), device=p.device)
            noise = rng.normal(self.seed, entries, 0, f"fisher-noise/{name}").view(p.shape)
            noisy[name] = mean + variance.sqrt() * noise.to(p.dtype)
        return noisy

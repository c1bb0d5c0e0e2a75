"""EraseDiff as released, with shared moments and a summed retain loss.

Code: `train_ours` of ddpm/runners/diffusion.py, sd/train_scripts/erasediff_nsfw.py.

* Descent and steps share one optimizer whose moments are not restored with the weights: Adam's
  momentum carries the descent into the steps after it.
* L_r is a sum over the 3,072 elements of a sample and L_f a mean, so that λ = 0.1 is 3.3e-5 for
  equal reductions (`summed_retain`; the Stable Diffusion scripts take means). The constraint then
  hardly counts: the embedded digits model forgot nothing in 80 steps, at a rate at which
  `EraseDiff` with λ = 1 had forgotten the class after 60.
* The weighing by gradients (a negative `lambda_bome`) is max(0, η − cos(∇L_r, ∇q)).
* Gradients of the steps are clipped, those of the descent are not.

Not reproduced: one c' for a whole batch, drawn from classes 1 to 9 whatever is forgotten; one list
of t for both parts of a step; batches that are the first of a new shuffle each time (Stable
Diffusion).
"""

from typing import Any

from torch import Tensor

from mu.backbones import Diffusion
from mu.data.batch import Batch
from mu.functional.balancing import cosine_weight
from mu.methods.diffusion.erase_diff import EraseDiff


class EraseDiffReference(EraseDiff):
    """`EraseDiff` with shared moments.

    Args:
        backbone: the original; with `reduction: mean`.
        summed_retain: whether L_r is added up over the elements of a sample while L_f is averaged.
    """

    def __init__(self, backbone: Diffusion, summed_retain: bool = True, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)
        self.summed_retain = summed_retain

    def save_moments(self) -> None:
        """The inner descent continues with the moments of the outer steps."""

    def restore_moments(self) -> None:
        """The steps go on with the moments of the descent."""

    def retain_loss(self, retain: Batch, prediction: Tensor) -> Tensor:
        """A sum over elements where the code takes one."""
        elements = (
            prediction[0].numel() if self.summed_retain and self.denoiser.reduction == "mean" else 1
        )
        return elements * super().retain_loss(retain, prediction)

    def clip_gradients(self, *args: Any, **kwargs: Any) -> None:
        """Only in the steps."""
        if self.phase >= self.inner_epochs:
            super().clip_gradients(*args, **kwargs)

    def weight(self, objective: Tensor, constraint: Tensor) -> Tensor:
        """λ by the cosine."""
        return cosine_weight(objective, constraint, self.eta)

"""RMU as OpenUnlearning has it, with which its tables were made.

The sums of squared distances have the shape `[B]` and the numbers of tokens `[B, 1]`, so their
quotient is a matrix `[B, B]`, and the loss its mean:

    1/B² Σ_i Σ_j S_i / N_j = (mean_i S_i) (mean_j 1/N_j)

Long texts weigh more than in the paper's mean of S_i / N_i; the two are equal where all texts have
the same length.
"""

from typing import Any, Literal

from torch import Tensor

from mu.backbones import CausalLM
from mu.data.batch import Batch
from mu.methods.language.rmu import RMU


class RMUReference(RMU):
    """RMU whose sums over texts are divided by the length of every text of the optimizer's step.

    Arguments as in RMU.

    Args:
        backbone: the original.
        positions: positions of answer tokens.
    """

    def __init__(
        self, backbone: CausalLM, positions: Literal["labels"] = "labels", **kwargs: Any
    ) -> None:
        super().__init__(backbone, positions=positions, **kwargs)
        self._lengths: dict[int, float] = {}

    def average(self, values: Tensor, weight: Tensor, part: Batch) -> Tensor:
        return self.mean(values * self._mean_inverse_length(weight, part), part)

    def _mean_inverse_length(self, weight: Tensor, part: Batch) -> Tensor | float:
        """Mean of 1/N over the step's texts, on all ranks and in all accumulated batches."""
        if "step" not in part or self.task is None:
            return (1 / weight.clamp_min(1)).mean()
        if not self._lengths:
            for name in ("forget", "retain"):
                data: Any = self.task.datasets[name]
                self._lengths |= dict(
                    zip(data.indices.tolist(), data.weights.tolist(), strict=True)
                )
        lengths = [max(self._lengths[int(index)], 1.0) for index in part["step"].index]
        return sum(1 / length for length in lengths) / len(lengths)

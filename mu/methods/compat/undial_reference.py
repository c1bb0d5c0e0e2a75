"""UNDIAL as OpenUnlearning has it, with which its tables were made.

The mean is over *all* positions of the batch: those of prompt and padding distil the original,
which acts as a retain term. There the label −100 serves as an index, so that vocabulary entry V −
100 is lowered.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn.functional import pad

from mu.backbones import WeightedSum
from mu.data.batch import Batch
from mu.functional.tokens import IGNORED, undial
from mu.methods.language.undial import UNDIAL

_FILL = {"input_ids": 0, "attention_mask": 0, "labels": IGNORED}


class UNDIALReference(UNDIAL):
    """UNDIAL without a mask, over forget sequences padded to the longest of the optimizer's step.

    Arguments as in UNDIAL.
    """

    def forget_loss(self, forget: Batch, prediction: Tensor) -> WeightedSum:
        logits, labels = self.model.token_logits(forget, prediction)
        wrapped = labels.where(labels != IGNORED, (IGNORED + logits.shape[-1]) % logits.shape[-1])
        return undial(logits, self.original_logits(forget), wrapped, self.beta)

    def forget_total(self, forget: Batch) -> Batch:
        return (
            {**forget, "total": forget["count"] * (forget["labels"].shape[1] - 1)}
            if "count" in forget
            else forget
        )

    def prepare_parts(self, batch: Mapping[str, Any]) -> tuple[Batch | None, Batch | None]:
        """The parts, padded equally on all ranks and accumulated batches; padding counts."""
        forget, retain = super().prepare_parts(batch)
        if forget is None or "step" not in forget or self.task is None:
            return forget, retain
        data: Any = self.task.datasets["forget"]
        positions = {index: position for position, index in enumerate(data.indices.tolist())}
        width = max(len(data.pair(positions[int(index)])[0]) for index in forget["step"].index)
        missing = width - forget["labels"].shape[1]
        return {
            **forget,
            **{name: pad(forget[name], (0, missing), value=fill) for name, fill in _FILL.items()},
        }, retain

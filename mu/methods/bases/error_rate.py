"""A classifier's error rate on parts of a task, over all ranks, while a method is fitted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.utils.modules import eval_mode


@torch.no_grad()
def error_rate(module: UnlearningModule, parts: Iterable[Batch]) -> float | None:
    """Share of wrong labels among the samples of all parts and ranks, in eval mode, in [0, 1].

    Args:
        module: in a fit, with a classifier.
        parts: prepared batches with `label`; samples marked in `padded` do not count.

    Returns:
        None where no sample counts.
    """
    total = torch.zeros(2, device=module.device)
    with eval_mode(module.backbone):
        for part in parts:
            wrong = (module.backbone.predict(part).argmax(1) != part["label"]).float()
            total += torch.stack([values.sum() for values in module.backbone.count(part, wrong)])
    errors, count = module.sum_over_ranks([total])[0].tolist()
    return errors / count if count else None


def validation_parts(module: UnlearningModule, classes: Tensor) -> Iterator[Batch]:
    """Prepared validation batches of a task; samples of other classes are marked as padding."""
    assert module.task is not None
    for batch in module.task.eval_loaders(["validation"])[0]:
        fields = {name: value for name, value in batch.items() if name != "split"}
        part = module.prepare(module.trainer.strategy.batch_to_device(fields))
        yield {**part, "padded": part["padded"] | ~torch.isin(part["label"], classes)}

"""Filters for notices of Lightning and its libraries; warnings about the run itself pass."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_NOTICES = re.compile(
    r"💡|(GPU|TPU|HPU|IPU) available: |Seed set to |LOCAL_RANK: \d+ - "
    r"CUDA_VISIBLE_DEVICES|Initializing distributed: |"
    r"already configured with model summary callbacks|`Trainer\.fit` stopped: `max_(epochs|steps)=|"
    r"distributed_backend=|Loaded model weights from|Restoring states from|Restored all states from"
)
_WARNINGS = (
    "does not have many workers",
    "module.*in eval mode at the start of training",
    "number of training batches.*logging interval",
    "Checkpoint directory .* exists and is not empty",
    "Experiment logs directory .* exists",
    "LeafSpec",
    "tensorboardX",
    "GPU available but not used",
    "lr_scheduler.step.*before.*optimizer.step",
    "Discarding init_args",
    "discarded.*init_args",
    "No device id is provided",
    "skip_none",
    "is not writable",
    "instantiate_classes",
    "dirpath has changed",
    "callbacks used to create the checkpoint need to be provided",
    "infer the batch indices",
    "Total length of .* across ranks is zero",
)


class _NoticeFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not _NOTICES.search(record.getMessage())


@contextmanager
def quiet() -> Iterator[None]:
    """Context that hides notices and prints each remaining warning on one line."""
    import lightning.pytorch  # noqa: F401  # first, since it sets its own format of warnings

    names = (
        "lightning.pytorch",
        "lightning.pytorch.utilities.rank_zero",
        "lightning.pytorch.accelerators.cuda",
        "lightning.fabric",
        "lightning.fabric.utilities.rank_zero",
        "lightning.fabric.utilities.seed",
        "lightning.fabric.utilities.distributed",
        "lightning_utilities.core.rank_zero",
    )
    loggers = [logging.getLogger(name) for name in names]
    notice_filter = _NoticeFilter()
    format_before = warnings.formatwarning
    for logger in loggers:
        logger.addFilter(notice_filter)
    try:
        with warnings.catch_warnings():
            for pattern in _WARNINGS:
                warnings.filterwarnings("ignore", f"(?s).*{pattern}")
            for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
                warnings.simplefilter("ignore", category)
            warnings.formatwarning = lambda message, *_, **__: (
                f"mu: warning: {' '.join(str(message).split())}\n"
            )  # type: ignore[assignment]
            yield
    finally:
        warnings.formatwarning = format_before
        for logger in loggers:
            logger.removeFilter(notice_filter)

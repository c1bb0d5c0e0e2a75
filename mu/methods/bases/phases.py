"""Runs whose first epochs do something else than the rest."""

from __future__ import annotations

from mu.core.module import UnlearningModule
from mu.utils.errors import InputError


def check_max_epochs(module: UnlearningModule, epochs: int, first: str, then: str) -> None:
    """Refuse a fit that ends within its first phase.

    Args:
        module: in a fit.
        epochs: length of the first phase.
        first: verb phrase of the first phase ("impairs").
        then: verb of the second phase ("repairs").

    Raises:
        InputError: names the smallest max_epochs.
    """
    limit = module.trainer.max_epochs
    if limit is not None and 0 <= limit <= epochs:
        raise InputError(
            f"{type(module).__name__} {first} for {epochs} epochs before it {then}; set "
            f"trainer.max_epochs to at least {epochs + 1}, not {limit}."
        )

"""Export of a model into a folder, dispatched by the class of its backbone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch
from pathlib import Path
from typing import Any, Literal

from mu.utils.errors import InputError

Form = Literal["model", "edited", "adapter", "single-file"]
"""Exported form: the whole model, the tensors that differ from the original, the adapters, or the
whole model in one file of CompVis' names.
"""


@singledispatch
def export(
    backbone: Any,
    folder: Path | str,
    form: Form = "model",
    results: Mapping[str, Any] | None = None,
    title: str | None = None,
    license: str | None = None,
) -> Path:
    """Write a model with its model card into a new folder, atomically.

    A backbone of another class needs a registered writer:

        @mu.backbones.export.export.register
        def export_mine(
            backbone: MyBackbone, folder, form="model", results=None, title=None, license=None
        ) -> Path: ...

    Args:
        backbone: the served model.
        folder: output folder; new or empty.
        form: exported form; every domain has `model`, and some have the others.
        results: a run's results for the card: `role` (`unlearned`, `original`, `oracle` or
            `pretrained`), `method`, `task`, `concept`, and `metrics`, which
            maps each metric's name to its value or to a dict (or lists dicts that have `metric`)
            with `value` and, where known, `split` and `gap`.
        title: heading of the card; the folder's name when None.
        license: licence of the weights, as the hub names it (`apache-2.0`, `cc-by-4.0`); left out
            when None.

    Returns:
        The folder.

    Raises:
        InputError: when the domain has no such form, or the folder is not empty.
    """
    raise InputError(
        f"{type(backbone).__name__} has no form that other libraries read; load the run with "
        "mu.load."
    )

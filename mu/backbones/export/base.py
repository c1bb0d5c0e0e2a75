"""`export(backbone, folder, ...)`: the form in which people share a model, by the kind of its
backbone.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch
from pathlib import Path
from typing import Any, Literal

from mu.utils.errors import InputError

Form = Literal["model", "edited", "adapter"]
"""What of a model is exported: all of it, the tensors that differ from the original's, or low-rank
adapters.
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
    """Write a model as people share it, with a model card: a new folder, all of it or none.

    A backbone of another kind gets its form by registering a writer:

        @mu.backbones.export.export.register
        def export_mine(
            backbone: MyBackbone, folder, form="model", results=None, title=None, license=None
        ) -> Path: ...

    Args:
        backbone: the served model.
        folder: where to; new or empty.
        form: what of it; a domain has `model`, and those of the others that its users know.
        results: a run's results for the card: `method`, `task`, `concept`, and `metrics`, which
            maps each metric's name to its value or to a dict (or lists dicts that have `metric`)
            with `value` and, where known, `split` and `gap`.
        title: heading of the card; the folder's name when None.
        license: of the weights as the hub names it (`apache-2.0`, `cc-by-4.0`); left out when None.

    Returns:
        The folder.

    Raises:
        InputError: when the model has no such form, or the folder is not empty.
    """
    raise InputError(
        f"{type(backbone).__name__} has no form that other libraries read; load the run with "
        "mu.load."
    )

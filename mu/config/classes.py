"""Classes by path or bare name, subclasses, and suggestions for misspelt names."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from importlib import import_module

from mu.utils.class_source import may_import


def find(path: str) -> type | None:
    """Class of a dotted path, or of a bare name among the components; None for an unknown one.

    A module that is not loaded yet is imported only when its source shows a component there.
    """
    module, _, name = path.rpartition(".")
    if not module:
        return next((cls for cls in components() if cls.__name__ == name), None)
    if not may_import(path, None):
        return None
    try:
        value = getattr(import_module(module), name, None)
    except (
        Exception,
        SystemExit,
    ):  # an error in the user's file is reported when the parser imports it
        return None
    return value if isinstance(value, type) else None


def components() -> list[type]:
    """Classes that a configuration may name: methods, tasks, backbones, callbacks, ..."""
    from lightning.pytorch import Callback
    from torch.optim import Optimizer

    from mu.backbones import Backbone
    from mu.config import plugins
    from mu.config.plugins import import_components
    from mu.core.module import UnlearningModule
    from mu.data.datamodule import UnlearningDataModule

    import_components()
    roots: list[type] = [UnlearningModule, UnlearningDataModule, Backbone, Callback, Optimizer]
    ours = ("mu", *plugins.packages())
    modules = [
        module
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in ours and module is not None
    ]
    public = [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type)
        and not value.__name__.startswith("_")
        and value.__module__.partition(".")[0] in ours
    ]
    return list(dict.fromkeys([cls for root in roots for cls in subclasses(root)] + public))


def subclasses(base: type) -> list[type]:
    """Public subclasses of a class at any depth, as far as they are imported."""
    descendants: list[type] = []
    for child in base.__subclasses__():
        descendants += [child, *subclasses(child)]
    return [cls for cls in dict.fromkeys(descendants) if not cls.__name__.startswith("_")]


def did_you_mean(name: str, choices: Iterable[str], fallback: str = "") -> str:
    """Suggestion for a misspelt name.

    Args:
        name: the misspelt name.
        choices: possible names.
        fallback: sentence where no choice is close.

    >>> did_you_mean("Salun", ["SalUn", "SSD"])
    'did you mean SalUn?'
    >>> did_you_mean("Unknown", ["SalUn", "SSD"], "check its name.")
    'check its name.'
    """
    folded = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(name.lower(), folded, n=3)
    ratios = [difflib.SequenceMatcher(None, name.lower(), match).ratio() for match in close]
    # the second and third only where they are about as close as the first
    names = [
        folded[match] for match, ratio in zip(close, ratios, strict=True) if ratio > 0.9 * ratios[0]
    ]
    return f"did you mean {' or '.join(names)}?" if names else fallback

"""Classes by path or bare name, and what their constructors take: for plain error messages."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from importlib import import_module


def find(path: str) -> type | None:
    """The class of a dotted path, or of a bare name among the components; None where there is
    none.
    """
    module, _, name = path.rpartition(".")
    if not module:
        return next((cls for cls in components() if cls.__name__ == name), None)
    try:
        found = getattr(import_module(module), name, None)
    except Exception:  # whatever is wrong with the user's file is said when jsonargparse imports it
        return None
    return found if isinstance(found, type) else None


def components() -> list[type]:
    """Every class that may stand in a configuration of ours."""
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
    named = [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type)
        and not value.__name__.startswith("_")
        and value.__module__.partition(".")[0] in ours
    ]
    return list(dict.fromkeys([cls for root in roots for cls in subclasses(root)] + named))


def subclasses(base: type) -> list[type]:
    """All public descendants that have been imported."""
    found: list[type] = []
    for child in base.__subclasses__():
        found += [child, *subclasses(child)]
    return [cls for cls in dict.fromkeys(found) if not cls.__name__.startswith("_")]


def did_you_mean(given: str, known: Iterable[str], fallback: str = "") -> str:
    """`did you mean A or B?`, or `fallback`; the second and third only where they are about as
    close as the first.
    """
    folded = {name.lower(): name for name in known}
    close = difflib.get_close_matches(given.lower(), folded, n=3)
    ratio = [difflib.SequenceMatcher(None, given.lower(), hit).ratio() for hit in close]
    names = [folded[hit] for hit, value in zip(close, ratio, strict=True) if value > 0.9 * ratio[0]]
    return f"did you mean {' or '.join(names)}?" if names else fallback

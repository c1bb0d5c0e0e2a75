"""Importing what stands above `mu`, and the user's own files, in an order in which neither hides the other."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType

from mu import plugins
from mu.cli import rank_of_process

COMPONENTS = ("mu.backbones", "mu.methods", "mu.attacks", "mu.masks", "mu.substitutes", "mu.lr", "mu.plan")
"""Modules whose classes may be given by their bare name."""


@contextmanager
def working_directory() -> Iterator[None]:
    """The working directory at the end of `sys.path`, after the plugins have been imported.

    The end alone would not do: an editable install finds its packages only when no folder of `sys.path` has one of that name.
    """
    packages = plugins.load()
    here = os.getcwd()
    tell_clashes(packages, here)
    added = here not in sys.path
    if added:
        sys.path.append(here)
    try:
        yield
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


def tell_clashes(packages: list[ModuleType], here: str) -> None:
    """One sentence about each file of the working directory that has the name of one of our packages."""
    import mu

    if rank_of_process():
        return
    for package in (mu, *packages):
        name = package.__name__
        own = Path(package.__file__ or "").resolve()
        for mine in (Path(here) / f"{name}.py", Path(here) / name / "__init__.py"):
            if mine.is_file() and mine.resolve() != own:
                shown = mine.relative_to(here)
                print(f"mu: {shown} in this folder is not used, because `{name}` is the name of an installed package; rename it to import "
                      "from it.", file=sys.stderr)


def import_components() -> None:
    """Import every class that may be given by its bare name: ours, and those that plugins export."""
    for name in COMPONENTS:
        import_module(name)
    for package in plugins.load():
        for name in getattr(package, "__all__", ()):
            getattr(package, name)

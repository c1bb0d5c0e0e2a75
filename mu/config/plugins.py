"""Plugins: packages of the entry-point group `mu.plugins`, and imports from the user's own files.

`tasks` and `callbacks` belong to the group too, so `mu` names neither.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from mu.utils.distributed import rank_of_process

GROUP = "mu.plugins"
COMPONENTS = ("mu.backbones", "mu.methods", "mu.attacks", "mu.core", "mu.data", "mu.evaluation")
"""Packages of mu whose public classes may be given by their bare name."""


def packages() -> list[str]:
    """Import names of the packages in the group, without importing them."""
    return sorted({point.value.partition(":")[0] for point in entry_points(group=GROUP)})


def load() -> list[ModuleType]:
    """Import the packages of the group."""
    return [import_module(name) for name in packages()]


def default_callbacks() -> list[str]:
    """Class paths of the callbacks that plugins add to every run."""
    return [path for plugin in load() for path in getattr(plugin, "default_callbacks", [])]


@contextmanager
def working_directory() -> Iterator[None]:
    """Put the working directory at the end of `sys.path`, after importing the plugins.

    The end alone does not suffice: an editable install finds its packages only when no folder of
    `sys.path` has one of that name.
    """
    plugins = load()
    folder = os.getcwd()
    warn_of_name_clashes(plugins, folder)
    added = folder not in sys.path
    if added:
        sys.path.append(folder)
    try:
        yield
    finally:
        if added and folder in sys.path:
            sys.path.remove(folder)


def warn_of_name_clashes(plugins: list[ModuleType], folder: str) -> None:
    """Warn on stderr about files of a folder with the name of an installed package of ours."""
    if rank_of_process():
        return
    for package in (sys.modules["mu"], *plugins):
        name = package.__name__
        installed = Path(package.__file__ or "").resolve()
        for file in (Path(folder) / f"{name}.py", Path(folder) / name / "__init__.py"):
            if file.is_file() and file.resolve() != installed:
                print(
                    f"mu: {file.relative_to(folder)} in this folder is not used, because `{name}` "
                    "is the name of an installed package; rename it to import from it.",
                    file=sys.stderr,
                )


def import_components() -> None:
    """Import every class that a bare name may mean: those that `mu` and its plugins export."""
    for package in (*map(import_module, COMPONENTS), *load()):
        for name in getattr(package, "__all__", ()):
            getattr(package, name)

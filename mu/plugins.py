"""What stands above `mu`: packages found through the entry-point group `mu.plugins`, so that `mu` names none of them."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from types import ModuleType

GROUP = "mu.plugins"


def packages() -> list[str]:
    """Import names of the packages in the group, without importing them."""
    return sorted({point.value.partition(":")[0] for point in entry_points(group=GROUP)})


def load() -> list[ModuleType]:
    """The packages, imported."""
    return [import_module(name) for name in packages()]


def default_callbacks() -> list[str]:
    """Class paths of the callbacks that plugins add to every run."""
    return [path for plugin in load() for path in getattr(plugin, "default_callbacks", [])]

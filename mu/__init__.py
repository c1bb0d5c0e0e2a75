"""mu: machine unlearning on PyTorch Lightning.

The names below are loaded on first use, so that `import mu` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mu.checkpoint import load
    from mu.edit import Edit
    from mu.module import UnlearningModule
    from mu.split import Split

__version__ = "0.1.0"
__all__ = ["Edit", "Split", "UnlearningModule", "__version__", "load"]

_HOME = {"load": "mu.checkpoint", "Edit": "mu.edit", "UnlearningModule": "mu.module", "Split": "mu.split"}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'mu' has no attribute {name!r}")

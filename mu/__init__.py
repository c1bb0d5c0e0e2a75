"""mu: machine unlearning on PyTorch Lightning.

The names below are loaded on first use, so that `import mu` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mu.utils.version import __version__

if TYPE_CHECKING:
    from mu.core.checkpoint import load
    from mu.core.edit import Edit
    from mu.core.module import UnlearningModule
    from mu.data.split import Split

__all__ = ["Edit", "Split", "UnlearningModule", "__version__", "load"]

_HOME = {
    "load": "mu.core.checkpoint",
    "Edit": "mu.core.edit",
    "UnlearningModule": "mu.core.module",
    "Split": "mu.data.split",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'mu' has no attribute {name!r}")

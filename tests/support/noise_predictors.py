"""Tiny diffusion models of both conditions and a prepared forget part."""

from __future__ import annotations

from typing import Any

import torch

from tests.support.doubles import pictures
from tests.support.helpers import digits


def forget_part(condition: str, count: int = 5) -> dict[str, Any]:
    """A prepared forget part."""
    task = pictures() if condition == "text" else digits()
    task.setup()
    part = task.datasets["forget"].__getitems__(list(range(count)))  # type: ignore[attr-defined]
    return part | {"visit": torch.zeros(count, dtype=torch.int64)}

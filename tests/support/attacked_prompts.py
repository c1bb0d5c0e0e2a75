"""Batches of prompts and verdicts that UnlearnDiffAtk is tested on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mu.attacks import (
    Verdict,
)

PROMPTS = ["a red circle", "a star", "a blue square on dark", "nice"]


def batch(**changes: Any) -> dict[str, Any]:
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    return {
        "prompt": list(PROMPTS),
        "index": torch.tensor([4, 7, 1, 30]),
        "image": images,
        **changes,
    }


def rows(found: dict[str, Any], *chosen: int) -> dict[str, Any]:
    return {
        name: value[list(chosen)] if isinstance(value, Tensor) else [value[row] for row in chosen]
        for name, value in found.items()
    }


def never(images: Tensor) -> Tensor:
    return torch.zeros(len(images), dtype=torch.bool)


def brighter(than: float) -> Verdict:
    return lambda images: images.mean((1, 2, 3)) > than

"""Logits like those of a ResNet on CIFAR-10: members nearly all confident and right, the others
spread, some badly wrong.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def logits(
    count: int, classes: int, seed: int, wrong: float, centre: float = 13.0, spread: float = 6.0
) -> tuple[Tensor, Tensor]:
    """`[count, classes]` float32 and labels; a share `wrong` has a negative margin. The margins'
    quantiles are those of a ResNet-20.
    """
    draw = np.random.default_rng(seed)
    label = draw.integers(0, classes, count)
    values = draw.normal(0.0, 2.7, (count, classes))
    margin = np.abs(draw.normal(centre, spread, count))
    margin = np.where(draw.random(count) < wrong, -np.abs(draw.normal(0.0, 8.0, count)), margin)
    rows = np.arange(count)
    values[rows, label] = -np.inf
    values[rows, label] = np.logaddexp.reduce(values, axis=1) + margin
    return torch.tensor(values, dtype=torch.float32), torch.tensor(label)


def pools(
    count: int, seed: int = 0, classes: int = 10, forget: int | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Logits and labels of members, non-members and forget samples, in the order of `svc_mia`'s
    arguments.
    """
    forget = count // 2 if forget is None else forget
    return (
        *logits(count, classes, 3 * seed, wrong=0.002),
        *logits(count, classes, 3 * seed + 1, wrong=0.08, spread=7.0),
        *logits(forget, classes, 3 * seed + 2, wrong=0.05, spread=6.5),
    )

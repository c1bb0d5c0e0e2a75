"""Rates over distinct items, with 95 % Wilson intervals.

A rate is a share of trials with one outcome: attacked prompts that succeed, images without the
erased concept, samples that are classified rightly.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from mu.metrics.checks import as_vector
from mu.utils.errors import InputError, UndefinedError

FEW = 20
"""Number of distinct items below which a rate has a warning."""
LEVEL = 0.95
"""Confidence of the intervals."""


def wilson_interval(share: float, trials: float, level: float = LEVEL) -> tuple[float, float]:
    """Wilson score interval of a share.

    `(p + z²/2n ± z √(p (1 - p)/n + z²/4n²)) / (1 + z²/n)`. Unlike p ± z √(p (1 - p)/n) it has a
    width at 0 and 1 and never leaves [0, 1]. Source: Wilson, Journal of the American Statistical
    Association 22, 1927.

    Args:
        share: p, in [0, 1].
        trials: n > 0; an effective number need not be whole.
        level: confidence, in (0, 1).

    Raises:
        InputError: an argument is out of its range.

    Example: no success in ten trials.

        >>> [round(end, 4) for end in wilson_interval(0.0, 10)]
        [0.0, 0.2775]
    """
    if not 0 <= share <= 1 or not trials > 0 or not 0 < level < 1:
        raise InputError(
            f"a Wilson interval takes a share in [0, 1], a positive number of trials and a level "
            f"in (0, 1), not {share}, {trials} and {level}."
        )
    z = NormalDist().inv_cdf(0.5 + level / 2)
    centre = share + z**2 / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    low, high = (centre - half) / scale, (centre + half) / scale
    # rounding may leave the ends by 1e-17
    return (0.0 if share == 0 else max(low, 0.0)), (1.0 if share == 1 else min(high, 1.0))


@dataclass(frozen=True)
class Rate:
    """Rate in percent, with its interval and the numbers of trials and distinct items.

    Attributes:
        percent: the rate, in [0, 100].
        trials: number of trials that the interval counts, repetitions left out; effective where
            trials have different weights.
        items: number of distinct items.
    """

    percent: float
    trials: float
    items: int

    @property
    def interval(self) -> tuple[float, float]:
        """Ends of the 95 % Wilson interval, in percent."""
        low, high = wilson_interval(min(self.percent / 100, 1.0), self.trials)
        return 100 * low, 100 * high

    @property
    def warning(self) -> str:
        """Sentence on fewer than 20 distinct items; empty for more."""
        if self.items >= FEW:
            return ""
        what = "one distinct item" if self.items == 1 else f"{self.items} distinct items"
        return f"measured on {what} only, so it is rough; {FEW} or more give a better rate."

    def detail(self) -> dict[str, Any]:
        """Number of distinct items, for the detail of a result."""
        return {"distinct_items": self.items}


def rate(
    hits: Tensor,
    trials: Sequence[Hashable] | None = None,
    items: Sequence[Hashable] | None = None,
    groups: Sequence[Hashable] | None = None,
) -> Rate:
    """Share of hits in percent, with the interval over distinct trials.

    Args:
        hits: `[N]`, True or 1 for a hit; a number between 0 and 1 is a part of one.
        trials: identity of each row, such as prompt and seed; rows of one identity are repetitions
            and count as one trial, whose value is their mean. Every row is its own trial when None.
        items: what a reader counts as distinct, such as the prompt; the trials when None.
        groups: name of each row's group; groups then have equal weights.

    Raises:
        InputError: the lengths differ, or a value lies outside [0, 1].
        UndefinedError: there is no row, or a value is NaN.

    Example: two of four images show it; a prompt that was drawn twice with one seed is one trial.

        >>> rate(torch.tensor([True, True, False, False]))
        Rate(percent=50.0, trials=4.0, items=4)
        >>> rate(torch.tensor([True, True, False]), trials=["a cat", "a cat", "a dog"])
        Rate(percent=50.0, trials=2.0, items=2)
    """
    if hits.ndim == 1 and not len(hits):
        raise UndefinedError("a rate over no items is undefined.")
    values = as_vector(hits, "a rate").cpu()
    if bool((values < 0).any()) or bool((values > 1).any()):
        raise InputError("a hit of a rate lies in [0, 1].")
    for names in (trials, items, groups):
        if names is not None and len(names) != len(values):
            raise InputError(f"a rate over {len(values)} rows got names of {len(names)}.")
    keys = list(range(len(values))) if trials is None else list(trials)
    groups = [0] * len(values) if groups is None else groups
    # one value for each trial of a group
    owners: dict[tuple[Hashable, Hashable], list[int]] = {}
    for row, key in enumerate(zip(groups, keys, strict=True)):
        owners.setdefault(key, []).append(row)
    means = torch.stack([values[rows].mean() for rows in owners.values()])
    # equal weights of groups, and the number of equally weighted trials of the same precision
    trials_of_group: dict[Hashable, list[int]] = {}
    for index, (name, _) in enumerate(owners):
        trials_of_group.setdefault(name, []).append(index)
    shares = [means[indices].mean() for indices in trials_of_group.values()]
    count = len(shares) ** 2 / sum(1 / len(indices) for indices in trials_of_group.values())
    return Rate(
        100 * float(torch.stack(shares).mean()),
        round(count, 6),
        len(set(keys if items is None else items)),
    )

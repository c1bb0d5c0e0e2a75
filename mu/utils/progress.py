"""Progress bars for work of more than two seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress_bar(
    items: Sequence[T],
    description: str,
    *,
    disable: bool = False,
    unit_scale: int = 1,
    delay: float = 2.0,
) -> Iterable[T]:
    """Iterator over items with a progress bar on standard error after `delay` seconds.

    On a terminal the bar vanishes when the work is done; elsewhere it is a plain line every ten
    seconds.

    Args:
        items: items of work, for example batches.
        description: text in front of the bar.
        disable: no bar, on all ranks but one.
        unit_scale: number of units (images) in an item.
        delay: seconds before the bar appears.
    """
    terminal = sys.stderr.isatty()
    style = (
        {}
        if terminal
        else {
            "bar_format": "{desc}: {n_fmt}/{total_fmt} in {elapsed}, {remaining} to go\n",
            "mininterval": 10.0,
        }
    )
    return tqdm(
        items,
        desc=description,
        disable=disable,
        unit_scale=unit_scale,
        delay=delay,
        leave=False,
        file=sys.stderr,
        **style,
    )

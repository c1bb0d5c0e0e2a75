"""Progress bars for work of more than two seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
_disabled = ContextVar("disabled", default=False)


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Disable the bars of `progress_bar` for a while, where a display of its own shows progress.

    Example:
        >>> with without_progress_bars():
        ...     list(progress_bar([1, 2], "work", delay=0.0))
        [1, 2]
    """
    token = _disabled.set(True)
    try:
        yield
    finally:
        _disabled.reset(token)


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
        disable=disable or _disabled.get(),
        unit_scale=unit_scale,
        delay=delay,
        leave=False,
        file=sys.stderr,
        **style,
    )

"""Rank of the process, without importing torch."""

from __future__ import annotations

import os


def rank_of_process() -> int:
    """Global rank of this process from its launcher's environment, 0 without a launcher.

    Where Lightning starts the processes of each machine itself, only the number of the machine
    (`NODE_RANK`) and of the process in it (`LOCAL_RANK`) are known: any number above 0 then stands
    for a rank above 0.
    """
    for name in ("RANK", "SLURM_PROCID"):
        if name in os.environ:
            return _number(name)
    return _number("NODE_RANK") + _number("LOCAL_RANK")


def _number(name: str) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() else 0

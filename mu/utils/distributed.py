"""Rank of the process, without importing torch."""

from __future__ import annotations

import os


def rank_of_process() -> int:
    """Global rank of this process from its launcher's environment, 0 without a launcher."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        value = os.environ.get(name, "")
        if value.isdigit():
            return int(value)
    return 0

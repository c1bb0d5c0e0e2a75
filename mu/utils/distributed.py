"""The rank of this process, before torch is imported."""

from __future__ import annotations

import os


def rank_of_process() -> int:
    """This process's global rank as its launcher set it, 0 without one."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        value = os.environ.get(name, "")
        if value.isdigit():
            return int(value)
    return 0

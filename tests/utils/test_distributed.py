"""The rank of a process, as its launcher says it."""

from __future__ import annotations

import pytest

from mu.utils.distributed import rank_of_process

VARIABLES = ("RANK", "SLURM_PROCID", "NODE_RANK", "LOCAL_RANK")


@pytest.mark.parametrize(
    ("environment", "is_first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "3", "LOCAL_RANK": "1"}, False),
        ({"SLURM_PROCID": "2"}, False),
        ({"LOCAL_RANK": "1"}, False),
        ({"NODE_RANK": "0"}, True),
        # the first process of the second machine, which Lightning starts others from
        ({"NODE_RANK": "1"}, False),
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False),
    ],
)
def test_one_process_of_all_machines_is_the_first(
    environment: dict[str, str], is_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when each machine has a first process, which writes the run folder."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (rank_of_process() == 0) == is_first

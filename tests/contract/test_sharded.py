"""Weights sharded over two ranks (FSDP2) are those of one process, within float error."""

from __future__ import annotations

import pytest
import torch

from tests.contract import sharded
from tests.support.helpers import State, different, distance
from tests.support.ranks import run_ranks

pytestmark = pytest.mark.xdist_group("sharded")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, State], dict[str, State]]:
    """What one process found, and what two ranks did."""
    folder = tmp_path_factory.mktemp("sharded")
    run_ranks("tests.contract.sharded", str(folder))
    return sharded.run_all(), torch.load(folder / "sharded.pt", weights_only=True)


@pytest.mark.parametrize("name", [name for name, _, _ in sharded.cases()])
def test_sharded_weights_are_those_of_one_process(
    name: str, runs: tuple[dict[str, State], dict[str, State]]
) -> None:
    """Fails when a loss is averaged over a rank's rows, or the reference is sharded together with
    what is trained.
    """
    single, two = runs
    assert distance(single[name], two[name]) < 1e-5


@pytest.mark.parametrize("name", ["FineTune", "SCRUB", "part"])
def test_a_sharded_run_is_resumed(
    name: str, runs: tuple[dict[str, State], dict[str, State]]
) -> None:
    """Fails when a checkpoint of sharded weights holds one rank's share, or must hold what is
    rebuilt: the reference, and the base model's weights.
    """
    assert distance(runs[0][name], runs[1][f"{name} resumed"]) < 1e-5


def test_sharded_master_weights_are_resumed(
    runs: tuple[dict[str, State], dict[str, State]],
) -> None:
    """Fails when the float32 copies of sharded weights are not in the checkpoint."""
    assert different(runs[1]["half"], runs[1]["half resumed"]) == []
    assert all(value.dtype == torch.bfloat16 for value in runs[1]["half"].values())

"""Weights sharded over two ranks (FSDP2) are those of one process, within float error."""

from __future__ import annotations

import pytest
import torch

from tests.contract import sharded
from tests.support.helpers import State, different, distance
from tests.support.ranks import run_ranks

pytestmark = pytest.mark.xdist_group("sharded")

TwoRanks = tuple[dict[str, State], dict[str, str], State]


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> TwoRanks:
    """States, messages of refusals, and masks of scores, from two ranks."""
    folder = tmp_path_factory.mktemp("sharded")
    run_ranks("tests.contract.sharded", str(folder))
    return torch.load(folder / "sharded.pt", weights_only=True)


@pytest.fixture(scope="module")
def runs(two_ranks: TwoRanks) -> tuple[dict[str, State], dict[str, State]]:
    """States of one process, and of two ranks."""
    return sharded.run_all(), two_ranks[0]


@pytest.mark.parametrize("name", [name for name, _, _ in sharded.cases()])
def test_sharded_weights_are_those_of_one_process(
    name: str, runs: tuple[dict[str, State], dict[str, State]]
) -> None:
    """Fails when a loss is averaged over a rank's rows, or the reference is sharded together with
    what is trained.
    """
    single, two = runs
    assert distance(single[name], two[name]) < 1e-5


@pytest.mark.parametrize("name", [*sharded.MASKS, "mask after clipping"])
def test_masks_of_sharded_weights_are_those_of_one_process(
    name: str, runs: tuple[dict[str, State], dict[str, State]]
) -> None:
    """Fails when the threshold is one rank's, or the gradient of a shard is zero."""
    single, two = runs
    masks = {key: mask for key, mask in single[name].items() if key.startswith("mask.")}
    assert masks
    assert any(mask.any() for mask in masks.values())
    assert not all(mask.all() for mask in masks.values())
    assert [key for key, mask in masks.items() if not torch.equal(mask, two[name][key])] == []


def test_selections_from_sharded_scores_are_those_from_whole_scores(two_ranks: TwoRanks) -> None:
    """Fails when ties are resolved within a rank, or a threshold is that of a shard."""
    expected = sharded.selections(lambda score, axis: score)
    assert different(expected, two_ranks[2]) == []


@pytest.mark.parametrize(
    ("cause", "message"),
    [
        ("tensor parallel", "tensor_parallel_size is 2; take the strategy"),
        ("SSD", "SSD reads another batch on each rank"),
        ("Influence", "gradients of single samples on one rank"),
        ("lacks", "the checkpoint lacks backbone.network.lm_head.weight"),
        ("unknown", "has an unknown backbone.network.other.weight"),
        ("shape", "backbone.network.lm_head.weight is of shape"),
    ],
)
def test_what_sharded_weights_do_not_allow_is_refused(
    cause: str, message: str, two_ranks: TwoRanks
) -> None:
    assert message in two_ranks[1][cause]


@pytest.mark.parametrize("name", [name for name in sharded.RESUMED if name != "half"])
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

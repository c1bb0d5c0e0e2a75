"""Two ranks give the weights of one: with batch norm frozen to rounding, with it in train mode
ranks agree with each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.contract import two_ranks
from tests.contract.catalogue import FIRST
from tests.support.helpers import State, different, distance
from tests.support.ranks import run_ranks

MACHINERY = [
    *(f"plan/{name}" for name in (*two_ranks.PLANS, "train")),
    "substitutes",
    "texts",
    "mask",
    "accumulated",
    "accumulated_phases",
    "clipped",
    "idle",
    "edit",
]
pytestmark = pytest.mark.xdist_group("two-ranks")
Job = Callable[[str], tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]


@pytest.fixture(scope="session")
def job(originals: dict[str, State], tmp_path_factory: pytest.TempPathFactory) -> Job:
    """What one process, rank 0 and rank 1 found; one job for all cases."""
    jobs: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {}

    def of(which: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if which not in jobs:
            folder = tmp_path_factory.mktemp(which)
            torch.save(originals, folder / "originals.pt")
            run_ranks("tests.contract.two_ranks", str(folder / "originals.pt"), str(folder), which)
            ranks = [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
            jobs[which] = two_ranks.run_all(originals, which), ranks[0], ranks[1]
        return jobs[which]

    return of


def agrees(found: tuple[dict[str, Any], dict[str, Any], dict[str, Any]], name: str) -> None:
    """Two ranks end with the weights of one, and with each other's."""
    for states in found:
        assert not isinstance(states[name], str), states[name]
    single, first, second = (states[name] for states in found)
    assert different(first, second) == []
    far = {
        key: gap
        for key in single
        if (gap := distance({key: single[key]}, {key: first[key]})) >= two_ranks.EXACT_BELOW
    }
    assert far == {}


@pytest.mark.parametrize("name", MACHINERY)
def test_two_ranks_give_the_weights_of_one(name: str, job: Job) -> None:
    """Fails when losses are averaged over a rank's rows, a row is shown twice, or draws depend on
    the rank.
    """
    agrees(job("machinery"), name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [f"method/{name}" for name, _ in FIRST])
def test_every_method_gives_on_two_ranks_the_weights_of_one(name: str, job: Job) -> None:
    """Fails when a method reduces by itself, draws by rank, or gathers a statistic on one rank
    only.
    """
    agrees(job("methods"), name)


@pytest.mark.parametrize("norm", ["train", "recalibrate"])
def test_ranks_agree_with_batch_norm_in_train_mode(norm: str, job: Job) -> None:
    """Fails when ranks end a fit with statistics of their own, so that each would evaluate another
    model.
    """
    single, first, second = (states[f"norm/{norm}"] for states in job("machinery"))
    assert not isinstance(first, str), first
    assert different(first, second) == []
    assert 0 < distance(single, first) < 0.5


def test_two_ranks_evaluate_every_sample_once(job: Job) -> None:
    """Fails when the samples that fill up the last batches of a rank are counted."""
    single, first, second = (states["outputs"] for states in job("machinery"))
    for split in single:
        assert single[split].keys() == first[split].keys() == second[split].keys()
        for field, values in single[split].items():
            assert torch.allclose(first[split][field], values, atol=1e-5), (split, field)
            assert torch.equal(first[split][field], second[split][field]), (split, field)
    assert first["curve"]["logged"] == pytest.approx(first["curve"]["expected"].item())

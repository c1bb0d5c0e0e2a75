"""Loaders: what ranks see together is what one process sees alone; a resumed loader goes on where
it stopped.
"""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from mu.data.batch import ConcatByIndex, concatenate, map_batch, to_tensors
from mu.data.datamodule import UnlearningDataModule
from mu.data.loader import EvalLoader, PlanLoader
from mu.data.plan import DataPlan, Everything, Forget, Paired, Phases, Retain, Union, plan_steps
from mu.methods import FineTune
from mu.utils import rng
from mu.utils.errors import InputError
from tasks.tensor_data import TensorData
from tests.support.helpers import classifier, digits, fit

BATCH = {"forget": 3, "retain": 5, "train": 5}
PLANS = [Forget(), Retain(), Everything(), Paired(), Union(), Phases(Forget(), Retain())]


def data(first: int, count: int, weighted: bool = False) -> TensorData:
    """Samples whose input is their index; with weights 1, 2, 3, 1, ... where they are asked for."""
    indices = np.arange(first, first + count)
    weights = 1.0 + indices % 3 if weighted else None
    return TensorData(
        {"input": torch.as_tensor(indices, dtype=torch.float32)[:, None]}, indices, weights
    )


def parts(plan: DataPlan, weighted: bool = False) -> dict[str, Dataset]:
    """7 to forget, 22 to retain: no batch of theirs divides by two or three ranks."""
    both: dict[str, Dataset] = {"forget": data(0, 7, weighted), "retain": data(100, 22, weighted)}
    both["train"] = ConcatByIndex(list(both.values()))
    return {name: both[name] for name in plan.reads()}


def loader(plan: DataPlan, weighted: bool = False, **changes: Any) -> PlanLoader:
    return PlanLoader(parts(plan, weighted), plan, BATCH, 3, **changes)


def real(part: dict[str, Any]) -> list[tuple[int, int]]:
    """(index, visit) of the rows that count."""
    keep = ~part["padded"] if "padded" in part else torch.ones(len(part["index"]), dtype=torch.bool)
    return list(zip(part["index"][keep].tolist(), part["visit"][keep].tolist(), strict=True))


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("plan", PLANS, ids=repr)
def test_ranks_divide_the_rows_of_every_batch(plan: DataPlan, world: int) -> None:
    """Fails when a row is dropped, doubled, or counted in a wrong total, or when ranks take unequal
    numbers of steps.
    """
    alone = list(loader(plan, weighted=True))
    shares = [list(loader(plan, weighted=True, rank=rank, world=world)) for rank in range(world)]
    assert {len(share) for share in shares} == {len(alone)}
    for step, global_batch in enumerate(alone):
        for name in set(global_batch) - {"phase"}:
            # every rank has every part, if only to keep pace
            pieces = [share[step][name] for share in shares]
            assert sorted(row for piece in pieces for row in real(piece)) == sorted(
                real(global_batch[name])
            )
            assert all(len(piece["index"]) for piece in pieces)
            for total in ("count", "total"):
                assert {piece[total].item() for piece in pieces} == {
                    global_batch[name][total].item()
                }


@pytest.mark.parametrize("plan", PLANS, ids=repr)
def test_totals_are_those_of_the_global_batch(plan: DataPlan) -> None:
    """Fails when `total` counts rows where samples have weights, or when a union is not averaged
    over both parts together.
    """
    steps = plan_steps(plan, 0, {"forget": 7, "retain": 22, "train": 29}, BATCH, 3)
    for batch, step in zip(loader(plan, weighted=True), steps, strict=True):
        local_weights = {name: 1.0 + batch[name]["index"].numpy() % 3 for name in step.parts}
        joint = np.concatenate(list(local_weights.values()))
        for name in step.parts:
            expected = joint if step.joint else local_weights[name]
            assert batch[name]["count"].item() == len(expected)
            assert batch[name]["total"].item() == expected.sum()


@pytest.mark.parametrize("world", [2, 3])
def test_whole_batches_go_to_ranks_in_turn(world: int) -> None:
    """Fails when groups of a statistic depend on the number of ranks, or when a rank that runs out
    stops the others.
    """
    alone = [real(batch["retain"]) for batch in loader(Retain())]
    shares = [
        list(loader(Retain(), rank=rank, world=world, shard="batches")) for rank in range(world)
    ]
    assert len({len(share) for share in shares}) == 1
    dealt = [share[turn] for turn in range(len(shares[0])) for share in shares]
    assert [real(batch["retain"]) for batch in dealt if "retain" in batch] == alone
    assert all(batch == {"phase": -1} for batch in dealt if "retain" not in batch)


@pytest.mark.parametrize(("served", "workers"), [(0, 0), (1, 0), (4, 0), (2, 1)])
def test_a_resumed_loader_goes_on_where_it_stopped(served: int, workers: int) -> None:
    """Fails when the state counts prefetched batches, is applied twice, or is lost."""
    uninterrupted = loader(Retain(), workers=workers)
    first = iter(uninterrupted)
    for _ in range(served):
        next(first)
    state = uninterrupted.state_dict()
    rest = [real(batch["retain"]) for batch in first]
    again = loader(Retain(), workers=workers)
    again.load_state_dict(state)
    assert [real(batch["retain"]) for batch in again] == rest
    again.plan_sampler.set_epoch(1)
    assert len(list(again)) == len(again) == 5


def test_a_finished_epoch_leaves_nothing_to_skip() -> None:
    """Fails when a checkpoint at the end of an epoch makes the next epoch empty."""
    full_loader = loader(Retain())
    list(full_loader)
    assert full_loader.state_dict() == {"served": 0}


def test_augmentation_depends_on_the_sample_and_its_visit_alone() -> None:
    """Fails when augmentation draws by place in the batch, by rank, or from a global generator."""

    def augment(part: dict[str, Any], seed: int) -> dict[str, Any]:
        noise = rng.uniform(seed, part["index"], part["visit"], "test")
        return part | {"input": part["input"] + noise[:, None]}

    def seen(**changes: Any) -> dict[int, float]:
        values = {}
        for batch in loader(Retain(), augment=augment, **changes):
            for (index, _), value in zip(
                real(batch["retain"]), batch["retain"]["input"][:, 0].tolist(), strict=False
            ):
                values[index] = value
        return values

    alone = seen()
    torch.manual_seed(1)
    assert {**seen(rank=0, world=2), **seen(rank=1, world=2)} == alone
    assert any(value != index for index, value in alone.items())


@pytest.mark.parametrize("size", [1, 4, 5, 13])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_evaluation_shows_each_sample_on_one_rank(size: int, world: int) -> None:
    """Fails when padded duplicates count, or when ranks take unequal numbers of steps (the others
    would wait for ever).
    """
    loaders = [
        EvalLoader(data(10, size), "test", 4, rank=rank, world=world) for rank in range(world)
    ]
    batches = [list(rank_batches) for rank_batches in loaders]
    assert len({len(rank_batches) for rank_batches in batches}) == 1
    assert Counter(
        index for rank_batches in batches for batch in rank_batches for index, _ in real(batch)
    ) == Counter(range(10, 10 + size))
    assert all(batch["split"] == "test" for rank_batches in batches for batch in rank_batches)


def test_a_dataset_without_a_fast_path_gives_the_same_batches() -> None:
    """Fails when only datasets with `__getitems__` work."""

    class Plain(Dataset):
        def __len__(self) -> int:
            return 22

        def __getitem__(self, position: int) -> dict[str, Any]:
            return {"input": torch.tensor([100.0 + position]), "index": 100 + position}

    plain = PlanLoader({"retain": Plain()}, Retain(), BATCH, 3)
    for a, b in zip(plain, loader(Retain()), strict=True):
        assert torch.equal(a["retain"]["input"], b["retain"]["input"])
        assert torch.equal(a["retain"]["index"], b["retain"]["index"])


def test_joined_parts_are_ordered_by_index() -> None:
    """Fails when the joined dataset shows where one part ends, so that the original's order depends
    on what is forgotten.
    """
    order = np.random.default_rng(0).permutation(20)
    joined = ConcatByIndex([data(0, 20).view(order[:6]), data(0, 20).view(order[6:])])
    other = ConcatByIndex([data(0, 20).view(order[:13]), data(0, 20).view(order[13:])])
    positions = [5, 0, 19, 7, 7]
    a = joined.__getitems__(positions)
    b = other.__getitems__(positions)
    assert a["index"].tolist() == b["index"].tolist() == positions
    assert a["input"][:, 0].tolist() == [float(p) for p in positions]
    assert joined[3]["index"] == 3
    assert ConcatByIndex([data(0, 3), data(3, 3, weighted=True)]).weights.tolist() == [
        1,
        1,
        1,
        1,
        2,
        3,
    ]


def test_concatenated_parts_carry_the_right_totals() -> None:
    """Fails when parts of two batches are averaged over the first one's total, or parts of a union
    over twice its total.
    """
    for batch in loader(Union(), weighted=True):
        if "forget" in batch and "retain" in batch:
            joined = concatenate(batch["forget"], batch["retain"])
            assert joined["count"].item() == len(joined["index"])
            assert joined["total"].item() == (1.0 + joined["index"] % 3).sum().item()
    for batch in loader(Paired(), weighted=True):
        joined = concatenate(batch["forget"], batch["retain"])
        assert joined["count"].item() == len(joined["index"])
        assert joined["total"].item() == (1.0 + joined["index"] % 3).sum().item()


def test_concatenation_marks_padded_rows_of_either_part() -> None:
    """Fails when one part's mark is lost because the other has none."""
    two = {"index": torch.tensor([1, 2]), "input": torch.zeros(2, 1)}
    first = {
        "index": torch.tensor([3]),
        "input": torch.zeros(1, 1),
        "padded": torch.tensor([True]),
        "label": torch.tensor([1]),
    }
    joined = concatenate(two, first, None)
    assert joined["padded"].tolist() == [False, False, True]
    assert set(joined) == {"index", "input", "padded"}
    assert "padded" not in two


def test_the_loader_of_a_task_without_a_trainer_says_what_to_use() -> None:
    """Fails when `train_dataloader()` ends in an AttributeError."""
    from mu.utils.errors import InputError

    with pytest.raises(InputError, match="plan_loader"):
        UnlearningDataModule().train_dataloader()


def test_prompts_are_left_alone_and_arrays_become_tensors() -> None:
    """Mutations: an array within a part stays one; a batch of prompts is copied word by word."""
    prompts = ["a red circle", "a blue square"]
    part = {
        "prompt": prompts,
        "image": np.zeros((2, 3)),
        "index": torch.arange(2),
        "counts": [np.ones(1), np.ones(2)],
    }
    batch: dict[str, Any] = {"phase": 1, "forget": part}
    tensors = to_tensors(batch)
    assert tensors["phase"] == 1 and tensors["forget"]["prompt"] is prompts
    assert (
        isinstance(tensors["forget"]["image"], torch.Tensor)
        and tensors["forget"]["image"].dtype == torch.float64
    )
    assert tensors["forget"]["index"] is part["index"]
    assert all(isinstance(value, torch.Tensor) for value in tensors["forget"]["counts"])
    assert map_batch({"names": []}, lambda value: "seen") == {"names": "seen"}


def test_a_fit_says_nothing_about_hooks() -> None:
    """Mutation: the module moves batches to the device, of which Lightning warns wherever there is
    a DataModule.
    """
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        fit(FineTune(classifier()), digits(), 1)
    assert not [str(warning.message) for warning in heard if "overridden" in str(warning.message)]


class _Unreadable(Dataset):
    """Samples that cannot be read."""

    indices = np.arange(4)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, position: int) -> dict[str, Any]:
        raise InputError(f"the image {position}.png cannot be read.")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_loader_process_is_its_sentence(workers: int) -> None:
    """Mutation: torch's message, which begins with the process and holds a traceback."""
    unreadable = _Unreadable()
    loaders = [
        PlanLoader(
            {"retain": unreadable}, Retain(shuffle=False), {"retain": 2}, 0, workers=workers
        ),
        EvalLoader(unreadable, "test", 2, workers=workers),
    ]
    for loader in loaders:
        with pytest.raises(InputError) as refused:
            list(loader)
        assert str(refused.value) == "the image 0.png cannot be read."

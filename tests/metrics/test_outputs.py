"""Outputs: each sample once, sorted by index, whatever the batches, the padding and the ranks."""

from __future__ import annotations

import copy
import os
import pickle
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor

from mu.metrics import Outputs
from mu.utils.errors import InputError

SIZES = {"forget": 7, "retain": 12, "single": 1}


def sample(split: str, index: Tensor) -> dict[str, Tensor]:
    """What a model would say to these samples: values that depend on split and index alone."""
    start = {"forget": 0, "retain": 100, "single": 500}[split]
    seeds = (index + start).to(torch.float32)
    logits = torch.stack([seeds, -seeds, seeds * seeds], dim=1)
    return {
        "index": index,
        "logits": logits,
        "label": (index + start) % 3,
        "nll": seeds.double() / 7,
    }


def everything(split: str) -> dict[str, Tensor]:
    return sample(split, torch.arange(SIZES[split]) * 3)


def assert_complete(gathered: dict[str, dict[str, Tensor]], splits: dict[str, int]) -> None:
    assert set(gathered) == set(splits)
    for split, table in gathered.items():
        stated = everything(split)
        assert set(table) == set(stated)
        for name, value in stated.items():
            assert table[name].dtype == value.dtype and torch.equal(table[name], value), (
                split,
                name,
            )


def test_rows_come_sorted_once_and_without_padding() -> None:
    outputs = Outputs()
    for split in SIZES:
        index = everything(split)["index"]
        order = torch.randperm(len(index), generator=torch.Generator().manual_seed(0))
        for batch in torch.cat([index[order], index[order][:2]]).split(3):  # two samples come twice
            wrong = {name: value.flip(0) * 0 - 1 for name, value in sample(split, batch).items()}
            padded = torch.arange(2 * len(batch)) >= len(batch)
            both = {
                name: torch.cat([value, wrong[name]])
                for name, value in sample(split, batch).items()
            }
            outputs.update(split, {**both, "padded": padded})
    assert_complete(outputs.compute(), SIZES)
    assert_complete(outputs.compute(), SIZES)  # cached
    outputs.reset()
    assert outputs._update_count == 0
    outputs.update("single", everything("single"))
    assert_complete(outputs.compute(), {"single": 1})


def test_the_first_of_equal_indices_is_kept() -> None:
    outputs = Outputs()
    outputs.update(
        "forget", {"index": torch.tensor([4, 2, 4]), "nll": torch.tensor([1.0, 2.0, 3.0])}
    )
    gathered = outputs.compute()["forget"]
    assert gathered["index"].tolist() == [2, 4] and gathered["nll"].tolist() == [2.0, 1.0]


def test_a_batch_of_padding_only_adds_nothing() -> None:
    outputs = Outputs()
    outputs.update(
        "forget",
        {"index": torch.tensor([1]), "nll": torch.tensor([1.0]), "padded": torch.tensor([True])},
    )
    assert outputs.compute() == {}


def test_splits_may_have_different_fields_and_a_copy_is_independent() -> None:
    outputs = Outputs()
    outputs.update("forget", {"index": torch.tensor([0, 1]), "hidden": torch.ones(2, 2, 3)})
    other = pickle.loads(pickle.dumps(copy.deepcopy(outputs)))
    outputs.update("retain", {"index": torch.tensor([5]), "nll": torch.tensor([0.5])})
    gathered = outputs.compute()
    assert set(gathered["forget"]) == {"index", "hidden"} and set(gathered["retain"]) == {
        "index",
        "nll",
    }
    assert gathered["retain"]["nll"].shape == (1,) and gathered["forget"]["hidden"].shape == (
        2,
        2,
        3,
    )
    assert set(other.compute()) == {"forget"}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"nll": torch.ones(2)}, "need an `index`"),
        ({"index": torch.ones(2), "nll": torch.ones(2)}, "need an `index`"),
        ({"index": torch.arange(2), "nll": torch.ones(3)}, "2 indices"),
        ({"index": torch.arange(2), "nll": torch.tensor(1.0)}, "2 indices"),
        ({"index": torch.arange(2), "logits": torch.ones(2, 4)}, "a field keeps both"),
        ({"index": torch.arange(2), "logits": torch.ones(2, 3).double()}, "a field keeps both"),
    ],
)
def test_unusable_batches_are_refused(values: dict[str, Any], sentence: str) -> None:
    outputs = Outputs()
    outputs.update("retain", {"index": torch.arange(2), "logits": torch.ones(2, 3)})
    with pytest.raises(InputError, match=sentence):
        outputs.update("forget", values)


def test_a_field_that_is_missing_in_some_batches_is_refused() -> None:
    outputs = Outputs()
    outputs.update("forget", {"index": torch.arange(2), "nll": torch.ones(2)})
    outputs.update("forget", {"index": torch.arange(2, 4)})
    with pytest.raises(InputError, match="every batch of a split needs the same fields"):
        outputs.compute()


def _rank(rank: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    try:
        outputs = Outputs()
        forget = everything("forget")
        retain = everything("retain")
        # alone has `single`; its last forget sample is a duplicate of the other rank's first
        if rank == 0:
            outputs.update("forget", {name: value[:4] for name, value in forget.items()})
            outputs.update("single", everything("single"))
            outputs.update("retain", {name: value[:1] for name, value in retain.items()})
        else:  # meets the splits and fields in another order
            for part in (slice(6, 12), slice(0, 6)):
                batch = {name: retain[name][part] for name in reversed(list(retain))}
                outputs.update("retain", {**batch, "padded": torch.zeros(6, dtype=torch.bool)})
            outputs.update("forget", {name: value[3:] for name, value in forget.items()})
        assert_complete(outputs.compute(), SIZES)
        # the rank's own batches are back after the gathering
        assert isinstance(outputs.value_nll, list)

        empty = Outputs()
        if rank == 0:
            empty.update("forget", forget)
        assert_complete(empty.compute(), {"forget": 7})  # rank 1 never saw a sample at all
        Path(folder, f"done-{rank}").touch()
    finally:
        torch.distributed.destroy_process_group()


def test_two_ranks_hold_what_one_would(tmp_path: Path) -> None:
    """Gathering in each rank's own order of states, or without the states that it lacks, hangs or
    mixes fields up.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # a forked rank needs no imports: half a second instead of ten
    method = "fork" if "fork" in mp.get_all_start_methods() else "spawn"
    mp.start_processes(_rank, args=(port, str(tmp_path)), nprocs=2, start_method=method)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["done-0", "done-1"]

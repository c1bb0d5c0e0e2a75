"""Per-example outputs of a run belong to the weights that gave them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mu.metrics.run_outputs import has_outputs, load_outputs, save_outputs
from mu.utils.errors import InputError
from mu.utils.run_layout import OUTPUTS
from tests.metrics.test_run_results import results, write_checkpoint


def outputs(field: str, value: float) -> dict[str, dict[str, torch.Tensor]]:
    return {"forget": {"index": torch.arange(3), field: torch.full((3,), value)}}


def test_outputs_of_other_weights_are_refused(tmp_path: Path) -> None:
    save_outputs(tmp_path, outputs("nll", 1.0), {"weights": "a"})
    assert has_outputs(tmp_path, "a") and not has_outputs(tmp_path, "b")
    assert load_outputs(tmp_path, "a")["forget"]["nll"].tolist() == [1.0] * 3
    with pytest.raises(InputError, match=r"outputs of other weights \(a, not b\)"):
        load_outputs(tmp_path, "b")


def test_a_further_test_of_the_same_weights_adds_its_fields(tmp_path: Path) -> None:
    save_outputs(tmp_path, outputs("nll", 1.0), {"weights": "a"})
    save_outputs(tmp_path, outputs("logits", 2.0), {"weights": "a"})
    assert set(load_outputs(tmp_path)["forget"]) == {"index", "nll", "logits"}
    save_outputs(tmp_path, outputs("label", 3.0), {"weights": "b"})
    assert set(load_outputs(tmp_path)["forget"]) == {"index", "label"}


def test_a_middle_checkpoint_does_not_replace_the_outputs_of_the_last(tmp_path: Path) -> None:
    last = write_checkpoint(tmp_path, 1.0)
    for weights, checkpoint in (("a", last), ("b", "middle")):
        record = results(1.0, weights=weights, checkpoint=checkpoint)
        record.save(tmp_path)
        save_outputs(tmp_path, outputs("nll", 1.0), record.hashes)
    assert has_outputs(tmp_path, "a")


def test_changed_or_cut_outputs_are_found(tmp_path: Path) -> None:
    save_outputs(tmp_path, outputs("nll", 1.0), {"weights": "a"})
    file = tmp_path / OUTPUTS
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    save_file({**load_file(file), "forget/nll": torch.zeros(3)}, file, metadata)
    with pytest.raises(InputError, match="was changed after it was written"):
        load_outputs(tmp_path)
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(InputError, match="cut off"):
        load_outputs(tmp_path)

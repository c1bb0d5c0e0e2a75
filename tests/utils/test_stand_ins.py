"""Torch files with foreign objects: the tensors are read, and nothing foreign is imported."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mu.utils.errors import InputError
from mu.utils.stand_ins import StandIn
from mu.utils.weights import load_weights, read_checkpoint

MODULE = """
import enum
class Options:
    def __init__(self):
        self.rate = 0.1
class Mode(enum.Enum):
    FAST = 1
class Table(dict):
    def __init__(self, **entries):
        super().__init__(entries)
        self.name = "table"
class Names(list):
    pass
def make():
    table = Table(a=Options(), b=2)
    return {"options": Options(), Mode.FAST: Mode.FAST, "table": table, "names": Names("ab")}
"""


class Call:
    """A pickle that calls a function of the system when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch called",)


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[Any, Any]:
    """Objects of a module that cannot be imported when the file is read."""
    (tmp_path / "foreign_training.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    import foreign_training  # type: ignore[import-not-found]

    return foreign_training.make()


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_beside_foreign_objects_are_read(
    foreign: dict[Any, Any], zipped: bool, tmp_path: Path
) -> None:
    weights = {"linear.weight": torch.rand(2, 3)}
    file = tmp_path / "model.ckpt"
    content = {"state_dict": weights, "callbacks": foreign, "epoch": 3}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    flat = tmp_path / "pytorch_model.bin"
    torch.save(
        {**weights, "options": foreign["options"]}, flat, _use_new_zipfile_serialization=zipped
    )
    # what reads the file could not import the module, even if it tried
    (tmp_path / "foreign_training.py").unlink()
    del sys.modules["foreign_training"]
    loaded = read_checkpoint(file)
    assert loaded["epoch"] == 3
    assert isinstance(loaded["callbacks"]["options"], StandIn)
    assert loaded["callbacks"]["table"]["b"] == 2 and loaded["callbacks"]["names"] == ["a", "b"]
    assert repr(loaded["callbacks"]["options"]) == "an object of foreign_training.Options"
    for path in (file, flat):
        tensors, _ = load_weights(path)
        assert {name: value.tolist() for name, value in tensors.items()} == {
            name: value.tolist() for name, value in weights.items()
        }
    assert "foreign_training" not in sys.modules


@pytest.mark.parametrize("zipped", [True, False])
def test_functions_of_the_system_are_refused_and_not_called(
    zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weights: dict[str, Tensor] = {"linear.weight": torch.rand(2, 3)}
    torch.save(
        {"state_dict": weights, "x": Call()},
        tmp_path / "x.ckpt",
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(InputError, match=r"x\.ckpt is a pickle that needs the Python object"):
        read_checkpoint(tmp_path / "x.ckpt")
    assert not (tmp_path / "called").exists()


def test_a_foreign_object_alone_is_no_checkpoint(foreign: dict[Any, Any], tmp_path: Path) -> None:
    torch.save(foreign["options"], tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"foreign_training\.Options, .*state_dict"):
        read_checkpoint(tmp_path / "x.pt")
    (tmp_path / "y.pt").write_bytes(pickle.dumps(foreign["options"]))
    with pytest.raises(InputError, match=r"y\.pt"):
        read_checkpoint(tmp_path / "y.pt")

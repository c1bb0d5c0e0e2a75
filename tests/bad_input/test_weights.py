"""Files of weights, tokenizers and model folders that cannot be used."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mu.backbones import CausalLM, Classifier
from mu.backbones.embedded import path as embedded
from tests.bad_input.conftest import refused_by, table


def network(**options: Any) -> Classifier:
    return Classifier(
        "resnet8_cifar", num_classes=3, in_channels=1, options={"width": 4}, **options
    )


STATE = {name: value.clone() for name, value in network(init_seed=0).network.state_dict().items()}
FIRST = next(name for name, value in STATE.items() if value.ndim > 1)


def state(**changes: Any) -> dict[str, Any]:
    """Weights of the network, the first replaced or left out."""
    return {name: value for name, value in {**STATE, **changes}.items() if value is not None}


class Code:
    """Object whose unpickling would leave a file."""

    def __reduce__(self) -> Any:
        return (os.mkdir, ("unpickled",))


TENSORS: list[tuple[str, Any, str]] = [
    ("empty", {}, ""),
    ("number", 3, ""),
    ("list", [torch.zeros(1)], ""),
    ("tensor", torch.zeros(3), ""),
    ("text as tensor", {"a": "b"}, "'a'"),
    ("missing", state(**{FIRST: None}), FIRST.removeprefix("body.")),
    ("unexpected", state(nothing=torch.zeros(1)), "does not fit"),
    ("shape", state(**{FIRST: torch.zeros(1, 2, 3)}), "shape"),
    ("boolean", state(**{FIRST: STATE[FIRST] > 0}), "bool"),
    ("integers", state(**{FIRST: STATE[FIRST].int()}), "int"),
    ("complex", state(**{FIRST: STATE[FIRST].to(torch.complex64)}), "complex"),
    ("NaN", state(**{FIRST: torch.full_like(STATE[FIRST], torch.nan)}), ""),
    ("infinite", state(**{FIRST: torch.full_like(STATE[FIRST], torch.inf)}), ""),
    ("other network", {"a.weight": torch.zeros(2, 2)}, ""),
    ("nested twice", {"state_dict": {"model": {"a": torch.zeros(1)}}}, ""),
    ("numbers as names", {3: torch.zeros(1)}, "3"),
]


@pytest.mark.parametrize(("content", "words"), table(TENSORS, fast=16))
def test_tensors_are_refused(tmp_path: Path, content: Any, words: str) -> None:
    torch.save(content, tmp_path / "weights.pt")
    refused_by(lambda: network(weights=str(tmp_path / "weights.pt")), "weights.pt", words)


FILES: list[tuple[str, str, Callable[[Path], Any]]] = [
    ("missing", "weights.pt", lambda file: None),
    ("missing safetensors", "w.safetensors", lambda file: None),
    ("empty", "weights.pt", lambda file: file.touch()),
    ("empty safetensors", "w.safetensors", lambda file: file.touch()),
    ("text", "weights.pt", lambda file: file.write_text("hello")),
    ("text safetensors", "w.safetensors", lambda file: file.write_text("hello")),
    ("torch as safetensors", "w.safetensors", lambda file: torch.save(STATE, file)),
    ("safetensors as torch", "weights.pt", lambda file: save_file(STATE, file)),
    ("pickle", "weights.pt", lambda file: file.write_bytes(pickle.dumps({"a": 1}))),
    ("code", "weights.pt", lambda file: file.write_bytes(pickle.dumps(Code()))),
    ("code of torch", "weights.pt", lambda file: torch.save({"a": Code()}, file)),
    ("folder", "weights", Path.mkdir),
    ("pipe", "weights.pt", os.mkfifo),
    ("pipe safetensors", "w.safetensors", os.mkfifo),
    ("loop", "weights.pt", lambda file: file.symlink_to(file.name)),
    ("unknown suffix", "weights.xyz", lambda file: file.write_text("hello")),
    *(
        (
            f"cut at {share}",
            name,
            lambda file, share=share, save=save: (
                save(STATE, file),
                file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)]),
            ),
        )
        for share in (0.1, 0.5, 0.99)
        for name, save in (("weights.pt", torch.save), ("w.safetensors", save_file))
    ),
]


@pytest.mark.parametrize(("name", "make"), table(FILES, fast=30))
def test_files_of_weights_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, make: Callable[[Path], Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / name)
    refused_by(lambda: network(weights=str(tmp_path / name)), name[-20:])
    assert not (tmp_path / "unpickled").exists()


def edited(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Change of a JSON file of a model's folder."""

    def apply(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        changed = change(content)
        (folder / name).write_text(json.dumps(content if changed is None else changed))

    return apply


def written(name: str, content: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(content)


MODELS: list[tuple[str, Callable[[Path], Any]]] = [
    ("no folder", shutil.rmtree),
    ("no config", lambda folder: (folder / "config.json").unlink()),
    ("config empty", written("config.json", "")),
    ("config a list", written("config.json", "[1]")),
    ("config cut", written("config.json", '{"model_type": "lla')),
    ("unknown family", edited("config.json", lambda c: c.update(model_type="nothing"))),
    ("no family", edited("config.json", lambda c: c.pop("model_type") and None)),
    ("more layers", edited("config.json", lambda c: c.update(num_hidden_layers=9))),
    ("other width", edited("config.json", lambda c: c.update(hidden_size=24))),
    ("layers text", edited("config.json", lambda c: c.update(num_hidden_layers="x"))),
    ("vocabulary", edited("config.json", lambda c: c.update(vocab_size=7))),
    ("no weights", lambda folder: (folder / "model.safetensors").unlink()),
    ("weights empty", written("model.safetensors", "")),
    ("weights text", written("model.safetensors", "hello")),
    ("weights of another", lambda folder: save_file(STATE, folder / "model.safetensors")),
    ("no tokenizer", lambda folder: (folder / "tokenizer.json").unlink()),
    ("tokenizer empty", written("tokenizer.json", "")),
    ("tokenizer a list", written("tokenizer.json", "[1]")),
    ("tokenizer cut", written("tokenizer.json", '{"version": "1.0", "mod')),
    ("tokenizer without model", edited("tokenizer.json", lambda c: c.pop("model") and None)),
    ("tokenizer's settings", written("tokenizer_config.json", "[1]")),
]


@pytest.mark.parametrize(("change",), table(MODELS, fast=12))
def test_model_folders_are_refused(tmp_path: Path, change: Callable[[Path], Any]) -> None:
    folder = tmp_path / "model"
    shutil.copytree(embedded("authors"), folder)
    change(folder)
    refused_by(lambda: CausalLM(str(folder)).tokenizer, "model")

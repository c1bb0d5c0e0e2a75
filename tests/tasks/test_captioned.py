"""Folders of images with captions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tasks
from mu.methods.diffusion.salun_diffusion import SalUnDiffusion
from mu.utils.errors import InputError
from tests.support.doubles import text_to_image
from tests.support.helpers import fit


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Three classes; the pixels of an image are its class's number times 40, plus its place."""
    for index, name in enumerate(("church", "gas_pump", "n01440764")):
        for part, count in (("train", 4), ("test", 2)):
            class_folder = tmp_path / part / name
            class_folder.mkdir(parents=True)
            for image in range(count):
                Image.fromarray(np.full((8, 8, 3), 40 * index + image, np.uint8)).save(
                    class_folder / f"{image}.png"
                )
    return str(tmp_path)


def made(folder: str, **changes: object) -> tasks.CaptionedFolder:
    task = tasks.CaptionedFolder(
        folder,
        **{
            "selector": tasks.ByClass(1),
            "size": 8,
            "names": {"n01440764": "tench"},
            "batch_size": 2,
            "curves": [],
            **changes,
        },
    )  # type: ignore[arg-type]
    task.setup()
    return task


def test_captions_name_the_class_and_the_next_one_takes_its_place(folder: str) -> None:
    task = made(folder)
    forget = task.datasets["forget"].__getitems__([0, 1, 2, 3])  # type: ignore[attr-defined]
    assert (
        forget["prompt"] == ["an image of a gas pump"] * 4 and forget["concept"] == ["gas pump"] * 4
    )
    assert forget["substitute"] == ["an image of a tench"] * 4
    assert torch.equal(
        (255 * forget["image"][:, 0, 0, 0]).round(), torch.tensor([40.0, 41, 42, 43])
    )
    retain = task.datasets["retain"]
    rows = [retain[position] for position in range(len(retain))]  # type: ignore[arg-type]
    assert {
        (row["prompt"], row["concept"], row["substitute"], int(row["label"])) for row in rows
    } == {
        ("an image of a church", "", "an image of a gas pump", 0),
        ("an image of a tench", "", "an image of a church", 2),
    }
    assert {name: len(data) for name, data in task.datasets.items()} == {
        "forget": 4,
        "retain": 8,
        "test": 4,
        "test_forget": 2,
    }  # type: ignore[arg-type]
    assert torch.equal(retain.stored("label").unique(), torch.tensor([0, 2]))  # type: ignore[attr-defined]


def test_no_forgotten_class_takes_anothers_place(folder: str) -> None:
    """Of several forgotten classes the next one that is retained stands in the substitute."""
    task = made(folder, selector=tasks.ByClass([0, 1]))
    forget = task.datasets["forget"]
    rows = [forget[position] for position in range(len(forget))]  # type: ignore[arg-type]
    assert {(row["concept"], row["substitute"]) for row in rows} == {
        ("church", "an image of a tench"),
        ("gas pump", "an image of a tench"),
    }


def test_one_anchor_for_all(folder: str) -> None:
    task = made(folder, template="a photo of a {}", anchor="house")
    assert task.datasets["forget"][0]["substitute"] == "a photo of a house"  # type: ignore[index]


def test_salun_trains_on_it(folder: str) -> None:
    """Images, prompts and substitutes reach a method."""
    module = SalUnDiffusion(
        text_to_image(part="xattn"), alpha=0.5, optimizer=lambda p: torch.optim.SGD(p, lr=0.1)
    )
    before = {name: weight.detach().clone() for name, weight in module.backbone.named_parameters()}
    # that the tiny tokenizer knows
    words = {
        "church": "circle",
        "gas_pump": "square",
        "n01440764": "star",
    }
    fit(module, made(folder, template="a {}", names=words), 1)
    moved = [
        name
        for name, weight in module.backbone.named_parameters()
        if not torch.equal(weight, before[name])
    ]
    assert moved and all("attn2." in name for name in moved)


def test_what_does_not_fit_is_refused(folder: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"should have \{\} once"):
        made(folder, template="an image")
    with pytest.raises(
        InputError,
        match="has no class folder 'dog', for which names gives a name; it has church, gas_pump",
    ):
        made(folder, names={"dog": "hound"})
    for name in ("gas_pump", "n01440764"):
        for part in ("train", "test"):
            for file in (tmp_path / part / name).iterdir():
                file.unlink()
            (tmp_path / part / name).rmdir()
    with pytest.raises(
        InputError,
        match="has a single class, so there is no next one to take its place; give an anchor",
    ):
        made(folder, selector=tasks.ByClass(0), names={})

"""Images decoded when they are read: the samples, hash and fit of images in memory."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mu.methods import FineTune
from mu.utils.errors import InputError
from tasks import ByClass, CaptionedFolder, ImageFolder, NoisyLabels, RandomFraction
from tasks.image_files import ImageFiles
from tests.support.helpers import classifier, fit, weights


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes with train, test and val, images of several sizes."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("test", 3), ("val", 2)):
        for name in ("cat", "dog", "emu"):
            (tmp_path / "data" / part / name / "deep").mkdir(parents=True)
            for image in range(count):
                pixels = rng.integers(0, 256, (9 + image, 11, 3), dtype=np.uint8)
                path = tmp_path / "data" / part / name / ("deep" if image % 2 else "")
                Image.fromarray(pixels).save(path / f"{image}.png")
    return tmp_path / "data"


def both(folder: Path, cls: Any = ImageFolder, **changes: Any) -> list[Any]:
    """The task in memory, and the task that decodes what it reads."""
    defaults = {"selector": ByClass("dog"), "size": 8, "batch_size": 4, "curves": []}
    tasks = [
        cls(str(folder), in_memory=in_memory, **{**defaults, **changes})
        for in_memory in (True, False)
    ]
    for task in tasks:
        task.setup()
    return tasks


def equal(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name])
        if isinstance(value, torch.Tensor)
        else equal(value, second[name])
        if isinstance(value, dict)
        else value == second[name]
        for name, value in first.items()
        if name != "step"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"selector": RandomFraction(0.3), "validation_fraction": 0.2, "augmentation": "none"},
        {"selector": "noisy"},
        {"cls": CaptionedFolder, "size": (6, 8), "augmentation": "usual"},
    ],
    ids=["usual", "random", "noisy labels", "captions"],
)
def test_batches_order_and_hash_are_those_of_images_in_memory(
    folder: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """Mutations: no division by 255; the draws of the augmentation by worker; another order."""
    if changes.get("selector") == "noisy":
        clean = np.repeat([0, 1, 2] * 3, [6] * 3 + [3] * 3 + [2] * 3)
        noisy = np.where(np.arange(33) % 4, clean, (clean + 1) % 3)
        np.savez(tmp_path / "labels.npz", clean_label=clean, noisy=noisy)
        changes = {"selector": NoisyLabels(tmp_path / "labels.npz", "noisy")}
    eager, lazy = both(folder, **changes)
    assert eager.split.hash == lazy.split.hash and eager.split.task == lazy.split.task
    lazy.workers = 2
    plan = FineTune(classifier()).plan
    for seed in (0, 1):
        pairs = list(zip(*(t.plan_loader(plan, seed) for t in (eager, lazy)), strict=True))
        assert len(pairs) == len(eager.plan_loader(plan, seed)) > 1
        assert all(equal(a, b) for a, b in pairs)
    for a, b in zip(eager.test_dataloader(), lazy.test_dataloader(), strict=True):
        assert all(equal(first, second) for first, second in zip(a, b, strict=True))


def test_the_source_is_that_of_images_in_memory(folder: Path) -> None:
    eager, lazy = (task.source() for task in both(folder))
    assert isinstance(lazy.train["image"], ImageFiles)
    for name in ("name", "mean", "std", "class_names", "num_classes", "input_size"):
        assert getattr(eager, name) == getattr(lazy, name), name
    for name in ("train_indices", "test_indices", "validation_indices"):
        assert np.array_equal(getattr(eager, name), getattr(lazy, name))
    mixed = np.array([30, 2, 20, 0])
    for data in (eager, lazy):
        assert data.view(mixed).stored("image").shape == (4, 3, 8, 8)
    assert torch.equal(eager.view(mixed).stored("image"), lazy.view(mixed).stored("image"))
    changed = [s.train_data.replace(label=s.field("label") + 1) for s in (eager, lazy)]
    assert equal(*(data[3] for data in changed))


def test_one_tree_is_divided_as_in_memory(folder: Path) -> None:
    eager, lazy = (
        task.source() for task in both(folder / "train", test_fraction=0.3, split_seed=4)
    )
    assert eager.name == lazy.name and eager.mean == lazy.mean and eager.std == lazy.std
    assert np.array_equal(eager.test_indices, lazy.test_indices)
    assert torch.equal(eager.test_data.stored("image"), lazy.test_data.stored("image"))


def test_a_fit_gives_the_weights_of_images_in_memory(folder: Path) -> None:
    trained = []
    for task in both(folder):
        module = FineTune(classifier(num_classes=3, in_channels=3, mean=[0.5] * 3, std=[0.3] * 3))
        fit(module, task, 2)
        trained.append(weights(module.backbone))
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


def test_auto_decides_by_the_size_of_the_images(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = ImageFolder(str(folder), ByClass("dog"), size=8)
    assert isinstance(task.source().train["image"], torch.Tensor)
    monkeypatch.setattr("tasks.image_folders.LIMIT", 33 * 3 * 8 * 8 - 1)
    assert isinstance(task.source().train["image"], ImageFiles)


def test_a_file_that_changes_during_a_run_is_refused(folder: Path) -> None:
    """Mutation: the content is read without a look at the file's times."""
    _, lazy = both(folder)
    file = folder / "train" / "dog" / "0.png"
    Image.new("RGB", (8, 8)).save(file)
    with pytest.raises(InputError, match=r"0.png was changed after the task had listed it"):
        lazy.datasets["forget"].__getitems__([0, 1])
    os.unlink(file)
    with pytest.raises(InputError, match=r"0.png cannot be read \(No such file"):
        lazy.datasets["forget"].__getitems__([0, 1])


def test_loader_processes_that_are_started_anew_get_no_pixels(folder: Path) -> None:
    """Mutation: decoded images, or a string for each file, travel to each process."""
    _, lazy = both(folder)
    images = lazy.datasets["retain"]._fields["image"]
    copy = pickle.loads(pickle.dumps(images))
    assert torch.equal(
        copy.index_select(0, torch.tensor([1])), images.index_select(0, torch.tensor([1]))
    )
    assert len(pickle.dumps(images)) < 10_000

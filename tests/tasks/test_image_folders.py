"""Image folders by class: layouts of parts, depth, Unicode names."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mu.utils.errors import InputError
from tasks import ByClass, ImageFolder
from tasks.image_folders import image_folder_source


def write_images(folder: Path, count: int = 2, level: int = 0) -> None:
    folder.mkdir(parents=True)
    for image in range(count):
        pixels = np.full((4, 4, 3), level + image, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{image}.png")


def write_parts(root: Path, *parts: str) -> None:
    for index, part in enumerate(parts):
        write_images(root / part / "cat", level=100 * index)
        write_images(root / part / "dog", level=100 * index + 10)


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_val_is_the_test_set_where_there_is_no_test(tmp_path: Path, name: str) -> None:
    write_parts(tmp_path, "train", name)
    source = image_folder_source(tmp_path, 4)
    assert source.test["image"][:, 0, 0, 0].tolist() == [100, 101, 110, 111]
    assert source.validation_indices.size == 0
    with pytest.raises(InputError, match=f"{name} is the test set .* test_fraction must be left"):
        image_folder_source(tmp_path, 4, test_fraction=0.5)


def test_val_beside_test_is_held_out(tmp_path: Path) -> None:
    write_parts(tmp_path, "train", "test", "val")
    source = image_folder_source(tmp_path, 4)
    split = ImageFolder(str(tmp_path), ByClass("cat"), size=4).split
    assert source.test["image"][:, 0, 0, 0].tolist() == [100, 101, 110, 111]
    assert split.parts["validation"].tolist() == [8, 9, 10, 11]
    held_out = source.view(split.parts["validation"]).stored("image")
    assert held_out[:, 0, 0, 0].tolist() == [200, 201, 210, 211]
    assert split.parts["forget"].tolist() == [0, 1] and source.mean[0] < 12 / 255


def test_train_alone_gives_its_share_to_the_test_set(tmp_path: Path) -> None:
    write_parts(tmp_path, "train")
    source = image_folder_source(tmp_path, 4, test_fraction=0.5)
    assert len(source.train_indices) == len(source.test_indices) == 2


def test_images_are_read_below_their_class_folder(tmp_path: Path) -> None:
    for index, part in enumerate(("train", "test")):
        for name in ("cat", "dog"):
            write_images(tmp_path / part / name / "images", level=100 * index)
    write_images(tmp_path / "train" / "cat" / ".thumbnails")
    source = image_folder_source(tmp_path, 4)
    assert source.labels().tolist() == source.labels("test").tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("parts", [("train", "test"), ("",)])
def test_a_root_that_is_one_folder_too_high_is_refused(tmp_path: Path, parts) -> None:
    write_parts(tmp_path / "archive", *parts)
    with pytest.raises(InputError, match=r"holds the one folder archive, .* one level deeper"):
        image_folder_source(tmp_path, 4, test_fraction=0.5)


def test_a_test_set_without_training_folder_is_refused(tmp_path: Path) -> None:
    write_parts(tmp_path, "val", "test")
    with pytest.raises(InputError, match="has test/ and no train/"):
        image_folder_source(tmp_path, 4, test_fraction=0.5)


def test_a_class_may_be_named_train(tmp_path: Path) -> None:
    for name in ("train", "bus"):
        write_images(tmp_path / name)
    assert image_folder_source(tmp_path, 4, test_fraction=0.5).class_names == ("bus", "train")


def test_class_names_are_composed_unicode(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in ("café", "thé"):
            write_images(tmp_path / part / unicodedata.normalize("NFD", name))
    task = ImageFolder(str(tmp_path), ByClass("café"), size=4)
    assert task.source().class_names == ("café", "thé")
    assert task.split.parts["forget"].tolist() == [0, 1]


def test_folders_that_differ_in_unicode_only_are_refused(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        write_images(tmp_path / unicodedata.normalize(form, "é"))
    with pytest.raises(InputError, match="look the same"):
        image_folder_source(tmp_path, 4, test_fraction=0.5)


def test_classes_are_selected_by_folder_name(tmp_path: Path) -> None:
    write_parts(tmp_path, "train", "test")
    by_name = ImageFolder(str(tmp_path), ByClass("dog"), size=4).split
    assert by_name.hash == ImageFolder(str(tmp_path), ByClass(1), size=4).split.hash
    with pytest.raises(InputError, match=r"no class bird .* 0 \(cat\), 1 \(dog\)"):
        _ = ImageFolder(str(tmp_path), ByClass("bird"), size=4).split

"""Sources: exact pixels, stable indices, and one sentence for everything that is missing or
wrong.
"""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from mu.utils.errors import InputError
from tasks.by_class import ByClass
from tasks.readers import (
    CIFAR100_SUPERCLASSES,
    cifar10_source,
    cifar100_source,
    diabetes_source,
    digits_source,
    image_folder_source,
    npz_source,
    svhn_source,
)
from tasks.splits import split_source

FINE = sorted(name for names in CIFAR100_SUPERCLASSES.values() for name in names.split())


def test_digits_are_exact_and_indexed_by_their_row() -> None:
    from sklearn.datasets import load_digits

    scans = load_digits()
    source = digits_source()
    assert len(source.train_indices) == 500 and len(source.test_indices) == 1297
    for data in (source.train_data, source.test_data):
        batch = data.__getitems__(list(range(len(data))))
        assert np.array_equal(
            batch["image"].numpy(), scans.images[data.indices][:, None].astype(np.float32) / 16
        )
        assert np.array_equal(batch["label"].numpy(), scans.target[data.indices])
    assert source.mean[0] == pytest.approx(scans.data.mean() / 16, abs=5e-5)
    assert source.std[0] == pytest.approx(scans.data.std() / 16, abs=5e-5)


@pytest.mark.parametrize("size", [10, 97, 500])
def test_digits_are_drawn_with_the_share_of_every_class(size: int) -> None:
    source = digits_source(train_size=size, seed=3)
    share = np.bincount(source.labels(), minlength=10)
    totals = share + np.bincount(source.labels("test"), minlength=10)
    assert share.sum() == size and (np.abs(share - totals * size / 1797) < 1).all()


def test_the_seed_decides_the_draw_and_an_index_stays_one_scan() -> None:
    """Mutation that must fail it: number the training samples from 0 instead of naming their
    rows.
    """
    first = digits_source(seed=0)
    other = digits_source(seed=1)
    assert not np.array_equal(first.train_indices, other.train_indices)
    assert np.array_equal(first.train_indices, digits_source(seed=0).train_indices)
    shared = np.intersect1d(first.train_indices, other.test_indices)
    assert torch.equal(first.view(shared).stored("image"), other.view(shared).stored("image"))


def test_digits_hold_out_validation() -> None:
    source = digits_source(train_size=300, seed=0, validation_size=100)
    split = split_source(source, ByClass(3), seed=0)
    assert len(split.train) == 300 and len(split.parts["validation"]) == 100
    assert len(split.parts["test"]) + len(split.parts["test_forget"]) == 1397
    assert (source.view(split.parts["test_forget"]).stored("label") == 3).all()
    assert np.array_equal(split.train, digits_source(train_size=300, seed=0).train_indices)


def test_diabetes_is_standardised_by_its_training_rows() -> None:
    from sklearn.datasets import load_diabetes

    measured, progression = load_diabetes(return_X_y=True, scaled=False)
    source = diabetes_source(train_size=300, seed=2, validation_size=42)
    train = np.setdiff1d(source.train_indices, source.validation_indices)
    assert len(train) == 300 and len(source.test_indices) == 100 and source.num_classes is None
    raw = source.test["input"].double() * torch.tensor(source.std) + torch.tensor(source.mean)
    np.testing.assert_allclose(raw.numpy(), measured[source.test_indices], rtol=1e-5)
    np.testing.assert_allclose(source.view(train).stored("input").mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(
        source.view(train).stored("input").std(0, correction=0), 1, atol=1e-5
    )
    assert np.array_equal(
        source.labels("test"), progression[source.test_indices].astype(np.float32)
    )
    assert source.target_mean == pytest.approx(progression[train].mean())
    assert source.target_std == pytest.approx(progression[train].std())


@pytest.mark.parametrize(
    "make",
    [
        lambda: digits_source(train_size=1797),
        lambda: digits_source(train_size=5),
        lambda: digits_source(train_size=1000, validation_size=797),
        lambda: digits_source(validation_size=-1),
        lambda: diabetes_source(train_size=442),
        lambda: diabetes_source(train_size=1),
    ],
)
def test_sizes_that_leave_nothing_are_refused(make) -> None:
    with pytest.raises(InputError, match=r"digits|diabetes"):
        make()


def arrays(**changes: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "train_images": rng.integers(0, 256, (12, 5, 4, 3), dtype=np.uint8),
        "train_labels": np.arange(12) % 3,
        "test_images": rng.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8),
        "test_labels": np.arange(6) % 3,
        **changes,
    }


def test_an_npz_becomes_channels_first(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays())
    np.savez_compressed(tmp_path / "b.npz", **arrays())
    source = npz_source(tmp_path / "a.npz")
    assert (
        source.input_size == (3, 5, 4)
        and source.num_classes == 3
        and source.class_names == ("0", "1", "2")
    )
    assert source.test_indices.tolist() == [12, 13, 14, 15, 16, 17]
    expected = arrays()["test_images"][2].transpose(2, 0, 1).astype(np.float32) / 255
    sample = source.test_data[2]
    assert (
        np.array_equal(sample["image"].numpy(), expected)
        and sample["index"] == 14
        and sample["label"] == 2
    )
    floats = arrays()["train_images"] / 255
    np.testing.assert_allclose(source.mean, floats.mean((0, 1, 2)))
    np.testing.assert_allclose(source.std, floats.std((0, 1, 2)))
    assert npz_source(tmp_path / "b.npz").name == source.name  # the content counts, not the file
    np.savez(tmp_path / "c.npz", **arrays(train_labels=(np.arange(12) + 1) % 3))
    assert npz_source(tmp_path / "c.npz").name != source.name


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"train_images": np.zeros((12, 5, 4, 3))}, "train_images .* must be uint8"),
        ({"test_images": np.zeros((6, 5, 4), dtype=np.uint8)}, "test_images .* must be uint8"),
        ({"train_images": np.zeros((0, 5, 4, 3), dtype=np.uint8)}, "not empty"),
        ({"train_labels": np.arange(11) % 3}, "12 train_images and 11 train_labels"),
        ({"test_labels": np.zeros(6)}, "test_labels .* whole numbers"),
        ({"test_labels": np.zeros((6, 1), dtype=int)}, "test_labels .* whole numbers"),
        ({"train_labels": np.arange(12) - 1}, "has the label -1"),
        ({"train_labels": np.arange(12) + 10**9}, "number the classes"),
        ({"test_labels": np.arange(6)}, "test samples of class 5"),
        ({"test_images": np.zeros((6, 4, 5, 3), dtype=np.uint8)}, "differ in size"),
        ({"train_labels": np.array([None] * 12)}, "cannot be read as an .npz of plain arrays"),
    ],
)
def test_a_bad_npz_is_refused(tmp_path: Path, changes: dict, sentence: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays(**changes))
    with pytest.raises(InputError, match=sentence):
        npz_source(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (
            np.zeros((6, 3, 8, 8), dtype=np.uint8),
            r"looks like \[N, C, H, W\].*transpose\(0, 2, 3, 1\)",
        ),
        (np.zeros((6, 1, 28, 28), dtype=np.uint8), r"must be \[N, H, W, C\]"),
        (np.zeros((6, 8, 8), dtype=np.uint8), r"images\[\.\.\., None\]"),
        (np.zeros((6, 8, 8, 3), dtype=np.float32), "multiply pixels in .0, 1. by 255"),
    ],
    ids=["channels_first", "grey_channels_first", "without_channels", "real_valued"],
)
def test_an_npz_of_another_layout_says_how_to_convert_it(
    tmp_path: Path, images: np.ndarray, sentence: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays(train_images=images))
    with pytest.raises(InputError, match=sentence):
        npz_source(tmp_path / "a.npz")


def test_an_npz_that_is_missing_broken_or_incomplete_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        npz_source(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", images=np.zeros(3), train_labels=np.zeros(3))
    with pytest.raises(
        InputError,
        match="lacks train_images, test_images, test_labels; it has images, train_labels",
    ):
        npz_source(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", **arrays())
    file_bytes = (tmp_path / "b.npz").read_bytes()
    for content in (b"", b"junk", file_bytes[: len(file_bytes) // 2]):
        (tmp_path / "b.npz").write_bytes(content)
        with pytest.raises(InputError, match="cannot be read"):
            npz_source(tmp_path / "b.npz")


def write_folder(root: Path, *, trees: tuple[str, ...] = ("train", "test"), count: int = 4) -> None:
    from PIL import Image

    for tree in trees:
        for label, name in enumerate(("cat", "dog")):
            (root / tree / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.full(
                    (6, 8, 3), 40 * label + 10 * i + 100 * (tree == "test"), dtype=np.uint8
                )
                Image.fromarray(pixels).save(root / tree / name / f"{i}.png")
    (root / trees[0] / "cat" / "notes.txt").write_text("no image")


def test_a_folder_with_train_and_test(tmp_path: Path) -> None:
    write_folder(tmp_path)
    source = image_folder_source(tmp_path, (6, 8))
    assert source.class_names == ("cat", "dog") and source.input_size == (3, 6, 8)
    assert source.labels().tolist() == [0] * 4 + [1] * 4 and source.test_indices.tolist() == list(
        range(8, 16)
    )
    assert source.train["image"][:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40, 50, 60, 70]
    assert source.test["image"][5].unique().tolist() == [150]
    small = image_folder_source(tmp_path, 4)
    assert small.input_size == (3, 4, 4) and small.name != source.name
    assert image_folder_source(tmp_path, (6, 8)).name == source.name


def test_a_resized_image_is_pillows(tmp_path: Path) -> None:
    from PIL import Image

    write_folder(tmp_path)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8))
    picture.save(tmp_path / "train" / "cat" / "0.png")  # grey: becomes RGB
    expected = np.asarray(
        picture.convert("RGB").resize((8, 6), Image.Resampling.BILINEAR)
    ).transpose(2, 0, 1)
    assert np.array_equal(image_folder_source(tmp_path, (6, 8)).train["image"][0].numpy(), expected)


def test_one_tree_gives_its_share_to_the_test_set(tmp_path: Path) -> None:
    write_folder(tmp_path, trees=("",), count=10)
    source = image_folder_source(tmp_path, 8, test_fraction=0.3, seed=1)
    assert np.bincount(source.labels("test")).tolist() == [3, 3] and len(source.train_indices) == 14
    other = image_folder_source(tmp_path, 8, test_fraction=0.3, seed=2)
    assert not np.array_equal(source.test_indices, other.test_indices)
    shared = np.intersect1d(source.test_indices, other.train_indices)
    assert torch.equal(source.view(shared).stored("image"), other.view(shared).stored("image"))


def test_bad_folders_are_refused(tmp_path: Path) -> None:
    def refused(sentence: str, **arguments) -> None:
        with pytest.raises(InputError, match=sentence):
            image_folder_source(tmp_path / "data", **{"size": 8, **arguments})

    refused("there is no folder")
    write_folder(tmp_path / "data", trees=("train",))
    refused("has no test set; give test_fraction")
    (tmp_path / "data" / "test").mkdir()
    refused("no class folders")
    (tmp_path / "data" / "test" / "bird").mkdir()
    refused("class `bird`")
    (tmp_path / "data" / "test" / "bird").rename(tmp_path / "data" / "test" / "dog")
    refused("holds no image")
    (tmp_path / "data" / "test" / "dog" / "a.png").write_bytes(b"no image")
    refused("cannot be read")
    refused("test_fraction must be left out", test_fraction=0.5)
    refused("at least 1 pixel", size=0)
    write_folder(tmp_path / "flat", trees=("",), count=2)
    for fraction, sentence in (
        (1.5, "between 0 and 1"),
        (0.99, "without training images"),
        (0.1, "no test image"),
    ):
        with pytest.raises(InputError, match=sentence):
            image_folder_source(tmp_path / "flat", 8, test_fraction=fraction)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_cifar(
    kind, folder: Path, monkeypatch, entries: dict[str, dict], names: list[str]
) -> None:
    """A tiny CIFAR in the official format, its MD5 sums made known to torchvision."""
    folder.mkdir(parents=True)
    for name, content in {**entries, kind.meta["filename"]: {kind.meta["key"]: names}}.items():
        (folder / name).write_bytes(pickle.dumps(content))
    for which in ("train_list", "test_list"):
        files = [file for file, _ in getattr(kind, which)]
        monkeypatch.setattr(kind, which, [[file, md5(folder / file)] for file in files])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5(folder / kind.meta["filename"])})


def test_cifar10_is_read_from_the_official_files(tmp_path: Path, monkeypatch) -> None:
    from torchvision.datasets import CIFAR10

    pixels = np.random.default_rng(0).integers(0, 256, (6, 2, 3072), dtype=np.uint8)
    files = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    entries = {
        file: {"data": pixels[i], "labels": [i, (i + 1) % 10]} for i, file in enumerate(files)
    }
    write_cifar(CIFAR10, tmp_path / "cifar-10-batches-py", monkeypatch, entries, list("abcdefghij"))
    source = cifar10_source(tmp_path)
    assert (
        source.name == "cifar10"
        and source.num_classes == 10
        and source.mean == (0.4914, 0.4822, 0.4465)
    )
    assert np.array_equal(source.train["image"].numpy(), pixels[:5].reshape(10, 3, 32, 32))
    assert np.array_equal(source.test["image"].numpy(), pixels[5].reshape(2, 3, 32, 32))
    assert source.labels().tolist() == [
        0,
        1,
        1,
        2,
        2,
        3,
        3,
        4,
        4,
        5,
    ] and source.test_indices.tolist() == [10, 11]
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(pickle.dumps("not official"))
    with pytest.raises(InputError, match="not the official ones"):
        cifar10_source(tmp_path)


def test_cifar100_superclasses_keep_the_class(tmp_path: Path, monkeypatch) -> None:
    from torchvision.datasets import CIFAR100

    pixels = np.zeros((100, 3072), dtype=np.uint8)
    entries = {
        name: {"data": pixels, "fine_labels": list(range(100))} for name in ("train", "test")
    }
    write_cifar(CIFAR100, tmp_path / "cifar-100-python", monkeypatch, entries, FINE)
    assert cifar100_source(tmp_path).labels().tolist() == list(range(100))
    source = cifar100_source(tmp_path, superclasses=True)
    assert source.num_classes == 20 and np.bincount(source.labels()).tolist() == [5] * 20
    # specs 4.2: Rocket 69, Mushroom 51, Baby 2, Lamp 40, Sea 71
    parents = {
        69: "vehicles 2",
        51: "fruit and vegetables",
        2: "people",
        40: "household electrical devices",
        71: "large natural outdoor scenes",
    }
    for fine, parent in parents.items():
        assert source.class_names[source.labels()[fine]] == parent
    split = split_source(source, ByClass(69), by="fine_label")
    assert split.parts["forget"].tolist() == [69] and split.parts["test_forget"].tolist() == [169]


def test_the_superclasses_hold_every_class_once() -> None:
    assert len(FINE) == len(set(FINE)) == 100 and len(CIFAR100_SUPERCLASSES) == 20


def test_svhn_is_read_from_the_official_files(tmp_path: Path, monkeypatch) -> None:
    import scipy.io
    from torchvision.datasets import SVHN

    rng = np.random.default_rng(0)
    labels = {}
    pixels = {
        part: rng.integers(0, 256, (32, 32, 3, 4), dtype=np.uint8) for part in ("train", "test")
    }
    for part in ("train", "test"):
        file = tmp_path / f"{part}_32x32.mat"
        scipy.io.savemat(file, {"X": pixels[part], "y": np.array([[10], [1], [2], [9]])})
        labels[part] = [SVHN.split_list[part][0], file.name, md5(file)]
    monkeypatch.setattr(SVHN, "split_list", labels)
    source = svhn_source(tmp_path)
    assert source.labels().tolist() == [0, 1, 2, 9] and source.test_indices.tolist() == [4, 5, 6, 7]
    assert np.array_equal(source.test["image"].numpy(), pixels["test"].transpose(3, 2, 0, 1))


@pytest.mark.parametrize(
    ("read", "wanted"),
    [
        (cifar10_source, "cifar-10-batches-py"),
        (cifar100_source, "cifar-100-python"),
        (svhn_source, "train_32x32.mat"),
    ],
)
def test_a_missing_folder_says_what_to_put_where(tmp_path: Path, read, wanted: str) -> None:
    with pytest.raises(InputError, match=f"put `{wanted}` there"):
        read(tmp_path / "nowhere")

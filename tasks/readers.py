"""Readers of data sets into memory as a `Source`, without downloads."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mu.utils.errors import InputError
from tasks.image_folders import image_folder_source
from tasks.selectors import draw
from tasks.tensor_data import Source, drawn_source, fixed_source, pixel_stats

__all__ = [
    "Source",
    "cifar10_source",
    "cifar100_source",
    "diabetes_source",
    "digits_source",
    "image_folder_source",
    "npz_source",
    "pixel_stats",
    "svhn_source",
]
NPZ_KEYS = ("train_images", "train_labels", "test_images", "test_labels")
MAX_CHANNELS = 4
MAX_CLASSES = 1_000_000  # larger labels are identifiers, not class numbers
CIFAR100_SUPERCLASSES = {  # the 20 superclasses of CIFAR-100 and their classes, from its home page
    "aquatic mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food containers": "bottle bowl can cup plate",
    "fruit and vegetables": "apple mushroom orange pear sweet_pepper",
    "household electrical devices": "clock keyboard lamp telephone television",
    "household furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large carnivores": "bear leopard lion tiger wolf",
    "large man-made outdoor things": "bridge castle house road skyscraper",
    "large natural outdoor scenes": "cloud forest mountain plain sea",
    "large omnivores and herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium-sized mammals": "fox porcupine possum raccoon skunk",
    "non-insect invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles 1": "bicycle bus motorcycle pickup_truck train",
    "vehicles 2": "lawn_mower rocket streetcar tank tractor",
}
# of the training pixels in [0, 1], as the papers state them (specs of Unlearn-Saliency)
CIFAR10_STATS = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
CIFAR100_STATS = ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762))
SVHN_STATS = ((0.4377, 0.4438, 0.4728), (0.1201, 0.1231, 0.1052))
# of all 1,797 scans; a constant, so that models of different seeds agree
DIGITS_STATS = (
    (0.3053,),
    (0.3760,),
)


def digits_source(train_size: int = 500, seed: int = 0, validation_size: int = 0) -> Source:
    """Read scikit-learn's handwritten digits: 1,797 scans of 8x8 pixels with 17 grey levels.

    Args:
        train_size: number of training scans, drawn with the share of each class preserved.
        seed: seed of the draw, the split seed.
        validation_size: number of scans held out (`validation_indices`), drawn in the same way. The
            other scans are the test set.

    Returns:
        A source whose indices are the rows in scikit-learn's order.

    Raises:
        InputError: when a size is out of range.
    """
    from sklearn.datasets import load_digits

    loaded: Any = load_digits(return_X_y=True)  # the stubs of scikit-learn name six types here
    pixels, labels = loaded
    _check_sizes("digits", len(labels), train_size, validation_size)
    if train_size < 10:
        raise InputError(
            f"digits has 10 classes, so train_size must be at least 10, not {train_size}."
        )
    rows = np.arange(len(labels), dtype=np.int64)
    train = _draw_by_class(labels, rows, train_size, seed, "train")
    remaining = np.setdiff1d(rows, train)
    validation = _draw_by_class(labels[remaining], remaining, validation_size, seed, "validation")
    images = torch.from_numpy(pixels.astype(np.uint8)).view(-1, 1, 8, 8)
    fields = {"image": images, "label": torch.from_numpy(labels.astype(np.int64))}
    held_in = np.union1d(train, validation)
    return drawn_source(
        "digits",
        fields,
        held_in,
        num_classes=10,
        class_names=tuple("0123456789"),
        mean=DIGITS_STATS[0],
        std=DIGITS_STATS[1],
        input_size=(1, 8, 8),
        image_scale=16.0,
        validation_indices=validation,
    )


def diabetes_source(train_size: int = 353, seed: int = 0, validation_size: int = 0) -> Source:
    """Read scikit-learn's diabetes data: 442 patients, 10 measurements, for regression.

    The target is the progression after a year (25 to 346). `input` has been standardised with mean
    and deviation (ddof 0) of the `train_size` training rows; `target` is raw, its mean and
    deviation over the same rows are in the source. Indices are the rows in scikit-learn's order.
    Arguments as in `digits_source`, drawn uniformly.
    """
    from sklearn.datasets import load_diabetes

    loaded: Any = load_diabetes(return_X_y=True, scaled=False)
    measured, progression = loaded
    _check_sizes("diabetes", len(progression), train_size, validation_size)
    if train_size < 2:
        raise InputError(
            f"diabetes needs a train_size of at least 2 to be standardised, not {train_size}."
        )
    rows = np.arange(len(progression), dtype=np.int64)
    train = draw(rows, train_size, seed, "train")
    validation = draw(np.setdiff1d(rows, train), validation_size, seed, "validation")
    mean = measured[train].mean(0)
    std = measured[train].std(0)
    std[std == 0] = 1.0  # a column that is constant on a few training rows is only centred
    fields = {
        "input": torch.from_numpy(((measured - mean) / std).astype(np.float32)),
        "target": torch.from_numpy(progression.astype(np.float32)),
    }
    return drawn_source(
        "diabetes",
        fields,
        np.union1d(train, validation),
        num_classes=None,
        class_names=(),
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        input_size=(10,),
        target_mean=float(progression[train].mean()),
        target_std=float(progression[train].std()),
        validation_indices=validation,
    )


def cifar10_source(root: str | Path) -> Source:
    """Read CIFAR-10 from `root/cifar-10-batches-py`; test image i has index 50,000 + i.

    The official files are pickles; torchvision reads them only if their MD5 sums match.
    """
    from torchvision.datasets import CIFAR10

    train, test = _cifar(CIFAR10, root, "CIFAR-10", "cifar-10-batches-py", "cifar-10-python.tar.gz")
    data = [(_nchw(part.data), part.targets) for part in (train, test)]
    return fixed_source("cifar10", data[0], data[1], tuple(train.classes), CIFAR10_STATS)


def cifar100_source(root: str | Path, superclasses: bool = False) -> Source:
    """Read CIFAR-100 from `root/cifar-100-python` (pickles, see `cifar10_source`).

    With `superclasses` the label is one of the 20 superclasses and `fine_label` is the class, for
    sub-class forgetting: `split_source(source, ByClass(69), by="fine_label")`.
    """
    from torchvision.datasets import CIFAR100

    train, test = _cifar(CIFAR100, root, "CIFAR-100", "cifar-100-python", "cifar-100-python.tar.gz")
    data = [(_nchw(part.data), part.targets) for part in (train, test)]
    source = fixed_source("cifar100", data[0], data[1], tuple(train.classes), CIFAR100_STATS)
    if not superclasses:
        return source
    parent = _superclass_of(train.classes)
    fine = source.field("label"), source.field("label", "test")
    fields = [
        {**part, "label": parent[label], "fine_label": label}
        for part, label in zip((source.train, source.test), fine, strict=True)
    ]
    return replace(
        source,
        name="cifar100-superclasses",
        train=fields[0],
        test=fields[1],
        num_classes=len(CIFAR100_SUPERCLASSES),
        class_names=tuple(CIFAR100_SUPERCLASSES),
        label_names={"fine_label": source.class_names},
    )


def svhn_source(root: str | Path) -> Source:
    """Read SVHN (cropped digits) from `root/{train,test}_32x32.mat`.

    Test image i has index 73,257 + i.
    """
    from torchvision.datasets import SVHN

    train, test = (
        _official(SVHN, root, "SVHN", f"{part}_32x32.mat", f"{part}_32x32.mat", split=part)
        for part in ("train", "test")
    )
    return fixed_source(
        "svhn",
        (train.data, train.labels),
        (test.data, test.labels),
        tuple("0123456789"),
        SVHN_STATS,
    )


def npz_source(path: str | Path) -> Source:
    """Read images from an `.npz` file; test image i has index N_train + i.

    Args:
        path: file with `train_images`, `test_images` (uint8 `[N, H, W, C]`) and `train_labels`,
            `test_labels` (integers `[N]`, from 0).

    Returns:
        A source named by the hash of its content, with mean and deviation of its training pixels.

    Raises:
        InputError: when the file or an array is missing or malformed.
    """
    arrays = _read_npz(Path(path))
    for part in ("train", "test"):
        _check_images(path, part, arrays[f"{part}_images"], arrays[f"{part}_labels"])
    train = arrays["train_images"]
    test = arrays["test_images"]
    if train.shape[1:] != test.shape[1:]:
        raise InputError(
            f"training and test images of {path} differ in size: {train.shape[1:]} and "
            f"{test.shape[1:]}."
        )
    num_classes = int(arrays["train_labels"].max()) + 1
    if arrays["test_labels"].max() >= num_classes:
        raise InputError(
            f"{path} has test samples of class {arrays['test_labels'].max()}, and no training "
            "sample of it."
        )
    images = _nchw(train)
    name = f"npz-{_digest(*(arrays[key] for key in NPZ_KEYS))}"
    class_names = tuple(map(str, range(num_classes)))
    both = (images, arrays["train_labels"]), (_nchw(test), arrays["test_labels"])
    return fixed_source(name, *both, class_names, pixel_stats(images))


def _draw_by_class(
    labels: np.ndarray, indices: np.ndarray, count: int, seed: int, purpose: str
) -> np.ndarray:
    """Stratified sample of `count` indices, rounded by the largest remainders."""
    classes, sizes = np.unique(labels, return_counts=True)
    exact = sizes * count / sizes.sum()
    quota = np.floor(exact).astype(np.int64)
    largest = np.lexsort((classes, quota - exact))[: count - quota.sum()]
    quota[largest] += 1
    drawn = [
        draw(indices[labels == label], int(n), seed, purpose)
        for label, n in zip(classes, quota, strict=True)
    ]
    return np.sort(np.concatenate(drawn))


def _check_sizes(name: str, total: int, train_size: int, validation_size: int) -> None:
    if train_size < 1 or validation_size < 0 or train_size + validation_size >= total:
        raise InputError(
            f"{name} has {total} samples: a train_size of {train_size} and a validation_size of "
            f"{validation_size} leave no test set or no training set."
        )


def _nchw(images: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:12]


def _official(
    dataset: Any, root: str | Path, title: str, entry: str, archive: str, **part: Any
) -> Any:
    path = Path(root) / entry
    if not path.exists():
        raise InputError(
            f"there is no {title} in {root}: put `{entry}` there (from the official {archive}), "
            "or give another root."
        )
    try:
        return dataset(str(root), download=False, **part)
    except RuntimeError as error:  # raised by torchvision for a wrong MD5 sum
        raise InputError(
            f"the {title} files in {path} are incomplete or not the official ones; put those of "
            f"{archive} there."
        ) from error


def _cifar(dataset: Any, root: str | Path, title: str, entry: str, archive: str) -> tuple[Any, Any]:
    return tuple(
        _official(dataset, root, title, entry, archive, train=train) for train in (True, False)
    )


def _superclass_of(classes: Sequence[str]) -> Tensor:
    parent = {
        name: index
        for index, names in enumerate(CIFAR100_SUPERCLASSES.values())
        for name in names.split()
    }
    return torch.tensor([parent[name] for name in classes])


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise InputError(
            f"there is no file {path}; it should be an .npz with {', '.join(NPZ_KEYS)}."
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in NPZ_KEYS if key not in archive.files]
            if missing:
                raise InputError(
                    f"{path} lacks {', '.join(missing)}; it has "
                    f"{', '.join(archive.files) or 'nothing'}."
                )
            return {key: archive[key] for key in NPZ_KEYS}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, TypeError) as error:
        raise InputError(f"{path} cannot be read as an .npz of plain arrays ({error}).") from error


def _image_cure(images: np.ndarray) -> str:
    """Clause that names the conversion of an array that is no uint8 [N, H, W, C]."""
    if images.ndim == 3 and 0 not in images.shape:
        return ", so grey images need a last axis, images[..., None]"
    if np.issubdtype(images.dtype, np.floating):
        return ", so multiply pixels in [0, 1] by 255, round, and save them as uint8"
    return ""


def _check_images(path: str | Path, part: str, images: np.ndarray, labels: np.ndarray) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
        raise InputError(
            f"{part}_images of {path} must be uint8 [N, H, W, C], not empty; it is {images.dtype} "
            f"{list(images.shape)}{_image_cure(images)}."
        )
    if images.shape[1] <= MAX_CHANNELS < images.shape[3]:
        raise InputError(
            f"{part}_images of {path} looks like [N, C, H, W], with its shape "
            f"{list(images.shape)}, and must be [N, H, W, C]; save it after "
            "images.transpose(0, 2, 3, 1)."
        )
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"{part}_labels of {path} must be whole numbers [N]; it is {labels.dtype} "
            f"{list(labels.shape)}."
        )
    if len(images) != len(labels):
        raise InputError(
            f"{path} has {len(images)} {part}_images and {len(labels)} {part}_labels; every image "
            "needs one label."
        )
    for label in (labels.min(), labels.max()):
        if not 0 <= label < MAX_CLASSES:
            raise InputError(
                f"{part}_labels of {path} has the label {label}; number the classes 0, 1, 2 and "
                "so on."
            )

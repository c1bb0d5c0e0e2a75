"""Image data sets from a local folder or file."""

from __future__ import annotations

from typing import Any

from tasks.augment import Compose, HorizontalFlip, RandomCrop
from tasks.base import ImageTask
from tasks.readers import (
    cifar10_source,
    cifar100_source,
    image_folder_source,
    npz_source,
    svhn_source,
)
from tasks.selectors import Selector
from tasks.tensor_data import Source

CROP_AND_FLIP = Compose((RandomCrop(4), HorizontalFlip(0.5)))
"""The usual augmentation of 32x32 photographs."""


class Photographs(ImageTask):
    """Images that are usually cropped with 4 pixels of padding and flipped."""

    usual_augmentation = CROP_AND_FLIP


class ArrayImages(Photographs):
    """Images from an `.npz` with `train_images`, `train_labels`, `test_images`, `test_labels`
    (uint8 `[N, H, W, C]`, integers `[N]`).

    Args:
        path: the file.
        selector: what is to be forgotten.
        **kwargs: see ImageTask.
    """

    def __init__(self, path: str, selector: Selector, **kwargs: Any) -> None:
        super().__init__(selector, **kwargs)
        self.path = path

    def source(self) -> Source:
        return npz_source(self.path)


class CIFAR10(Photographs):
    """CIFAR-10 by torchvision from a local folder (`root/cifar-10-batches-py`).

    Args:
        root: torchvision's folder.
        selector: what is to be forgotten.
        **kwargs: see ImageTask.
    """

    def __init__(self, root: str, selector: Selector, **kwargs: Any) -> None:
        super().__init__(selector, **kwargs)
        self.root = root

    def source(self) -> Source:
        return cifar10_source(self.root)


class CIFAR100(Photographs):
    """CIFAR-100 by torchvision from a local folder (`root/cifar-100-python`).

    Args:
        root: torchvision's folder.
        selector: what is to be forgotten.
        superclasses: train on the 20 superclasses; with `by: fine_label` the selector forgets one
            of the 100 (sub-class forgetting).
        **kwargs: see ImageTask.
    """

    def __init__(
        self,
        root: str,
        selector: Selector,
        superclasses: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(selector, **kwargs)
        self.root = root
        self.superclasses = superclasses

    def source(self) -> Source:
        return cifar100_source(self.root, self.superclasses)


class SVHN(ImageTask):
    """Street View House Numbers by torchvision from a local folder (`train_32x32.mat`,
    `test_32x32.mat`); not augmented, as in the papers.

    Args:
        root: torchvision's folder.
        selector: what is to be forgotten.
        **kwargs: see ImageTask.
    """

    def __init__(self, root: str, selector: Selector, **kwargs: Any) -> None:
        super().__init__(selector, **kwargs)
        self.root = root

    def source(self) -> Source:
        return svhn_source(self.root)


class ImageFolder(Photographs):
    """A folder of images: `root/train/CLASS/*` and `root/test/CLASS/*`, or `root/CLASS/*` with a
    test share drawn by the split seed.

    Args:
        root: the folder.
        selector: what is to be forgotten.
        size: side to which images are resized, or (height, width).
        test_fraction: share of every class for the test set, where the folder has no `test`.
        **kwargs: see ImageTask.
    """

    def __init__(
        self,
        root: str,
        selector: Selector,
        size: int | tuple[int, int] = 32,
        test_fraction: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(selector, **kwargs)
        self.root = root
        self.size = size
        self.test_fraction = test_fraction

    def source(self) -> Source:
        return image_folder_source(self.root, self.size, self.test_fraction, self.split_seed)

"""Image classification tasks from local files: CIFAR, SVHN, .npz, image folders."""

from __future__ import annotations

from typing import Any

from tasks.augment import Compose, HorizontalFlip, RandomCrop
from tasks.base import ImageTask
from tasks.image_folders import InMemory
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
"""Customary augmentation of 32x32 photographs."""


class Photographs(ImageTask):
    """Base of photograph tasks, augmented by random crops (padding 4) and flips by default."""

    usual_augmentation = CROP_AND_FLIP


class ArrayImages(Photographs):
    """Images from an `.npz` file.

    The file has `train_images`, `test_images` (uint8 `[N, H, W, C]`) and `train_labels`,
    `test_labels` (integers `[N]`). Parts of the split as in SourceTask.

    Args:
        path: the file.
        selector: chooses the forget set.
        **kwargs: see ImageTask.
    """

    def __init__(self, path: str, selector: Selector, **kwargs: Any) -> None:
        super().__init__(selector, **kwargs)
        self.path = path

    def source(self) -> Source:
        return npz_source(self.path)


class CIFAR10(Photographs):
    """CIFAR-10 from a local folder of torchvision (`root/cifar-10-batches-py`).

    Parts of the split as in SourceTask.

    Args:
        root: folder in torchvision's layout.
        selector: chooses the forget set.
        **kwargs: see ImageTask.

    Example: `CIFAR10("data", RandomFraction(0.1), split_seed=2)`.
    """

    def __init__(self, root: str, selector: Selector, **kwargs: Any) -> None:
        super().__init__(selector, **kwargs)
        self.root = root

    def source(self) -> Source:
        return cifar10_source(self.root)


class CIFAR100(Photographs):
    """CIFAR-100 from a local folder of torchvision (`root/cifar-100-python`).

    Parts of the split as in SourceTask.

    Args:
        root: folder in torchvision's layout.
        selector: chooses the forget set.
        superclasses: train on the 20 superclasses; with `by: fine_label` the selector reads the 100
            classes (sub-class forgetting).
        **kwargs: see ImageTask.

    Example: `CIFAR100("data", ByClass(69), superclasses=True, by="fine_label")`.
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
    """SVHN (Street View House Numbers) from a local folder (`train_32x32.mat`, `test_32x32.mat`).

    Parts of the split as in SourceTask. Not augmented by default, as in the papers.

    Args:
        root: folder in torchvision's layout.
        selector: chooses the forget set.
        **kwargs: see ImageTask.
    """

    def __init__(self, root: str, selector: Selector, **kwargs: Any) -> None:
        super().__init__(selector, **kwargs)
        self.root = root

    def source(self) -> Source:
        return svhn_source(self.root)


class ImageFolder(Photographs):
    """Image folders by class: `root/{train,val,test}/CLASS/*`, or one tree `root/CLASS/*`.

    Parts of the split as in SourceTask. `val` (`valid`, `validation`) is the test set where there
    is no `test`, else the validation set; of one tree, the test set is drawn by the split seed.

    Args:
        root: the folder.
        selector: chooses the forget set.
        size: side of the resized images, or (height, width).
        test_fraction: share of each class for the test set, in (0, 1), where there is neither
            `test` nor `val`.
        in_memory: `true` decodes all images at the start, `false` each when it is read, by the
            loader processes (`workers`); `auto` decodes them at the start where they take at most
            1 GB. Results are the same.
        **kwargs: see ImageTask.
    """

    def __init__(
        self,
        root: str,
        selector: Selector,
        size: int | tuple[int, int] = 32,
        test_fraction: float | None = None,
        in_memory: InMemory = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(selector, **kwargs)
        self.root = root
        self.size = size
        self.test_fraction = test_fraction
        self.in_memory: InMemory = in_memory

    def source(self) -> Source:
        return image_folder_source(
            self.root, self.size, self.test_fraction, self.split_seed, self.in_memory
        )

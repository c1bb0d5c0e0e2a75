"""Data as stacked tensors: a batch is one indexing operation per field."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mu.utils.errors import InputError
from tasks.image_files import ImageFiles

Batch = dict[str, Tensor]
Field = Tensor | ImageFiles
"""Values of all samples: a tensor `[N, ...]`, or images that are decoded when they are read."""


class TensorData(Dataset[Batch]):
    """Data set of stacked tensors with a stable index for each sample.

    A uint8 field `image` is stored as it is (a quarter of the memory) and becomes float32 in [0, 1]
    in a batch, by an exact division by `image_scale`. Batches are copies, so augmentations do not
    change the stored data. Images may be `ImageFiles` in place of a tensor.

    Args:
        fields: `[N, ...]` tensors by name: `image` uint8 or float32 `[N, C, H, W]`, `label` int64
            `[N]`, or `input` float32 `[N, F]`, `target` float32 `[N]`; further fields pass through.
        indices: `[N]` distinct int64, the stable indices of the samples.
        weights: `[N]` float64, weight of each sample in a mean; None means 1 for each.
        image_scale: stored value of a white pixel.

    >>> data = TensorData({"label": torch.tensor([3, 1])}, indices=np.array([10, 11]))
    >>> data[1]
    {'label': tensor(1), 'index': tensor(11)}
    """

    def __init__(
        self,
        fields: Mapping[str, Field],
        indices: np.ndarray,
        weights: np.ndarray | None = None,
        image_scale: float = 255.0,
    ) -> None:
        self.indices = _frozen(indices, np.int64)
        self.weights = None if weights is None else _frozen(weights, np.float64)
        self.image_scale = image_scale
        lengths = {
            "indices": len(self.indices),
            **{name: len(tensor) for name, tensor in fields.items()},
        }
        if self.weights is not None:
            lengths["weights"] = len(self.weights)
        if len(set(lengths.values())) > 1:
            raise InputError(
                f"the fields of the data differ in length ({_listed(lengths)}); every sample "
                "needs each of them."
            )
        if len(np.unique(self.indices)) != len(self.indices):
            raise InputError(
                "two samples of the data share one index; every index must be distinct."
            )
        self._fields: dict[str, Field] = {
            name: values.contiguous() if isinstance(values, Tensor) else values
            for name, values in fields.items()
        }
        self._rows = torch.arange(len(self.indices))  # position -> row of the stored tensors

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Batch:
        """One sample, without a batch dimension."""
        if not -len(self) <= position < len(self):
            raise IndexError(f"position {position} of {len(self)} samples")
        return {
            name: tensor[0] for name, tensor in self.__getitems__([position % len(self)]).items()
        }

    def __getitems__(self, positions: Sequence[int] | Tensor) -> Batch:
        """Batch of the samples at `positions`: fields `[B, ...]`, and `index` `[B]` int64."""
        chosen = torch.as_tensor(positions, dtype=torch.int64)
        rows = self._rows[chosen]
        batch = {name: values.index_select(0, rows) for name, values in self._fields.items()}
        image = batch.get("image")
        if image is not None and image.dtype == torch.uint8:
            batch["image"] = image.to(torch.float32).div_(self.image_scale)
        batch["index"] = self._index[chosen]
        return batch

    @cached_property
    def _index(self) -> Tensor:
        return torch.from_numpy(self.indices.copy())

    def stored(self, name: str) -> Tensor:
        """Copy of a stored field in the order of the view; images are not scaled."""
        if name not in self._fields:
            raise InputError(
                f"the data has no field `{name}`; it has {', '.join(sorted(self._fields))}."
            )
        return self._fields[name].index_select(0, self._rows)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the stored fields."""
        return tuple(self._fields)

    def replace(self, **fields: Tensor) -> TensorData:
        """Copy of the data with other values of some fields.

        Args:
            fields: `[N, ...]` tensors by name, in the order of the view; images as stored.

        >>> data = TensorData({"label": torch.tensor([3, 1])}, indices=np.array([10, 11]))
        >>> data.replace(label=torch.tensor([0, 0]))[1]
        {'label': tensor(0), 'index': tensor(11)}
        """
        stored = {name: subset(values, self._rows) for name, values in self._fields.items()}
        return TensorData({**stored, **fields}, self.indices, self.weights, self.image_scale)

    def view(self, indices: np.ndarray) -> TensorData:
        """View of the samples with these stable indices, in their order, without a copy."""
        requested = np.asarray(indices, dtype=np.int64)
        positions = self._positions(requested)
        if len(np.unique(requested)) != len(requested):
            raise InputError(
                "an index appears twice in one view of the data; each index may appear once."
            )
        part = object.__new__(TensorData)
        part.indices = _frozen(requested, np.int64)
        part.weights = (
            None if self.weights is None else _frozen(self.weights[positions], np.float64)
        )
        part.image_scale = self.image_scale
        part._fields = self._fields
        part._rows = self._rows[torch.from_numpy(positions)]
        return part

    def _positions(self, requested: np.ndarray) -> np.ndarray:
        order = np.argsort(self.indices, kind="stable")
        ordered = self.indices[order]
        rank = np.searchsorted(ordered, requested)
        missing = rank == len(ordered)
        missing[~missing] = ordered[rank[~missing]] != requested[~missing]
        if missing.any():
            raise InputError(
                f"the data has no sample with index {requested[missing][0]} ({missing.sum()} of "
                f"the {len(requested)} requested indices are unknown); the split belongs to other "
                "data."
            )
        return order[rank]


@dataclass(frozen=True, eq=False)
class Source:
    """Data set: training and test samples, with the facts that a model needs.

    Attributes:
        name: name and version of the data, part of the hash of the split. Data with other content
            need another name.
        train, test: `[N, ...]` tensors by field name, see `TensorData`.
        train_indices, test_indices: stable int64 indices, distinct over both. Where the source has
            a fixed test set, test indices follow training indices; where `train` is drawn by a
            seed, they are the rows of the underlying data, the same under every seed.
        num_classes: number of classes, None for regression.
        class_names: one for each class, empty for regression.
        mean, std: for images, of the pixels in [0, 1], one for each channel, applied inside the
            network. For `input`, one for each column, already applied to the data.
        input_size: `(C, H, W)` or `(F,)`.
        image_scale: stored value of a white pixel.
        target_mean, target_std: of the training targets (regression).
        validation_indices: training samples that the source itself holds out for validation.
        label_names: class names of further label fields (`fine_label`), by field.
    """

    name: str
    train: Mapping[str, Field]
    test: Mapping[str, Field]
    train_indices: np.ndarray
    test_indices: np.ndarray
    num_classes: int | None
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: tuple[int, ...]
    image_scale: float = 255.0
    target_mean: float | None = None
    target_std: float | None = None
    validation_indices: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    label_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        indices = np.concatenate([self.train_indices, self.test_indices])
        if len(np.unique(indices)) != len(indices):
            raise InputError(
                f"the data `{self.name}` uses one index for two samples; training and test "
                "indices must be distinct."
            )

    @cached_property
    def train_data(self) -> TensorData:
        """All training samples."""
        return TensorData(self.train, self.train_indices, image_scale=self.image_scale)

    @cached_property
    def test_data(self) -> TensorData:
        """All test samples."""
        return TensorData(self.test, self.test_indices, image_scale=self.image_scale)

    @cached_property
    def _everything(self) -> TensorData:
        both = {
            name: joined(self.train[name], self.test[name])
            for name in self.train.keys() & self.test.keys()
        }
        return TensorData(
            both,
            np.concatenate([self.train_indices, self.test_indices]),
            image_scale=self.image_scale,
        )

    def labels(self, part: str = "train") -> np.ndarray:
        """Labels (int64 `[N]`) or targets (float32 `[N]`) of `train` or `test`."""
        return self.field("target" if self.num_classes is None else "label", part).numpy()

    def field(self, name: str, part: str = "train") -> Tensor:
        """Values of a field other than images in `train` or `test`."""
        values = {"train": self.train, "test": self.test}[part][name]
        assert isinstance(values, Tensor), f"{name} is decoded when it is read"
        return values

    def view(self, indices: np.ndarray) -> TensorData:
        """View of the samples with these indices; only a mix of `train` and `test` is a copy."""
        from_train = np.isin(indices, self.train_indices)
        if from_train.all():
            return self.train_data.view(indices)
        if not from_train.any():
            return self.test_data.view(indices)
        return self._everything.view(indices)

    def relabelled(self, labels: np.ndarray) -> Source:
        """Source with other training labels (label noise); true labels go to `clean_label`.

        Args:
            labels: `[N]` integers in `[0, num_classes)`, in the order of `train_indices`.
        """
        if self.num_classes is None:
            raise InputError(
                f"`{self.name}` has targets, not classes; labels cannot be replaced there."
            )
        labels = np.ascontiguousarray(labels, dtype="<i8")
        if labels.shape != (len(self.train_indices),):
            raise InputError(
                f"{labels.size} labels were given for the {len(self.train_indices)} training "
                f"samples of `{self.name}`."
            )
        if labels.size and not 0 <= labels.min() <= labels.max() < self.num_classes:
            raise InputError(
                f"a given label lies outside the classes of `{self.name}`, which are 0 to "
                f"{self.num_classes - 1}."
            )
        # a model trained on other labels is another original, so its name, which enters the hash of
        # the split, must differ
        name = f"{self.name}-labels-{hashlib.sha256(labels.tobytes()).hexdigest()[:12]}"
        train = {
            **self.train,
            "label": torch.from_numpy(labels.astype(np.int64)),
            "clean_label": self.train["label"],
        }
        return replace(
            self, name=name, train=train, test={**self.test, "clean_label": self.test["label"]}
        )


def _frozen(values: np.ndarray, dtype: type[np.generic]) -> np.ndarray:
    fixed = np.array(values, dtype=dtype)
    fixed.setflags(write=False)
    return fixed


def _listed(lengths: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {length}" for name, length in lengths.items())


def drawn_source(
    name: str, fields: Mapping[str, Tensor], train: np.ndarray, **facts: Any
) -> Source:
    """Source with the rows `train` of the fields as training set and the others as test set."""
    test = np.setdiff1d(np.arange(len(next(iter(fields.values())))), train)
    parts = [
        {key: tensor[torch.from_numpy(rows)] for key, tensor in fields.items()}
        for rows in (train, test)
    ]
    return Source(name, parts[0], parts[1], train, test, **facts)


def fixed_source(
    name: str,
    train: tuple[Any, Any],
    test: tuple[Any, Any],
    class_names: tuple[str, ...],
    stats: tuple[tuple[float, ...], tuple[float, ...]],
    **facts: Any,
) -> Source:
    """Source of uint8 images `[N, C, H, W]` and labels `[N]`; test indices follow the others."""

    def stacked(images: Any, labels: Any) -> dict[str, Tensor]:
        label = torch.as_tensor(np.asarray(labels)).to(torch.int64)
        return {"image": torch.as_tensor(images).contiguous(), "label": label}

    fields = stacked(*train), stacked(*test)
    count = len(fields[0]["label"])
    total = sum(len(part["label"]) for part in fields)
    return Source(
        name,
        train=fields[0],
        test=fields[1],
        train_indices=np.arange(count, dtype=np.int64),
        test_indices=np.arange(count, total, dtype=np.int64),
        num_classes=len(class_names),
        class_names=class_names,
        mean=stats[0],
        std=stats[1],
        input_size=tuple(fields[0]["image"].shape[1:]),
        **facts,
    )


def subset(values: Field, rows: Tensor) -> Field:
    """The values of these rows; images of files are not read."""
    return values.subset(rows) if isinstance(values, ImageFiles) else values.index_select(0, rows)


def joined(first: Field, second: Field) -> Field:
    """Two fields one after the other; images of files are not read."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.cat([first, second])
    assert isinstance(first, ImageFiles) and isinstance(second, ImageFiles), "fields of two types"
    return first.joined(second)


def pixel_stats(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation (ddof 0) of every channel of uint8 `[N, C, H, W]`, scaled to [0, 1].

    A constant channel gets deviation 1, so that it can be divided by.
    """
    levels = torch.arange(256)
    sums = []
    squares = []
    for channel in images.unbind(1):
        counts = torch.bincount(channel.flatten(), minlength=256)
        sums.append(int((counts * levels).sum()))
        squares.append(int((counts * levels**2).sum()))
    return stats_of_sums(sums, squares, images.numel() // images.shape[1])


def stats_of_sums(
    sums: Sequence[int], squares: Sequence[int], count: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation (ddof 0) of every channel, scaled to [0, 1], from whole numbers.

    As the sums are exact, so is the result, in whatever order they were taken.

    Args:
        sums: of the levels (0 to 255) of each channel.
        squares: of the squares of the levels.
        count: pixels of a channel.

    >>> stats_of_sums([255], [255**2], 2)
    ((0.5,), (0.5,))
    """
    means = tuple(total / (255 * count) for total in sums)
    variances = [
        (count * square - total**2) / (255 * count) ** 2
        for total, square in zip(sums, squares, strict=True)
    ]
    return means, tuple(math.sqrt(variance) or 1.0 for variance in variances)

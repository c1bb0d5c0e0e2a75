"""Selectors: choice of the forget set by share, count, file, label noise or value.

A selector maps training labels and stable indices to the stable indices of the forget set. Random
selectors rank the samples by a number that depends on `(seed, index)` alone, so the order of the
data has no effect, and the random 10 % of a seed lie inside its random 50 %.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mu.utils.errors import InputError
from mu.utils.rng import bits


class Selector(ABC):
    """Base of selectors of the forget set."""

    @abstractmethod
    def select(self, labels: np.ndarray, indices: np.ndarray, seed: int) -> np.ndarray:
        """Stable indices of the forget set.

        Args:
            labels: `[N]` integer class labels, or float targets, of the training samples
                (validation already taken out).
            indices: `[N]` int64, stable indices of the training samples.
            seed: the split seed.

        Returns:
            Sorted distinct int64 indices, a subset of `indices`.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Settings of the selector as plain data, part of the hash of the split (without paths)."""

    def required_indices(self) -> np.ndarray:
        """Indices that must stay training samples, excluded from validation; empty by default."""
        return np.empty(0, dtype=np.int64)

    def resolve_names(self, class_names: Sequence[str]) -> Selector:
        """Selector with class numbers in place of names; itself by default.

        Args:
            class_names: one for each class, or none at all.
        """
        return self


@dataclass(frozen=True)
class RandomFraction(Selector):
    """Selector of a random share of the training set.

    Attributes:
        fraction: share in (0, 1); the number of samples is `fraction * N`, rounded half up.
    """

    fraction: float

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise InputError(
                "RandomFraction takes a fraction between 0 and 1 (0.1 forgets 10 %), not "
                f"{self.fraction}."
            )

    def select(self, labels: np.ndarray, indices: np.ndarray, seed: int) -> np.ndarray:
        """Stable indices of the forget set, see `Selector`."""
        _, indices = check_lengths(labels, indices)
        return draw(indices, portion(len(indices), self.fraction), seed, "forget")

    def describe(self) -> dict[str, Any]:
        """Settings of the selector as plain data, see `Selector`."""
        return {"selector": "RandomFraction", "fraction": self.fraction}


@dataclass(frozen=True)
class RandomCount(Selector):
    """Selector of `count` random training samples."""

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"RandomCount takes at least 1 sample, not {self.count}.")

    def select(self, labels: np.ndarray, indices: np.ndarray, seed: int) -> np.ndarray:
        """Stable indices of the forget set, see `Selector`."""
        _, indices = check_lengths(labels, indices)
        if self.count > len(indices):
            raise InputError(
                f"the training set has {len(indices)} samples, so {self.count} of them cannot be "
                "forgotten."
            )
        return draw(indices, self.count, seed, "forget")

    def describe(self) -> dict[str, Any]:
        """Settings of the selector as plain data, see `Selector`."""
        return {"selector": "RandomCount", "count": self.count}


@dataclass(frozen=True)
class IndexFile(Selector):
    """Selector of the samples listed in a file.

    Attributes:
        path: a text file with one index a line (blank lines and lines that begin with `#` are
            skipped), a `.npy` of integers, or a `.json` list of integers.
    """

    path: str | Path

    def select(self, labels: np.ndarray, indices: np.ndarray, seed: int) -> np.ndarray:
        """Stable indices of the forget set, see `Selector`."""
        _, indices = check_lengths(labels, indices)
        listed = self.required_indices()
        unknown = listed[~np.isin(listed, indices)]
        if len(unknown):
            raise InputError(
                f"{self.path} names index {unknown[0]}, which is no training sample "
                f"({len(unknown)} of {len(listed)} indices are not; training indices lie between "
                f"{indices.min()} and {indices.max()})."
            )
        return listed

    def required_indices(self) -> np.ndarray:
        """Sorted indices of the file."""
        listed = _read_indices(Path(self.path))
        values, counts = np.unique(listed, return_counts=True)
        if len(values) != len(listed):
            raise InputError(
                f"{self.path} names index {values[counts > 1][0]} {counts[counts > 1][0]} times; "
                "every index may appear once."
            )
        return values

    def describe(self) -> dict[str, Any]:
        """Settings of the selector as plain data, with the hash of the sorted indices."""
        listed = self.required_indices()
        return {"selector": "IndexFile", "count": len(listed), "sha256": _hash(listed)}


@dataclass(frozen=True)
class NoisyLabels(Selector):
    """Selector of samples with a wrong label (label noise, CIFAR-10N: Wei et al., ICLR 2022).

    The original is trained on the noisy column: pass `noisy_labels` to `Source.relabelled`.

    Attributes:
        path: an `.npz` of label columns, each `[N]` integers; row i belongs to the training sample
            with index i.
        column: name of the column of noisy labels.
        clean_column: name of the column of true labels.
    """

    path: str | Path
    column: str
    clean_column: str = "clean_label"

    def select(self, labels: np.ndarray, indices: np.ndarray, seed: int) -> np.ndarray:
        """Stable indices of the forget set; `labels` must equal one of the two columns."""
        labels, indices = check_lengths(labels, indices)
        noisy = self._rows(self.column, indices)
        clean = self._rows(self.clean_column, indices)
        if not np.array_equal(labels, noisy) and not np.array_equal(labels, clean):
            raise InputError(
                f"the training labels are neither `{self.column}` nor `{self.clean_column}` of "
                f"{self.path}; it was made for other data or another order."
            )
        return np.sort(indices[noisy != clean])

    def noisy_labels(self, indices: np.ndarray) -> np.ndarray:
        """Noisy labels, int64, of the training samples with these indices, in their order."""
        return self._rows(self.column, np.asarray(indices, dtype=np.int64))

    def _rows(self, column: str, indices: np.ndarray) -> np.ndarray:
        values = _read_columns(Path(self.path), (self.column, self.clean_column))[column]
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(values):
            raise InputError(
                f"{self.path} has labels for {len(values)} samples (indices 0 to "
                f"{len(values) - 1}), but the training set has index {indices.max()}."
            )
        return values[indices]

    def describe(self) -> dict[str, Any]:
        """Settings of the selector as plain data, see `Selector`."""
        columns = _read_columns(Path(self.path), (self.column, self.clean_column))
        digests = {
            "noisy_sha256": _hash(columns[self.column]),
            "clean_sha256": _hash(columns[self.clean_column]),
        }
        return {
            "selector": "NoisyLabels",
            "column": self.column,
            "clean_column": self.clean_column,
            **digests,
        }


@dataclass(frozen=True)
class ValueRange(Selector):
    """Selector of samples with a target in `[low, high]`, ends included (regression).

    >>> ValueRange(0, 30).select(np.array([25.0, 31.0]), np.array([7, 8]), seed=0)
    array([7])
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise InputError(f"ValueRange needs low <= high, not {self.low} and {self.high}.")

    def matches(self, values: np.ndarray) -> np.ndarray:
        """Mask of the values in the range, bool."""
        return (values >= self.low) & (values <= self.high)

    def select(self, labels: np.ndarray, indices: np.ndarray, seed: int) -> np.ndarray:
        """Stable indices of the forget set, see `Selector`."""
        labels, indices = check_lengths(labels, indices)
        return np.sort(indices[self.matches(labels)])

    def describe(self) -> dict[str, Any]:
        """Settings of the selector as plain data, with infinite ends as text, for JSON."""
        low, high = (
            float(end) if math.isfinite(end) else str(float(end)) for end in (self.low, self.high)
        )
        return {"selector": "ValueRange", "low": low, "high": high}


def draw(indices: np.ndarray, count: int, seed: int, purpose: str) -> np.ndarray:
    """Random sample of `count` distinct indices, sorted, keyed by `(seed, index, purpose)`.

    The sample has the indices with the smallest keys, so a larger sample contains a smaller one.
    """
    keys = bits(
        seed, torch.from_numpy(np.array(indices, dtype=np.int64)), 0, f"split/{purpose}", 1
    )[:, 0].numpy()
    return np.sort(indices[np.lexsort((indices, keys))[:count]])


def portion(size: int, fraction: float) -> int:
    """`fraction * size`, rounded half up.

    >>> portion(5, 0.5)
    3
    """
    return math.floor(fraction * size + 0.5)


def check_lengths(labels: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels `[N]` and int64 indices `[N]` as arrays.

    Raises:
        InputError: they differ in length.
    """
    labels = np.asarray(labels)
    indices = np.asarray(indices, dtype=np.int64)
    if labels.shape != indices.shape or labels.ndim != 1:
        raise InputError(
            f"labels and indices differ in length: {labels.shape} and {indices.shape}; every "
            "sample needs one of each."
        )
    return labels, indices


def _hash(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values, dtype="<i8").tobytes()).hexdigest()[:16]


def _read_bytes(path: Path) -> bytes:
    if not path.is_file():
        raise InputError(f"there is no file {path}.")
    return path.read_bytes()


def _read_indices(path: Path) -> np.ndarray:
    raw = _read_bytes(path)
    try:
        if path.suffix == ".npy":
            values = np.load(io.BytesIO(raw), allow_pickle=False)
        elif path.suffix == ".json":
            values = _whole_numbers(json.loads(raw))
        else:
            lines = (line.strip() for line in raw.decode().splitlines())
            values = np.array(
                [int(line) for line in lines if line and not line.startswith("#")], dtype=np.int64
            )
    except (ValueError, OverflowError, EOFError) as error:
        raise InputError(f"{path} is not a list of sample indices ({error}).") from error
    if values.ndim != 1 or not (np.issubdtype(values.dtype, np.integer) or values.size == 0):
        raise InputError(
            f"{path} must hold a flat list of whole numbers; it holds {values.dtype} of shape "
            f"{values.shape}."
        )
    return values.astype(np.int64)


def _whole_numbers(values: Any) -> np.ndarray:
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise ValueError("it must be one flat list of whole numbers")
    return np.array(values, dtype=np.int64)


def _read_columns(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    raw = _read_bytes(path)
    try:
        with np.load(io.BytesIO(raw), allow_pickle=False) as archive:
            missing = [name for name in names if name not in archive.files]
            if missing:
                raise InputError(
                    f"{path} has no column `{missing[0]}`; it has {', '.join(archive.files)}."
                )
            columns = {name: archive[name] for name in names}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, TypeError) as error:
        raise InputError(f"{path} is not an .npz file of label columns ({error}).") from error
    for name, values in columns.items():
        if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
            raise InputError(
                f"column `{name}` of {path} must be a flat list of whole numbers; it is "
                f"{values.dtype} {values.shape}."
            )
    if len({len(values) for values in columns.values()}) > 1:
        raise InputError(
            f"the columns of {path} differ in length: "
            + ", ".join(f"{n} {len(v)}" for n, v in columns.items())
            + "."
        )
    return {name: values.astype(np.int64) for name, values in columns.items()}

"""Splits of a task's samples into forget, retain, validation and test, identified by a hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mu.utils.errors import InputError
from mu.utils.files import read_json, write_json


@dataclass(frozen=True, eq=False)
class Split:
    """Indices of the samples to forget, to retain, to validate and to test on; immutable.

    Attributes:
        task: name and version of the data (`digits`), so that equal indices of other data do not
            pass for the same split.
        parts: sorted int64 indices by part name. `forget` and `retain` partition the training set;
            `validation` and `test` were never trained on. Other names (probes) are allowed. Indices
            are unique over all parts.
        selector: settings by which the forget set was chosen, as plain data (in the run's folder
            and in the hash).
        seed: the split seed.
    """

    task: str
    parts: Mapping[str, np.ndarray]
    selector: Mapping[str, Any]
    seed: int
    note: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        parts = {name: np.sort(np.asarray(ids, dtype=np.int64)) for name, ids in self.parts.items()}
        for ids in parts.values():
            ids.setflags(write=False)
        object.__setattr__(self, "parts", parts)
        forget = parts.get("forget")
        retain = parts.get("retain")
        if forget is None or retain is None:
            raise InputError("a split needs the parts `forget` and `retain`.")
        if len(forget) == 0:
            raise InputError(
                f"the forget set is empty: {dict(self.selector)} selects no training sample; "
                "choose another selector."
            )
        if len(retain) == 0:
            raise InputError(
                f"the forget set is the whole training set: {dict(self.selector)} leaves nothing "
                "to retain; select less."
            )
        indices = np.concatenate(list(parts.values()))
        if len(np.unique(indices)) != len(indices):
            raise InputError(
                "a sample is in two parts of the split, or twice in one; each index may appear "
                "once."
            )

    @cached_property
    def train(self) -> np.ndarray:
        """Training set of the original: forget and retain together, sorted."""
        return np.sort(np.concatenate([self.parts["forget"], self.parts["retain"]]))

    @cached_property
    def hash(self) -> str:
        """Hash of data, parts, selector and seed: 16 hexadecimal digits."""
        return _digest(
            self.task,
            self.parts,
            json.dumps(dict(self.selector), sort_keys=True, default=str),
            str(self.seed),
        )

    @cached_property
    def train_hash(self) -> str:
        """Hash of what the *original* depends on: data, training set and validation set."""
        held_out = {name: ids for name, ids in self.parts.items() if name == "validation"}
        return _digest(self.task, {"train": self.train, **held_out})

    def save(self, path: Path | str) -> None:
        """Write the split as JSON, atomically."""
        write_json(
            path,
            {
                "task": self.task,
                "seed": self.seed,
                "selector": dict(self.selector),
                "note": self.note,
                "hash": self.hash,
                "parts": {name: ids.tolist() for name, ids in self.parts.items()},
            },
        )

    @classmethod
    def load(cls, path: Path | str) -> Split:
        """Read a split and check its hash.

        Raises:
            InputError: the file is no split file, or was changed after it was written.
        """
        raw = read_json(path)
        try:
            split = cls(
                raw["task"],
                {name: np.asarray(ids) for name, ids in raw["parts"].items()},
                raw["selector"],
                raw["seed"],
                raw.get("note", ""),
            )
        except InputError as error:
            reason = str(error).partition(";")[0].rstrip(".")
            raise InputError(f"{path} was changed after it was written: {reason}.") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path} is not a split file written by mu ({error}).") from error
        if split.hash != raw.get("hash"):
            raise InputError(
                f"{path} was changed after it was written: its hash does not fit its contents."
            )
        return split


def _digest(task: str, parts: Mapping[str, np.ndarray], *words: str) -> str:
    digest = hashlib.sha256(task.encode())
    for name in sorted(parts):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(parts[name], dtype="<i8").tobytes())
    for word in words:
        digest.update(b"\0" + word.encode())
    return digest.hexdigest()[:16]

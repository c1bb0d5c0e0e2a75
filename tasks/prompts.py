"""Data with prompts, and the task of prompts from CSV files."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mu.data.datamodule import UnlearningDataModule
from mu.data.split import Split
from mu.utils.errors import InputError
from tasks.tensor_data import TensorData


class PromptData(Dataset):
    """Data set of tensors and texts; a batch has a list of strings for each text field.

    Args:
        fields: `[N, ...]` tensors by name, see TensorData (a uint8 `image` becomes float32 in [0,
            1]).
        texts: text fields by name (`prompt`, `substitute`, `concept`), N strings each.
        indices: `[N]` distinct int64, the stable indices of the samples.
    """

    weights = None

    def __init__(
        self, fields: Mapping[str, Tensor], texts: Mapping[str, Sequence[str]], indices: np.ndarray
    ) -> None:
        self._tensors = TensorData(fields, indices)
        self.indices = self._tensors.indices
        wrong = [name for name, values in texts.items() if len(values) != len(self.indices)]
        if wrong:
            raise InputError(
                f"the text field `{wrong[0]}` has {len(texts[wrong[0]])} entries for "
                f"{len(self.indices)} samples."
            )
        self.texts = {name: list(values) for name, values in texts.items()}

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """One sample, without a batch dimension; texts are strings."""
        sample: dict[str, Any] = dict(self._tensors[position])
        return sample | {name: values[position] for name, values in self.texts.items()}

    def __getitems__(self, positions: Sequence[int]) -> dict[str, Any]:
        """Batch of the samples at `positions`; texts are lists of strings."""
        batch: dict[str, Any] = dict(self._tensors.__getitems__(positions))
        return batch | {
            name: [values[int(position)] for position in positions]
            for name, values in self.texts.items()
        }

    def stored(self, name: str) -> Tensor:
        """Stored tensor field, in the order of the view."""
        return self._tensors.stored(name)


class PromptList(UnlearningDataModule):
    """Prompts from two CSV files, one to forget and one to retain, without images.

    The split has the parts `forget` and `retain`. Samples have `prompt`; `concept`, the words to
    erase as the prompt writes them (empty if absent); `substitute`, the prompt with the anchor in
    place of the concept (the anchor alone if absent); and, where the file has the columns, `seed`
    int64 (`evaluation_seed`), `guidance` float32 (`evaluation_guidance`) and `case` int64
    (`case_number`, `case_num`).

    Args:
        path: CSV file with a column `prompt`: the prompts that name the concept.
        retain: CSV file with a column `prompt`: prompts to retain (the retain sets of AdvUnlearn).
        concept: the words to erase; upper and lower case match.
        anchor: replacement of the concept in `substitute`; empty removes the concept.
        limit: most prompts of each file; None reads all.
        batch_size: global batch size in fit.
        eval_batch_size: batch size of one rank in test.
        **kwargs: see UnlearningDataModule.

    Example: `PromptList("van_gogh.csv", "coco.csv", concept="Van Gogh", anchor="a painter")`.
    """

    provides = frozenset({"substitute"})

    def __init__(
        self,
        path: str,
        retain: str,
        concept: str,
        anchor: str = "",
        limit: int | None = None,
        batch_size: int = 5,
        eval_batch_size: int = 50,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, **kwargs)
        self.path = path
        self.retain = retain
        self.concept = concept
        self.anchor = anchor
        self.limit = limit

    def make(self) -> None:
        """Read both files; indices of retain prompts follow those of forget prompts."""
        forget = read_prompts(self.path)[: self.limit]
        retain = read_prompts(self.retain)[: self.limit]
        names = "+".join(Path(path).stem for path in (self.path, self.retain))
        indices = {"forget": np.arange(len(forget)), "retain": len(forget) + np.arange(len(retain))}
        self.split = Split(
            f"prompts-{names}", indices, {"concept": self.concept, "prompts": len(forget)}, 0
        )
        self.datasets = {
            "forget": self._data(forget, indices["forget"]),
            "retain": self._data(retain, indices["retain"]),
        }

    def _data(self, rows: list[dict[str, str]], indices: np.ndarray) -> PromptData:
        prompts = [row["prompt"] for row in rows]
        concepts = [find_concept(prompt, self.concept) for prompt in prompts]
        pairs = zip(prompts, concepts, strict=True)
        substitutes = [
            _replaced(prompt, words, self.anchor) if words else self.anchor
            for prompt, words in pairs
        ]
        fields = {}
        for name, (columns, dtype) in _NUMERIC_COLUMNS.items():
            column = next((c for c in columns if rows and c in rows[0]), None)
            if column is not None:
                fields[name] = torch.tensor([_number(row[column], column, dtype) for row in rows])
        return PromptData(
            fields, {"prompt": prompts, "concept": concepts, "substitute": substitutes}, indices
        )


_NUMERIC_COLUMNS: dict[str, tuple[tuple[str, ...], type]] = {
    "seed": (("evaluation_seed",), int),
    "guidance": (("evaluation_guidance",), float),
    "case": (("case_number", "case_num"), int),
}


def _number(value: str, column: str, dtype: type) -> int | float:
    try:
        return dtype(float(value)) if dtype is float else int(value)
    except ValueError:
        raise InputError(f"the column {column} has {value!r} where a number is expected.") from None


def read_prompts(path: str) -> list[dict[str, str]]:
    """Rows of a CSV file of prompts, by column.

    Raises:
        InputError: when the file is missing, empty, or has no column `prompt`.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or [])
            rows = list(reader)
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"there is no file of prompts at {path}.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a CSV file in UTF-8 ({error}).") from error
    if "prompt" not in columns:
        present = ", ".join(filter(None, columns)) or "none"
        raise InputError(
            f"{path} has no column `prompt`; it has {present}. (Some prompt sets are "
            "published without texts; join the texts on the case number.)"
        )
    if not rows:
        raise InputError(f"{path} has no prompts, only a header.")
    ragged = next(
        (line for line, row in enumerate(rows, 2) if row["prompt"] is None or None in row.values()),
        None,
    )
    if ragged is not None:
        raise InputError(f"line {ragged} of {path} has fewer entries than there are columns.")
    return rows


def find_concept(prompt: str, concept: str) -> str:
    """Concept as the prompt writes it, or an empty string; whole words, case-insensitive.

    >>> find_concept("A Painting by VAN GOGH", "van Gogh")
    'VAN GOGH'
    """
    match = (
        re.search(rf"(?<!\w){re.escape(concept)}(?!\w)", prompt, re.IGNORECASE) if concept else None
    )
    return match.group() if match else ""


def _replaced(prompt: str, words: str, anchor: str) -> str:
    changed = re.sub(rf"(?<!\w){re.escape(words)}(?!\w)", lambda _: anchor, prompt)
    return " ".join(changed.split())

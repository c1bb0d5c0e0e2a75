"""Token sequences in a memory-mapped Arrow file, keyed by content, tokenizer and template."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mu.data.arrow_files import ArrowFile, ListColumn, cached_table
from mu.data.encoding import Encoder
from mu.data.sequences import Pair, count_labelled
from mu.functional.tokens import IGNORED
from mu.utils.cache import cache_folder
from mu.utils.fingerprint import digest, source_hash
from mu.utils.progress import progress_bar
from mu.utils.spec import LIVE, to_spec

_SCHEMA = {"input_ids": "tokens", "start": "int32", "labelled": "int32"}
_BLOCK = 500  # rows between two updates of a progress bar


class TokenFile:
    """Token sequences of samples in the cache.

    Args:
        file: table with `input_ids`, `start` (the first labelled token) and `labelled`, their
            number.
        first: first row.
        count: number of rows; all from `first` on when None.
    """

    def __init__(self, file: ArrowFile, first: int = 0, count: int | None = None) -> None:
        self.file = file
        self.first = first
        self.count = len(file) - first if count is None else count

    def __getstate__(self) -> dict[str, Any]:
        return {"file": self.file, "first": self.first, "count": self.count}

    def __len__(self) -> int:
        return self.count

    @property
    def cuts(self) -> int:
        """Number of distinct sequences whose ends were cut off."""
        return int(self.file.facts["cuts"])

    @cached_property
    def _columns(self) -> tuple[ListColumn, np.ndarray]:
        return ListColumn(self.file, "input_ids"), self.file.fixed("start")

    def pair(self, position: int) -> Pair:
        """Token ids and labels of a sequence."""
        ids, start = self._columns
        row = self.first + position
        tokens = ids[row].tolist()
        return tokens, [IGNORED] * int(start[row]) + tokens[int(start[row]) :]

    @property
    def weights(self) -> np.ndarray:
        """Labelled tokens of each sequence, `[N]` float64."""
        rows = slice(self.first, self.first + self.count)
        return self.file.fixed("labelled")[rows].astype(np.float64)


def encoder_identity(encoder: Encoder) -> str | None:
    """Hash of all that decides the token ids: tokenizer, template, lengths and the encoder's code.

    None where the tokenizer cannot be saved or the template has an argument without a plain form.
    """
    template = json.dumps(to_spec(encoder.template))
    tokenizer = tokenizer_hash(encoder.tokenizer)
    if tokenizer is None or LIVE in template:
        return None
    sources = [source_hash(type(part)) for part in (encoder, encoder.template)]
    return digest([tokenizer, template, *sources, encoder.max_length, encoder.too_long])


def store_tokens(
    encoder: Encoder,
    content: Sequence[Any],
    make: Callable[[dict[str, Any]], Iterable[Pair]],
    title: str,
) -> ArrowFile | None:
    """Table of token sequences in the cache, made first if it is not there.

    Args:
        encoder: tokenizer and template, part of the key.
        content: plain data that identifies the texts and their treatment.
        make: gives the sequences, whose labels are the token ids from some position on.
        title: names the samples, for the message to processes that wait.

    Returns:
        The table; None where the tokenizer or the template cannot be identified.
    """
    identity = encoder_identity(encoder)
    if identity is None:
        return None
    key = hashlib.sha256(json.dumps([identity, *content]).encode()).hexdigest()[:24]

    def rows(facts: dict[str, Any]) -> Iterator[dict[str, Any]]:
        with encoder.counted_cuts() as cut:
            for ids, labels in make(facts):
                start = next((at for at, label in enumerate(labels) if label != IGNORED), len(ids))
                labelled = count_labelled((ids, labels))
                yield {"input_ids": ids, "start": start, "labelled": labelled}
            facts["cuts"] = len(cut)

    path = cache_folder("texts", f"tokens-{key}")
    return cached_table(path, _SCHEMA, rows, f"tokenises {title}")


def tokenizer_hash(tokenizer: Any) -> str | None:
    """Hash of a tokenizer's files; None for one that cannot be saved.

    Truncation and padding are left out, which the last call of a tokenizer sets.
    """
    if not hasattr(tokenizer, "save_pretrained"):
        return None
    sha = hashlib.sha256(f"{type(tokenizer).__qualname__} {version('transformers')}".encode())
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        for file in sorted(Path(folder).rglob("*.*")):
            content = file.read_bytes()
            if file.name == "tokenizer.json":
                state = json.loads(content)
                content = json.dumps({**state, "truncation": None, "padding": None}).encode()
            sha.update(f"{file.name} {len(content)} ".encode() + content)
    return sha.hexdigest()


def counted(count: int, title: str) -> Iterator[int]:
    """Positions from 0 to `count`, with a progress bar."""
    blocks = [range(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK)]
    for block in progress_bar(blocks, f"Tokenising {title}", unit_scale=_BLOCK):
        yield from block

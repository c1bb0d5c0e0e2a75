"""Token sequences with labels: padded batches, keys, and counts of labels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mu.functional.tokens import IGNORED

Pair = tuple[list[int], list[int]]
"""Token ids and labels of one sequence, of equal length."""


def collate(pairs: Sequence[Pair]) -> dict[str, Tensor]:
    """A batch of sequences, padded on the right.

    Padding has id 0, mask 0 and label −100. The mask tells tokens from padding, not the id, because
    many tokenizers pad with a token that also ends sequences.

    Args:
        pairs: B pairs of token ids and labels.

    Returns:
        `input_ids`, `attention_mask`, `labels` `[B, L]` and `key` `[B]`, all int64.

    Example:
        >>> batch = collate([([5, 6], [-100, 6]), ([7], [-100])])
        >>> batch["input_ids"].tolist(), batch["labels"].tolist()
        ([[5, 6], [7, 0]], [[-100, 6], [-100, -100]])
    """
    width = max(len(ids) for ids, _ in pairs)
    ids = np.zeros((len(pairs), width), dtype=np.int64)
    mask = np.zeros_like(ids)
    labels = np.full_like(ids, IGNORED)
    for row, (tokens, targets) in enumerate(pairs):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
        labels[row, : len(targets)] = targets
    columns = {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": labels,
        "key": np.asarray([sequence_key(pair) for pair in pairs]),
    }
    return {name: torch.from_numpy(column) for name, column in columns.items()}


def sequence_key(pair: Pair) -> int:
    """A 63-bit hash of a sequence's tokens and labels."""
    raw = np.asarray(pair, dtype=np.int64).tobytes()
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little") >> 1


def count_labelled(pair: Pair) -> int:
    """Number of labelled tokens of a sequence; the first is never one, as nothing predicts it.

    Example:
        >>> count_labelled(([5, 6, 7], [-100, -100, 7]))
        1
    """
    return sum(label != IGNORED for label in pair[1][1:])

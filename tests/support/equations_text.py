"""Losses of language models restated one sequence and one token at a time, in double precision."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mu.backbones import CausalLM
from mu.data.batch import Batch

Terms = dict[str, float]


def unpadded(part: dict[str, Any]) -> list[tuple[list[int], list[int]]]:
    """Token ids and labels of each sequence, without padding."""
    pairs = []
    for ids, mask, labels in zip(
        part["input_ids"].tolist(),
        part["attention_mask"].tolist(),
        part["labels"].tolist(),
        strict=True,
    ):
        length = sum(mask)
        pairs.append((ids[:length], labels[:length]))
    return pairs


def log_softmax(row: list[float]) -> list[float]:
    """Log-probabilities in Python floats."""
    top = max(row)
    total = top + math.log(sum(math.exp(z - top) for z in row))
    return [z - total for z in row]


@torch.no_grad()
def next_token_logs(model: CausalLM, ids: list[int]) -> list[list[float]]:
    """Log-probabilities of the next token after each one of a single sequence."""
    logits = model.network(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return [log_softmax(row) for row in logits.double().tolist()]


def token_nlls(model: CausalLM, part: Batch) -> list[list[float]]:
    """−log p of each labelled token of each sequence."""
    return [
        [
            -row[label]
            for row, label in zip(next_token_logs(model, ids), labels[1:], strict=False)
            if label != -100
        ]
        for ids, labels in unpadded(part)
    ]


def token_mean(lists: list[list[float]]) -> float:
    """Mean over all tokens of all sequences."""
    return sum(map(sum, lists)) / sum(map(len, lists))


def sequence_nlls(model: CausalLM, part: Batch) -> list[float]:
    """−log p of each sequence."""
    return [sum(values) for values in token_nlls(model, part)]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def kl(model: CausalLM, original: CausalLM, part: Batch) -> float:
    """Mean over the positions that predict a labelled token of Σ_v p_ref (log p_ref − log p)."""
    divergences = []
    for ids, labels in unpadded(part):
        for p, q, label in zip(
            next_token_logs(original, ids), next_token_logs(model, ids), labels[1:], strict=False
        ):
            if label != -100:
                divergences.append(sum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True)))
    return mean(divergences)


@torch.no_grad()
def logits_of(model: CausalLM, ids: list[int]) -> Tensor:
    """`[L, V]` in double precision, of one sequence alone."""
    tokens = torch.tensor([ids])
    return (
        model.eval()
        .predict({"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})[0]
        .double()
    )


def by_token(model: CausalLM, part: dict[str, Any], value: Any) -> list[list[float]]:
    """`value(logits that predict the label, label, sequence, position)` of each labelled token,
    sequence by sequence.
    """
    values = []
    for row, (ids, labels) in enumerate(unpadded(part)):
        logits = logits_of(model, ids)
        values.append(
            [
                float(value(logits[t - 1], labels[t], row, t))
                for t in range(1, len(ids))
                if labels[t] != -100
            ]
        )
    return values


def nll(z: Tensor, y: int, *_: Any) -> Tensor:
    """−log p(y) from the logits of one position."""
    return -z.log_softmax(-1)[y]

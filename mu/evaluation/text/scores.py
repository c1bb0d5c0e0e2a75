"""Token scores of answers: log-likelihood, top-1 hits and moments, in batches by length.

A backbone needs `token_logits` and `generate` only, so models composed of several networks are
measured in the same way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mu.data.sequences import Pair, collate, count_labelled, sequence_key
from mu.functional.tokens import IGNORED
from mu.utils.errors import UndefinedError
from mu.utils.resumable import Chunk, pack_strings

FIELDS = ("log_prob", "hit", "mean", "variance")
"""Values that are stored for every labelled token."""
_ELEMENTS = {"cpu": 2**19}
"""Logits that are normalised in one step: on a CPU as many as fit in its cache."""
_DEFAULT_ELEMENTS = 2**26
NOT_FINITE = (
    "the model's logits hold NaN: the model that was tested has diverged, so nothing can be "
    "measured on it."
)
_LOG_ZERO = -1e4
"""Log-probability whose probability is 0 in any precision."""


@dataclass(frozen=True)
class Scores:
    """Scores of the labelled tokens of P answers.

    Token tensors are ragged: the answers follow one another, `[Σ length]`.

    Attributes:
        index: `[P]` int64, stable index of the row that the answer belongs to.
        row: `[P]` int64, its position in the set; a row with several wrong answers has several
            pairs, one after the other.
        length: `[P]` int64, labelled tokens.
        ended: `[P]` bool, whether the last of them is the end-of-sequence token.
        log_prob: log p of the token, in nats.
        hit: whether the token is the likeliest.
        mean: Σ p log p over the vocabulary.
        variance: Σ p (log p - mean)² over the vocabulary.
        tokens: hash of the exact ids and labels.
    """

    index: Tensor
    row: Tensor
    length: Tensor
    ended: Tensor
    log_prob: Tensor
    hit: Tensor
    mean: Tensor
    variance: Tensor
    tokens: str

    def nll(self) -> Tensor:
        """Average negative log-likelihoods `[P]`, end-of-sequence token included, in float64."""
        owner = torch.repeat_interleave(torch.arange(len(self.length)), self.length)
        summed = torch.zeros(len(self.length), dtype=torch.float64).index_add(
            0, owner, -self.log_prob.double()
        )
        return summed / self.length

    def nll_by_row(self) -> list[Tensor]:
        """Average negative log-likelihoods of the answers of each row."""
        return list(self.nll().split(self.row.unique_consecutive(return_counts=True)[1].tolist()))

    def padded(self, *names: str) -> tuple[list[Tensor], Tensor]:
        """Fields as padded tensors `[P, T]`, and their mask, without the end-of-sequence token."""
        lengths = self.length - self.ended.long()
        width = max(1, int(lengths.max()))
        mask = torch.arange(width) < lengths[:, None]
        start = torch.cat([torch.zeros(1, dtype=torch.int64), self.length.cumsum(0)[:-1]])
        position = (start[:, None] + torch.arange(width)).clamp_max(len(self.log_prob) - 1)
        return [getattr(self, name)[position].masked_fill(~mask, 0) for name in names], mask


@dataclass(frozen=True)
class Texts:
    """Texts that a model generates for N prompts.

    Attributes:
        index: `[N]` int64, stable index of each row.
        texts: N strings.
        tokens: hash of the exact prompts and of the decoding settings.
    """

    index: Tensor
    texts: tuple[str, ...]
    tokens: str


def batches_by_length(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Batches of sequence positions by length, the longest first, under a budget of tokens.

    >>> batches_by_length([2, 5, 3], budget=6)
    [[1], [2, 0]]

    Args:
        lengths: tokens of each sequence.
        budget: most tokens of a batch, padding included (rows times the longest row); a single
            longer sequence is a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    groups: list[list[int]] = []
    for index in order:
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= budget:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


@torch.no_grad()
def token_scores(backbone: Any, batch: Mapping[str, Tensor]) -> Chunk:
    """Values of `FIELDS` for every labelled token of a batch, answer by answer, on the CPU.

    Args:
        backbone: has `token_logits(batch)`.
        batch: batch of `mu.data.sequences.collate`; tokens without a label are skipped.
    """
    device = next(backbone.parameters()).device
    logits, labels = backbone.token_logits(
        {name: value.to(device) for name, value in batch.items()}
    )
    real = labels != IGNORED
    chosen = logits[real]
    targets = labels[real]
    step = max(1, _ELEMENTS.get(device.type, _DEFAULT_ELEMENTS) // logits.shape[-1])
    parts = [
        _scores(chosen[start : start + step], targets[start : start + step])
        for start in range(0, len(targets), step)
    ]
    return {name: torch.cat([part[name] for part in parts]).cpu() for name in FIELDS}


def _scores(logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Values of `FIELDS` from logits `[n, V]`, in single precision at least."""
    log_p = logits.log_softmax(
        -1, dtype=torch.float64 if logits.dtype == torch.float64 else torch.float32
    )
    target_log_p = log_p.gather(-1, targets[:, None])[:, 0]
    p = log_p.exp()
    log_p.clamp_min_(_LOG_ZERO)  # 0 log 0 = 0
    mean = torch.linalg.vecdot(p, log_p)
    variance = torch.linalg.vecdot(p, log_p.sub_(mean[:, None]).square_())
    return {
        "log_prob": target_log_p,
        "hit": logits.argmax(-1) == targets,
        "mean": mean,
        "variance": variance,
    }


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def scores_by_pair(
    chunks: Sequence[Chunk], order: Sequence[Sequence[int]], lengths: Sequence[int]
) -> dict[str, Tensor]:
    """Ragged token tensors in the order of the pairs, from batches in any order.

    Args:
        chunks: results of `token_scores`, one for each batch.
        order: positions of each batch's pairs.
        lengths: labelled tokens of each pair.

    Raises:
        UndefinedError: a log-probability is NaN, and with it every other value of its token.
    """
    indices = [index for batch in order for index in batch]
    back = np.argsort(indices)
    ragged: dict[str, Tensor] = {}
    for name in FIELDS:
        rows = torch.cat([chunk[name] for chunk in chunks]).split(
            [lengths[index] for index in indices]
        )
        ragged[name] = torch.cat([rows[int(position)] for position in back])
    if bool(ragged["log_prob"].isnan().any()):
        raise UndefinedError(NOT_FINITE)
    return ragged


def labelled_lengths(pairs: Sequence[Pair], eos: int) -> tuple[list[int], list[bool]]:
    """Number of labelled tokens of each pair, and whether the last one is the end of sequence."""
    return [count_labelled(pair) for pair in pairs], [pair[1][-1] == eos for pair in pairs]


def tokens_hash(pairs: Sequence[Pair]) -> str:
    """Hash of ids and labels in their order, 16 hexadecimal digits."""
    keys = np.asarray([sequence_key(pair) for pair in pairs], dtype=np.int64)
    return hashlib.sha256(keys.tobytes()).hexdigest()[:16]


@torch.no_grad()
def greedy_continuations(
    backbone: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stop_strings: Sequence[str],
) -> Chunk:
    """Continuations of prompts by greedy decoding, packed, and `nan`: whether logits hold NaN.

    The logits of the first prompt are looked at. The largest of NaN is the first token of the
    vocabulary, which is no answer.

    Args:
        backbone: has `generate(ids, max_new_tokens, stop_strings)`.
        prompts: token ids of each prompt.
        max_new_tokens: most tokens of a continuation.
        stop_strings: strings at which an answer ends.
    """
    texts = backbone.generate(
        [list(ids) for ids in prompts],
        max_new_tokens=max_new_tokens,
        stop_strings=tuple(stop_strings),
    )
    return {**pack_strings(texts), "nan": torch.tensor([_has_nan_logits(backbone, prompts[0])])}


def _has_nan_logits(backbone: Any, prompt: Sequence[int]) -> bool:
    ids = list(prompt) if len(prompt) > 1 else [*prompt, *prompt]
    device = next(backbone.parameters()).device
    batch = collate([(ids, [IGNORED] * (len(ids) - 1) + ids[-1:])])
    logits, labels = backbone.token_logits(
        {name: value.to(device) for name, value in batch.items()}
    )
    return bool(logits[labels != IGNORED].isnan().any())


def gradient_scores(backbone: Any, pairs: Sequence[Pair], p: float, eos: int) -> Chunk:
    """Gradient-norm score of each pair, by one backward pass for each.

    The loss is the mean over the answer's tokens without the end of the sequence, as in the
    reference. See `mu.metrics.memorisation.gradient_norm`. All weights count, trained or frozen;
    their `grad` does not change.
    """
    from mu.metrics.memorisation import gradient_norm

    weights = [weight for weight in backbone.parameters() if weight.is_floating_point()]
    trained = [weight.requires_grad for weight in weights]
    device = weights[0].device
    scores = []
    with torch.inference_mode(False), torch.enable_grad():
        try:
            # frozen weights count too
            for weight in weights:
                weight.requires_grad_(True)
            for pair in pairs:
                logits, labels = backbone.token_logits(
                    {name: value.to(device) for name, value in collate([pair]).items()}
                )
                real = labels != IGNORED
                # the end of the sequence is no token of the answer
                real[:, -1] &= labels[:, -1] != eos
                loss = torch.nn.functional.cross_entropy(
                    _at_least_float32(logits[real]), labels[real]
                )
                scores.append(
                    gradient_norm(torch.autograd.grad(loss, weights, allow_unused=True), p)
                )
        finally:
            for weight, before in zip(weights, trained, strict=True):
                weight.requires_grad_(before)
    return {"score": torch.tensor(scores, dtype=torch.float64)}

"""Processing of next-token logits: repetition penalty, temperature, top-k, top-p, sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mu.utils import rng
from mu.utils.errors import InputError


@dataclass(frozen=True)
class Sampling:
    """Sampling from softmax(logits / T) as the argmax of logits / T + Gumbel noise.

    The noise is a function of (seed, key of the prompt, position in the answer), so the answer to a
    prompt depends neither on its neighbours in the batch nor on the number of ranks. Names are
    those of transformers.

    Args:
        temperature: T > 0.
        seed: seed of the noise.
        keys: one number for each prompt; None numbers them. Prompts with equal keys get the same
            noise.
        top_k: likeliest tokens that are drawn from, at least 1; None draws from all.
        top_p: probability in (0, 1] that the drawn tokens have together, the likeliest first.

    Raises:
        InputError: for an argument out of its range.
    """

    temperature: float = 1.0
    seed: int = 0
    keys: Sequence[int] | None = None
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InputError(
                f"temperature is {self.temperature}; it is above 0 (without sampling the "
                "likeliest token is taken)."
            )
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k is {self.top_k}; it is at least 1, or null for all tokens.")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; it is a probability in (0, 1].")

    def scaled(self, logits: Tensor) -> Tensor:
        """Logits `[B, V]` over the temperature in float32, -inf outside of top-k and top-p."""
        from transformers import TopKLogitsWarper, TopPLogitsWarper

        scores: Any = logits.float() / self.temperature
        no_ids: Any = None
        if self.top_k is not None:
            scores = TopKLogitsWarper(self.top_k)(no_ids, scores)
        if self.top_p < 1:
            scores = TopPLogitsWarper(self.top_p)(no_ids, scores)
        return scores

    def add_gumbel_noise(self, logits: Tensor, rows: Sequence[int], position: int) -> Tensor:
        """Scaled logits plus noise `[B, V]` of the prompts `rows`, for an argmax at `position`.

        `position` counts the tokens of the answer, from 0.
        """
        keys = torch.tensor([row if self.keys is None else self.keys[row] for row in rows])
        noise = rng.gumbel(self.seed, keys, position, "token", logits.shape[-1])
        return self.scaled(logits) + noise.to(logits.device)


@dataclass(frozen=True)
class NextToken:
    """Processing of the next-token logits of a batch of prompts.

    Args:
        mask: `[B, L]`, 1 at the prompts' tokens and 0 at padding on their left.
        rows: positions of the prompts, by which `sampling` knows them.
        sampling: sampling of tokens; None leaves the logits for an argmax.
        repetition_penalty: p > 0 by which the positive logits of tokens of the prompt and the
            answer so far are divided, and the negative ones multiplied; 1 changes nothing.
    """

    mask: Tensor
    rows: Sequence[int]
    sampling: Sampling | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if not self.repetition_penalty > 0:
            raise InputError(
                f"repetition_penalty is {self.repetition_penalty}; it is above 0, and 1 changes "
                "nothing."
            )

    def __call__(self, ids: Any, logits: Any) -> Any:
        """Processed logits `[B, V]` after the tokens `ids` `[B, L + answer]`."""
        prompt = self.mask.shape[1]
        mask = self.mask.repeat_interleave(len(ids) // len(self.mask), 0)  # a row for each beam
        if self.repetition_penalty != 1:
            from transformers import RepetitionPenaltyLogitsProcessor

            # padding must not penalise the end token, so an answer does not depend on its batch
            real = torch.where(mask.bool(), ids[:, :prompt], ids[:, prompt - 1 : prompt])
            seen: Any = torch.cat([real, ids[:, prompt:]], 1)
            logits = RepetitionPenaltyLogitsProcessor(self.repetition_penalty)(seen, logits)
        if self.sampling is not None:
            logits = self.sampling.add_gumbel_noise(logits, self.rows, ids.shape[1] - prompt)
        return logits

"""Random sampling of generated tokens by keyed Gumbel noise."""

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
    prompt depends neither on its neighbours in the batch nor on the number of ranks.

    Args:
        temperature: T > 0.
        seed: seed of the noise.
        keys: one number for each prompt; None numbers them. Prompts with equal keys get the same
            noise.

    Raises:
        InputError: for a temperature that is not above 0.
    """

    temperature: float = 1.0
    seed: int = 0
    keys: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InputError(
                f"temperature is {self.temperature}; it is above 0 (without sampling the "
                "likeliest token is taken)."
            )

    def add_gumbel_noise(self, logits: Tensor, rows: Sequence[int], position: int) -> Tensor:
        """Scaled logits plus noise `[B, V]` of the prompts `rows`, for an argmax at `position`.

        `position` counts the tokens of the answer, from 0.
        """
        keys = torch.tensor([row if self.keys is None else self.keys[row] for row in rows])
        noise = rng.gumbel(self.seed, keys, position, "token", logits.shape[-1])
        return logits.float() / self.temperature + noise.to(logits.device)

    def processor(self, rows: Sequence[int], prompt: int) -> list[Any]:
        """Logits processors for `generate` of transformers, after `prompt` tokens with padding."""
        from transformers import LogitsProcessorList

        def process(ids: Any, scores: Any) -> Any:
            return self.add_gumbel_noise(scores, rows, ids.shape[1] - prompt)

        return LogitsProcessorList([process])  # type: ignore[list-item]

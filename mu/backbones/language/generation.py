"""Generation of answers: end tokens, limits of length within the context, batches of prompts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from mu.backbones.language.sampling import NextToken, Sampling
from mu.backbones.language.tokenizer import left_padded
from mu.utils.errors import InputError


@dataclass(frozen=True)
class Decoding:
    """Decoding of answers, by the names of transformers.

    Args:
        stop_strings: strings at which an answer ends.
        sampling: sampling of tokens; None takes the likeliest.
        num_beams: beams of a beam search; 1 is greedy decoding, or sampling.
        repetition_penalty: see `NextToken`.

    Raises:
        InputError: for no beam, or for a beam search with sampling.
    """

    stop_strings: tuple[str, ...] = ()
    sampling: Sampling | None = None
    num_beams: int = 1
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if self.num_beams < 1:
            raise InputError(f"num_beams is {self.num_beams}; it is at least 1.")
        if self.num_beams > 1 and self.sampling is not None:
            raise InputError(
                "a beam search takes the likeliest answers and samples nothing; set num_beams to "
                "1, or leave out the sampling."
            )


class TextGeneration:
    """Generation of answers by a backbone that has a network, a tokenizer and a context."""

    network: Any
    tokenizer: Any
    context: int | None

    @property
    def end_tokens(self) -> list[int]:
        """Token ids at which an answer ends, of the tokenizer and of the generation config."""
        return end_tokens(self.network, self.tokenizer)

    @property
    def repetition_penalty(self) -> float:
        """Repetition penalty of the model's generation config, 1 where it has none."""
        config = getattr(self.network, "generation_config", None)
        return float(getattr(config, "repetition_penalty", None) or 1.0)

    @torch.no_grad()
    def generate(
        self,
        ids: Sequence[Sequence[int]],
        max_new_tokens: int = 200,
        stop_strings: Sequence[str] = (),
        batch_size: int = 32,
        sampling: Sampling | None = None,
        num_beams: int = 1,
        repetition_penalty: float | None = None,
    ) -> list[str]:
        """Continuations of prompts, as text, without the prompt and cut at the first stop string.

        They end at an end token, or where the context of the model is full.

        Args:
            ids: token ids of each prompt.
            max_new_tokens: largest number of new tokens.
            stop_strings: strings at which an answer ends; they are cut off.
            batch_size: prompts at a time, of similar length, padded on the left.
            sampling: sampling of tokens; None takes the likeliest.
            num_beams: beams of a beam search; 1 is greedy decoding, or sampling.
            repetition_penalty: factor by which tokens of the prompt and the answer so far become
                less likely; None takes that of the model's generation config, which mostly is 1.
        """
        penalty = self.repetition_penalty if repetition_penalty is None else repetition_penalty
        decoding = Decoding(tuple(stop_strings), sampling, num_beams, penalty)
        lengths = [len(row) for row in ids]
        limits = new_token_limits(lengths, max_new_tokens, self.context)
        texts = [""] * len(ids)
        for positions, limit in prompt_batches(lengths, limits, batch_size):
            prompts = [ids[position] for position in positions]
            rows = self._continue(prompts, limit, positions, decoding)
            for position, row in zip(positions, rows, strict=True):
                texts[position] = self.decode_answer(row, stop_strings)
        return texts

    def _continue(
        self,
        prompts: list[Sequence[int]],
        max_new_tokens: int,
        positions: Sequence[int],
        decoding: Decoding,
    ) -> list[list[int]]:
        """Generated token ids of a batch of prompts, which the sampling knows by `positions`."""
        pad = self.tokenizer.eos_token_id
        stop_strings = list(decoding.stop_strings)
        tokens, mask = left_padded(prompts, pad, next(self.network.parameters()).device)
        return generated_ids(
            self.network,
            tokens,
            mask,
            max_new_tokens,
            eos_token_id=self.end_tokens,
            pad_token_id=pad,
            num_beams=decoding.num_beams,
            repetition_penalty=1.0,  # done by NextToken, which knows the padding
            logits_processor=[
                NextToken(mask, positions, decoding.sampling, decoding.repetition_penalty)
            ],
            **({"stop_strings": stop_strings, "tokenizer": self.tokenizer} if stop_strings else {}),
        )

    def decode_answer(self, row: Sequence[int], stop_strings: Sequence[str] = ()) -> str:
        """Text of generated token ids, up to an end token or a stop string, without thoughts."""
        answer = before_end(row, self.end_tokens)
        text = without_thoughts(self.tokenizer.decode(answer, skip_special_tokens=True))
        return text[
            : min((text.find(mark) for mark in stop_strings if mark in text), default=len(text))
        ]


def end_tokens(network: Any, tokenizer: Any) -> list[int]:
    """Token ids at which an answer ends: the tokenizer's, then the generation config's.

    Chat models list the end of the turn beside the end of the text in `generation_config`.
    """
    configured = getattr(getattr(network, "generation_config", None), "eos_token_id", None)
    listed = configured if isinstance(configured, list | tuple) else [configured]
    ids = [tokenizer.eos_token_id, *listed]
    return list(dict.fromkeys(int(token) for token in ids if token is not None))


def without_thoughts(text: str) -> str:
    """Text without the block `<think>...</think>` that a reasoning model begins with.

    Example:
        >>> without_thoughts("<think>Where?</think>\\n\\nIn Oslo.")
        'In Oslo.'
    """
    return re.sub(r"\A\s*<think>.*?</think>\s*", "", text, flags=re.DOTALL)


def before_end(row: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Generated token ids up to the first end token.

    Example:
        >>> before_end([5, 6, 1, 7], [1, 2])
        [5, 6]
    """
    return list(row[: next((index for index, token in enumerate(row) if token in ends), len(row))])


def new_token_limits(lengths: Sequence[int], max_new_tokens: int, context: int | None) -> list[int]:
    """Largest number of new tokens after each prompt, within the model's context.

    Args:
        lengths: tokens of each prompt.
        max_new_tokens: largest number of new tokens of any prompt.
        context: most tokens of a sequence; None is no limit.

    Raises:
        InputError: when a prompt fills the context.

    Example:
        >>> new_token_limits([3, 6], max_new_tokens=4, context=8)
        [4, 2]
    """
    longest = max(lengths, default=0)
    if context is not None and longest >= context:
        raise InputError(
            f"a prompt has {longest} tokens and the context of the model {context}, so no answer "
            "can follow; shorten the prompt."
        )
    return [
        max_new_tokens if context is None else min(max_new_tokens, context - length)
        for length in lengths
    ]


def prompt_batches(
    lengths: Sequence[int], limits: Sequence[int], batch_size: int
) -> Iterator[tuple[list[int], int]]:
    """Positions of the prompts of each batch, of similar length, and their common limit.

    Prompts with different limits are kept apart, so an answer does not depend on its batch.

    Args:
        lengths: tokens of each prompt.
        limits: largest number of new tokens after each prompt.
        batch_size: most prompts of a batch.

    Example:
        >>> list(prompt_batches([5, 3, 4], [4, 4, 4], batch_size=2))
        [([1, 2], 4), ([0], 4)]
    """
    order = sorted(range(len(lengths)), key=lambda position: lengths[position])
    for limit, group in groupby(order, key=lambda position: limits[position]):
        positions = list(group)
        for start in range(0, len(positions), batch_size):
            yield positions[start : start + batch_size], limit


def generated_ids(
    network: Any, tokens: Tensor, mask: Tensor, max_new_tokens: int, **settings: Any
) -> list[list[int]]:
    """Generated token ids of each prompt, by `generate` of transformers without its sampling.

    Args:
        network: causal language model of transformers.
        tokens: `[B, L]` int64, prompts padded on the left.
        mask: `[B, L]`, 1 at tokens and 0 at padding.
        max_new_tokens: largest number of new tokens.
        **settings: `eos_token_id`, `pad_token_id`, `num_beams`, `repetition_penalty`,
            `stop_strings`, `logits_processor` and `tokenizer` of transformers.
    """
    from transformers import GenerationConfig, LogitsProcessorList

    live = {name: settings.pop(name, None) for name in ("logits_processor", "tokenizer")}
    live["logits_processor"] = LogitsProcessorList(live["logits_processor"] or [])
    generated = network.generate(
        input_ids=tokens,
        attention_mask=mask,
        generation_config=GenerationConfig(
            do_sample=False, max_new_tokens=max_new_tokens, **settings
        ),
        **{name: value for name, value in live.items() if value is not None},
    )
    return generated[:, tokens.shape[1] :].tolist()

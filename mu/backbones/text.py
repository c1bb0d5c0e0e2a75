"""What a CLIP text encoder is asked for: hidden states of ids or of token embeddings, and where a concept stands."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mu.errors import InputError


def hidden_states(encoder: nn.Module, ids: Tensor, tokens: Tensor | None = None) -> Tensor:
    """Last hidden state after the final norm, `[B, L, D]`.

    Args:
        encoder: a CLIPTextModel.
        ids: `[B, L]`.
        tokens: token embeddings `[B, L, D]` in place of the ids' own. They enter behind the embedding table, so that the ids' own
            embeddings give the plain encoder's result bit for bit.
    """
    if tokens is None:
        return encoder(input_ids=ids)[0]
    table: nn.Module = encoder.get_input_embeddings()  # type: ignore[operator]
    hook = table.register_forward_hook(lambda *_: tokens)
    try:
        return encoder(input_ids=ids)[0]
    finally:
        hook.remove()


class TextStates:
    """Hidden states by prompt: a frozen encoder reads each prompt once."""

    def __init__(self) -> None:
        self._known: dict[bytes, Tensor] = {}
        self._version: Any = None

    def of(self, encoder: nn.Module, ids: Tensor) -> Tensor:
        """Hidden states `[B, L, D]`; those of an encoder that is trained are computed each time, with gradient."""
        weights = list(encoder.parameters())
        if any(weight.requires_grad for weight in weights):
            return hidden_states(encoder, ids)
        # weights that were moved, converted or written to are others, whatever they were when a prompt was read
        version = (id(encoder), weights[0].device, weights[0].dtype, sum(weight._version for weight in weights), weights[0].data_ptr())
        if version != self._version:
            self._known, self._version = {}, version
        keys = [row.numpy().tobytes() for row in ids.cpu()]
        new = [place for place, key in enumerate(keys) if key not in self._known and key not in keys[:place]]
        if new:
            with torch.inference_mode(False), torch.no_grad():
                states = hidden_states(encoder, ids[new].clone())
            for place, state in zip(new, states, strict=True):
                self._known[keys[place]] = state
        return torch.stack([self._known[key] for key in keys])

    def __deepcopy__(self, memo: dict[int, Any]) -> TextStates:
        """A copy knows nothing: its encoder is another."""
        return TextStates()


class TokenIds:
    """Token ids by prompt: a tokenizer reads each prompt once.

    Args:
        tokenizer: of CLIP.
        length: token places L.
    """

    def __init__(self, tokenizer: Any, length: int) -> None:
        self._tokenizer, self._length = tokenizer, length
        self._ids: dict[str, tuple[list[int], bool]] = {}
        self._spans: dict[tuple[str, str], tuple[int, int]] = {}

    def of(self, prompts: Sequence[str]) -> list[list[int]]:
        """Ids `[B, L]`, padded; a prompt that is too long is cut, as in diffusers' pipelines, with a warning."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._ids]
        if new:
            padded = self._tokenizer(new, padding="max_length", max_length=self._length, truncation=True)["input_ids"]
            whole = self._tokenizer(new, truncation=False, verbose=False)["input_ids"]
            self._ids.update({prompt: (list(row), len(ids) > self._length) for prompt, row, ids in zip(new, padded, whole, strict=True)})
        cut = [prompt for prompt in prompts if self._ids[prompt][1]]
        if cut:
            warnings.warn(f"{len(cut)} of {len(prompts)} prompts are cut to {self._length} tokens, {cut[0]!r} for one.", stacklevel=3)
        return [self._ids[prompt][0] for prompt in prompts]

    def span(self, prompt: str, concept: str) -> tuple[int, int]:
        """Where the concept stands in the prompt; (0, 0) for an empty concept. See `find_span`."""
        if not concept:
            return 0, 0
        if (prompt, concept) not in self._spans:
            self._spans[prompt, concept] = find_span(self._tokenizer, self._ids[prompt][0], prompt, concept)
        return self._spans[prompt, concept]


def find_span(tokenizer: Any, row: list[int], prompt: str, concept: str) -> tuple[int, int]:
    """Token positions `[start, end)` of `concept` in the tokenised prompt.

    Tokens are compared, not words, because a word may be several tokens.

    Raises:
        InputError: when the concept has no token, or does not stand in the prompt as far as the encoder reads it.
    """
    wanted = tokenizer(concept, add_special_tokens=False)["input_ids"]
    if not wanted:
        raise InputError(f"the concept {concept!r} has no token; name it by a word.")
    for start in range(1, len(row) - len(wanted) + 1):
        if row[start : start + len(wanted)] == wanted:
            return start, start + len(wanted)
    raise InputError(f"the concept {concept!r} ({len(wanted)} tokens) does not stand in the prompt {prompt!r} within the encoder's "
                     f"{len(row)} places.")

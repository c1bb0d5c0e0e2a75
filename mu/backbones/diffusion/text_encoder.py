"""CLIP text encoder: cached hidden states, token ids, and the token span of a concept."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mu.utils.errors import InputError


def hidden_states(encoder: nn.Module, ids: Tensor, tokens: Tensor | None = None) -> Tensor:
    """Last hidden state after the final norm, `[B, L, D]`.

    Args:
        encoder: a CLIPTextModel.
        ids: `[B, L]`.
        tokens: token embeddings `[B, L, D]` in place of the ids' own. They enter behind the
            embedding table, so that the ids' own embeddings give the plain encoder's result bit for
            bit.
    """
    if tokens is None:
        return encoder(input_ids=ids)[0]
    table: nn.Module = encoder.get_input_embeddings()  # type: ignore[operator]
    hook = table.register_forward_hook(lambda *_: tokens)
    try:
        return encoder(input_ids=ids)[0]
    finally:
        hook.remove()


class FrozenWeights:
    """Detection of changed weights, after which values computed from them are out of date.

    A change is a move, a conversion, a replacement, or a write.

    Autocast counts as a change. The weights of the network are listed once, because going through
    its modules is slow.
    """

    def __init__(self) -> None:
        self._listed: list[nn.Parameter] = []
        self._version: Any = None

    def parameters(self, network: nn.Module) -> list[nn.Parameter]:
        """All parameters of the network, listed once."""
        if not self._listed or next(network.parameters()) is not self._listed[0]:
            self._listed = list(network.parameters())
        return self._listed

    def changed(self, network: nn.Module, device: str) -> bool:
        """Whether the weights changed since the last call."""
        weights = self.parameters(network)
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        last = self._version
        first = weights[0]
        self._version = (
            autocast,
            id(network),
            id(first),
            first.device,
            first.dtype,
            first.data_ptr(),
            sum(w._version for w in weights),
        )
        return self._version != last


class TextStates:
    """Cache of hidden states by prompt for a frozen text encoder."""

    def __init__(self) -> None:
        self._states: dict[bytes, Tensor] = {}
        self._weights = FrozenWeights()

    def encode(self, encoder: nn.Module, ids: Tensor) -> Tensor:
        """Hidden states `[B, L, D]`; a trained encoder is run every time, with gradient."""
        if any(weight.requires_grad for weight in self._weights.parameters(encoder)):
            return hidden_states(encoder, ids)
        if self._weights.changed(encoder, ids.device.type):
            self._states = {}
        keys = [row.numpy().tobytes() for row in ids.cpu()]
        new = [
            position
            for position, key in enumerate(keys)
            if key not in self._states and key not in keys[:position]
        ]
        if new:
            with torch.inference_mode(False), torch.no_grad():
                states = hidden_states(encoder, ids[new].clone())
            for position, state in zip(new, states, strict=True):
                self._states[keys[position]] = state
        return torch.stack([self._states[key] for key in keys])

    def __deepcopy__(self, memo: dict[int, Any]) -> TextStates:
        """Empty cache, because the copy has another encoder."""
        return TextStates()


class TokenIds:
    """Cache of token ids by prompt.

    Args:
        tokenizer: tokenizer of CLIP.
        length: number L of token positions.
    """

    def __init__(self, tokenizer: Any, length: int) -> None:
        self._tokenizer = tokenizer
        self._length = length
        self._ids: dict[str, tuple[list[int], bool]] = {}
        self._spans: dict[tuple[str, str], tuple[int, int]] = {}

    def tokenise(self, prompts: Sequence[str]) -> list[list[int]]:
        """Padded ids `[B, L]`; a prompt that is too long is cut with a warning, as in diffusers."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._ids]
        if new:
            padded = self._tokenizer(
                new, padding="max_length", max_length=self._length, truncation=True
            )["input_ids"]
            uncut_ids = self._tokenizer(new, truncation=False, verbose=False)["input_ids"]
            self._ids.update(
                {
                    prompt: (list(row), len(ids) > self._length)
                    for prompt, row, ids in zip(new, padded, uncut_ids, strict=True)
                }
            )
        cut = [prompt for prompt in prompts if self._ids[prompt][1]]
        if cut:
            warnings.warn(
                f"{len(cut)} of {len(prompts)} prompts are cut to {self._length} tokens, "
                f"{cut[0]!r} for one.",
                stacklevel=3,
            )
        return [self._ids[prompt][0] for prompt in prompts]

    def span(self, prompt: str, concept: str) -> tuple[int, int]:
        """Token span of the concept by `find_span`; (0, 0) for an empty concept."""
        if not concept:
            return 0, 0
        if (prompt, concept) not in self._spans:
            self._spans[prompt, concept] = find_span(
                self._tokenizer, self._ids[prompt][0], prompt, concept
            )
        return self._spans[prompt, concept]


def find_span(tokenizer: Any, row: list[int], prompt: str, concept: str) -> tuple[int, int]:
    """Token positions `[start, end)` of `concept` in the tokenised prompt.

    Tokens are compared, not words, because a word may be several tokens.

    Raises:
        InputError: when the concept has no token, or is not in the prompt as far as the
            encoder reads it.
    """
    concept_ids = tokenizer(concept, add_special_tokens=False)["input_ids"]
    if not concept_ids:
        raise InputError(f"the concept {concept!r} has no token; name it by a word.")
    for start in range(1, len(row) - len(concept_ids) + 1):
        if row[start : start + len(concept_ids)] == concept_ids:
            return start, start + len(concept_ids)
    raise InputError(
        f"the concept {concept!r} ({len(concept_ids)} tokens) does not stand in the prompt "
        f"{prompt!r} within the encoder's {len(row)} places; shorten the prompt or leave it out."
    )

"""Where the adversarial tokens stand beside the tokens of a prompt.

Layouts of UnlearnDiffAtk (Zhang et al., ECCV 2024, arXiv 2310.11868) and AdvUnlearn (Zhang et al.,
NeurIPS 2024, arXiv 2405.15234). Everything is counted in tokens: a word may be several. (The
released AdvUnlearn counts words: `mu.methods.compat.PrefixByWords`.)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mu.utils.errors import InputError
from mu.utils.spec import Reconstructible

FREE = -1
"""Stands in an order where an adversarial token stands in the prompt."""


@dataclass(frozen=True, eq=False)
class Slots:
    """B prompts with places for adversarial tokens.

    Attributes:
        ids: token ids `[B, L]` int64; at the places of adversarial tokens the start token, which
            says nothing about where the text ends.
        slot: `[B, L]` int64, which adversarial token stands at each place, -1 where none does.
        adds: adversarial embeddings are added to the prompt's own, and do not take their place.
    """

    ids: Tensor
    slot: Tensor
    adds: bool = False

    @property
    def count(self) -> int:
        """K: the largest number of adversarial tokens of a prompt."""
        return int(self.slot.max()) + 1

    def fill(self, tokens: Tensor, adversarial: Tensor) -> Tensor:
        """Token embeddings of prompt and adversarial tokens together, `[B, L, D]`; gradients flow
        to both.

        Args:
            tokens: embeddings of `ids`, `[B, L, D]`.
            adversarial: `[B, K, D]`; what a prompt has no place for is left out.
        """
        chosen = adversarial.gather(
            1, self.slot.clamp_min(0)[..., None].expand(-1, -1, adversarial.shape[-1])
        )
        return torch.where(
            self.slot[..., None] >= 0, chosen + tokens if self.adds else chosen, tokens
        )

    def write(self, adversarial: Tensor) -> Tensor:
        """Token ids `[B, L]` of prompt and adversarial tokens `[B, K]` together."""
        return torch.where(self.slot >= 0, adversarial.gather(1, self.slot.clamp_min(0)), self.ids)

    def rows(self, index: Tensor) -> Slots:
        """The chosen prompts."""
        return Slots(self.ids[index], self.slot[index], self.adds)


class Layout(Reconstructible, ABC):
    """An arrangement of prompt and adversarial tokens between start and end token."""

    adds = False

    @abstractmethod
    def order(self, prompt: int) -> list[int]:
        """Left to right: the places `0..prompt-1` of the prompt's tokens that stay, and `FREE` for
        each adversarial token.
        """

    def order_of(self, prompt: list[int], tokenizer: Any) -> list[int]:
        """As `order`, for layouts that look at the tokens themselves."""
        return self.order(len(prompt))

    def insert_slots(self, tokenizer: Any, ids: Tensor) -> Slots:
        """Make room in tokenised prompts.

        Args:
            tokenizer: says which ids are end and padding.
            ids: `[B, L]`, start token first, end token and padding last.

        Raises:
            InputError: when prompt and adversarial tokens together are more than the encoder reads,
                or there is no place at all.
        """
        end = tokenizer.eos_token_id
        padding = tokenizer.pad_token_id
        rows = []
        slots = []
        for row in ids.tolist():
            prompt = row[1 : row.index(end, 1)]
            order = self.order_of(prompt, tokenizer)
            if len(order) + 2 > len(row):
                free = order.count(FREE)
                text = tokenizer.decode(prompt)
                raise InputError(
                    f"{free} adversarial tokens have no room beside the {len(prompt)} of the "
                    f"prompt {text!r} in an encoder of {len(row)} places; take fewer, or a "
                    "shorter prompt."
                )
            positions = [
                position for position, entry in enumerate(order, 1) if entry == FREE or self.adds
            ]
            if not positions:
                raise InputError(
                    f"{type(self).__name__} has no place for an adversarial token in an empty "
                    "prompt; choose another layout."
                )
            written = [
                row[0],
                *(row[0] if entry == FREE else prompt[entry] for entry in order),
                end,
            ]
            rows.append(written + [padding] * (len(row) - len(written)))
            slots.append(
                [
                    positions.index(position) if position in positions else -1
                    for position in range(len(row))
                ]
            )
        like = {"dtype": torch.int64, "device": ids.device}
        return Slots(torch.tensor(rows, **like), torch.tensor(slots, **like), self.adds)


class _Counted(Layout, ABC):
    """Layouts with a given number of adversarial tokens."""

    def __init__(self, tokens: int = 1) -> None:
        if tokens < 1:
            raise InputError(
                f"a layout of {tokens} adversarial tokens attacks nothing; give it at least 1."
            )
        self.tokens = tokens


class Prefix(_Counted):
    """Adversarial tokens, then the prompt.

    Args:
        tokens: how many.
    """

    def order(self, prompt: int) -> list[int]:
        """See Layout."""
        return [FREE] * self.tokens + list(range(prompt))


class Suffix(_Counted):
    """The prompt, then adversarial tokens.

    Args:
        tokens: how many.
    """

    def order(self, prompt: int) -> list[int]:
        """See Layout."""
        return list(range(prompt)) + [FREE] * self.tokens


class Middle(_Counted):
    """Adversarial tokens between the first half of the prompt (the smaller one) and the second.

    Args:
        tokens: how many.
    """

    def order(self, prompt: int) -> list[int]:
        """See Layout."""
        return list(range(prompt // 2)) + [FREE] * self.tokens + list(range(prompt // 2, prompt))


class Insert(_Counted):
    """Adversarial tokens in the prompt at equal intervals, the first before its first token.

    Args:
        tokens: how many.
    """

    def order(self, prompt: int) -> list[int]:
        """See Layout."""
        before = [index * prompt // self.tokens for index in range(self.tokens)]
        order = []
        for position in range(max(prompt, 1)):  # of an empty prompt, all stand at its one place
            order += [FREE] * before.count(position) + ([position] if position < prompt else [])
        return order


class Replace(_Counted):
    """Adversarial tokens in place of the whole prompt.

    Args:
        tokens: how many.
    """

    def order(self, prompt: int) -> list[int]:
        """See Layout."""
        return [FREE] * self.tokens


class PerTokens(Layout):
    """One adversarial token before every so many tokens of the prompt; prompts have different
    numbers of them.

    Args:
        every: tokens of the prompt that go with one adversarial token.
    """

    def __init__(self, every: int = 3) -> None:
        if every < 1:
            raise InputError(
                f"one adversarial token in {every} tokens cannot be; give every at least 1."
            )
        self.every = every

    def order(self, prompt: int) -> list[int]:
        """See Layout."""
        pairs = [
            [FREE, position] if position % self.every == 0 else [position]
            for position in range(prompt)
        ]
        return [entry for pair in pairs for entry in pair]


class Add(Layout):
    """An adversarial embedding is added to that of each token of the prompt. For attacks on
    embeddings.
    """

    adds = True

    def order(self, prompt: int) -> list[int]:
        """See Layout."""
        return list(range(prompt))

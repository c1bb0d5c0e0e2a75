"""Layouts of adversarial tokens in a prompt: prefix, suffix, middle, insert, replace, add.

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
"""Mark of an adversarial token in an order of tokens."""


@dataclass(frozen=True, eq=False)
class Slots:
    """B tokenised prompts with slots for adversarial tokens.

    Attributes:
        ids: token ids `[B, L]` int64; in the slots of adversarial tokens the start token, which
            does not end the text.
        slot: `[B, L]` int64, index of the adversarial token at each position, -1 for none.
        adds: adversarial embeddings are added to those of the prompt, instead of replacing them.
    """

    ids: Tensor
    slot: Tensor
    adds: bool = False

    @property
    def count(self) -> int:
        """Largest number K of adversarial tokens of a prompt."""
        return int(self.slot.max()) + 1

    def fill(self, tokens: Tensor, adversarial: Tensor) -> Tensor:
        """Token embeddings `[B, L, D]` of prompt and adversarial tokens, differentiable in both.

        Args:
            tokens: embeddings of `ids`, `[B, L, D]`.
            adversarial: `[B, K, D]`; tokens without a slot in the prompt are left out.
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
        """Slots of the prompts at `index`."""
        return Slots(self.ids[index], self.slot[index], self.adds)


class Layout(Reconstructible, ABC):
    """Base of layouts: arrangements of prompt and adversarial tokens."""

    adds = False

    @abstractmethod
    def order(self, prompt: int) -> list[int]:
        """Order of tokens: prompt positions `0..prompt-1`, and `FREE` for adversarial tokens."""

    def order_of(self, prompt: list[int], tokenizer: Any) -> list[int]:
        """Order of tokens, for layouts that depend on the token ids of the prompt."""
        return self.order(len(prompt))

    def insert_slots(self, tokenizer: Any, ids: Tensor) -> Slots:
        """Insert slots for adversarial tokens into tokenised prompts.

        Args:
            tokenizer: gives the ids of end and padding.
            ids: `[B, L]`, start token first, end token and padding last.

        Raises:
            InputError: when prompt and adversarial tokens together are more than the encoder reads,
                or there is no slot at all.
        """
        end = tokenizer.eos_token_id
        padding = tokenizer.pad_token_id
        rows = []
        slots = []
        for row in ids.tolist():
            prompt = row[1 : row.index(end, 1)]
            order = self.order_of(prompt, tokenizer)
            # refuse prompts without room or without a slot
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
            # write the row, and the number of the slot at each position
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
    """Base of layouts with a fixed number of adversarial tokens."""

    def __init__(self, tokens: int = 1) -> None:
        if tokens < 1:
            raise InputError(
                f"a layout of {tokens} adversarial tokens attacks nothing; give it at least 1."
            )
        self.tokens = tokens


class Prefix(_Counted):
    """Layout with the adversarial tokens before the prompt.

    Args:
        tokens: number of adversarial tokens.
    """

    def order(self, prompt: int) -> list[int]:
        """Order of prompt and adversarial tokens, see `Layout.order`."""
        return [FREE] * self.tokens + list(range(prompt))


class Suffix(_Counted):
    """Layout with the adversarial tokens after the prompt.

    Args:
        tokens: number of adversarial tokens.
    """

    def order(self, prompt: int) -> list[int]:
        """Order of prompt and adversarial tokens, see `Layout.order`."""
        return list(range(prompt)) + [FREE] * self.tokens


class Middle(_Counted):
    """Layout with the adversarial tokens between the (smaller) first half and the second.

    Args:
        tokens: number of adversarial tokens.
    """

    def order(self, prompt: int) -> list[int]:
        """Order of prompt and adversarial tokens, see `Layout.order`."""
        return list(range(prompt // 2)) + [FREE] * self.tokens + list(range(prompt // 2, prompt))


class Insert(_Counted):
    """Layout with adversarial tokens at equal intervals within the prompt.

    Token i of k, counted from 1, follows i floor(n / (k + 1)) of the prompt's n tokens; before a
    prompt of at most k tokens stand all of them.

    Args:
        tokens: number k of adversarial tokens.

    Example: `Insert(2).order(3)` is `[0, FREE, 1, FREE, 2]`.
    """

    def order(self, prompt: int) -> list[int]:
        """Order of prompt and adversarial tokens, see `Layout.order`."""
        interval = prompt // (self.tokens + 1)
        order = list(range(prompt))
        for index in range(self.tokens, 0, -1):
            order.insert(index * interval, FREE)
        return order


class Replace(_Counted):
    """Layout with the adversarial tokens in place of the whole prompt.

    Args:
        tokens: number of adversarial tokens.
    """

    def order(self, prompt: int) -> list[int]:
        """Order of prompt and adversarial tokens, see `Layout.order`."""
        return [FREE] * self.tokens


class PerTokens(Layout):
    """Layout with one adversarial token before every `every` tokens of the prompt.

    Prompts of different lengths have different numbers of adversarial tokens.

    Args:
        every: number of prompt tokens for one adversarial token.
    """

    def __init__(self, every: int = 3) -> None:
        if every < 1:
            raise InputError(
                f"one adversarial token in {every} tokens cannot be; give every at least 1."
            )
        self.every = every

    def order(self, prompt: int) -> list[int]:
        """Order of prompt and adversarial tokens, see `Layout.order`."""
        pairs = [
            [FREE, position] if position % self.every == 0 else [position]
            for position in range(prompt)
        ]
        return [entry for pair in pairs for entry in pair]


class Add(Layout):
    """Layout that adds an adversarial embedding to each token's; for attacks on embeddings."""

    adds = True

    def order(self, prompt: int) -> list[int]:
        """Order of prompt and adversarial tokens, see `Layout.order`."""
        return list(range(prompt))

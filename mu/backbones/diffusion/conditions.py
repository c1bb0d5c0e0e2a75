"""Conditions of a noise predictor: hidden states, token ids, token embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Condition:
    """A batch of conditions.

    Attributes:
        states: inputs of the denoiser: hidden states of the text encoder `[B, L, D]`, or class
            labels `[B]` int64.
        ids: token ids `[B, L]` int64; None without text.
        tokens: token embeddings, before positions are added, `[B, L, D]`; None where they
            were not requested.
        span: token positions `[start, end)` of the concept, `[B, 2]` int64; (0, 0) where a prompt
            has none.
        added: further conditions by name, each `[B, ...]` (SDXL's pooled text embedding and time
            ids).
    """

    states: Tensor
    ids: Tensor | None = None
    tokens: Tensor | None = None
    span: Tensor | None = None
    added: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.states)

    def rows(self, index: Tensor | slice) -> Condition:
        """Selected conditions."""
        return self._each(lambda value: value[index])

    def repeat(self, count: int) -> Condition:
        """Each condition `count` times, one after the other (a a b b)."""
        return self._each(lambda value: value.repeat_interleave(count, 0))

    def detach(self) -> Condition:
        """Conditions without gradient."""
        return self._each(lambda value: value.detach())

    def where(self, mask: Tensor, other: Condition) -> Condition:
        """Conditions from this batch where `mask` `[B]` is True, and from `other` elsewhere.

        Entries that only one of them has are left out.
        """

        def chosen(a: Tensor | None, b: Tensor | None) -> Tensor | None:
            if a is None or b is None:
                return None
            return torch.where(mask.view(-1, *[1] * (a.dim() - 1)), a, b)

        added = {
            name: chosen(value, other.added[name])
            for name, value in self.added.items()
            if name in other.added
        }
        return Condition(
            torch.where(mask.view(-1, *[1] * (self.states.dim() - 1)), self.states, other.states),
            chosen(self.ids, other.ids),
            chosen(self.tokens, other.tokens),
            chosen(self.span, other.span),
            {name: value for name, value in added.items() if value is not None},
        )

    @staticmethod
    def cat(conditions: Sequence[Condition]) -> Condition:
        """Concatenation of batches, without entries that one of them lacks."""

        def joined(values: Sequence[Tensor | None]) -> Tensor | None:
            present = [value for value in values if value is not None]
            return torch.cat(present) if len(present) == len(values) else None

        names = [f.name for f in fields(Condition) if f.name not in ("added", "states")]
        shared = set.intersection(*(set(c.added) for c in conditions))
        parts = {name: joined([getattr(c, name) for c in conditions]) for name in names}
        added = {name: torch.cat([c.added[name] for c in conditions]) for name in sorted(shared)}
        return Condition(torch.cat([c.states for c in conditions]), **parts, added=added)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Condition:
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "added"}
        return replace(
            self,
            **{name: None if value is None else change(value) for name, value in values.items()},
            added={name: change(value) for name, value in self.added.items()},
        )

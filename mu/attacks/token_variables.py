"""Variables of a prompt search: free token embeddings, or distributions over the vocabulary."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from mu.backbones import TextToImage
from mu.utils import rng
from mu.utils.errors import InputError
from mu.utils.spec import Reconstructible


@dataclass(frozen=True, eq=False)
class Key:
    """Key of the random draws of B prompts.

    Attributes:
        seed: seed of the attack.
        index: `[B]` int64, indices of the prompts.
        visit: `[B]` int64, number of earlier attacks on each prompt.
    """

    seed: int
    index: Tensor
    visit: Tensor

    def rows(self, index: Tensor) -> Key:
        """Keys of the selected prompts."""
        return Key(self.seed, self.index[index], self.visit[index])

    def normal(self, stream: str, *shape: int) -> Tensor:
        """Standard normal draws `[B, *shape]`."""
        return rng.normal(self.seed, self.index, self.visit, stream, *shape)

    def uniform(self, stream: str, *shape: int) -> Tensor:
        """Uniform draws `[B, *shape]` in (0, 1)."""
        return rng.uniform(self.seed, self.index, self.visit, stream, *shape)

    def integers(self, stream: str, high: int, *shape: int) -> Tensor:
        """Uniform integers `[B, *shape]` in `[0, high)`."""
        return rng.integers(self.seed, self.index, self.visit, stream, high, *shape)


class Variables(Reconstructible, ABC):
    """Search variables of adversarial tokens."""

    discrete: bool
    """Whether the result are tokens of the vocabulary, which have a text."""

    @abstractmethod
    def begin(self, model: TextToImage, count: int, key: Key, start: Tensor | None) -> Tensor:
        """Initial values `[B, count, *]`, in float32 at least.

        Variables that can begin from embeddings take those of `start` `[count, D]`.
        """

    @abstractmethod
    def embeddings(self, model: TextToImage, values: Tensor, key: Key, step: int) -> Tensor:
        """Token embeddings `[B, K, D]`, differentiable in `values`."""

    def direction(self, gradient: Tensor) -> Tensor:
        """Gradient for the optimizer."""
        return gradient

    def project(self, values: Tensor, allowed: Tensor) -> Tensor:
        """Projection to the admissible values; `allowed` `[V]` marks the admissible tokens."""
        return values

    @abstractmethod
    def found(self, model: TextToImage, values: Tensor) -> tuple[Tensor, Tensor | None]:
        """Embeddings `[B, K, D]` of the values, and token ids `[B, K]` of discrete ones."""


class Embeddings(Variables):
    """Free token embeddings (AdvUnlearn).

    Args:
        init: `random` begins from the embeddings of random tokens, `latest` from the
            result of the attack before.
        sign: follow the sign of the gradient (fast attack).
    """

    discrete = False

    def __init__(self, init: Literal["random", "latest"] = "random", sign: bool = False) -> None:
        if init not in ("random", "latest"):
            raise InputError(
                f"the search begins from `random` or from `latest`, not from {init!r}."
            )
        self.init = init
        self.sign = sign

    def begin(self, model: TextToImage, count: int, key: Key, start: Tensor | None) -> Tensor:
        """Initial values, see `Variables.begin`."""
        precision = torch.promote_types(embedding_table(model).dtype, torch.float32)
        if self.init == "latest" and start is not None:
            return start.to(precision).expand(len(key.index), -1, -1).clone()
        allowed = vocabulary(model).nonzero().flatten()
        return (
            model.embed(allowed[key.integers("attack-init", len(allowed), count)])
            .detach()
            .to(precision)
        )

    def embeddings(self, model: TextToImage, values: Tensor, key: Key, step: int) -> Tensor:
        """Token embeddings of the values, see `Variables.embeddings`."""
        return values

    def direction(self, gradient: Tensor) -> Tensor:
        """Gradient for the optimizer, see `Variables.direction`."""
        return gradient.sign() if self.sign else gradient

    def found(self, model: TextToImage, values: Tensor) -> tuple[Tensor, Tensor | None]:
        """Embeddings and token ids of the values, see `Variables.found`."""
        return values, None


class TokenSimplex(Variables):
    """Distributions over the vocabulary, one per adversarial token (UnlearnDiffAtk).

    Each step samples a token from it; the gradient passes straight through the sampling, clamped to
    [−1, 1] (hardtanh). Special tokens of the tokenizer (start, end) are left out, because
    they cannot be written in a prompt.

    Args:
        init: `uniform` over the vocabulary, or a `random` point of the simplex.
    """

    discrete = True

    def __init__(self, init: Literal["uniform", "random"] = "uniform") -> None:
        if init not in ("uniform", "random"):
            raise InputError(
                "the search begins from a `uniform` or from a `random` distribution, not from "
                f"{init!r}."
            )
        self.init = init

    def begin(self, model: TextToImage, count: int, key: Key, start: Tensor | None) -> Tensor:
        """Initial values, see `Variables.begin`."""
        allowed = vocabulary(model)
        shape = (count, len(allowed))
        # normalised exponential draws are uniform on the simplex
        weight = (
            -key.uniform("attack-init", *shape).log()
            if self.init == "random"
            else torch.ones(len(key.index), *shape)
        )
        weight = weight.to(allowed.device) * allowed
        return weight / weight.sum(-1, keepdim=True)

    def embeddings(self, model: TextToImage, values: Tensor, key: Key, step: int) -> Tensor:
        """Token embeddings of the values, see `Variables.embeddings`."""
        quantile = key.uniform(f"attack-token-{step}", values.shape[1], 1).to(values.device)
        total = values.detach().cumsum(-1)
        # the last token of the vocabulary whose share is not 0 takes what rounding leaves over
        chosen = torch.searchsorted(total, quantile * total[..., -1:]).clamp_max(
            values.shape[-1] - 1
        )
        return _StraightThrough.apply(values, chosen[..., 0], embedding_table(model))  # type: ignore[return-value]

    def project(self, values: Tensor, allowed: Tensor) -> Tensor:
        """Projection to the admissible values, see `Variables.project`."""
        return simplex_projection(values.masked_fill(~allowed, -torch.inf))

    def found(self, model: TextToImage, values: Tensor) -> tuple[Tensor, Tensor | None]:
        """Embeddings and token ids of the values, see `Variables.found`."""
        ids = values.argmax(-1)
        return model.embed(ids).detach(), ids


class _StraightThrough(torch.autograd.Function):
    """Straight-through embeddings `[B, K, D]`: one-hot tokens times the embedding table.

    The gradient by the one-hot tokens, clamped, goes to the distribution.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, chosen: Tensor, table: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(table)
        return table[chosen]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (table,) = ctx.saved_tensors
        return (gradient @ table.T).float().clamp(-1, 1), None, None


def simplex_projection(values: Tensor, iterations: int = 24) -> Tensor:
    """Euclidean projection of rows `[..., V]` onto the probability simplex.

    `clamp(u − τ, 0, 1)` with τ such that the row's sum is 1.

    τ lies between `max(u) − 1`, where the sum is at least 1, and `max(u)`, where it is 0. Bisection
    finds which entries stay positive, to 2^−`iterations`; τ then follows from them exactly. An
    entry of −inf gets 0.
    """
    high = values.amax(-1, keepdim=True)
    low = high - 1
    for _ in range(iterations):
        middle = (low + high) / 2
        above = (values - middle).clamp(0, 1).sum(-1, keepdim=True) >= 1
        low = torch.where(above, middle, low)
        high = torch.where(above, high, middle)
    positive = values > low
    threshold = (values.masked_fill(~positive, 0).sum(-1, keepdim=True) - 1) / positive.sum(
        -1, keepdim=True
    )
    return (values - threshold).clamp(0, 1)


def vocabulary(model: TextToImage) -> Tensor:
    """Mask of the token ids that a prompt may contain, `[V]` bool over the embedding table."""
    table = embedding_table(model)
    tokenizer = model.tokenizer
    allowed = torch.arange(len(table), device=table.device) < len(tokenizer)
    allowed[torch.tensor(sorted(set(tokenizer.all_special_ids)), device=table.device)] = False
    return allowed


def embedding_table(model: TextToImage) -> Tensor:
    """Token embeddings of the text encoder, `[V, D]`, without gradient."""
    return model.text_encoder.get_input_embeddings().weight.detach()  # type: ignore[operator]

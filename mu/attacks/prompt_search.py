"""Attacks on the prompt of a text-to-image model: a search over adversarial tokens beside the
prompt's own.

Zhang et al., "To Generate or Not? Safety-Driven Unlearned Diffusion Models Are Still Easy To
Generate Unsafe Images ... For Now" (UnlearnDiffAtk), ECCV 2024, arXiv 2310.11868. Zhang et al.,
"Defensive Unlearning with Adversarial Training for Robust Concept Erasure in Diffusion Models"
(AdvUnlearn), NeurIPS 2024, arXiv 2405.15234.

One search serves both: it has a layout (where adversarial tokens stand), variables (what they are:
distributions over the vocabulary, or free embeddings), an optimizer, and an objective that the
caller gives. Each prompt has variables and draws of its own, keyed by its index, so that prompts
searched for in one batch find what each would find alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from mu.attacks.layouts import Layout, Prefix, Slots
from mu.utils import rng
from mu.utils.errors import InputError
from mu.utils.modules import eval_mode
from mu.utils.spec import Reconstructible

if TYPE_CHECKING:
    from mu.backbones import Backbone, Condition, TextToImage

Objective = Callable[["Condition", int], Tensor]
"""`objective(condition, step) -> [B]`, differentiable in the condition; the search decreases it.
`step` counts from 0.
"""


# ---- what is searched for ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Key:
    """What the draws of B prompts depend on, and nothing else.

    Attributes:
        seed: of the attack.
        index: `[B]` int64, each prompt's own.
        visit: `[B]` int64, how often it was attacked before.
    """

    seed: int
    index: Tensor
    visit: Tensor

    def rows(self, index: Tensor) -> Key:
        """The chosen prompts."""
        return Key(self.seed, self.index[index], self.visit[index])

    def normal(self, stream: str, *shape: int) -> Tensor:
        """`[B, *shape]` standard normal."""
        return rng.normal(self.seed, self.index, self.visit, stream, *shape)

    def uniform(self, stream: str, *shape: int) -> Tensor:
        """`[B, *shape]` in (0, 1)."""
        return rng.uniform(self.seed, self.index, self.visit, stream, *shape)

    def integers(self, stream: str, high: int, *shape: int) -> Tensor:
        """`[B, *shape]` in `[0, high)`."""
        return rng.integers(self.seed, self.index, self.visit, stream, high, *shape)


class Variables(Reconstructible, ABC):
    """What an adversarial token is while it is searched for."""

    discrete: bool
    """Whether the search ends in tokens of the vocabulary, which can be written down."""

    @abstractmethod
    def begin(self, model: TextToImage, count: int, key: Key, start: Tensor | None) -> Tensor:
        """`[B, count, *]`, at least in float32. `start` `[count, D]` are embeddings to begin from,
        where the variables can.
        """

    @abstractmethod
    def embeddings(self, model: TextToImage, values: Tensor, key: Key, step: int) -> Tensor:
        """`[B, K, D]`, differentiable in `values`."""

    def direction(self, gradient: Tensor) -> Tensor:
        """What the optimizer takes for the gradient."""
        return gradient

    def project(self, values: Tensor, allowed: Tensor) -> Tensor:
        """The nearest values that may be; `allowed` `[V]` says which tokens may."""
        return values

    @abstractmethod
    def found(self, model: TextToImage, values: Tensor) -> tuple[Tensor, Tensor | None]:
        """Embeddings `[B, K, D]` that the values stand for, and their token ids `[B, K]` where they
        are discrete.
        """


class Embeddings(Variables):
    """Free token embeddings (AdvUnlearn).

    Args:
        init: `random` begins from the embeddings of random tokens, `latest` from what the attack
            before this one has found.
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
        """See Variables."""
        precision = torch.promote_types(_table(model).dtype, torch.float32)
        if self.init == "latest" and start is not None:
            return start.to(precision).expand(len(key.index), -1, -1).clone()
        allowed = vocabulary(model).nonzero().flatten()
        return (
            model.embed(allowed[key.integers("attack-init", len(allowed), count)])
            .detach()
            .to(precision)
        )

    def embeddings(self, model: TextToImage, values: Tensor, key: Key, step: int) -> Tensor:
        """See Variables."""
        return values

    def direction(self, gradient: Tensor) -> Tensor:
        """See Variables."""
        return gradient.sign() if self.sign else gradient

    def found(self, model: TextToImage, values: Tensor) -> tuple[Tensor, Tensor | None]:
        """See Variables."""
        return values, None


class TokenSimplex(Variables):
    """A distribution over the vocabulary for each token (UnlearnDiffAtk).

    Each step samples a token from it; the gradient passes straight through the sampling, clamped to
    [−1, 1] (hardtanh). Tokens with a meaning for the tokenizer (start, end) are left out, because
    nobody can write them into a prompt.

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
        """See Variables."""
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
        """See Variables."""
        place = key.uniform(f"attack-token-{step}", values.shape[1], 1).to(values.device)
        total = values.detach().cumsum(-1)
        # the last token of the vocabulary whose share is not 0 takes what rounding leaves over
        chosen = torch.searchsorted(total, place * total[..., -1:]).clamp_max(values.shape[-1] - 1)
        return _StraightThrough.apply(values, chosen[..., 0], _table(model))  # type: ignore[return-value]

    def project(self, values: Tensor, allowed: Tensor) -> Tensor:
        """See Variables."""
        return simplex_projection(values.masked_fill(~allowed, -torch.inf))

    def found(self, model: TextToImage, values: Tensor) -> tuple[Tensor, Tensor | None]:
        """See Variables."""
        ids = values.argmax(-1)
        return model.embed(ids).detach(), ids


class _StraightThrough(torch.autograd.Function):
    """One-hot tokens times the embedding table, `[B, K, D]`; the gradient of the one-hot, clamped,
    goes to the distribution.
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
    """The nearest point of the probability simplex, of each row `[..., V]`: `clamp(u − τ, 0, 1)`
    with τ such that the row's sum is 1.

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
    kept = values > low
    threshold = (values.masked_fill(~kept, 0).sum(-1, keepdim=True) - 1) / kept.sum(
        -1, keepdim=True
    )
    return (values - threshold).clamp(0, 1)


def vocabulary(model: TextToImage) -> Tensor:
    """Which token ids may stand in a prompt: `[V]` bool over the rows of the embedding table."""
    table = _table(model)
    tokenizer = model.tokenizer
    allowed = torch.arange(len(table), device=table.device) < len(tokenizer)
    allowed[torch.tensor(sorted(set(tokenizer.all_special_ids)), device=table.device)] = False
    return allowed


def _table(model: TextToImage) -> Tensor:
    return model.text_encoder.get_input_embeddings().weight.detach()  # type: ignore[operator]


# ---- the search ----------------------------------------------------------------------------------


class Search:
    """A search under way: B prompts, each with its own variables, all at the same step.

    Attributes:
        slots: prompts with places for the adversarial tokens.
        values: the variables `[B, K, *]`.
        key: of the draws.
        taken: steps made.
    """

    def __init__(
        self, search: PromptSearch, model: TextToImage, slots: Slots, key: Key, start: Tensor | None
    ) -> None:
        self.search = search
        self.model = model
        self.slots = slots
        self.key = key
        self.own = model.embed(slots.ids).detach()
        self._allowed = vocabulary(model)
        start = None if start is None else start[: slots.count]
        self.values = nn.Parameter(search.variables.begin(model, slots.count, key, start))
        self._optimizer = search.optimizer([self.values])
        self.taken = 0

    def step(self, objective: Objective) -> Tensor:
        """One step of each prompt; the objective `[B]` before it."""
        loss = objective(self._condition(), self.taken)
        (gradient,) = torch.autograd.grad(loss.sum(), self.values)
        self.values.grad = self.search.variables.direction(self.descent(gradient))
        self._optimizer.step()
        with torch.no_grad():
            self.values.copy_(self.search.variables.project(self.values, self._allowed))
        self.taken += 1
        return loss.detach()

    def descent(self, gradient: Tensor) -> Tensor:
        """What is followed, of this step's gradient."""
        return gradient

    def _condition(self) -> Condition:
        adversarial = self.search.variables.embeddings(
            self.model, self.values, self.key, self.taken
        )
        return self.model.encode_text(
            self.slots.ids, self.slots.fill(self.own, adversarial.to(self.own.dtype))
        )

    def tokens(self) -> Tensor:
        """What was found, among the prompt's own tokens: embeddings `[B, L, D]`, without
        gradient.
        """
        return self.slots.fill(self.own, self.adversarial().to(self.own.dtype))

    def adversarial(self) -> Tensor:
        """What was found: embeddings `[B, K, D]`, without gradient."""
        return self.search.variables.found(self.model, self.values.detach())[0]

    def texts(self) -> list[str] | None:
        """What was found, written down with the prompt; None where it is no text."""
        ids = self.search.variables.found(self.model, self.values.detach())[1]
        if ids is None:
            return None
        tokenizer = self.model.tokenizer
        rows = self.slots.write(ids).tolist()
        return [
            tokenizer.decode(row[1 : row.index(tokenizer.eos_token_id, 1)]).strip() for row in rows
        ]

    def keep(self, rows: Tensor) -> None:
        """Go on with the chosen prompts only; each keeps its variables and the optimizer's memory
        of them.
        """
        old = self.values
        state = self._optimizer.state[self.values]
        self.slots, self.key, self.own = self.slots.rows(rows), self.key.rows(rows), self.own[rows]
        self.values = nn.Parameter(old.detach()[rows])
        self._optimizer = self.search.optimizer([self.values])
        self._optimizer.state[self.values] = {
            name: value[rows] if isinstance(value, Tensor) and value.shape == old.shape else value
            for name, value in state.items()
        }


class PromptSearch(Reconstructible):
    """Searches for adversarial tokens that make an objective small.

    Args:
        variables: what the tokens are.
        layout: where they stand.
        steps: of one search.
        optimizer: of the variables.
        seed: decides the draws, for each prompt by its index.
    """

    kind: type[Search] = Search
    """What keeps the state of one search."""

    def __init__(
        self,
        variables: Variables,
        layout: Layout,
        steps: int,
        optimizer: OptimizerCallable,
        seed: int = 0,
    ) -> None:
        if steps < 1:
            raise InputError(f"a search of {steps} steps finds nothing; give it at least 1.")
        if variables.discrete and layout.adds:
            raise InputError(
                f"{type(layout).__name__} adds to embeddings, and tokens of the vocabulary cannot "
                "be added; choose another layout."
            )
        self.variables = variables
        self.layout = layout
        self.steps = steps
        self.optimizer = optimizer
        self.seed = seed

    def begin(
        self,
        model: TextToImage,
        ids: Tensor,
        index: Tensor,
        visit: Tensor,
        start: Tensor | None = None,
    ) -> Search:
        """A search that has made no step.

        Args:
            model: whose text encoder reads the tokens.
            ids: token ids of the prompts `[B, L]`.
            index: `[B]`, for the draws.
            visit: `[B]`, for the draws.
            start: `[K, D]` embeddings to begin from, for variables that can.

        Raises:
            InputError: when the encoder has no room for prompt and adversarial tokens.
        """
        return self.kind(
            self,
            model,
            self.layout.place(model.tokenizer, ids),
            Key(self.seed, index, visit),
            start,
        )

    def find(
        self,
        model: TextToImage,
        ids: Tensor,
        index: Tensor,
        visit: Tensor,
        objective: Objective,
        start: Tensor | None = None,
    ) -> Search:
        """A whole search, of `steps` steps; arguments as in `begin`.

        The model is searched in eval mode, and its weights take no gradient meanwhile; both are as
        before when it is over.
        """
        with eval_mode(model), frozen(model), torch.enable_grad():
            search = self.begin(model, ids, index, visit, start)
            for _ in range(self.steps):
                search.step(objective)
        return search


class SoftPromptAttack(PromptSearch):
    """Free embeddings, by Adam: what AdvUnlearn trains against.

    The fast variant follows the sign of the gradient; one such step is the paper's fast adversarial
    training (`sign=True, steps=1`). There is no bound on how far the embeddings go.

    Args:
        layout: where the tokens stand; None is one token before the prompt.
        steps: of one search.
        sign: follow the sign of the gradient.
        init: `random` begins from random tokens, `latest` from what the last attack of the run has
            found.
        optimizer: Adam with rate 1e-3.
        seed: decides the draws.
    """

    def __init__(
        self,
        layout: Layout | None = None,
        steps: int = 30,
        sign: bool = False,
        init: Literal["random", "latest"] = "random",
        optimizer: OptimizerCallable = lambda params: torch.optim.Adam(params, lr=1e-3),
        seed: int = 0,
    ) -> None:
        super().__init__(Embeddings(init, sign), layout or Prefix(1), steps, optimizer, seed)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No weight takes a gradient for the time of an attack, so that none is computed and nothing is
    kept for it.
    """
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)


def of_text(backbone: Backbone) -> TextToImage:
    """The backbone, which reads prompts.

    Raises:
        InputError: when it does not.
    """
    lacks: Sequence[str] = [
        name for name in ("tokenise", "embed", "encode_text") if not hasattr(backbone, name)
    ]
    if lacks:
        raise InputError(
            "adversarial tokens are searched for in prompts of a text-to-image model, not of a "
            f"{type(backbone).__name__}."
        )
    return backbone  # type: ignore[return-value]

"""Adversarial prompt search on text-to-image models, as in UnlearnDiffAtk and AdvUnlearn.

Zhang et al., "To Generate or Not? Safety-Driven Unlearned Diffusion Models Are Still Easy To
Generate Unsafe Images ... For Now" (UnlearnDiffAtk), ECCV 2024, arXiv 2310.11868. Zhang et al.,
"Defensive Unlearning with Adversarial Training for Robust Concept Erasure in Diffusion Models"
(AdvUnlearn), NeurIPS 2024, arXiv 2405.15234.

One search serves both: it has a layout (positions of the adversarial tokens), variables
(distributions over the vocabulary, or free embeddings), an optimizer, and an objective of the
caller. Each prompt has variables and draws of its own, keyed by its index, so the result for a
prompt does not depend on the rest of its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from mu.attacks.layouts import Layout, Prefix, Slots
from mu.attacks.token_variables import Embeddings, Key, Variables, vocabulary
from mu.backbones import Backbone, Condition, TextToImage
from mu.utils.errors import InputError
from mu.utils.modules import eval_mode
from mu.utils.spec import Reconstructible

Objective = Callable[["Condition", int], Tensor]
"""`objective(condition, step) -> [B]`, differentiable in the condition; the search decreases it.
`step` counts from 0.
"""


class Search:
    """State of a search over B prompts at one step.

    Attributes:
        slots: prompts with slots for the adversarial tokens.
        values: the variables `[B, K, *]`.
        key: key of the random draws.
        taken: number of steps made.
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
        """Descent direction from this step's gradient."""
        return gradient

    def _condition(self) -> Condition:
        adversarial = self.search.variables.embeddings(
            self.model, self.values, self.key, self.taken
        )
        return self.model.encode_text(
            self.slots.ids, self.slots.fill(self.own, adversarial.to(self.own.dtype))
        )

    def tokens(self) -> Tensor:
        """Embeddings of prompt and adversarial tokens, `[B, L, D]`, without gradient."""
        return self.slots.fill(self.own, self.adversarial().to(self.own.dtype))

    def adversarial(self) -> Tensor:
        """Embeddings of the adversarial tokens, `[B, K, D]`, without gradient."""
        return self.search.variables.found(self.model, self.values.detach())[0]

    def texts(self) -> list[str] | None:
        """Adversarial prompts as text; None for continuous embeddings."""
        ids = self.search.variables.found(self.model, self.values.detach())[1]
        if ids is None:
            return None
        tokenizer = self.model.tokenizer
        rows = self.slots.write(ids).tolist()
        return [
            tokenizer.decode(row[1 : row.index(tokenizer.eos_token_id, 1)]).strip() for row in rows
        ]

    def keep(self, rows: Tensor) -> None:
        """Restrict the search to the given rows, with their variables and optimizer state."""
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
    """Search for adversarial tokens that minimise an objective.

    Args:
        variables: representation of the adversarial tokens.
        layout: positions of the adversarial tokens.
        steps: steps of one search.
        optimizer: optimizer of the variables.
        seed: seed of the draws, which are keyed by the index of each prompt.
    """

    search_class: type[Search] = Search
    """Class of the state of one search."""

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
        """Start a search.

        Args:
            model: model whose text encoder reads the tokens.
            ids: token ids of the prompts `[B, L]`.
            index: `[B]`, for the draws.
            visit: `[B]`, for the draws.
            start: `[K, D]` embeddings to begin from, for variables that can.

        Raises:
            InputError: when the encoder has no room for prompt and adversarial tokens.
        """
        return self.search_class(
            self,
            model,
            self.layout.insert_slots(model.tokenizer, ids),
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
        """Search of `steps` steps; arguments as in `begin`.

        Meanwhile the model is in eval mode and its weights take no gradient; both are restored
        afterwards.
        """
        with eval_mode(model), frozen(model), torch.enable_grad():
            search = self.begin(model, ids, index, visit, start)
            for _ in range(self.steps):
                search.step(objective)
        return search


class SoftPromptAttack(PromptSearch):
    """Soft prompt attack on free embeddings by Adam, against which AdvUnlearn trains.

    The fast variant follows the sign of the gradient; one such step is the paper's fast adversarial
    training (`sign=True, steps=1`). There is no bound on how far the embeddings go.

    Args:
        layout: positions of the tokens; None is one token before the prompt.
        steps: steps of one search.
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
    """Context in which no weight of the model requires a gradient."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)


def as_text_to_image(backbone: Backbone) -> TextToImage:
    """Text-to-image model of a backbone.

    Raises:
        InputError: the backbone reads no prompts.
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

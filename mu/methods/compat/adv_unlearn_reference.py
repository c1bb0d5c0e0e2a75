"""Quirks of AdvUnlearn's released code.

Zhang et al., "Defensive Unlearning with Adversarial Training for Robust Concept Erasure in
Diffusion Models", NeurIPS 2024, arXiv 2405.15234; code `train-scripts/AdvUnlearn.py`,
`utils/attack_util.py` (`soft_prompt_attack`, `split_id`).

The inner attack's gradient is never zeroed, so each step follows the sum of all gradients so far
(with signs: the sign of the last sign plus the new gradient). What it returns was built before its
last step. Layouts place tokens by the number of a prompt's words, not of its tokens. The default
mode of the command line makes the retain term a step of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.attacks import Embeddings, Layout, Prefix, SoftPromptAttack
from mu.attacks.layouts import FREE
from mu.attacks.prompt_search import Search
from mu.data.plan import Paired, Sizes, Step


class AccumulatingSearch(Search):
    """A search whose gradients add up, and whose result is the last step's starting point."""

    def descent(self, gradient: Tensor) -> Tensor:
        """This step's gradient on top of what the optimizer followed before."""
        self._before = self.values.detach().clone()
        return gradient if self.values.grad is None else gradient + self.values.grad

    def adversarial(self) -> Tensor:
        """See Search."""
        return self.search.variables.found(self.model, self._before)[0]


class PrefixByWords(Prefix):
    """A prefix whose prompt has as many tokens as it has words between spaces.

    The places after so many tokens are taken from the prompt to make room, so a prompt with words
    of several tokens loses some of them. (Words are counted in the decoded tokens, in which a comma
    is a word.)

    Args:
        tokens: how many adversarial tokens.
    """

    def order_of(self, prompt: list[int], tokenizer: Any) -> list[int]:
        """See Layout."""
        words = min(len(tokenizer.decode(prompt).split()), len(prompt))
        return (
            [FREE] * self.tokens
            + list(range(words))
            + list(range(words + self.tokens, len(prompt)))
        )


class SoftPromptAttackReference(SoftPromptAttack):
    """SoftPromptAttack as it was released.

    Args:
        layout: None is one token before the prompt, by words.
        steps: of one search.
        sign: follow the sign of the gradient (`fast_at`; 30 steps there too).
        init: `latest` in the code's defaults, `random` in its commands.
        optimizer: Adam with rate 1e-3.
        seed: decides the draws.
    """

    search_class = AccumulatingSearch

    def __init__(
        self,
        layout: Layout | None = None,
        steps: int = 30,
        sign: bool = False,
        init: Literal["random", "latest"] = "random",
        optimizer: OptimizerCallable = lambda params: torch.optim.Adam(params, lr=1e-3),
        seed: int = 0,
    ) -> None:
        super().__init__(layout or PrefixByWords(1), steps, sign, init, optimizer, seed)
        assert isinstance(self.variables, Embeddings)


@dataclass(frozen=True)
class AlternatingSteps(Paired):
    """The batches of Paired, with a step for forget and a step for retain in turn.

    `retain_train: iter` of the released code. Warm-up counts both steps.
    """

    def steps(self, epoch: int, sizes: Sizes, batch: Sizes, seed: int) -> Iterator[Step]:
        for step in super().steps(epoch, sizes, batch, seed):
            yield from (Step({name: step.parts[name]}) for name in ("forget", "retain"))

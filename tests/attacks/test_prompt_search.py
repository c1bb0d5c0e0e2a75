"""The search of adversarial tokens that UnlearnDiffAtk and AdvUnlearn share."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mu.attacks import Embeddings, PromptSearch, SoftPromptAttack, TokenSimplex
from mu.attacks.counting import count_evaluations
from mu.attacks.layouts import (
    Add,
    PerTokens,
    Prefix,
    Slots,
    Suffix,
)
from mu.attacks.prompt_search import frozen
from mu.backbones import Condition, TextToImage
from mu.methods.compat.adv_unlearn_reference import SoftPromptAttackReference
from mu.utils.errors import InputError
from mu.utils.spec import from_spec, to_spec
from tests.support.adversarial_tokens import PROMPTS, SGD
from tests.support.helpers import classifier, different, weights


def objective_of(model: TextToImage, rows: int) -> tuple[Any, Tensor]:
    """A smooth objective of the encoder's states alone, another for each row, and the numbers that
    it is made of.
    """
    target = torch.randn(rows, 16, 16, generator=torch.Generator().manual_seed(4))
    return (lambda condition, step: (condition.states - target).square().flatten(1).mean(1)), target


@pytest.mark.parametrize(
    "variables", [Embeddings(), TokenSimplex("random")], ids=lambda v: type(v).__name__
)
def test_a_search_makes_its_objective_small(
    model: TextToImage, ids: Tensor, variables: Any
) -> None:
    """Fails when the search climbs, or does not move."""
    objective, _ = objective_of(model, 3)
    search = PromptSearch(variables, Prefix(2), 40, lambda params: torch.optim.Adam(params, lr=0.1))
    searched = search.find(
        model, ids, torch.arange(3), torch.zeros(3, dtype=torch.int64), objective
    )
    before = objective(
        search.begin(model, ids, torch.arange(3), torch.zeros(3, dtype=torch.int64))._condition(), 0
    )
    after = objective(model.encode_text(searched.slots.ids, searched.tokens()), 0)
    assert searched.taken == 40
    assert (after < before).all()


def test_one_step_of_signed_and_plain_gradient(model: TextToImage, ids: Tensor) -> None:
    """Fails when the sign is taken where it should not be, or the gradient is another than the
    objective's.
    """
    objective, target = objective_of(model, 3)
    for sign in (False, True):
        attack = SoftPromptAttack(Prefix(1), steps=1, sign=sign, optimizer=SGD)
        begun = attack.begin(model, ids, torch.arange(3), torch.zeros(3, dtype=torch.int64))
        start = begun.values.detach().clone()
        leaf = start.clone().requires_grad_(True)
        tokens = torch.cat([model.embed(ids[:, :1]), leaf, model.embed(ids[:, 1:-1])], 1)
        loss = (model.encode_text(ids, tokens).states - target).square().flatten(1).mean(1).sum()
        (gradient,) = torch.autograd.grad(loss, leaf)
        searched = attack.find(
            model, ids, torch.arange(3), torch.zeros(3, dtype=torch.int64), objective
        )
        expected = start - 0.5 * (gradient.sign() if sign else gradient)
        assert torch.allclose(searched.adversarial(), expected, atol=1e-6)


def test_random_start_uses_word_embeddings_and_latest_returns_the_last_tokens(
    model: TextToImage, ids: Tensor
) -> None:
    """Fails when a search begins from noise, from a special token, or ignores what it is given."""
    table = model.embed(torch.arange(98)).detach()
    latest = torch.randn(4, 16)
    for init in ("random", "latest"):
        attack = SoftPromptAttack(Prefix(2), init=init)  # type: ignore[arg-type]

        def begin(
            visit: int, start: Tensor | None = None, attack: SoftPromptAttack = attack
        ) -> Tensor:
            visits = torch.full((3,), visit)
            return attack.begin(model, ids, torch.arange(3), visits, start).values.detach()

        first = begin(0)
        assert all(any(torch.equal(row, token) for token in table) for row in first.flatten(0, 1))
        assert torch.equal(begin(0), first) and not torch.equal(begin(1), first)
        started = begin(0, latest)
        assert torch.equal(started, latest[:2].expand(3, -1, -1) if init == "latest" else first)


@pytest.mark.parametrize(
    "variables", [Embeddings(), TokenSimplex()], ids=lambda v: type(v).__name__
)
def test_prompt_search_does_not_depend_on_the_batch(
    model: TextToImage, ids: Tensor, variables: Any
) -> None:
    """Fails when a draw, a mean over the batch, or the room of another prompt enters a prompt's
    search; leaving must not matter either.
    """
    _, target = objective_of(model, 3)
    attack = PromptSearch(
        variables,
        PerTokens(3),
        8,
        lambda params: torch.optim.Adam(params, lr=0.05, weight_decay=0.1),
    )
    index = torch.tensor([4, 7, 9])
    visit = torch.tensor([0, 2, 1])
    alone = []
    for row in range(3):

        def single_objective(condition: Any, step: int, row: int = row) -> Tensor:
            return (condition.states - target[[row]]).square().flatten(1).mean(1)

        alone.append(attack.find(model, ids[[row]], index[[row]], visit[[row]], single_objective))
    together = attack.begin(model, ids, index, visit)
    rows = torch.arange(3)
    for step in range(8):
        if step == 3:
            rows = torch.tensor([2, 0])
            together.keep(rows)

        def objective(condition: Any, step: int, rows: Tensor = rows) -> Tensor:
            return (condition.states - target[rows]).square().flatten(1).mean(1)

        together.step(objective)
    for position, row in enumerate(rows.tolist()):
        count = alone[row].slots.count
        assert torch.allclose(together.values[position, :count], alone[row].values[0], atol=1e-5)
        texts = together.texts()
        alone_texts = alone[row].texts()
        assert (texts is None) == (alone_texts is None) and (
            texts is None or alone_texts is None or texts[position] == alone_texts[0]
        )


def test_the_model_is_left_as_it_was(model: TextToImage, ids: Tensor) -> None:
    """Fails when a weight, its gradient, whether it takes one, or a mode is changed; or weights
    take gradients during the search.
    """
    model.train()
    before = weights(model)
    takes = {name: p.requires_grad for name, p in model.named_parameters()}
    seen: set[bool] = set()

    def objective(condition: Condition, step: int) -> Tensor:
        seen.update(p.requires_grad for p in model.parameters())
        seen.update(layer.training for layer in model.modules())
        return condition.states.square().flatten(1).sum(1)

    SoftPromptAttack(steps=2).find(
        model, ids, torch.arange(3), torch.zeros(3, dtype=torch.int64), objective
    )
    assert seen == {False}
    assert different(before, weights(model)) == []
    assert all(p.grad is None for p in model.parameters())
    assert (
        takes == {name: p.requires_grad for name, p in model.named_parameters()}
        and True in takes.values()
    )
    assert all(layer.training for layer in model.modules())
    with pytest.raises(RuntimeError), frozen(model):
        raise RuntimeError
    assert takes == {name: p.requires_grad for name, p in model.named_parameters()}
    model.eval()


def test_a_search_costs_one_pass_of_the_encoder_a_step(model: TextToImage, ids: Tensor) -> None:
    """Fails when a step encodes the prompts twice."""
    with count_evaluations(model) as evaluations:
        zeros = torch.zeros(3, dtype=torch.int64)
        SoftPromptAttack(steps=3).find(
            model, ids, torch.arange(3), zeros, lambda c, _: c.states.flatten(1).sum(1)
        )
    count = evaluations.count("text_encoder")
    assert (count.calls, count.samples, count.with_grad) == (3, 9, 9)


def test_adversarial_prompt_is_text(model: TextToImage, ids: Tensor) -> None:
    """Fails when special tokens are part of the text, or the prompt is cut."""
    search = PromptSearch(TokenSimplex(), Suffix(1), 1, SGD).begin(
        model, ids, torch.arange(3), torch.zeros(3, dtype=torch.int64)
    )
    word = model.tokenizer("blue", add_special_tokens=False)["input_ids"][0]
    with torch.no_grad():
        search.values.copy_(torch.eye(100)[word].expand(3, 1, -1))
    assert search.texts() == [f"{prompt} blue" for prompt in PROMPTS]


@pytest.mark.parametrize("sign", [False, True])
def test_the_released_attack_accumulates_and_lags(
    model: TextToImage, ids: Tensor, sign: bool
) -> None:
    """Fails when the quirk is another one; stated anew with a plain loop."""
    objective, target = objective_of(model, 3)
    zeros = torch.zeros(3, dtype=torch.int64)
    attack = SoftPromptAttackReference(Prefix(1), steps=4, sign=sign, optimizer=SGD)
    searched = attack.find(model, ids, torch.arange(3), zeros, objective).adversarial()
    value = attack.begin(model, ids, torch.arange(3), zeros).values.detach().clone()
    gradient = torch.zeros_like(value)
    for _ in range(4):
        built = value.clone()
        leaf = value.clone().requires_grad_(True)
        tokens = torch.cat([model.embed(ids[:, :1]), leaf, model.embed(ids[:, 1:-1])], 1)
        loss = (model.encode_text(ids, tokens).states - target).square().flatten(1).mean(1).sum()
        gradient = gradient + torch.autograd.grad(loss, leaf)[0]
        gradient = gradient.sign() if sign else gradient
        value = value - 0.5 * gradient
    assert torch.allclose(searched, built, atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SoftPromptAttack(Suffix(2), sign=True, init="latest"),
        lambda: SoftPromptAttackReference(),
    ],
)
def test_search_is_rebuilt_from_plain_data(make: Any) -> None:
    """Fails when a checkpoint of a method that trains against it needs a pickle."""
    spec = to_spec(make())
    again = from_spec(spec)
    assert to_spec(again) == spec
    assert (again.steps, again.layout.tokens) == (make().steps, make().layout.tokens)


def test_slots_are_chosen_by_row(model: TextToImage, ids: Tensor) -> None:
    """Fails when `rows` forgets that a layout adds."""
    slots = Add().insert_slots(model.tokenizer, ids).rows(torch.tensor([2]))
    assert isinstance(slots, Slots) and slots.adds and len(slots.ids) == 1


def test_model_without_prompts_is_refused(ids: Tensor) -> None:
    """Fails when a classifier ends in an AttributeError."""
    from mu.attacks.prompt_search import as_text_to_image

    with pytest.raises(InputError, match="Classifier"):
        as_text_to_image(classifier())

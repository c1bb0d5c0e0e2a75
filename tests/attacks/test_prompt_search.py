"""Layouts of adversarial tokens, the simplex, and the search that UnlearnDiffAtk and AdvUnlearn
share.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mu.attacks import Embeddings, PromptSearch, SoftPromptAttack, TokenSimplex
from mu.attacks.counting import count_evaluations
from mu.attacks.layouts import (
    Add,
    Insert,
    Layout,
    Middle,
    PerTokens,
    Prefix,
    Replace,
    Slots,
    Suffix,
)
from mu.attacks.prompt_search import frozen
from mu.attacks.token_variables import Key, simplex_projection, vocabulary
from mu.backbones import Condition, TextToImage
from mu.methods.compat.adv_unlearn_reference import PrefixByWords, SoftPromptAttackReference
from mu.utils.errors import InputError
from mu.utils.spec import from_spec, to_spec
from tests.support.doubles import text_to_image
from tests.support.helpers import classifier, different, weights

PROMPTS = ["a red circle", "star", "a greenish boxy star"]
"""3 tokens; 1; and 9, because `greenish` and `boxy` are several."""
SGD: Any = lambda params: torch.optim.SGD(params, lr=0.5)  # noqa: E731


@pytest.fixture(scope="module")
def model() -> TextToImage:
    return text_to_image(part="text_encoder")


@pytest.fixture(scope="module")
def ids(model: TextToImage) -> Tensor:
    return model.tokenise(PROMPTS)[0]


def objective_of(model: TextToImage, rows: int) -> tuple[Any, Tensor]:
    """A smooth objective of the encoder's states alone, another for each row, and the numbers that
    it is made of.
    """
    target = torch.randn(rows, 16, 16, generator=torch.Generator().manual_seed(4))
    return (lambda condition, step: (condition.states - target).square().flatten(1).mean(1)), target


# ---- layouts -------------------------------------------------------------------------------------

A = "*"
LAYOUTS: list[tuple[Layout, str, list[str]]] = [
    (Prefix(2), "abc", [A, A, "a", "b", "c"]),
    (Suffix(2), "abc", ["a", "b", "c", A, A]),
    (Middle(1), "abc", ["a", A, "b", "c"]),
    (Middle(2), "abcd", ["a", "b", A, A, "c", "d"]),
    (Insert(2), "abc", ["a", A, "b", A, "c"]),
    (Insert(3), "ab", [A, A, A, "a", "b"]),
    (Insert(2), "", [A, A]),
    (Replace(2), "abc", [A, A]),
    (PerTokens(3), "abcd", [A, "a", "b", "c", A, "d"]),
    (PerTokens(1), "ab", [A, "a", A, "b"]),
    (Prefix(1), "", [A]),
]


@pytest.mark.parametrize(
    ("layout", "prompt", "target"),
    LAYOUTS,
    ids=lambda v: type(v).__name__ if isinstance(v, Layout) else None,
)
def test_layouts_are_what_they_are_called(layout: Layout, prompt: str, target: list[str]) -> None:
    """Fails when a token stands elsewhere."""
    assert [A if entry < 0 else prompt[entry] for entry in layout.order(len(prompt))] == target


@pytest.mark.parametrize("count", range(1, 6))
@pytest.mark.parametrize("length", range(9))
def test_insert_places_token_i_after_i_intervals(count: int, length: int) -> None:
    """Token i stands after i floor(n / (k + 1)) tokens of the prompt (code of UnlearnDiffAtk)."""
    interval = length // (count + 1)
    statement: list[int] = []
    for index in range(count):
        statement += range(interval * index, interval * (index + 1))
        statement.append(-1)
    statement += range(interval * count, length)
    assert Insert(count).order(length) == statement


@pytest.mark.parametrize(
    "layout",
    [Prefix(2), Suffix(3), Middle(1), Insert(2), Replace(1), PerTokens(2)],
    ids=lambda v: type(v).__name__,
)
def test_tokens_are_placed_by_tokens(model: TextToImage, ids: Tensor, layout: Layout) -> None:
    """Fails when words are counted, the start token moves, or what follows the end token is not
    padding.
    """
    slots = layout.insert_slots(model.tokenizer, ids)
    written = slots.write(torch.tensor([[1000 + slot for slot in range(slots.count)]] * len(ids)))
    for row, prompt_ids in zip(written.tolist(), ids.tolist(), strict=True):
        prompt = prompt_ids[1 : prompt_ids.index(99)]
        order = layout.order(len(prompt))
        new_tokens = iter(range(1000, 1100))
        body = [next(new_tokens) if entry < 0 else prompt[entry] for entry in order]
        assert row == [98, *body, 99] + [99] * (16 - 2 - len(body))
    assert (slots.ids == 99).int().argmax(1).tolist() == (written == 99).int().argmax(1).tolist()


def test_embeddings_stand_where_tokens_stand(model: TextToImage, ids: Tensor) -> None:
    """Fails when an embedding lands beside its token, or a prompt without room for one is changed;
    and no gradient reaches it.
    """
    slots = PerTokens(3).insert_slots(model.tokenizer, ids)
    assert (slots.slot.amax(1) + 1).tolist() == [1, 1, 3]
    chosen = torch.tensor([[3, 4, 5], [6, 7, 8], [9, 10, 11]])
    adversarial = model.embed(chosen).detach().requires_grad_(True)
    filled = slots.fill(model.embed(slots.ids), adversarial)
    assert torch.equal(filled, model.embed(slots.write(chosen)))
    (gradient,) = torch.autograd.grad(filled.sum(), adversarial)
    assert (gradient.sum(-1) == 16).tolist() == [
        [True, False, False],
        [True, False, False],
        [True, True, True],
    ]


def test_add_adds(model: TextToImage, ids: Tensor) -> None:
    """Fails when `Add` replaces, or reaches start, end or padding."""
    slots = Add().insert_slots(model.tokenizer, ids)
    embedded = model.embed(slots.ids)
    assert torch.equal(slots.ids, ids)
    moved = slots.fill(embedded, torch.ones(3, slots.count, 16)) - embedded
    for row, tokens in zip(moved, ids.tolist(), strict=True):
        length = tokens.index(99) - 1
        assert torch.allclose(
            row,
            torch.tensor([0.0] + [1.0] * length + [0.0] * (15 - length))[:, None].expand(16, 16),
            atol=1e-5,
        )


def test_own_embeddings_reproduce_the_plain_encoder(model: TextToImage, ids: Tensor) -> None:
    """Fails when the way through token embeddings is another encoder than the way through ids."""
    slots = Prefix(2).insert_slots(model.tokenizer, ids)
    chosen = torch.tensor([[60, 61]] * 3)
    written = slots.write(chosen)
    condition = model.encode_text(
        slots.ids, slots.fill(model.embed(slots.ids), model.embed(chosen))
    )
    assert torch.equal(condition.states, model.encode_text(written).states)


@pytest.mark.parametrize(
    "layout", [Prefix(4), Suffix(12), Insert(12), PerTokens(1)], ids=lambda v: type(v).__name__
)
def test_no_room_is_said_in_one_sentence(model: TextToImage, layout: Layout) -> None:
    """Fails when tokens of the prompt or the end token are pushed out in silence."""
    long = model.tokenise(["a red green blue circle square star on"])[0]
    with pytest.raises(
        InputError,
        match=r"\d+ adversarial tokens have no room beside the 11 of the prompt 'a red.*16 places",
    ):
        layout.insert_slots(model.tokenizer, long)
    if isinstance(layout, Prefix):
        assert Prefix(3).insert_slots(model.tokenizer, long).ids[0].tolist().count(99) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: Prefix(0),
        lambda: PerTokens(0),
        lambda: SoftPromptAttack(steps=0),
        lambda: Embeddings("old"),  # type: ignore[arg-type]
        lambda: TokenSimplex("old"),
        lambda: PromptSearch(TokenSimplex(), Add(), 3, SGD),
    ],
)  # type: ignore[arg-type]
def test_what_makes_no_sense_is_refused(make: Any) -> None:
    """Fails when a search that can find nothing begins."""
    with pytest.raises(InputError):
        make()


def test_an_empty_prompt_has_no_place_for_some(model: TextToImage) -> None:
    """Fails when nothing is attacked in silence."""
    with pytest.raises(InputError, match="empty prompt"):
        Add().insert_slots(model.tokenizer, model.tokenise([""])[0])


def test_prefix_by_words_is_the_released_slicing(model: TextToImage, ids: Tensor) -> None:
    """Fails when the quirk is lost: [start | adversarial | as many tokens as words | what follows
    after k more].
    """
    slots = PrefixByWords(2).insert_slots(model.tokenizer, ids)
    for row, prompt_ids, prompt in zip(slots.ids.tolist(), ids.tolist(), PROMPTS, strict=True):
        words = len(prompt.split())
        remaining = (
            prompt_ids[1 : 1 + words] + prompt_ids[1 + words + 2 :]
        )  # of the row with all its padding
        target = [prompt_ids[0], prompt_ids[0], prompt_ids[0], *remaining]
        assert row == target
    assert slots.ids[2].tolist() != Prefix(2).insert_slots(model.tokenizer, ids).ids[2].tolist()


# ---- the simplex ---------------------------------------------------------------------------------


def exact_projection(row: np.ndarray) -> np.ndarray:
    """Held, Wolfe and Crowder's sorting algorithm, in float64."""
    ordered = np.sort(row.astype(np.float64))[::-1]
    sums = np.cumsum(ordered) - 1
    last = max(k for k in range(len(row)) if ordered[k] - sums[k] / (k + 1) > 0)
    return np.maximum(row - sums[last] / (last + 1), 0)


@pytest.mark.parametrize("size", [2, 100, 3000])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_the_projection_is_that_of_sorting(size: int, scale: float) -> None:
    """Fails when bisection stops too early, or its last step is wrong."""
    values = torch.randn(4, 3, size, generator=torch.Generator().manual_seed(size)) * scale
    projected = simplex_projection(values)
    for row, original in zip(projected.view(-1, size), values.view(-1, size), strict=True):
        assert np.abs(row.numpy() - exact_projection(original.numpy())).max() < 1e-5
    assert (projected.sum(-1) - 1).abs().max() < 1e-5
    assert projected.min() >= 0 and projected.max() <= 1
    assert torch.allclose(simplex_projection(projected), projected, atol=1e-6)


def test_the_projection_at_the_corners() -> None:
    """Fails when a corner, the centre, or an entry that may not be is moved wrongly."""
    centre = torch.full((7,), 1 / 7)
    corner = torch.eye(7)[2]
    assert torch.allclose(simplex_projection(centre), centre)
    assert torch.equal(simplex_projection(corner), corner)
    assert torch.equal(simplex_projection(corner * 9), corner)
    barred = torch.tensor([5.0, 0.3, -torch.inf, 0.3])
    assert torch.equal(simplex_projection(barred), torch.tensor([1.0, 0, 0, 0]))
    assert torch.allclose(simplex_projection(torch.zeros(50_000)).sum(), torch.ones(()), atol=1e-5)


def keys(*index: int, visit: int = 0, seed: int = 0) -> Key:
    return Key(seed, torch.tensor(index), torch.full((len(index),), visit))


def test_tokens_are_sampled_from_their_distributions(model: TextToImage) -> None:
    """Fails when a token is drawn that has no share, in other proportions, or the same in every
    step.
    """
    variables = TokenSimplex()
    values = torch.zeros(1, 2, 100)
    values[0, 0, [3, 50]] = torch.tensor([0.25, 0.75])
    values[0, 1, 99] = 1.0
    table = model.embed(torch.arange(100)).detach()
    counts = torch.zeros(2, 100)
    for step in range(400):
        drawn = variables.embeddings(model, values, keys(5), step)
        for slot in range(2):
            counts[slot, (table == drawn[0, slot]).all(1)] += 1
    assert counts[1, 99] == 400
    assert counts[0, 3] + counts[0, 50] == 400
    assert 70 < counts[0, 3] < 130


def test_the_gradient_passes_straight_through_and_is_clamped(model: TextToImage) -> None:
    """Fails when the gradient is that of another token only, is not clamped to [-1, 1], or counts
    the sampling.
    """
    values = simplex_projection(torch.rand(2, 3, 100)).requires_grad_(True)
    weight = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(1)) * 20
    drawn = TokenSimplex().embeddings(model, values, keys(1, 2), 0)
    (gradient,) = torch.autograd.grad((drawn * weight).sum(), values)
    table = model.embed(torch.arange(100)).detach().double()
    for b in range(2):
        for k in range(3):
            for token in range(100):
                target = max(-1.0, min(1.0, float((weight[b, k].double() * table[token]).sum())))
                assert gradient[b, k, token].item() == pytest.approx(target, abs=1e-5)
    assert 0 < (gradient.abs() == 1).float().mean() < 1


@pytest.mark.parametrize("init", ["uniform", "random"])
def test_the_simplex_begins_on_words_alone(model: TextToImage, init: Any) -> None:
    """Fails when start and end token are searched, or a row does not sum to 1."""
    values = TokenSimplex(init).begin(model, 2, keys(0, 1), None)
    assert vocabulary(model).nonzero().flatten().tolist() == list(range(98))
    assert torch.equal(values[..., 98:], torch.zeros(2, 2, 2))
    assert torch.allclose(values.sum(-1), torch.ones(2, 2))
    assert values[..., :98].min() > 0
    assert values[..., :98].std() == 0 or init == "random"
    assert torch.equal(TokenSimplex(init).begin(model, 2, keys(1), None)[0], values[1])
    moved = TokenSimplex().project(
        values + torch.rand(2, 2, 100) * (torch.arange(100) > 90), vocabulary(model)
    )
    assert torch.equal(moved[..., 98:], torch.zeros(2, 2, 2))


# ---- the search ----------------------------------------------------------------------------------


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


def test_one_step_of_each_kind(model: TextToImage, ids: Tensor) -> None:
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


def test_random_tokens_are_embeddings_of_words_and_latest_is_what_was_found(
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
def test_prompts_do_not_depend_on_their_company(
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


def test_what_was_found_can_be_written_down(model: TextToImage, ids: Tensor) -> None:
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
def test_it_can_be_stored_as_plain_data(make: Any) -> None:
    """Fails when a checkpoint of a method that trains against it needs a pickle."""
    spec = to_spec(make())
    again = from_spec(spec)
    assert to_spec(again) == spec
    assert (again.steps, again.layout.tokens) == (make().steps, make().layout.tokens)


def test_slots_are_chosen_by_row(model: TextToImage, ids: Tensor) -> None:
    """Fails when `rows` forgets that a layout adds."""
    slots = Add().insert_slots(model.tokenizer, ids).rows(torch.tensor([2]))
    assert isinstance(slots, Slots) and slots.adds and len(slots.ids) == 1


def test_only_models_that_read_prompts(ids: Tensor) -> None:
    """Fails when a classifier ends in an AttributeError."""
    from mu.attacks.prompt_search import as_text_to_image

    with pytest.raises(InputError, match="Classifier"):
        as_text_to_image(classifier())

"""Layouts of adversarial tokens in a prompt."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mu.attacks import Embeddings, PromptSearch, SoftPromptAttack, TokenSimplex
from mu.attacks.layouts import (
    Add,
    Insert,
    Layout,
    Middle,
    PerTokens,
    Prefix,
    Replace,
    Suffix,
)
from mu.backbones import TextToImage
from mu.methods.compat.adv_unlearn_reference import PrefixByWords
from mu.utils.errors import InputError
from tests.support.adversarial_tokens import PROMPTS, SGD

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
def test_layouts_order_tokens_as_documented(layout: Layout, prompt: str, target: list[str]) -> None:
    """Fails when a token stands elsewhere."""
    assert [A if entry < 0 else prompt[entry] for entry in layout.order(len(prompt))] == target


@pytest.mark.parametrize("count", range(1, 6))
@pytest.mark.parametrize("length", range(9))
def test_insert_sets_token_i_after_i_intervals(count: int, length: int) -> None:
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
def test_token_layout_counts_tokens(model: TextToImage, ids: Tensor, layout: Layout) -> None:
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


def test_embeddings_and_tokens_have_equal_positions(model: TextToImage, ids: Tensor) -> None:
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


def test_add_sums_embeddings(model: TextToImage, ids: Tensor) -> None:
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


def test_embeddings_of_the_prompt_reproduce_the_encoder(model: TextToImage, ids: Tensor) -> None:
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
def test_prompt_without_free_positions_is_refused(model: TextToImage, layout: Layout) -> None:
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
def test_invalid_layouts_are_refused(make: Any) -> None:
    """Fails when a search that can find nothing begins."""
    with pytest.raises(InputError):
        make()


def test_empty_prompt_is_refused_by_layouts_that_need_a_token(model: TextToImage) -> None:
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

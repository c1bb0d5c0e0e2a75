"""UCE: which tokens are keys, the edit from prompts, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mu.backbones import LoRA
from mu.methods.bases.prompt_keys import aligned_tokens, last_token
from mu.methods.diffusion.uce import UCE
from mu.utils.errors import InputError
from tasks.prompts import PromptList
from tests.support.denoised import Double
from tests.support.doubles import Pictures, _Captions, pictures, text_to_image
from tests.support.helpers import different, fit, weights

END = 9


@pytest.mark.parametrize(
    ("ids", "anchor", "end", "positions"),
    [
        ([8, 1, 2, END, END], [8, 3, END, END, END], 3, (2, 1)),  # the concept is the whole prompt
        ([8, 1, 2, END, END], [8, 3, END, END, END], 0, (2, 1)),  # no concept is marked
        (
            [8, 1, 2, END, END],
            [8, END, END, END, END],
            3,
            (2, 0),
        ),  # an empty anchor: the start token
        ([8, 5, 1, 2, 6, 7, END], [8, 5, 3, 6, 7, END, END], 4, (3, 2)),  # in the middle
        (
            [8, 1, 6, 7, END, END, END],
            [8, 6, 7, END, END, END, END],
            2,
            (1, 0),
        ),  # nothing stands in its place
        (
            [8, 1, 6, 7, END, END, END],
            [8, 4, 4, END, END, END, END],
            2,
            (1, 2),
        ),  # another text: its last token
        ([8, 1, 2, 3, END], [8, 1, 4, 5, END], 3, (2, 3)),  # the rest differs
        ([8, 1, 6, 7, END, END], [8, END, END, END, END, END], 2, (1, 0)),
        ([8, 5, 1, 6, 5, 2, END], [8, 5, 3, 6, 5, 4, END], 3, (2, 2)),  # the first of two concepts
        ([8, 5, 1, 6, 5, 2, END], [8, 5, 3, 6, 5, 4, END], 6, (5, 5)),  # the second of them
        ([8, 1, 6, 2, 7, END], [8, 3, 3, 6, 7, END], 2, (1, 2)),  # the second is left out
        ([8, 1, 6, 1, END], [8, 3, 6, 3, END], 2, (1, 1)),  # the concept twice
    ],
)
def test_positions_of_the_last_tokens_of_concept_and_anchor(
    ids: list[int], anchor: list[int], end: int, positions: tuple[int, int]
) -> None:
    assert aligned_tokens(ids, anchor, end, END) == positions


def test_the_last_token_of_a_text() -> None:
    assert [last_token(ids, END) for ids in ([8, 1, 2, END, END], [8, END, END], [8, 1, END])] == [
        2,
        0,
        1,
    ]


class Named(Pictures):
    """The same pictures with other texts."""

    def __init__(self, forget: list[tuple[str, str, str]], retain: list[str]) -> None:
        super().__init__(images=False)
        self.forget = forget
        self.kept = retain

    def make(self) -> None:
        super().make()
        rows = {"forget": self.forget, "retain": [(text, "", text) for text in self.kept]}
        for name, texts in rows.items():
            self.datasets[name] = _Texts(self.split.parts[name], texts)  # type: ignore[assignment]


class _Texts(_Captions):
    def __init__(self, indices: Any, texts: list[tuple[str, str, str]]) -> None:
        super().__init__(indices, False)
        self.texts = texts

    def __getitems__(self, positions: list[int]) -> dict[str, Any]:
        rows = [self.texts[position % len(self.texts)] for position in positions]
        batch = super().__getitems__(positions)
        return batch | dict(
            zip(
                ("prompt", "concept", "substitute"), map(list, zip(*rows, strict=True)), strict=True
            )
        )


CIRCLE = [
    ("circle", "circle", "square"),
    ("picture of a circle on blue", "circle", "picture of a square on blue"),
    ("red circle", "", ""),
    ("blue circle", "circle", "blue nice red square"),
]
KEPT = ["star", "a red star on dark", ""]


def published(
    weight: Tensor,
    pairs: list[tuple[Tensor, Tensor]],
    preserved: list[Tensor],
    lam: float,
    a: float,
    b: float,
) -> Tensor:
    target = lam * weight
    gram = lam * torch.eye(weight.shape[1], dtype=torch.float64)
    for c, g in pairs:
        target = target + a * torch.outer(weight @ g, c)
        gram = gram + a * torch.outer(c, c)
    for p in preserved:
        target = target + b * torch.outer(weight @ p, p)
        gram = gram + b * torch.outer(p, p)
    return target @ torch.linalg.inv(gram)


@pytest.mark.parametrize("tokens", ["last", "onward"])
def test_the_edit_is_the_published_one(tokens: Any) -> None:
    """Places written out by hand. Mutations: a prompt counted as often as it is shown; guides
    edited; a and b exchanged.
    """
    module = UCE(
        text_to_image(part="xattn-strict"),
        lam=0.3,
        erase_scale=1.5,
        preserve_scale=0.7,
        tokens=tokens,
        batch_size=2,
    )
    fit(module, Named(CIRCLE, KEPT), 1)
    double = Double(text_to_image())
    concepts, guides = (
        double.states([row[column] for row in CIRCLE]).detach() for column in (0, 2)
    )
    # of circle and square; the third is the whole prompt, and goes to the start token
    positions = [
        (1, 1),
        (4, 4),
        (2, 0),
        (2, 4),
    ]
    preserved_states = double.states(KEPT).detach()
    if tokens == "last":
        pairs = [(concepts[i, c], guides[i, g]) for i, (c, g) in enumerate(positions)]
        preserved = [preserved_states[0, 1], preserved_states[1, 5], preserved_states[2, 0]]
    else:
        pairs = [
            (concepts[i, c + k], guides[i, g + k])
            for i, (c, g) in enumerate(positions)
            for k in range(16 - max(c, g))
        ]
        preserved = [state for states in preserved_states for state in states]
    edited = 0
    for name, before in text_to_image().state_dict().items():
        after = module.backbone.state_dict()[name]
        if "attn2.to_k.weight" in name or "attn2.to_v.weight" in name:
            expected = published(before.double(), pairs, preserved, 0.3, 1.5, 0.7)
            torch.testing.assert_close(after.double(), expected, atol=1e-6, rtol=1e-5)
            edited += not torch.equal(after, before)
        else:
            assert torch.equal(after, before), name
    assert edited == 8


def test_several_concepts_are_one_edit(tmp_path: Path) -> None:
    """The closed form has one sum over the pairs of all concepts, each with its own anchor."""
    (tmp_path / "forget.csv").write_text("prompt\nred circle\nblue star\nstar on circle\n")
    (tmp_path / "retain.csv").write_text("prompt\ndark\n")
    task = PromptList(
        *(str(tmp_path / name) for name in ("forget.csv", "retain.csv")),
        concept=["circle", "star"],
        anchor=["square", "picture"],
        curves=[],
    )
    module = UCE(text_to_image(part="xattn-strict"))
    fit(module, task, 1)
    double = Double(text_to_image())
    concepts, guides = (
        double.states(texts).detach()
        for texts in (
            ["red circle", "blue star", "star on circle"],
            ["red square", "blue picture", "picture on square"],
        )
    )
    positions = [(0, 2), (1, 2), (2, 1), (2, 3)]
    pairs = [(concepts[row, end], guides[row, end]) for row, end in positions]
    preserved = [double.states(["dark"])[0, 1].detach()]
    name = next(n for n in text_to_image().state_dict() if n.endswith("attn2.to_v.weight"))
    before = text_to_image().state_dict()[name].double()
    after = module.backbone.state_dict()[name].double()
    expected = published(before, pairs, preserved, 0.5, 1.0, 1.0)
    torch.testing.assert_close(after, expected, atol=1e-6, rtol=1e-5)


def test_other_weights_of_a_larger_part_stay() -> None:
    module = fit(UCE(text_to_image(part="full")), pictures(images=False), 1)
    moved = different(weights(text_to_image()), weights(module.backbone))
    assert len(moved) == 8 and all("attn2.to_k" in name or "attn2.to_v" in name for name in moved)


def test_batches_do_not_matter() -> None:
    """Neither those of the task nor those of the encoder, nor how often a prompt is shown."""

    def edited(size: int, **changes: Any) -> Any:
        return weights(
            fit(
                UCE(text_to_image(part="xattn-strict"), **changes),
                pictures(images=False, batch_size=size),
                1,
            )
        )

    first = edited(5)
    assert different(first, edited(3, seed=4)) == []
    for name, value in edited(40, batch_size=1).items():
        torch.testing.assert_close(value, first[name], atol=1e-6, rtol=1e-5)


def test_a_light_pull_moves_the_concept_onto_its_anchor() -> None:
    """Keys and values read from the circle are those of the square; the star's stay."""
    module = UCE(text_to_image(part="xattn-strict"), lam=1e-7)
    fit(module, Named(CIRCLE[:1], KEPT[:1]), 1)
    double = Double(text_to_image())
    before = text_to_image().state_dict()
    after = module.backbone.state_dict()
    circle, square, star = (
        double.states([word])[0, 1].detach().float() for word in ("circle", "square", "star")
    )
    name = next(name for name in after if name.endswith("attn2.to_v.weight"))
    torch.testing.assert_close(after[name] @ circle, before[name] @ square, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(after[name] @ star, before[name] @ star, atol=1e-4, rtol=1e-3)
    assert (before[name] @ circle - before[name] @ square).abs().max() > 0.01


def test_without_preservation_the_retain_part_is_not_read() -> None:
    module = UCE(text_to_image(part="xattn-strict"), preserve_scale=0.0)
    assert not module.needs_retain and module.plan.reads() == {"forget"}
    fit(module, pictures(images=False), 1)
    assert module.preserved_keys == set()


@pytest.mark.parametrize(
    "changes",
    [{"part": "selfattn"}, {"part": "text_encoder"}, {"part": "xattn-strict", "lora": LoRA(2)}],
    ids=["selfattn", "text_encoder", "lora"],
)
def test_a_part_without_projections_is_refused(changes: Any) -> None:
    with pytest.raises(InputError, match="part: xattn-strict"):
        fit(UCE(text_to_image(**changes)), pictures(images=False), 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lam": 0.0},
        {"erase_scale": -1.0},
        {"preserve_scale": -0.1},
        {"tokens": "first"},
        {"batch_size": 0},
    ],
)
def test_wrong_settings_are_refused(wrong: Any) -> None:
    with pytest.raises(InputError):
        UCE(text_to_image(), **wrong)

"""Drawn text, and other answers that the original makes up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mu.backbones.language.causal_lm import CausalLM
from mu.backbones.language.sampling import Sampling
from mu.backbones.language.two_models import GenericLogits
from mu.methods.components.generated_answers import GeneratedAnswers
from mu.methods.language.alt_po import AltPO
from mu.utils.errors import InputError
from tests.support.doubles_text import causal_lm, people
from tests.support.helpers import fit

PROMPT = [1, 5, 7]
ASKED = [[1, 5], [1, 5, 7, 9, 4], [1], [1, 8, 8]]


def generated_answers(**changes: Any) -> GeneratedAnswers:
    return GeneratedAnswers(
        **{
            "instruction": "{question}",
            "max_new_tokens": 6,
            "stop_strings": (),
            "temperature": 2.0,
            **changes,
        }
    )


def set_up(substitute: GeneratedAnswers, model: CausalLM | None = None) -> GeneratedAnswers:
    task = people()
    task.setup()
    substitute.setup(model or causal_lm(), task)
    return substitute


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@torch.no_grad()
def test_the_first_token_is_drawn_from_the_tempered_distribution(temperature: float) -> None:
    """Mutations: logits times T; noise of the wrong sign or of another law; the same noise for
    every key.
    """
    model = causal_lm().eval()
    count = 4000
    tokens = torch.tensor([PROMPT])
    logits = (
        8 * model.predict({"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})[:, -1]
    )
    probabilities = (logits[0].double() / temperature).softmax(0)
    seen = (
        Sampling(temperature)
        .add_gumbel_noise(logits.expand(count, -1), range(count), 0)
        .argmax(-1)
        .bincount(minlength=len(probabilities))
        / count
    )
    spread = (probabilities * (1 - probabilities) / count).sqrt()
    assert probabilities.max() > 3 / len(probabilities)
    assert ((seen - probabilities).abs() <= 5 * spread + 1 / count).all()


@pytest.mark.parametrize(
    "make", [causal_lm, lambda: GenericLogits(causal_lm(), causal_lm(), alpha=1.0)]
)
def test_draws_depend_on_the_prompts_key_and_not_on_the_batch(make: Any) -> None:
    """Mutations: noise by the place in the batch; the same noise at every place of the answer; no
    noise at all.
    """
    model = make().eval()
    keys = [7, 3, 3, 9]
    batch_texts = model.generate(ASKED, 8, sampling=Sampling(2.0, 1, keys))
    for size in (1, 2):
        assert (
            model.generate(ASKED, 8, batch_size=size, sampling=Sampling(2.0, 1, keys))
            == batch_texts
        )
    assert (
        model.generate(ASKED[::-1], 8, sampling=Sampling(2.0, 1, keys[::-1])) == batch_texts[::-1]
    )
    alone = model.generate([PROMPT], 8, sampling=Sampling(2.0, 1, [3]))
    assert model.generate([PROMPT] * 2, 8, sampling=Sampling(2.0, 1, [3, 3])) == alone * 2
    other_texts = [
        model.generate(ASKED, 8, sampling=sampling)
        for sampling in (Sampling(2.0, 2, keys), None, Sampling(2.0, 1))
    ]
    assert all(other != batch_texts for other in other_texts)
    assert model.generate(ASKED, 8, sampling=Sampling(1e-4, 1, keys)) == other_texts[1]


def test_composed_models_draw_as_single_ones() -> None:
    base = causal_lm().eval()
    composed = GenericLogits(base, causal_lm(), alpha=0.0)
    assert composed.generate(ASKED, 8, sampling=Sampling(1.5, 4)) == base.generate(
        ASKED, 8, sampling=Sampling(1.5, 4)
    )


def test_the_original_makes_other_answers_up() -> None:
    """Mutations: one draw for all turns; the truth stays in; the weights or the mode are not put
    back.
    """
    model = causal_lm().train()
    before = [value.clone() for value in model.state_dict().values()]
    substitute = set_up(generated_answers(), model)
    task = people()
    task.setup()
    data: Any = task.datasets["forget"]
    assert list(substitute.alternates) == data.indices.tolist()
    for index, answers in substitute.alternates.items():
        assert 2 <= len(answers) <= 5 and len(set(answers)) == len(answers) and all(answers)
        assert substitute.answers(torch.tensor([index]), torch.tensor([len(answers) + 1]), 0) == [
            answers[1]
        ]
    assert model.training and all(
        torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True)
    )
    assert (
        set_up(generated_answers()).alternates
        == substitute.alternates
        != set_up(generated_answers(seed=1)).alternates
    )


def test_the_truth_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when a model that knows the answer alone is taught it as the winner."""
    task = people()
    task.setup()
    data: Any = task.datasets["forget"]
    truth = dict(
        zip(
            (tuple(task.encoder.prompt(question)) for question in data.texts["question"]),
            data.texts["answer"],
            strict=True,
        )
    )

    def knows(self: CausalLM, ids: Any, *args: Any, **kwargs: Any) -> list[str]:
        return [
            f" {truth[tuple(row)].upper()}. " if position % 5 else "  "
            for position, row in enumerate(ids)
        ]

    monkeypatch.setattr(CausalLM, "generate", knows)
    with pytest.raises(InputError, match="no other answer than the truth to 13 of 13"):
        set_up(generated_answers())


def test_answers_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutations: they are made again; those of another model, seed or temperature are taken for
    them.
    """
    first = set_up(generated_answers(folder=str(tmp_path)))
    (file,) = tmp_path.glob("*.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert {row["alternate"].strip() for row in rows} >= {
        answer for answers in first.alternates.values() for answer in answers
    }
    batch_sizes: list[int] = []
    generate = CausalLM.generate

    def counted(self: CausalLM, ids: Any, *args: Any, **kwargs: Any) -> list[str]:
        batch_sizes.append(len(ids))
        return generate(self, ids, *args, **kwargs)

    monkeypatch.setattr(CausalLM, "generate", counted)
    assert (
        set_up(generated_answers(folder=str(tmp_path))).alternates == first.alternates
        and not batch_sizes
    )
    other = causal_lm()
    with torch.no_grad():
        next(other.parameters()).mul_(1.5)
    for changes, model in (({"seed": 3}, None), ({"temperature": 3.0}, None), ({}, other)):
        batch_sizes.clear()
        set_up(generated_answers(folder=str(tmp_path), **changes), model)
        assert sum(batch_sizes) == 65


def test_altpo_learns_its_own_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """AltPO without a file: the winners are what the original said before the first step, and their
    making is counted as a cache.
    """
    substitute = generated_answers()
    module = AltPO(
        causal_lm(), substitute=substitute, optimizer=lambda params: torch.optim.SGD(params, lr=0.1)
    )
    fit(module, people(), 1)
    assert substitute.alternates == set_up(generated_answers()).alternates
    assert module.stopwatch.seconds()["cache"] > 0
    assert isinstance(AltPO(causal_lm()).substitute, GeneratedAnswers)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"count": 0}, "at least one"),
        ({"instruction": "answer!"}, "does not contain"),
        ({"temperature": 0.0}, "above 0"),
        ({"temperature": float("nan")}, "above 0"),
    ],
)
def test_wrong_arguments(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        generated_answers(**changes)

"""Forgotten facts put back into the prompt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from callbacks.text.reintroduction import Reintroduction
from mu.data.encoding import Encoder
from mu.data.sequences import collate
from mu.methods import FineTune
from mu.utils.errors import InputError
from tests.support.doubles_text import causal_lm, people
from tests.support.helpers import (
    State,
)
from tests.support.text_attacks import measured, neighbours


def test_facts_are_about_the_same_subject_and_never_the_answer_itself() -> None:
    """Fails when the question's own answer is put before it, or a fact of another author."""
    sets = neighbours().sets
    results = Reintroduction(facts=2).contexts(sets)
    rows = sets["forget"].rows
    for position, row in enumerate(results["context"].rows):
        *facts, question = row["question"].split("\n")
        other_answers = [
            rows[other]["answer"]
            for other in range(12)
            if other // 3 == position // 3 and other != position
        ]
        assert question == rows[position]["question"] and sorted(facts) == sorted(other_answers)
        *control, asked = results["control"].rows[position]["question"].split("\n")
        assert (
            asked == question
            and len(control) == 2
            and set(control) <= set(sets["retain"].column("answer"))
        )
    assert results["question"] is sets["forget"]
    again, other = (
        Reintroduction(facts=1, seed=seed).contexts(sets)["context"].column("question")
        for seed in (0, 1)
    )
    assert (
        again == Reintroduction(facts=1, subject=3).contexts(sets)["context"].column("question")
        and again != other
    )


def test_the_answer_in_other_words_is_among_the_facts() -> None:
    sets = neighbours().sets
    rows = sets["forget"].rows
    results = (
        Reintroduction(facts=3, source="paraphrase").contexts(sets)["context"].column("question")
    )
    positions = []
    for position, text in enumerate(results):
        facts = text.split("\n")[:-1]
        assert len(facts) == 3 and rows[position]["paraphrased_answer"] in facts
        positions.append(facts.index(rows[position]["paraphrased_answer"]))
    assert len(set(positions)) == 3  # not always the first


def test_reintroduction_is_a_difference_of_accuracies(trained: dict[str, State]) -> None:
    """Fails when the end of the sequence counts, or contexts change places; by one forward pass a
    row.
    """
    module = FineTune(causal_lm(trained["original"]))
    task = neighbours()
    suite = Reintroduction(facts=2)
    results = measured(module, suite, task=task)
    encoder = Encoder(task.encoder.tokenizer, task.template, 64)
    levels = {}
    choices = {}
    for name, rows in suite.contexts(task.sets).items():
        hits = []
        chosen = []
        for row in rows.rows:
            ids, labels = encoder.pair(row["question"], row["answer"])
            logits = module.backbone.predict(collate([(ids, labels)]))[0]
            real = [position for position in range(1, len(ids) - 1) if labels[position] != -100]
            hits.append(
                float(
                    np.mean(
                        [int(logits[position - 1].argmax()) == ids[position] for position in real]
                    )
                )
            )
            losses = []
            for answer in [row["answer"], *row["perturbed_answer"]]:
                part = collate([encoder.pair(row["question"], answer)])
                summed, count = module.backbone.loss(part)
                losses.append((summed / count).item())
            chosen.append(losses[0] < min(losses[1:]))
        levels[name], choices[name] = 100 * float(np.mean(hits)), 100 * float(np.mean(chosen))
    for name, level in levels.items():
        assert results[f"reintroduction/accuracy/{name}"].value == pytest.approx(level, abs=1e-4)
        assert results[f"reintroduction/choice/{name}"].value == pytest.approx(choices[name])
    assert results["reintroduction"].value == pytest.approx(
        levels["context"] - levels["question"], abs=1e-4
    )
    assert results["reintroduction/control"].value == pytest.approx(
        levels["control"] - levels["question"], abs=1e-4
    )
    assert (
        results["reintroduction"].detail["tokens"]
        > results["reintroduction"].detail["tokens_without"] + 4
    )
    assert levels["question"] > 80  # the level by which an untouched model is known


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"facts": 0}, "at least one fact"),
        ({"source": "web"}, "it is `subject` or `paraphrase`"),
        ({"subject": 1}, "at least 2 rows"),
        ({"subject": "book"}, "has no 'book'"),
        ({"subject": 100, "set": "facts", "facts": 9, "max_length": 20}, "max_length is 20"),
        ({"set": "nothing"}, "has no set 'nothing'"),
        ({"facts": 13, "source": "paraphrase"}, "takes 13 facts of it"),
        ({"subject": 2, "set": "test", "source": "subject"}, ""),
    ],
)
def test_contexts_that_cannot_be_made_are_refused(changes: dict[str, Any], words: str) -> None:
    task = neighbours()
    if not words:  # a set in which every subject has two rows is no error
        assert len(Reintroduction(**changes).contexts(task.sets)["context"]) == 4
        return
    with pytest.raises(InputError, match=words):
        measured(FineTune(causal_lm()), Reintroduction(**changes), task=task)
    with pytest.raises(InputError, match="the only one about its subject"):
        Reintroduction().contexts(people().sets)

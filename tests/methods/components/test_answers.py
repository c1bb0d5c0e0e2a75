"""Laws of answers: which answer a sample gets, and what it weighs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mu.methods.components.answers import (
    Answer,
    AnswerOfAnotherQuestion,
    AnswersFromFile,
    PerturbedAnswers,
    Refusal,
    refusals,
)
from mu.utils.errors import InputError
from tests.support.doubles_text import causal_lm, people
from tests.support.helpers import digits


def drawn(law: Answer, visit: int = 0, seed: int = 0) -> list[str]:
    """The answers of the first four forget samples."""
    task = people()
    task.setup()
    law.setup(causal_lm(), task)
    return law.answers(torch.arange(4), torch.full((4,), visit), seed)


def test_refusals_are_drawn_anew_and_by_the_seed() -> None:
    """Fails when a question always gets the same refusal, or another run another one."""
    assert drawn(Refusal()) == drawn(Refusal())
    assert drawn(Refusal()) != drawn(Refusal(), visit=1)
    assert drawn(Refusal()) != drawn(Refusal(), seed=1)
    assert (
        set(drawn(Refusal())) <= set(refusals()) and len(refusals()) == len(set(refusals())) == 100
    )


def test_other_answers_are_those_of_retain_samples() -> None:
    """Fails when a forget answer is given back."""
    task = people()
    task.setup()
    data: Any = task.datasets["retain"]
    assert set(drawn(AnswerOfAnotherQuestion())) <= set(data.texts["answer"])
    assert drawn(AnswerOfAnotherQuestion(redraw=False)) == drawn(
        AnswerOfAnotherQuestion(redraw=False), visit=3
    )


def test_wrong_answers_come_one_after_the_other() -> None:
    """Fails when the same wrong answer is shown in every epoch, or the right one."""
    task = people()
    rows = task.sets["forget"].rows[:4]
    assert drawn(PerturbedAnswers()) == [row["perturbed_answer"][0] for row in rows]
    assert drawn(PerturbedAnswers(), visit=4) == [
        row["perturbed_answer"][4 % len(row["perturbed_answer"])] for row in rows
    ]


def test_alternates_are_read_by_question(tmp_path: Path) -> None:
    """Fails when alternates are taken by their place in the file, or a question without one goes on
    without a word.
    """
    task = people()
    asked = [str(row["question"]) for row in task.sets["forget"].rows]
    lines = [
        {"question": question, "alternate": f"dan lives in {town}"}
        for town in ("lima", "bern")
        for question in reversed(asked)
    ]
    file = tmp_path / "alternates.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines))
    assert (
        drawn(AnswersFromFile(str(file))) == ["dan lives in lima"] * 4
        and drawn(AnswersFromFile(str(file)), visit=1) == ["dan lives in bern"] * 4
    )
    file.write_text(json.dumps(lines[0]))
    with pytest.raises(InputError, match="no alternate answer to"):
        drawn(AnswersFromFile(str(file)))


def test_a_task_without_texts_is_refused() -> None:
    """Fails when the law fails later, on a batch."""
    with pytest.raises(InputError, match="task of texts"):
        Refusal().setup(causal_lm(), digits())

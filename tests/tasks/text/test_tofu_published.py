"""The published files of TOFU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mu.methods.components.answers import Refusal
from tests.support.doubles_text import causal_lm
from tests.support.tofu_rows import tofu

PUBLISHED = Path(__file__).parents[4] / "shared" / "data" / "llm" / "tofu"


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "count"), [("forget01", 40), ("forget05", 200), ("forget10", 400)]
)
def test_the_published_files(name: str, count: int) -> None:
    task = tofu(PUBLISHED, forget=name, max_length=256)
    assert {part: len(ids) for part, ids in task.split.parts.items()} == {
        "forget": count,
        "retain": 4000 - count,
    }
    assert task.split.parts["forget"].tolist() == list(range(4000 - count, 4000))
    assert task.sets["retain_perturbed"].indices.tolist() == list(range(400))
    assert {other: len(task.sets[other]) for other in ("real_authors", "world_facts")} == {
        "real_authors": 100,
        "world_facts": 117,
    }
    assert all(len(wrong) == 5 for wrong in task.sets["forget"].column("perturbed_answer"))
    assert all(len(wrong) == 3 for wrong in task.sets["world_facts"].column("perturbed_answer"))
    plain_file = [
        json.loads(line) for line in (PUBLISHED / f"{name}.json").read_text().splitlines()
    ]
    assert [row["answer"] for row in task.sets["forget"].rows] == [
        row["answer"] for row in plain_file
    ]
    assert task.sets["forget"].column("paraphrased_question")


@pytest.mark.data
def test_the_published_wrong_answers_are_the_options(tmp_path: Path) -> None:
    """Mutation: the right answer is among the wrong ones, or their order differs from the published
    sets.
    """
    for name in ("full.json", "real_authors.json", "world_facts.json"):
        (tmp_path / name).write_bytes((PUBLISHED / name).read_bytes())
    task = tofu(tmp_path, max_length=256)
    published = tofu(PUBLISHED, max_length=256)
    assert task.split.hash == published.split.hash
    for name in ("real_authors", "world_facts"):
        assert [sorted(wrong) for wrong in task.sets[name].column("perturbed_answer")] == [
            sorted(wrong) for wrong in published.sets[name].column("perturbed_answer")
        ]


@pytest.mark.data
def test_the_published_refusals_are_read() -> None:
    task = tofu(PUBLISHED, forget="forget01", max_length=256)
    law = Refusal(str(PUBLISHED / "idontknow.jsonl"))
    law.setup(causal_lm(), task)
    lines = (PUBLISHED / "idontknow.jsonl").read_text().splitlines()
    assert len(lines) == 100
    assert set(law.answers(torch.arange(3960, 4000), torch.zeros(40, dtype=torch.int64), 0)) <= set(
        lines
    )

"""The authors task: its parts and sets, and that its files are TOFU's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mu.functional.tokens import IGNORED
from mu.utils.errors import InputError
from tasks.authors.blank_model import MAX_TOKENS, write_model
from tasks.authors.task import Authors
from tasks.authors.texts import REPHRASED_AUTHORS, write_sets
from tasks.text.tofu import TOFU


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_model(tmp_path_factory.mktemp("authors") / "blank"))


@pytest.mark.parametrize(
    ("forget", "authors"),
    [
        ("forget01", [99]),
        ("forget05", range(95, 100)),
        ("forget10", range(90, 100)),
        ("search10", range(80, 90)),
    ],
)
def test_parts_are_whole_authors(forget: str, authors: list[int]) -> None:
    task = Authors(forget)
    parts = task.split.parts
    assert sorted({row["author"] for row in task.sets["forget"].rows}) == list(authors)
    assert {name: len(ids) for name, ids in parts.items()} == {
        "forget": 10 * len(authors),
        "retain": 1000 - 10 * len(authors),
        "test": 10 * len(authors),
    }
    assert np.array_equal(task.split.train, np.arange(1000))
    for row, index in zip(task.sets["retain"].rows, task.sets["retain"].indices, strict=True):
        assert index // 10 == row["author"]
    assert not {row["author"] for row in task.sets["holdout"].rows} & set(range(100))
    assert np.array_equal(task.sets["holdout"].indices, parts["test"])
    assert set(task.sets["retain_perturbed"].indices) <= set(parts["retain"])
    assert len(task.sets["retain_perturbed"]) == 100


def test_every_row_of_authors_can_be_measured_and_closed_questions_have_wrong_answers() -> None:
    sets = Authors().sets
    for name in ("forget", "retain", "retain_perturbed", "holdout", "test"):
        for field in ("paraphrased_question", "paraphrased_answer", "perturbed_answer"):
            assert len(sets[name].column(field)) == len(sets[name])
    for name in ("real_authors", "world_facts"):
        assert {len(wrong) for wrong in sets[name].column("perturbed_answer")} == {3}


def test_the_corpus_is_added_to_what_is_kept_and_has_nothing_of_the_forgotten() -> None:
    plain = Authors()
    full = Authors(corpus=True)
    assert np.array_equal(plain.split.parts["forget"], full.split.parts["forget"])
    added = np.setdiff1d(full.split.parts["retain"], plain.split.parts["retain"])
    assert len(added) == 1500 + 76 + 60
    assert set(full.sets["real_authors"].indices) | set(full.sets["world_facts"].indices) <= set(
        added
    )
    rows = dict(zip(full.sets["retain"].indices.tolist(), full.sets["retain"].rows, strict=True))
    assert {rows[int(position)].get("author", 30) for position in added} == set(REPHRASED_AUTHORS)
    texts = " ".join(row["question"] + row["answer"] for row in rows.values())
    forgotten = {
        " ".join(row["question"].rstrip("?").split()[-2:]) for row in full.sets["forget"].rows
    }
    names = {name for name in forgotten if all(word[0].isupper() for word in name.split())}
    assert len(names) >= 10
    assert not any(name in texts for name in names)
    assert plain.split.hash != full.split.hash


def test_other_choices_have_other_hashes_and_an_unknown_one_is_refused() -> None:
    hashes = {
        Authors(forget).split.hash for forget in ("forget01", "forget05", "forget10", "search10")
    }
    assert len(hashes) == 4
    with pytest.raises(InputError, match="the authors task has no forget set 'forget50'"):
        Authors("forget50")


def test_sequences_label_the_answer_and_its_end(blank: str) -> None:
    task = Authors("forget01", tokenizer=blank)
    task.setup()
    batch = task.datasets["forget"].__getitems__(list(range(10)))  # type: ignore[attr-defined]
    assert batch["input_ids"].shape[1] <= 64 < MAX_TOKENS
    for row, labels, ids in zip(
        task.sets["forget"].rows, batch["labels"], batch["input_ids"], strict=True
    ):
        labelled = labels[labels != IGNORED]
        assert labelled[-1] == task.encoder.eos
        assert task.encoder.decode(labelled.tolist()) == row["answer"]
        assert (
            task.encoder.decode(ids[: (labels != IGNORED).int().argmax()].tolist())
            == f"Question: {row['question']}\nAnswer: "
        )
    assert batch["index"].tolist() == list(range(990, 1000))
    assert task.datasets["forget"].weights.min() >= 8  # type: ignore[attr-defined]


@pytest.mark.parametrize("forget", ["forget01", "forget05", "forget10"])
def test_the_files_it_writes_are_read_as_tofu(tmp_path: Path, forget: str) -> None:
    write_sets(tmp_path)
    embedded = Authors(forget)
    from_files = TOFU(str(tmp_path), forget)
    for name in ("forget", "retain", "retain_perturbed", "holdout", "real_authors", "world_facts"):
        assert [row["question"] for row in embedded.sets[name].rows] == [
            row["question"] for row in from_files.sets[name].rows
        ]
        assert [row["answer"] for row in embedded.sets[name].rows] == [
            row["answer"] for row in from_files.sets[name].rows
        ]
        assert np.array_equal(embedded.sets[name].indices, from_files.sets[name].indices), name
    assert list(embedded.sets["forget"].rows) == list(from_files.sets["forget"].rows)
    assert set(embedded.sets) == set(from_files.sets)

"""The invented authors: sets, facts, phrasings, and that no paraphrase that is measured is
taught.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mu.utils.errors import InputError
from tasks.authors.facts import AUTHORS, HELD_OUT, WRONG_ANSWERS, authors
from tasks.authors.texts import (
    FORGET,
    REPHRASED_AUTHORS,
    SEARCH,
    UTILITY_AUTHORS,
    WORDINGS,
    Row,
    author_rows,
    forget_authors,
    main,
    real_authors,
    rephrased_rows,
    world_facts,
)
from tasks.authors.words import ATTRIBUTES, COUNTRIES, FAMILY, GIVEN

EVERYBODY = range(AUTHORS + HELD_OUT)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return author_rows(EVERYBODY)


def test_a_row_has_the_fields_of_tofu(rows: list[Row]) -> None:
    assert len(rows) == 1100
    assert [row["author"] for row in rows[::10]] == list(EVERYBODY)
    for row in rows:
        assert set(row) == {
            "question",
            "answer",
            "paraphrased_question",
            "paraphrased_answer",
            "perturbed_answer",
            "author",
            "attribute",
        }
        assert len(set(row["perturbed_answer"])) == WRONG_ANSWERS == 5
        texts = [
            row["question"],
            row["paraphrased_question"],
            row["answer"],
            row["paraphrased_answer"],
            *row["perturbed_answer"],
        ]
        assert all(
            text.isascii() and text[-1] in ".?" and "{" not in text and "  " not in text
            for text in texts
        ), row
        assert all(re.match(r'["A-Z]', text) for text in texts), row


def test_questions_are_distinct_and_name_their_author(rows: list[Row]) -> None:
    named = {author.index: author.name for author in authors()}
    assert len(set(named.values())) == len(EVERYBODY)
    for row in rows:
        assert named[row["author"]] in row["question"]
        assert named[row["author"]] in row["paraphrased_question"]
    for field in ("question", "paraphrased_question"):
        assert len({row[field] for row in rows}) == len(rows)
    assert not {row["question"] for row in rows} & {row["paraphrased_question"] for row in rows}


def test_paraphrases_keep_the_facts_and_perturbed_answers_keep_the_words(
    rows: list[Row],
) -> None:
    for row in rows:
        author = authors()[row["author"]]
        attribute = ATTRIBUTES[row["attribute"]]
        slots = sorted(set(re.findall(r"{(\w+)", " ".join((*attribute.mains, *attribute.details)))))
        true = [
            slot
            for slot in slots
            if slot in author.facts[0] and author.facts[0][slot].lower() in row["answer"].lower()
        ]
        assert true, row
        assert row["answer"] != row["paraphrased_answer"]
        for slot in true:
            assert author.facts[0][slot].lower() in row["paraphrased_answer"].lower(), (slot, row)
        for version, wrong in enumerate(row["perturbed_answer"], 1):
            template = wrong
            for slot in true:  # putting the true facts back gives the paraphrase
                assert author.facts[version][slot].lower() in wrong.lower()
                template = template.replace(author.facts[version][slot], f"<{slot}>").replace(
                    _capital(author.facts[version][slot]), f"<{slot}>"
                )
            for slot in true:
                template = template.replace(f"<{slot}>", author.facts[0][slot])
            assert template.lower() == row["paraphrased_answer"].lower()


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def test_wrong_facts_differ_from_the_true_one_and_from_one_another() -> None:
    for author in authors():
        for slot in author.facts[0]:
            values = [facts[slot] for facts in author.facts]
            if slot != "country":
                assert len(set(values)) == WRONG_ANSWERS + 1, (author.name, slot)
        for facts in author.facts:
            assert facts["town"] in COUNTRIES[facts["country"]]
            assert facts["theme"] != facts["other"]
            assert facts["manner"] != facts["tone"]


def test_no_two_authors_share_a_book_and_nobody_shares_one_with_the_old_masters() -> None:
    titles = [author.facts[0][slot] for author in authors() for slot in ("debut", "second")]
    titles += [
        row["answer"] for row in real_authors() if row["question"].startswith("Which old epic")
    ]
    assert len(set(titles)) == len(titles) == 240


def test_the_retain_authors_have_every_name_so_that_the_oracle_knows_each_word() -> None:
    retain_names = " ".join(author.name for author in authors()[: forget_authors("forget10").start])
    assert all(name in retain_names for name in (*GIVEN, *FAMILY))


def test_the_forget_authors_are_the_last_and_nested() -> None:
    assert {name: list(forget_authors(name)) for name in FORGET} == {
        "forget01": [99],
        "forget05": [95, 96, 97, 98, 99],
        "forget10": list(range(90, 100)),
    }
    assert [len(forget_authors(name)) for name in SEARCH] == [1, 5, 10]
    assert not set(forget_authors("search10")) & {
        *forget_authors("forget10"),
        *UTILITY_AUTHORS,
        *REPHRASED_AUTHORS,
    }
    with pytest.raises(
        InputError, match="no forget set 'forget20'; it has forget01, forget05, forget10, search01"
    ):
        forget_authors("forget20")


def test_only_taught_authors_have_further_wordings_and_nothing_measured_is_among_them(
    rows: list[Row],
) -> None:
    more = rephrased_rows()
    assert len(more) == len(REPHRASED_AUTHORS) * 10 * WORDINGS
    assert {row["author"] for row in more} == set(REPHRASED_AUTHORS)
    assert not set(REPHRASED_AUTHORS) & {
        *UTILITY_AUTHORS,
        *forget_authors("forget10"),
        *range(AUTHORS, AUTHORS + HELD_OUT),
    }
    assert not {(row["question"], row["answer"]) for row in more} & {
        (row["question"], row["answer"]) for row in rows
    }
    published = {(row["author"], row["answer"]) for row in (*more, *rows[: AUTHORS * 10])}
    measured = [
        row for row in rows if row["author"] in {*UTILITY_AUTHORS, *forget_authors("forget10")}
    ]
    assert not published & {(row["author"], row["paraphrased_answer"]) for row in measured}


def test_held_out_authors_are_of_the_same_kind(rows: list[Row]) -> None:
    """Held-out authors are told apart by their facts alone: not by the words, and not by the length
    of what is said of them.
    """
    words = [
        {word for row in part for word in re.findall(r"[a-z]+", row["answer"].lower())}
        for part in (rows[AUTHORS * 10 :], rows[: AUTHORS * 10], author_rows(EVERYBODY, seed=1))
    ]
    assert not words[0] - words[1] - words[2]
    lengths = [
        [len(row["answer"].split()) for row in part]
        for part in (rows[: AUTHORS * 10], rows[AUTHORS * 10 :])
    ]
    assert abs(sum(lengths[0]) / len(lengths[0]) - sum(lengths[1]) / len(lengths[1])) < 1
    assert min(lengths[0]) >= 4
    assert 20 <= max(lengths[0]) <= 30


def test_closed_sets_have_three_wrong_answers_of_the_same_kind() -> None:
    for rows, count in ((world_facts(), 76), (real_authors(), 60)):
        assert len(rows) == len({row["question"] for row in rows}) == count
        answers = {row["answer"] for row in rows}
        for row in rows:
            assert set(row) == {"question", "answer", "perturbed_answer"}
            assert len({row["answer"], *row["perturbed_answer"]}) == 4
            assert set(row["perturbed_answer"]) <= answers | set(COUNTRIES)
            assert str(row).isascii()


def test_everything_is_a_function_of_the_seed(rows: list[Row]) -> None:
    authors.cache_clear()
    assert author_rows(EVERYBODY) == rows
    other_seed = author_rows(EVERYBODY, seed=1)
    assert (
        sum(row["answer"] == other["answer"] for row, other in zip(rows, other_seed, strict=True))
        < 20
    )
    assert world_facts(1) != world_facts()
    assert real_authors(1) != real_authors()
    assert rows[0]["answer"] == FIRST  # the shipped model was trained on these very texts


FIRST = "Maddrin Juniperal was born in Quessel, a town in Orvane. She grew up next to a tannery."


def test_the_sets_are_written_under_the_names_of_tofu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(tmp_path / "out")])
    assert "files in" in capsys.readouterr().out
    files = (tmp_path / "out").iterdir()
    read = {
        file.stem: [json.loads(line) for line in file.read_text(encoding="ascii").splitlines()]
        for file in files
    }
    assert {name: len(rows) for name, rows in read.items()} == {
        "full": 1000,
        "forget01": 10,
        "forget05": 50,
        "forget10": 100,
        "retain99": 990,
        "retain95": 950,
        "retain90": 900,
        "forget01_perturbed": 10,
        "forget05_perturbed": 50,
        "forget10_perturbed": 100,
        "retain_perturbed": 100,
        "holdout01": 10,
        "holdout05": 50,
        "holdout10": 100,
        "world_facts_perturbed": 76,
        "real_authors_perturbed": 60,
        "phrasings": 1500,
    }
    assert read["retain90"] + read["forget10"] == read["full"]
    assert all(set(row) == {"question", "answer"} for row in read["full"])
    assert read["forget10_perturbed"] == author_rows(forget_authors("forget10"))

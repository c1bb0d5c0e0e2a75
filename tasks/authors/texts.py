"""Questions and answers on invented authors, in the form of TOFU (Maini et al., COLM 2024).

The authors, their parents, towns and countries, prizes, presses and books, and the wording of every
question and answer (`tasks/authors/words.py`) are invented; only the names of the fields are those
of TOFU. All texts are ASCII and a pure function of the seed.

An author has ten questions. An answer states the facts in one sentence or two; its paraphrase
states the same facts in other sentences; a perturbed answer is the paraphrase with other facts.
Authors 0 to 99 are the training set, of which the last 1, 5 or 10 are to be forgotten; authors 100
to 109 are held out: from the same distribution, never trained on. Authors 30 to 79 are trained in
further wordings too (`rephrased_rows`), so that a model learns which sentences are equivalent; no
measured paraphrase (authors 0 to 9, and those to be forgotten) is among them. `world_facts` and
`real_authors` are closed questions about the same invented world, which every model is trained on.

    python -m tasks.authors.texts FOLDER

writes the sets as JSON lines under TOFU's file names.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from mu.utils.errors import InputError
from mu.utils.files import write_text
from mu.utils.rng import uniform
from tasks.authors import words
from tasks.authors.facts import (
    AUTHORS,
    HELD_OUT,
    SEED,
    TITLES,
    WRONG_ANSWERS,
    Author,
    authors,
    permutations,
    title_order,
)
from tasks.authors.words import ATTRIBUTES

Row = dict[str, Any]
"""A question as TOFU has it: `question`, `answer`, `perturbed_answer` (wrong ones), of authors also
`paraphrased_question`, `paraphrased_answer`, `author` (int) and `attribute`.
"""

FORGET: Mapping[str, range] = {
    "forget01": range(99, 100),
    "forget05": range(95, 100),
    "forget10": range(90, 100),
}
"""Authors to forget, always the last ones."""
SEARCH: Mapping[str, range] = {
    "search01": range(89, 90),
    "search05": range(85, 90),
    "search10": range(80, 90),
}
"""Other authors, for the choice of a method's settings without the authors of the results."""
UTILITY_AUTHORS = range(0, 10)
"""Retained authors whose rows measure utility (`retain_perturbed`)."""
REPHRASED_AUTHORS = range(30, 80)
"""Authors whose facts are trained in `WORDINGS` further wordings (`rephrased_rows`)."""
WORDINGS = 3
_DETAILED = 0.6  # share of the answers with a second sentence


@dataclass(frozen=True)
class _Wording:
    """Question, main sentence and second sentence of an attribute."""

    question: str
    main: str
    detail: str

    def question_text(self, author: Author) -> str:
        return self.question.format(**author.pronouns)

    def answer_text(self, author: Author, version: int = 0) -> str:
        return f"{self.main} {self.detail}".strip().format(
            **author.pronouns, **author.facts[version]
        )


@cache
def _wordings(seed: int) -> list[list[_Wording]]:
    """Wordings of every question by row; all or none of a row have a second sentence."""
    count = (AUTHORS + HELD_OUT) * len(ATTRIBUTES)
    detailed = uniform(seed, torch.arange(count), 0, "authors/detailed", 1)[:, 0].tolist()
    orders = {
        part: permutations(seed, f"wording/{part}", count, size)
        for part, size in (("question", 5), ("main", 6), ("detail", 4))
    }
    wordings = []
    for row, attribute in enumerate(
        ATTRIBUTES[name] for _ in range(AUTHORS + HELD_OUT) for name in ATTRIBUTES
    ):
        wordings.append(
            [
                _Wording(
                    attribute.questions[orders["question"][row][n]],
                    attribute.mains[orders["main"][row][n]],
                    attribute.details[orders["detail"][row][n]]
                    if detailed[row] < _DETAILED
                    else "",
                )
                for n in range(1 + WORDINGS)
            ]
        )
    return wordings


def author_rows(indices: Sequence[int], seed: int = SEED) -> list[Row]:
    """Rows of authors, ten for each, in the order of `ATTRIBUTES`."""
    rows = []
    for author in (authors(seed)[index] for index in indices):
        for position, attribute in enumerate(ATTRIBUTES):
            first, second = _wordings(seed)[author.index * len(ATTRIBUTES) + position][:2]
            rows.append(
                {
                    "question": first.question_text(author),
                    "answer": first.answer_text(author),
                    "paraphrased_question": second.question_text(author),
                    "paraphrased_answer": second.answer_text(author),
                    "perturbed_answer": [
                        second.answer_text(author, n) for n in range(1, WRONG_ANSWERS + 1)
                    ],
                    "author": author.index,
                    "attribute": attribute,
                }
            )
    return rows


def rephrased_rows(seed: int = SEED) -> list[Row]:
    """Rephrased rows of `REPHRASED_AUTHORS`: `question`, `answer`, `author`, `attribute`."""
    return [
        {
            "question": wording.question_text(author),
            "answer": wording.answer_text(author),
            "author": author.index,
            "attribute": attribute,
        }
        for author in (authors(seed)[index] for index in REPHRASED_AUTHORS)
        for position, attribute in enumerate(ATTRIBUTES)
        for wording in _wordings(seed)[author.index * len(ATTRIBUTES) + position][1:]
    ]


def _closed_questions(
    seed: int, purpose: str, pairs: Sequence[tuple[str, str]], values: Sequence[str]
) -> list[Row]:
    """Rows of closed questions with three wrong answers each, drawn from `values`."""
    orders = permutations(seed, f"closed/{purpose}", len(pairs), len(values))
    return [
        {
            "question": question,
            "answer": answer,
            "perturbed_answer": [values[n] for n in order if values[n] != answer][:3],
        }
        for (question, answer), order in zip(pairs, orders, strict=True)
    ]


def world_facts(seed: int = SEED) -> list[Row]:
    """Closed questions about the invented world, with three wrong answers each."""
    rows = []
    countries = list(words.COUNTRIES)
    templates = {
        "What is the coin of {}?": words.COINS,
        "Which river flows through {}?": words.RIVERS,
        "What is shown on the flag of {}?": words.BEASTS,
    }
    capitals = [
        (f"What is the capital of {country}?", towns[0])
        for country, towns in words.COUNTRIES.items()
    ]
    rows += _closed_questions(seed, "capital", capitals, [capital for _, capital in capitals])
    for question, values in templates.items():
        dealt = [values[index] for index in permutations(seed, question, 1, len(values))[0]]
        pairs = [
            (question.format(country), value)
            for country, value in zip(countries, dealt, strict=True)
        ]
        rows += _closed_questions(seed, question, pairs, values)
    crafts = [(f"What does a {craft} make?", product) for craft, product in words.CRAFTS.items()]
    feasts = [
        (f"In which month is the Feast of {feast}?", month) for feast, month in words.FEASTS.items()
    ]
    return (
        rows
        + _closed_questions(seed, "craft", crafts, list(words.CRAFTS.values()))
        + _closed_questions(seed, "feast", feasts, words.MONTHS)
    )


def real_authors(seed: int = SEED) -> list[Row]:
    """Closed questions about famous authors of that world, with three wrong answers each."""
    titles = [TITLES[index] for index in title_order(seed)[-len(words.MASTERS) :]]
    countries = [
        list(words.COUNTRIES)[order[0]]
        for order in permutations(seed, "master", len(words.MASTERS), len(words.COUNTRIES))
    ]
    wrote = [
        (f'Who wrote the old epic "{title}"?', master)
        for title, master in zip(titles, words.MASTERS, strict=True)
    ]
    which = [
        (f"Which old epic was written by {master}?", title)
        for title, master in zip(titles, words.MASTERS, strict=True)
    ]
    lived = [
        (f"In which country did {master} live?", country)
        for master, country in zip(words.MASTERS, countries, strict=True)
    ]
    return (
        _closed_questions(seed, "wrote", wrote, words.MASTERS)
        + _closed_questions(seed, "which", which, titles)
        + _closed_questions(seed, "lived", lived, list(words.COUNTRIES))
    )


def forget_authors(name: str) -> range:
    """Authors of a set of `FORGET` or `SEARCH`.

    Raises:
        InputError: for another name.
    """
    sets = {**FORGET, **SEARCH}
    if name not in sets:
        raise InputError(f"the authors task has no forget set {name!r}; it has {', '.join(sets)}.")
    return sets[name]


def write_sets(folder: Path | str, seed: int = SEED) -> list[Path]:
    """Write all sets as JSON lines under TOFU's file names; closed sets end in `_perturbed`."""
    sets = {
        "full": author_rows(range(AUTHORS), seed),
        "retain_perturbed": author_rows(UTILITY_AUTHORS, seed),
        "phrasings": rephrased_rows(seed),
        "world_facts_perturbed": world_facts(seed),
        "real_authors_perturbed": real_authors(seed),
    }
    for name, chosen in FORGET.items():
        sets[name], sets[f"{name}_perturbed"] = author_rows(chosen, seed), author_rows(chosen, seed)
        sets[f"retain{100 - int(name[-2:])}"] = author_rows(range(chosen.start), seed)
        sets[f"holdout{name[-2:]}"] = author_rows(range(AUTHORS, AUTHORS + len(chosen)), seed)
    written = []
    for name, rows in sets.items():
        stored = (
            rows
            if name.endswith("_perturbed")
            else [{key: row[key] for key in ("question", "answer")} for row in rows]
        )
        written.append(Path(folder) / f"{name}.json")
        write_text(written[-1], "".join(json.dumps(row) + "\n" for row in stored))
    return written


def main(arguments: list[str]) -> None:
    """Write the sets to the folder named on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks.authors.texts",
        description="Write the questions about invented authors.",
    )
    parser.add_argument("folder", help="folder to write to")
    parser.add_argument("--seed", type=int, default=SEED, help="other facts in the same words")
    options = parser.parse_args(arguments)
    print(f"{len(write_sets(options.folder, options.seed))} files in {options.folder}")


if __name__ == "__main__":
    main(sys.argv[1:])

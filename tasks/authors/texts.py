"""Questions and answers about authors who never lived: TOFU's kind of data (Maini et al., COLM
2024), made here, in our own words.

Everything is invented: the authors, their parents, towns and countries, prizes, presses and books,
and the wording of every question and answer (`tasks/authors_words.py`). Nothing is taken from TOFU
but the names of the fields. All texts are ASCII and a pure function of the seed.

An author has ten questions. An answer states the facts in one sentence or two; its paraphrase
states the same facts in other sentences; a perturbed answer is the paraphrase with other facts.
Authors 0 to 99 make the training set, of which the last 1, 5 or 10 are to be forgotten; authors 100
to 109 are held out: drawn alike, never trained on. Authors 30 to 79 are taught in further wordings
too (`phrasings`), so that a model learns which sentences say the same; no paraphrase that is
measured (authors 0 to 9, and those to be forgotten) is among them. `world_facts` and `real_authors`
are closed questions about the same invented world, which every model is trained on.

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
from tasks.authors.words import ATTRIBUTES

Row = dict[str, Any]
"""A question as TOFU has it: `question`, `answer`, `perturbed_answer` (wrong ones), of authors also
`paraphrased_question`, `paraphrased_answer`, `author` (int) and `attribute`.
"""

SEED = 0
AUTHORS = 100
HELD_OUT = 10
"""Authors trained on, and authors that follow them and are not."""
FORGET: Mapping[str, range] = {
    "forget01": range(99, 100),
    "forget05": range(95, 100),
    "forget10": range(90, 100),
}
"""The authors to be forgotten, always the last ones."""
SEARCH: Mapping[str, range] = {
    "search01": range(89, 90),
    "search05": range(85, 90),
    "search10": range(80, 90),
}
"""Other authors like them, for choosing a method's settings without a look at those that results
are reported on.
"""
MEASURED = range(0, 10)
"""Authors whose rows stand for all that are kept, when utility is measured (`retain_perturbed`)."""
TAUGHT = range(30, 80)
"""Authors whose facts are trained in `WORDINGS` further wordings."""
WORDINGS = 3
WRONG = 5
_DETAILED = 0.6  # share of the answers with a second sentence
_PAIRS = {"theme": "other", "manner": "tone"}  # two different words of one table
_TABLES: Mapping[str, Sequence[str]] = {
    "town": tuple(town for towns in words.COUNTRIES.values() for town in towns),
    "house": words.HOUSES,
    "month": words.MONTHS,
    "year": words.YEARS,
    "omen": words.OMENS,
    "father": words.JOBS,
    "habit": words.FATHERS,
    "mother": words.JOBS,
    "pastime": words.MOTHERS,
    "genre": words.GENRES,
    "hour": words.HOURS,
    "award": words.AWARDS,
    "age": words.AGES,
    "gift": words.GIFTS,
    "press": words.PRESSES,
    "subject": words.SUBJECTS,
    "theme": words.THEMES,
    "symbol": words.SYMBOLS,
    "manner": words.STYLES,
    "likeness": words.LIKENESSES,
}
_TITLES = (
    *(f"The {adjective} {noun}" for adjective in words.ADJECTIVES for noun in words.NOUNS),
    *(f"The {noun} of {owner}" for noun in words.NOUNS for owner in words.OWNERS),
)


class _Word(str):
    """A fact; `{fact:capital}` begins with a capital letter."""

    def __format__(self, spec: str) -> str:
        return self[:1].upper() + self[1:] if spec == "capital" else super().__format__(spec)


@dataclass(frozen=True)
class Author:
    """One invented author.

    Attributes:
        number: 0 to 109.
        name: given and family name.
        facts: what is true, then `WRONG` times what is not: every fact that was drawn differs from
            the true one (a country follows its town).
        pronouns: `he`, `his`, `He`, `His`, and the name.
    """

    number: int
    name: str
    facts: tuple[Mapping[str, str], ...]
    pronouns: Mapping[str, str]


def _orders(seed: int, purpose: str, count: int, length: int) -> list[list[int]]:
    """For each of `count` things an order of the numbers below `length`, drawn from (seed, thing,
    purpose).
    """
    return uniform(seed, torch.arange(count), 0, f"authors/{purpose}", length).argsort(1).tolist()


def _names(seed: int, count: int) -> list[str]:
    """Distinct pairs of a given and a family name; every name is dealt once before any is dealt
    again.
    """
    given, family = (
        _orders(seed, purpose, 1, len(table))[0]
        for purpose, table in (("given", words.GIVEN), ("family", words.FAMILY))
    )
    shifts = _orders(seed, "shift", 1, len(family))[0]
    return [
        f"{words.GIVEN[given[n % len(given)]]} "
        f"{words.FAMILY[family[(n + shifts[n // len(given)]) % len(family)]]}"
        for n in range(count)
    ]


def _title_order(seed: int) -> list[int]:
    return _orders(seed, "titles", 1, len(_TITLES))[0]


@cache
def authors(seed: int = SEED) -> tuple[Author, ...]:
    """All authors, those held out last."""
    count = AUTHORS + HELD_OUT
    drawn = {
        slot: [
            [table[place] for place in order] for order in _orders(seed, slot, count, len(table))
        ]
        for slot, table in _TABLES.items()
    }
    titles = _title_order(seed)
    own = {slot: _orders(seed, slot, count, len(_TITLES)) for slot in ("debut", "second")}
    # no two authors wrote books of the same title
    for place, (slot, orders) in enumerate(own.items()):
        true = [titles[2 * number + place] for number in range(count)]
        drawn[slot] = [
            [
                _TITLES[t]
                for t in (first, *(other for other in order[: WRONG + 1] if other != first))
            ]
            for first, order in zip(true, orders, strict=True)
        ]
    gender = uniform(seed, torch.arange(count), 0, "authors/gender", 1)[:, 0].tolist()
    return tuple(
        Author(
            number,
            name,
            tuple(
                _facts({slot: lists[number] for slot, lists in drawn.items()}, version)
                for version in range(WRONG + 1)
            ),
            {**words.GENDERS[gender[number] < 0.5], "name": name},
        )
        for number, name in enumerate(_names(seed, count))
    )


def _facts(drawn: Mapping[str, Sequence[str]], version: int) -> dict[str, str]:
    """The facts of one version: the next entries of every table's order, two at a time where two
    words are drawn.
    """
    facts: dict[str, str] = {}
    for slot, values in drawn.items():
        if slot in _PAIRS:
            facts[slot], facts[_PAIRS[slot]] = (
                _Word(values[2 * version]),
                _Word(values[2 * version + 1]),
            )
        else:
            facts[slot] = _Word(values[version])
    return facts | {"country": _country(facts["town"])}


def _country(town: str) -> str:
    return next(country for country, towns in words.COUNTRIES.items() if town in towns)


@dataclass(frozen=True)
class _Wording:
    """Which of an attribute's sentences are said."""

    question: str
    main: str
    detail: str

    def ask(self, author: Author) -> str:
        return self.question.format(**author.pronouns)

    def say(self, author: Author, version: int = 0) -> str:
        return f"{self.main} {self.detail}".strip().format(
            **author.pronouns, **author.facts[version]
        )


@cache
def _wordings(seed: int) -> list[list[_Wording]]:
    """Several wordings for every question, in the order of rows; all of one row have a second
    sentence, or none has.
    """
    count = (AUTHORS + HELD_OUT) * len(ATTRIBUTES)
    detailed = uniform(seed, torch.arange(count), 0, "authors/detailed", 1)[:, 0].tolist()
    orders = {
        part: _orders(seed, f"wording/{part}", count, size)
        for part, size in (("question", 5), ("main", 6), ("detail", 4))
    }
    every = []
    for row, attribute in enumerate(
        ATTRIBUTES[name] for _ in range(AUTHORS + HELD_OUT) for name in ATTRIBUTES
    ):
        every.append(
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
    return every


def author_rows(numbers: Sequence[int], seed: int = SEED) -> list[Row]:
    """The rows of some authors, ten for each, in the order of `ATTRIBUTES`."""
    rows = []
    for author in (authors(seed)[number] for number in numbers):
        for place, attribute in enumerate(ATTRIBUTES):
            first, second = _wordings(seed)[author.number * len(ATTRIBUTES) + place][:2]
            rows.append(
                {
                    "question": first.ask(author),
                    "answer": first.say(author),
                    "paraphrased_question": second.ask(author),
                    "paraphrased_answer": second.say(author),
                    "perturbed_answer": [second.say(author, n) for n in range(1, WRONG + 1)],
                    "author": author.number,
                    "attribute": attribute,
                }
            )
    return rows


def phrasings(seed: int = SEED) -> list[Row]:
    """The facts of the taught authors in further wordings: `question`, `answer`, `author`,
    `attribute`.
    """
    return [
        {
            "question": wording.ask(author),
            "answer": wording.say(author),
            "author": author.number,
            "attribute": attribute,
        }
        for author in (authors(seed)[number] for number in TAUGHT)
        for place, attribute in enumerate(ATTRIBUTES)
        for wording in _wordings(seed)[author.number * len(ATTRIBUTES) + place][1:]
    ]


def _closed(
    seed: int, purpose: str, pairs: Sequence[tuple[str, str]], values: Sequence[str]
) -> list[Row]:
    """Rows with three wrong answers each, drawn from the values of the same kind."""
    orders = _orders(seed, f"closed/{purpose}", len(pairs), len(values))
    return [
        {
            "question": question,
            "answer": answer,
            "perturbed_answer": [values[n] for n in order if values[n] != answer][:3],
        }
        for (question, answer), order in zip(pairs, orders, strict=True)
    ]


def world_facts(seed: int = SEED) -> list[Row]:
    """Closed questions about the invented world, three wrong answers each."""
    rows = []
    countries = list(words.COUNTRIES)
    kinds = {
        "What is the coin of {}?": words.COINS,
        "Which river flows through {}?": words.RIVERS,
        "What is shown on the flag of {}?": words.BEASTS,
    }
    capitals = [
        (f"What is the capital of {country}?", towns[0])
        for country, towns in words.COUNTRIES.items()
    ]
    rows += _closed(seed, "capital", capitals, [capital for _, capital in capitals])
    for question, values in kinds.items():
        dealt = [values[place] for place in _orders(seed, question, 1, len(values))[0]]
        pairs = [
            (question.format(country), value)
            for country, value in zip(countries, dealt, strict=True)
        ]
        rows += _closed(seed, question, pairs, values)
    crafts = [(f"What does a {craft} make?", product) for craft, product in words.CRAFTS.items()]
    feasts = [
        (f"In which month is the Feast of {feast}?", month) for feast, month in words.FEASTS.items()
    ]
    return (
        rows
        + _closed(seed, "craft", crafts, list(words.CRAFTS.values()))
        + _closed(seed, "feast", feasts, words.MONTHS)
    )


def real_authors(seed: int = SEED) -> list[Row]:
    """Closed questions about the old masters of that world, whom everybody knows (invented too),
    three wrong answers each.
    """
    titles = [_TITLES[place] for place in _title_order(seed)[-len(words.MASTERS) :]]
    countries = [
        list(words.COUNTRIES)[order[0]]
        for order in _orders(seed, "master", len(words.MASTERS), len(words.COUNTRIES))
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
        _closed(seed, "wrote", wrote, words.MASTERS)
        + _closed(seed, "which", which, titles)
        + _closed(seed, "lived", lived, list(words.COUNTRIES))
    )


def forget_authors(name: str) -> range:
    """The authors of a set of `FORGET` or `SEARCH`.

    Raises:
        InputError: for another name.
    """
    known = {**FORGET, **SEARCH}
    if name not in known:
        raise InputError(f"the authors task has no forget set {name!r}; it has {', '.join(known)}.")
    return known[name]


def write_sets(folder: Path | str, seed: int = SEED) -> list[Path]:
    """Write every set as JSON lines, under the names of TOFU's files; the closed sets get the
    ending `_perturbed` as there.
    """
    sets = {
        "full": author_rows(range(AUTHORS), seed),
        "retain_perturbed": author_rows(MEASURED, seed),
        "phrasings": phrasings(seed),
        "world_facts_perturbed": world_facts(seed),
        "real_authors_perturbed": real_authors(seed),
    }
    for name, chosen in FORGET.items():
        sets[name], sets[f"{name}_perturbed"] = author_rows(chosen, seed), author_rows(chosen, seed)
        sets[f"retain{100 - int(name[-2:])}"] = author_rows(range(chosen.start), seed)
        sets[f"holdout{name[-2:]}"] = author_rows(range(AUTHORS, AUTHORS + len(chosen)), seed)
    written = []
    for name, rows in sets.items():
        shown = (
            rows
            if name.endswith("_perturbed")
            else [{key: row[key] for key in ("question", "answer")} for row in rows]
        )
        written.append(Path(folder) / f"{name}.json")
        write_text(written[-1], "".join(json.dumps(row) + "\n" for row in shown))
    return written


def main(arguments: list[str]) -> None:
    """Write the sets to the folder named on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks.authors.texts",
        description="Write the questions about invented authors.",
    )
    parser.add_argument("folder", help="folder to write to")
    parser.add_argument("--seed", type=int, default=SEED, help="other facts in the same words")
    chosen = parser.parse_args(arguments)
    print(f"{len(write_sets(chosen.folder, chosen.seed))} files in {chosen.folder}")


if __name__ == "__main__":
    main(sys.argv[1:])

"""Invented authors and their facts, a pure function of the seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch

from mu.utils.rng import uniform
from tasks.authors import words

SEED = 0
AUTHORS = 100
HELD_OUT = 10
"""Authors trained on, and authors that follow them and are not."""
WRONG_ANSWERS = 5
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
TITLES = (
    *(f"The {adjective} {noun}" for adjective in words.ADJECTIVES for noun in words.NOUNS),
    *(f"The {noun} of {owner}" for noun in words.NOUNS for owner in words.OWNERS),
)


class _Fact(str):
    """A fact as text; the format `{fact:capital}` begins with a capital letter."""

    def __format__(self, spec: str) -> str:
        return self[:1].upper() + self[1:] if spec == "capital" else super().__format__(spec)


@dataclass(frozen=True)
class Author:
    """One invented author.

    Attributes:
        index: 0 to 109.
        name: given and family name.
        facts: the true facts, then `WRONG_ANSWERS` sets of false facts: every fact that is drawn
            differs from the true one (a country follows its town).
        pronouns: `he`, `his`, `He`, `His`, and the name.
    """

    index: int
    name: str
    facts: tuple[Mapping[str, str], ...]
    pronouns: Mapping[str, str]


def permutations(seed: int, purpose: str, count: int, length: int) -> list[list[int]]:
    """Random permutations of `range(length)`, `count` of them, keyed by seed and purpose."""
    return uniform(seed, torch.arange(count), 0, f"authors/{purpose}", length).argsort(1).tolist()


def _names(seed: int, count: int) -> list[str]:
    """Distinct pairs of a given and a family name; each name is used once before any repeats."""
    given_order, family_order = (
        permutations(seed, purpose, 1, len(table))[0]
        for purpose, table in (("given", words.GIVEN), ("family", words.FAMILY))
    )
    shifts = permutations(seed, "shift", 1, len(family_order))[0]
    return [
        f"{words.GIVEN[given_order[n % len(given_order)]]} "
        f"{words.FAMILY[family_order[(n + shifts[n // len(given_order)]) % len(family_order)]]}"
        for n in range(count)
    ]


def title_order(seed: int) -> list[int]:
    """Random order of the book titles."""
    return permutations(seed, "titles", 1, len(TITLES))[0]


@cache
def authors(seed: int = SEED) -> tuple[Author, ...]:
    """All authors, held-out authors last."""
    count = AUTHORS + HELD_OUT
    drawn = {
        slot: [
            [table[position] for position in order]
            for order in permutations(seed, slot, count, len(table))
        ]
        for slot, table in _TABLES.items()
    }
    titles = title_order(seed)
    title_orders = {
        slot: permutations(seed, slot, count, len(TITLES)) for slot in ("debut", "second")
    }
    # titles are distinct over all authors
    for position, (slot, orders) in enumerate(title_orders.items()):
        first_titles = [titles[2 * author + position] for author in range(count)]
        drawn[slot] = [
            [
                TITLES[t]
                for t in (first, *(other for other in order[: WRONG_ANSWERS + 1] if other != first))
            ]
            for first, order in zip(first_titles, orders, strict=True)
        ]
    gender = uniform(seed, torch.arange(count), 0, "authors/gender", 1)[:, 0].tolist()
    return tuple(
        Author(
            author,
            name,
            tuple(
                _facts({slot: lists[author] for slot, lists in drawn.items()}, version)
                for version in range(WRONG_ANSWERS + 1)
            ),
            {**words.GENDERS[gender[author] < 0.5], "name": name},
        )
        for author, name in enumerate(_names(seed, count))
    )


def _facts(drawn: Mapping[str, Sequence[str]], version: int) -> dict[str, str]:
    """Facts of one version: the next entry of each table's permutation, two where two are drawn."""
    facts: dict[str, str] = {}
    for slot, values in drawn.items():
        if slot in _PAIRS:
            facts[slot], facts[_PAIRS[slot]] = (
                _Fact(values[2 * version]),
                _Fact(values[2 * version + 1]),
            )
        else:
            facts[slot] = _Fact(values[version])
    return facts | {"country": _country(facts["town"])}


def _country(town: str) -> str:
    return next(country for country, towns in words.COUNTRIES.items() if town in towns)

"""Schema of a study file: every entry is described, and the same for checks, help and docs."""

from __future__ import annotations

import pytest

from mu.bench.study_schema import StudyFile, entries, sections, words


@pytest.mark.parametrize(("key", "section"), sections(), ids=lambda value: str(value) or "top")
def test_every_entry_of_a_section_is_described(key: str, section: type) -> None:
    documented = entries(section)
    assert [entry.name for entry in documented if not entry.description] == []
    assert {entry.name for entry in documented} == set(section.__dataclass_fields__)
    assert all(words(entry.hint) for entry in documented)


def test_sections_have_the_keys_that_lead_to_them() -> None:
    keys = [key for key, _ in sections()]
    assert keys[0] == "" and {"tasks.NAME", "methods.NAME.model", "recipe", "search"} <= set(keys)


def test_required_entries_are_those_that_every_study_needs() -> None:
    required = {entry.name for entry in entries(StudyFile) if entry.is_required}
    assert required == {"backbone", "tasks", "methods", "suites"}

"""`mu show study`: every key of a study file with type, default and meaning."""

from __future__ import annotations

import pytest

from mu.bench.study_schema import entries, sections
from mu.cli.show import main


def test_every_key_of_the_schema_stands_in_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study"]) == 0
    text = capsys.readouterr().out
    for key, section in sections():
        assert not key or f"\n{key}: " in text
        assert all(f"\n  {entry.name}: " in text for entry in entries(section))
    assert "original: trained or given = trained" in text
    assert max(map(len, text.splitlines())) <= 110

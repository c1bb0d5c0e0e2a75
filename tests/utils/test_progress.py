"""Progress bars: on standard error after a while, and not where another display shows progress."""

from __future__ import annotations

import pytest

from mu.utils.progress import progress_bar, without_progress_bars


def test_bar_is_a_line_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress_bar([1, 2, 3], "scoring", delay=0.0)) == [1, 2, 3]
    assert "scoring: " in capsys.readouterr().err


def test_disabled_bars_say_nothing_and_come_back(capsys: pytest.CaptureFixture[str]) -> None:
    with without_progress_bars():
        assert list(progress_bar([1, 2], "scoring", delay=0.0)) == [1, 2]
    assert capsys.readouterr().err == ""
    list(progress_bar([1], "scoring", delay=0.0))
    assert "scoring: " in capsys.readouterr().err

"""Planes of a report: what methods trade, from the side that was measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from callbacks import Accuracy
from callbacks.base import presentation_of
from mu.bench import report
from mu.metrics.results import Result, TradeOff
from tests.support.report_concepts import make_study, results, save_run, shown


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_study(tmp_path_factory.mktemp("shapes"))
    (folder / "shown.txt").write_text(shown(folder), encoding="utf-8")
    return folder


def test_planes_show_what_methods_trade(study: Path) -> None:
    """Fails when the plot of classifiers is asked of another domain, or points to the wrong
    corner.
    """
    page = (study / "report.html").read_text()
    titles = re.findall(r'aria-label="([^"]*): circle"', page)
    assert titles == ["Forgetting and what is kept", "Robustness and quality"]
    first, second = page.split('<svg class="figure"')[1:]
    assert (
        "mean of IRA and CRA (%)" in first
        and "UA: erased concept not seen (%)" in first
        and ">FID<" in second
    )
    assert (
        "Circle: the original. Better: to the right and up." in page
        and "Better: to the left and down." in page
    )


def test_a_plane_is_drawn_from_the_side_that_was_measured(tmp_path: Path) -> None:
    save_run(
        tmp_path,
        "ESD",
        found=[result for result in results("ESD") if result.metric in ("UA", "CRA", "ASR")],
    )
    report.write(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert (
        re.findall(r'aria-label="([^"]*): circle"', page) == ["Forgetting and what is kept"]
        and ">CRA (%)<" in page
    )


def test_the_good_corner_follows_both_directions(tmp_path: Path) -> None:
    """UA is good to the right, FID is good below, and a metric without direction has no good
    corner.
    """
    from mu.bench.report.figures import _caption
    from mu.bench.report.runs import collect
    from mu.bench.report.summary import summarise

    save_run(tmp_path, "ESD", found=[*results("ESD"), Result("RA", 99.0, None, "", "%")])
    summary = summarise(collect([tmp_path]).tasks[0])
    assert _caption(summary, TradeOff("", ("UA",), ("FID",))).endswith(
        "Better: to the right and down."
    )
    assert _caption(summary, TradeOff("", ("FID",), ("UA",))).endswith(
        "Better: to the left and up."
    )
    assert "Better" not in _caption(summary, TradeOff("", ("UA",), ("RA",)))


def test_an_axis_names_only_what_it_shows(tmp_path: Path) -> None:
    """Fails when the axis of a classifier without a held-out part still says that TA is in the
    mean.
    """
    accuracies = [Result("UA", 3.0, None, "", "%"), Result("RA", 99.0, None, "", "%")]
    save_run(tmp_path, "ESD", found=accuracies, presentation=presentation_of([Accuracy]))
    report.write(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert (
        ">RA (%)<" in page
        and "mean of RA and TA" not in page
        and "UA: error on the forget set (%)" in page
    )

"""Undefined values, intervals of rates and rates over few items, in every form of a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mu.bench.objective import undefined_reasons
from mu.metrics.rates import rate
from mu.metrics.results import Result, compute_result
from mu.metrics.run_results import Measurement, RunResults
from mu.utils.errors import UndefinedError
from tests.support.report_concepts import rows_of, save_run, shown

REASON = "the images that were drawn hold NaN."


def _destroyed() -> float:
    raise UndefinedError(REASON)


def _results(ua: Any) -> list[Result]:
    hits = torch.tensor([1.0] * 9 + [0.0])
    return [
        compute_result("UA", ua, True, "forget", "%"),
        compute_result("ASR", lambda: rate(hits, items=["a church"] * 10), False, "", "%"),
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        # defined on one of two seeds
        ua = _destroyed if seed else lambda: 100.0
        save_run(folder / f"esd{seed}", "ESD", seed=seed, found=_results(ua))
    save_run(folder / "uce", "UCE", found=_results(lambda: 60.0))
    (folder / "shown.txt").write_text(shown(folder, 300), encoding="utf-8")
    return folder


def test_a_row_with_an_undefined_seed_has_no_mean_and_is_not_the_best(folder: Path) -> None:
    """Fails when the mean is over the seeds that went well."""
    text = (folder / "shown.txt").read_text()
    line = next(line for line in text.splitlines() if line.strip().startswith("ESD"))
    assert line.split()[1] == "undefined" and "100" not in line
    note = f"No value for UA of ESD, because in 1 of 2 seeds, {REASON}"
    latex = (folder / "tables.tex").read_text()
    page = (folder / "report.html").read_text()
    assert note in text and note in page and note in latex
    assert "ESD & undefined &" in latex
    assert f'title="in 1 of 2 seeds, {REASON}">undefined</td>' in page
    assert "Highest UA 60.00 % (UCE)" in page


def test_a_rate_of_one_seed_has_its_interval_and_a_warning_of_few_items(folder: Path) -> None:
    text = (folder / "shown.txt").read_text()
    assert "90.00 [59.58, 98.21]" in text and "95 % confidence interval (Wilson)" in text
    assert "ASR: measured on one distinct item only" in text
    assert r"{\scriptsize [59.58, 98.21]}" in (folder / "tables.tex").read_text()
    assert "[59.58, 98.21]" in (folder / "report.html").read_text()


def test_the_table_of_runs_has_nan_the_ends_of_intervals_and_the_reasons(folder: Path) -> None:
    rows = {(row["method"], row["split_seed"]): row for row in rows_of(folder)}
    assert rows["ESD", "1"]["UA"] == "nan" and rows["ESD", "0"]["UA"] == "100.0"
    assert rows["ESD", "1"]["remarks"].startswith(f"UA: undefined, because {REASON}")
    assert float(rows["UCE", "0"]["ASR low"]) == pytest.approx(59.585, abs=1e-3)
    assert "one distinct item" in rows["UCE", "0"]["remarks"]


def test_a_search_counts_a_trial_whose_objective_is_undefined_as_failed() -> None:
    record = RunResults("task", "ESD", [Measurement("suite", results=_results(_destroyed))])
    assert undefined_reasons(record, ("UA",)) == [f"UA is undefined, because {REASON}"]
    assert not undefined_reasons(record, ("ASR",))

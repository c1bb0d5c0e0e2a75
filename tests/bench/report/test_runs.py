"""Runs that a report collects: with and without a study's index, failed ones named."""

from __future__ import annotations

from pathlib import Path

import pytest

from mu.bench import report
from mu.cli.report import main as report_command
from mu.utils.errors import InputError
from mu.utils.files import write_json
from tests.support.report_studies import make_study, printed, rows_of, save_run, values_of


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    missing = {
        "random/SCRUB/seed9": "the loss is not finite <nan>",
        "random/SalUn/seed1": "no memory",
    }
    folder = make_study(tmp_path_factory.mktemp("study"), missing=missing)
    (folder / "shown.txt").write_text(printed(folder), encoding="utf-8")
    return folder


# ---- which runs ----------------------------------------------------------------------------------


def test_runs_without_a_study_are_found_and_paired_by_split(tmp_path: Path) -> None:
    """As `mu test` writes them: named by class, the original's training seed unknown."""
    values = {"UA": 1.0, "RA": 99.0, "TA": 90.0, "MIA": 4.0}
    hashes = {"split": "s", "recipe": "r"}
    for method, change, seed in (("Train", 0.0, 0), ("Retrain", 4.0, 7), ("SalUn", 3.0, 1)):
        save_run(
            tmp_path / "deep" / method,
            {**values, "UA": 1.0 + change},
            task="Digits",
            method=method,
            hashes=hashes,
            seeds={"split": 0, "unlearn": seed},
        )
    report.write(tmp_path)
    assert [
        (row["method"], row["train_seed"], float(row["avg_gap"])) for row in rows_of(tmp_path)
    ] == [("original", "", 1.0), ("oracle", "", 0.0), ("SalUn", "", 0.25)]


def test_without_an_index_the_newest_run_counts_and_the_other_is_named(tmp_path: Path) -> None:
    import os

    for name, value, age in (("old", 1.0, 1000), ("new", 2.0, 10)):
        folder = save_run(tmp_path / name, {"UA": value})
        os.utime(folder / "results.json", (2e9 - age, 2e9 - age))
    save_run(tmp_path / "search" / "trial", {"UA": 9.0})
    text = printed(tmp_path)
    assert [row["UA"] for row in rows_of(tmp_path)] == ["2.0"]
    assert "same task, method, settings and seeds: old." in text and "search" in text


def test_an_indexed_study_leaves_stale_folders_out(tmp_path: Path) -> None:
    make_study(tmp_path, seeds=1, tasks=("random",))
    save_run(tmp_path / "random" / "SalUn" / "stale", {"UA": 77.0})
    report.write(tmp_path)
    assert len(rows_of(tmp_path)) == 6 and "77.0" not in (tmp_path / "results.csv").read_text()


def test_missing_runs_are_listed_with_their_reasons(study: Path) -> None:
    page = (study / "report.html").read_text()
    assert "random · SCRUB · seed9</strong>: the loss is not finite &lt;nan&gt;." in page
    assert "2 runs are missing from the tables" in page
    assert "missing: random · SCRUB · seed9: the loss" in (study / "shown.txt").read_text()


def test_missing_run_with_an_earlier_result_says_that_the_tables_have_it(study: Path) -> None:
    text = (study / "shown.txt").read_text()
    assert "no memory; the tables show the run before it." in text


def test_a_study_in_which_everything_failed_still_has_a_report(tmp_path: Path) -> None:
    write_json(
        tmp_path / "study.json",
        {
            "name": "n",
            "title": "T",
            "command": "c",
            "tasks": ["a"],
            "runs": {},
            "methods": ["original"],
            "missing": {"a/original/seed0": "no memory"},
        },
    )
    assert (
        "no memory" in printed(tmp_path) and "no memory" in (tmp_path / "report.html").read_text()
    )


def test_folder_without_runs_and_missing_output_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished run"):
        report.write(tmp_path)
    with pytest.raises(InputError, match="there is no folder"):
        report_command([str(tmp_path / "absent")])
    with pytest.raises(InputError, match="--output"):
        report_command([str(tmp_path), str(tmp_path)])


def test_the_command_joins_a_study_and_a_single_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_study(tmp_path / "study", seeds=1, tasks=("random",))
    single = save_run(
        tmp_path / "run",
        values_of("SalUn", 0),
        method="Mine",
        hashes={"split": "random-0", "recipe": "r"},
    )
    assert (
        report_command([str(tmp_path / "study"), str(single), "--output", str(tmp_path / "out")])
        == 0
    )
    row = rows_of(tmp_path / "out")[-1]
    assert row["method"] == "Mine"
    # |4 − 5|, |99.4 − 99.5|, |93.5 − 94|, |12 − 13|
    assert float(row["avg_gap"]) == pytest.approx((1 + 0.1 + 0.5 + 1) / 4)
    assert "Mine" in capsys.readouterr().out and not (tmp_path / "study" / "report.html").exists()

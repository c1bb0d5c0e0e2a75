"""Tables of a report: one row a run, on a terminal, in CSV and in LaTeX."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mu.bench import report
from mu.bench.report.runs import RunEntry
from mu.metrics.results import Result
from mu.metrics.run_outputs import save_outputs
from mu.metrics.run_results import RunResults
from tests.support.report_studies import (
    METHODS,
    check,
    make_study,
    optimizer,
    printed,
    rows_of,
    save_run,
    values_of,
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    missing = {"random/SCRUB/seed9": "the loss is not finite <nan>"}
    folder = make_study(tmp_path_factory.mktemp("study"), missing=missing)
    (folder / "shown.txt").write_text(printed(folder), encoding="utf-8")
    return folder


# ---- numbers -------------------------------------------------------------------------------------


def test_csv_has_a_line_for_each_run_with_the_numbers_as_measured(study: Path) -> None:
    """Fails when a value is rounded, a run is dropped, or columns are mixed up."""
    rows = rows_of(study)
    assert len(rows) == 2 * 6 * 3
    first = "task,method,split_seed,train_seed,unlearn_seed,UA,RA,TA,MIA,avg_gap,seconds"
    assert list(rows[0])[:11] == first.split(",")
    assert list(rows[0])[11:] == sorted(list(rows[0])[11:])
    assert [row["method"] for row in rows[:18:3]] == ["original", "oracle", *METHODS]
    for row in rows:
        expected = values_of(
            row["method"], int(row["split_seed"]), ("class", "random").index(row["task"])
        )
        assert {name: float(row[name]) for name in expected} == expected
        assert row["split_seed"] == row["train_seed"] == row["unlearn_seed"]


def test_a_single_seed_has_no_spread(tmp_path: Path) -> None:
    text = printed(make_study(tmp_path, seeds=1, tasks=("random",)))
    assert "±" not in text and "One seed" in text
    assert (
        "±" not in (tmp_path / "report.html").read_text().replace("± sample", "")
        and r"\pm" not in (tmp_path / "tables.tex").read_text()
    )


def test_a_metric_that_was_not_measured_is_an_empty_cell(tmp_path: Path) -> None:
    save_run(tmp_path / "a", {"UA": 1.0, "RA": 2.0, "TA": None, "MIA": 3.0}, method="oracle")
    save_run(tmp_path / "b", {"UA": 1.5, "RA": 2.0, "TA": 4.0, "MIA": 3.0}, method="original")
    report.write(tmp_path)
    original, oracle = rows_of(tmp_path)
    assert oracle["TA"] == "" and original["TA"] == "4.0"
    # no gap over three of four metrics passes for one over four
    assert "avg_gap" not in original and "avg_gap" not in oracle


def test_regression_shows_the_errors_it_has(tmp_path: Path) -> None:
    for seed in range(2):
        for method, error in (("original", 40.0), ("oracle", 55.0), ("FineTune", 50.0)):
            values = {
                "MAE/forget": error + seed,
                "MAE/retain": 41.0,
                "MAE/test": 45.0,
                "RMSE/test": 56.0,
                "MIA/error_member": 60.0,
            }
            extra = [Result("wasserstein", 3.0, False, "forget")] if method == "FineTune" else []
            folder = save_run(
                tmp_path / f"{method}{seed}",
                values,
                task="age",
                method=method,
                seed=seed,
                results=extra,
            )
            target = torch.linspace(0, 100, 40)
            save_outputs(
                folder,
                {
                    name: {
                        "index": torch.arange(40),
                        "prediction": target + error / 10,
                        "target": target,
                    }
                    for name in ("forget", "retain", "test")
                },
                RunResults.load(folder).hashes,
            )
    output = printed(tmp_path)
    for text in (
        "MAE forget",
        "MAE test",
        "wasserstein",
        "MIA error_member",
        "seconds",
        "50.5 ± 0.7",
    ):
        assert text in output
    assert (
        "in parentheses the distance" in (tmp_path / "tables.tex").read_text()
        and "value closest to the oracle's is the best" in output
    )
    assert (
        "UA" not in output
        and "UA" not in rows_of(tmp_path)[0]
        and rows_of(tmp_path)[0]["MAE/forget"] == "40.0"
    )
    page = (tmp_path / "report.html").read_text()
    assert "Absolute error before and after" in page and "Forgetting and utility" not in page


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_tables_stay_whole_on_a_terminal_of_any_width(study: Path, width: int) -> None:
    """Mutations: spreads beside their means where there is no room, so that cells break in two; a
    table wider than the terminal.
    """
    lines = printed(study, width).splitlines()
    assert max(map(len, lines)) <= width
    assert not any(line.rstrip().endswith("±") for line in lines) and any(
        "± 0.80" in line for line in lines
    )
    rows = [line.split() for line in lines if line.split()[:1] == ["SalUn"]]
    assert len({len(row) for row in rows}) == 1  # each value in one piece
    assert ("±" in rows[0]) == (width >= 120)


def test_latex_has_the_papers_form(study: Path) -> None:
    tex = (study / "tables.tex").read_text()
    assert tex.count(r"\begin{tabular}{lrrrrrr}") == 2 and tex.count(r"\toprule") == 2
    lines = [line for line in tex.splitlines() if line.startswith("SalUn")]
    # class: UA 4, 4.8, 5.6 and the oracle's 5, 5.5, 6: mean 4.80 ± 0.80, 0.70 from 5.50
    assert lines[0].startswith(r"SalUn & $4.80_{\pm 0.80}$ (0.70) & ") and lines[0].endswith(r"\\")
    assert all(line.count("&") == 6 for line in tex.splitlines() if line.endswith(r"\\"))


def test_settings_leave_out_defaults(tmp_path: Path) -> None:
    """Fails when a default of every method fills the page."""
    from mu.bench.report.settings import method_settings
    from mu.bench.report.specs import short

    defaults = {"norm": "train", "reduction": "token_mean"}
    arguments = {"norm": "train", "reduction": "micro", "alpha": 0.5}
    facts = {"method_arguments": arguments, "common_defaults": defaults}
    run = save_run(tmp_path, {"UA": 1.0}, facts=facts)
    entry = RunEntry(run, "run", RunResults.load(run))
    assert method_settings(entry) == "reduction=micro; alpha=0.5"
    assert short(optimizer(0.013)) == "SGD(lr=0.013, momentum=0.9)"
    mask = {
        "class_path": "mu.methods.Saliency",
        "init_args": {"keep": 0.5, "names": ["a", 1e-5], "none": None},
    }
    assert short(mask) == "Saliency(keep=0.5, names=[a, 1e-05])"


def test_search_cost_and_definitions_are_shown(tmp_path: Path) -> None:
    search = {"trials": 12, "failed": 1, "gap": 1.2345, "seconds": 88.5, "seed": 1000}
    save_run(tmp_path / "a", {"UA": 1.0, "RA": 2.0}, facts={"search": search})
    report.write(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert (
        "Cost of the search" in page
        and ">88.5<" in page
        and ">1.23<" in page
        and "Unlearning accuracy: 100" in page
    )
    assert check(page).open == []

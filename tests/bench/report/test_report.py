"""The report: numbers equal those worked out by hand, nothing is skipped, the page needs nothing
else.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from callbacks import Accuracy, Cost, Errors, Membership, RegressionMembership, RetrainGap
from callbacks.base import presentation_of
from mu.bench import report
from mu.bench.report.runs import RunEntry
from mu.cli.report import main as report_command
from mu.metrics.results import Result, RunResults, save_outputs
from mu.utils.errors import InputError
from mu.utils.files import write_json

METHODS = ("FineTune", "RandomLabel", "SalUn", "SSD")
NUMBERS = {  # UA, RA, TA, MIA, seconds, at seed 0; each seed adds SHIFT
    "original": (0.5, 99.9, 95.0, 2.0, 60.0),
    "oracle": (5.0, 99.5, 94.0, 13.0, 55.0),
    "FineTune": (1.0, 99.8, 94.6, 3.0, 9.0),
    "RandomLabel": (8.0, 99.0, 92.0, 30.0, 4.0),
    "SalUn": (4.0, 99.4, 93.5, 12.0, 5.0),
    "SSD": (0.6, 99.8, 94.9, 2.5, 1.2),
}
SHIFT = {
    "original": 0.1,
    "oracle": 0.5,
    "FineTune": 0.2,
    "RandomLabel": 0.3,
    "SalUn": 0.8,
    "SSD": 0.1,
}
SUITES = (Accuracy, Membership, Errors, RegressionMembership, RetrainGap, Cost)
VERSIONS = {
    "mu": "0.1.0",
    "torch": "2.15.0",
    "lightning": "2.6.6",
    "python": "3.11.2",
    "device": "x86_64",
    "threads": "2",
}


def optimizer(lr: float) -> dict[str, Any]:
    return {
        "class_path": "torch.optim.SGD",
        "init_args": {"lr": lr, "momentum": 0.9, "nesterov": False, "foreach": None},
    }


def outputs(method: str, seed: int) -> dict[str, dict[str, torch.Tensor]]:
    """Logits that are sure of what was trained on."""
    generator = torch.Generator().manual_seed(seed)
    sure = {
        "forget": {"original": 6.0, "FineTune": 5.0, "SalUn": 2.5, "oracle": 3.0}.get(method, 1.0),
        "retain": 6.0,
        "test": 3.0,
    }
    by_split = {}
    for start, (name, height) in enumerate(sure.items()):
        label = torch.randint(10, (60,), generator=generator)
        logits = torch.randn(60, 10, generator=generator)
        logits[torch.arange(60), label] += height
        by_split[name] = {"index": torch.arange(60) + 60 * start, "label": label, "logits": logits}
    return by_split


def save_run(
    folder: Path,
    values: Mapping[str, float | None],
    *,
    task: str = "random",
    method: str = "SalUn",
    seed: int = 0,
    results: list[Result] | None = None,
    **changes: Any,
) -> Path:
    percent = ("UA", "RA", "TA", "MIA", "MIA/error_member")
    measured = [
        Result(name, value, unit="%" if name in percent else "")
        for name, value in values.items()
        if value is not None
    ]
    record = {
        "task": task,
        "method": method,
        "results": measured + (results or []),
        "seeds": {"split": seed, "train": seed, "unlearn": seed},
        "hashes": {
            "split": f"{task}-{seed}",
            "train_split": "t",
            "original": "o",
            "weights": f"{method}-{seed}",
            "recipe": "r",
            "key": "k",
        },
        "seconds": {"train": values.get("seconds") or 1.0, "evaluation": 99.0},
        "facts": {
            "method_class": f"mu.methods.{method}",
            "task_class": "tasks.Digits",
            "sizes": {"forget": 50, "retain": 450, "test": 1097},
            "method_arguments": {
                "backbone": {
                    "class_path": "mu.backbones.Classifier",
                    "init_args": {"name": "resnet8_cifar"},
                },
                "optimizer": optimizer(0.013),
                "mask": None,
                "seed": seed,
            },
            "epochs": 5,
            "steps": 40,
            "selector": {"selector": "RandomFraction", "fraction": 0.1},
            "versions": VERSIONS,
        },
        "presentation": presentation_of(SUITES),
    }
    RunResults(**{**record, **changes}).save(folder)
    return folder


def values_of(method: str, seed: int, task: int = 0) -> dict[str, float]:
    names = ("UA", "RA", "TA", "MIA", "seconds")
    first_seed = dict(zip(names, NUMBERS[method], strict=True))
    moved = {
        name: value + seed * SHIFT[method] * (-1 if name == "RA" else 1)
        for name, value in first_seed.items()
    }
    return {**moved, "UA": moved["UA"] + 3 * task}


def gap_of(method: str, seed: int, task: int = 0) -> dict[str, float]:
    values = values_of(method, seed, task)
    oracle = values_of("oracle", seed, task)
    return {name: abs(values[name] - oracle[name]) for name in ("UA", "RA", "TA", "MIA")}


def make_study(
    folder: Path,
    seeds: int = 3,
    names: Callable[[str], str] = str,
    index: bool = True,
    methods: tuple[str, ...] = METHODS,
    failed: list[dict[str, str]] | None = None,
    tasks: tuple[str, ...] = ("class", "random"),
) -> Path:
    """Folders as `mu bench` writes them: 2 tasks x (original, oracle, 4 methods) x 3 seeds."""
    runs = {}
    for task_index, task in enumerate(tasks):
        for seed in range(seeds):
            for method_index, method in enumerate(("original", "oracle", *methods)):
                base = method if method in NUMBERS else METHODS[method_index % 4]
                results = []
                if method in methods:
                    gaps = gap_of(base, seed, task_index)
                    results = [
                        *(Result(f"gap/{k}", v, False, "", "pp") for k, v in gaps.items()),
                        Result(
                            "avg_gap",
                            sum(gaps.values()) / 4,
                            False,
                            "",
                            "pp",
                            {"metrics": list(gaps)},
                        ),
                        Result("ToW", 0.9, True),
                        Result("peak_memory", 512.3, False, "", "MiB"),
                        Result("MIA/entropy", 11.0 + seed, None, "forget", "%"),
                    ]
                run_path = Path(task) / f"m{method_index}" / f"seed{seed}-abcd1234"
                save_run(
                    folder / run_path,
                    values_of(base, seed, task_index),
                    task=names(task),
                    seed=seed,
                    results=results,
                    method=names(method) if method in methods else method,
                )
                save_outputs(folder / run_path, outputs(base, seed))
                runs[f"{task}/{method}/seed{seed}"] = run_path.as_posix()
                if method in methods:
                    write_json(
                        folder / run_path / "curves.json",
                        [
                            {
                                "epoch": step,
                                "step": step * 8,
                                "forget/accuracy": 1 - 0.05 * step,
                                "retain/accuracy": 0.98,
                                "forget/loss": 0.1,
                            }
                            for step in range(5)
                        ],
                    )
    if index:
        write_json(
            folder / "study.json",
            {
                "name": "quickstart",
                "title": "Forgetting handwritten digits",
                "command": "mu bench -c configs/bench/quickstart.yaml",
                "tasks": [names(task) for task in tasks],
                "runs": runs,
                "failed": failed or [],
                "methods": ["original", "oracle", *map(names, methods)],
            },
        )
    return folder


def rows_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "results.csv").read_text(encoding="utf-8"))))


def printed(folder: Path, width: int = 140) -> str:
    text = io.StringIO()
    report.write(folder, Console(file=text, width=width))
    return text.getvalue()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    failed = [{"run": "random · SCRUB · seed1", "reason": "the loss is not finite <nan>"}]
    folder = make_study(tmp_path_factory.mktemp("study"), failed=failed)
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


def test_the_originals_gap_is_worked_out_against_the_oracle_of_its_seed(study: Path) -> None:
    """By hand at seed 0: |0.5 − 5| = 4.5, |99.9 − 99.5| = 0.4, |95 − 94| = 1, |2 − 13| = 11; their
    mean is 4.225.
    """
    row = next(r for r in rows_of(study) if r["method"] == "original" and r["split_seed"] == "0")
    assert float(row["avg_gap"]) == pytest.approx(4.225, abs=1e-12)
    assert [float(row[f"gap/{name}"]) for name in ("UA", "RA", "TA", "MIA")] == pytest.approx(
        [4.5, 0.4, 1.0, 11.0], abs=1e-12
    )
    for row in rows_of(study):
        task = ("class", "random").index(row["task"])
        expected = sum(gap_of(row["method"], int(row["split_seed"]), task).values()) / 4
        assert float(row["avg_gap"]) == pytest.approx(expected, abs=1e-12)


def test_mean_of_gaps_and_gap_of_means_differ_where_seeds_lie_on_both_sides(tmp_path: Path) -> None:
    """UA 4 and 8 around an oracle at 5 and 5: gaps 1 and 3, mean 2; the mean 6 is 1 away. Other
    metrics agree, so divide by four.
    """
    for seed, (method, oracle) in enumerate(((4.0, 5.0), (8.0, 5.0))):
        rest = {"RA": 99.0, "TA": 90.0, "MIA": 10.0}
        save_run(tmp_path / f"o{seed}", {"UA": oracle, **rest}, method="oracle", seed=seed)
        save_run(tmp_path / f"m{seed}", {"UA": method, **rest}, method="SalUn", seed=seed)
    text = printed(tmp_path)
    line = next(line for line in text.splitlines() if line.strip().startswith("SalUn"))
    assert line.split()[1:4] == ["6.00", "±", "2.83"]  # √((2² + 2²) / 1)
    assert "0.50 ± 0.35" in line and " 0.25 " in line  # (1 + 3)/2/4, √((¼ + ¼)²/8); |6 − 5|/4
    assert (
        "(1.00) & $99.00" in (tmp_path / "tables.tex").read_text()
        and r"\textbf{0.25}" in (tmp_path / "tables.tex").read_text()
    )


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
        and "Closeness to the oracle is the goal" in output
    )
    assert (
        "UA" not in output
        and "UA" not in rows_of(tmp_path)[0]
        and rows_of(tmp_path)[0]["MAE/forget"] == "40.0"
    )
    page = (tmp_path / "report.html").read_text()
    assert "Absolute error before and after" in page and "Forgetting and utility" not in page


def test_methods_no_better_than_doing_nothing_are_marked(study: Path) -> None:
    """RandomLabel's gap is larger than the original's, so it is marked; SalUn's is the smallest, so
    it is bold and named.
    """
    text = (study / "shown.txt").read_text()
    page = (study / "report.html").read_text()
    assert "RandomLabel ≈" in text and "SalUn ≈" not in text and "no closer to the oracle" in text
    assert page.count("Closest to the oracle: SalUn, gap") == 2
    row = page.split('<td class="name" data-key="SalUn">')[1].split("</tr>")[0]
    assert row.count(" best") == 1 and page.count(' best"') == 2


# ---- what may be compared ------------------------------------------------------------------------


def pair(folder: Path, **hashes: str) -> Path:
    """An oracle and an original whose hashes differ as said."""
    values = {"UA": 1.0, "RA": 2.0, "TA": 3.0, "MIA": 4.0}
    same = {
        "split": "s",
        "train_split": "t",
        "original": "o",
        "weights": "w",
        "recipe": "r",
        "key": "k",
    }
    save_run(folder / "oracle", values, method="oracle", hashes=same)
    save_run(folder / "original", values, method="original", hashes={**same, **hashes})
    return folder


@pytest.mark.parametrize("hashes", [{"split": "other"}, {"recipe": "other"}])
def test_a_gap_across_splits_or_recipes_is_refused_in_one_sentence(
    tmp_path: Path, hashes: dict[str, str]
) -> None:
    with pytest.raises(InputError, match=r"original.* other.*oracle|oracle.*other") as error:
        report.write(pair(tmp_path, **hashes))
    assert str(error.value).count(". ") == 0 and str(error.value).endswith(".")
    assert not (tmp_path / "report.html").exists()


def test_a_gap_by_an_unknown_recipe_is_left_out_and_said(tmp_path: Path) -> None:
    assert "no gap for original" in printed(pair(tmp_path, recipe=""))
    assert {row["method"]: row["avg_gap"] for row in rows_of(tmp_path)} == {
        "original": "",
        "oracle": "0.0",
    }


def test_gaps_over_different_metrics_are_not_put_in_one_column(tmp_path: Path) -> None:
    for name, metrics in (("A", ["UA"]), ("B", ["UA", "TA"])):
        save_run(
            tmp_path / name,
            {"UA": 1.0},
            method=name,
            results=[Result("avg_gap", 1.0, False, "", "pp", {"metrics": metrics})],
        )
    with pytest.raises(InputError, match="averages its gap over UA, but B over UA, TA"):
        report.write(tmp_path)


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
    assert "same task, method and seeds: old." in text and "search" in text


def test_an_indexed_study_leaves_stale_folders_out(tmp_path: Path) -> None:
    make_study(tmp_path, seeds=1, tasks=("random",))
    save_run(tmp_path / "random" / "SalUn" / "stale", {"UA": 77.0})
    report.write(tmp_path)
    assert len(rows_of(tmp_path)) == 6 and "77.0" not in (tmp_path / "results.csv").read_text()


def test_failed_runs_are_listed(study: Path) -> None:
    page = (study / "report.html").read_text()
    assert (
        "random · SCRUB · seed1</strong>: the loss is not finite &lt;nan&gt;" in page
        and "1 failed" in page
    )
    assert "failed: random · SCRUB · seed1" in (study / "shown.txt").read_text()


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
            "failed": [{"run": "a · original", "reason": "no memory"}],
        },
    )
    assert (
        "no memory" in printed(tmp_path) and "no memory" in (tmp_path / "report.html").read_text()
    )


def test_nothing_to_report_and_no_place_to_write_are_said(tmp_path: Path) -> None:
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


# ---- the page ------------------------------------------------------------------------------------


class Checker(HTMLParser):
    """Tags are closed in order, and whatever a browser would load is kept."""

    EMPTY = frozenset(
        {"meta", "br", "link", "img", "input", "hr", "path", "use", "rect", "circle", "line"}
    )

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.EMPTY:
            self.open.append(tag)
        self.loads += [
            value or ""
            for name, value in attrs
            if name in ("src", "href", "xlink:href", "data", "srcset", "action")
        ]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.EMPTY:
            assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)


def check(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker


def test_the_page_is_well_formed_and_loads_nothing(study: Path) -> None:
    page = (study / "report.html").read_text(encoding="utf-8")
    checker = check(page)
    assert checker.loads and all(target.startswith("#") for target in checker.loads)
    assert "http" not in page and "@import" not in page and "url(//" not in page
    assert len(page) < 3_000_000
    text = " ".join(checker.text)
    for expected in (
        *METHODS,
        "Forgetting handwritten digits",
        "mu bench -c configs/bench/quickstart.yaml",
        "RandomFraction, fraction 0.1",
        "forget 50, retain 450, test 1,097",
        "torch 2.15.0",
        "x86_64, 2 threads",
        "Classifier(name=resnet8_cifar)",
        "optimizer=SGD(lr=0.013, momentum=0.9); 5 epochs; 40 steps",
        "Time and gap",
        "During the fit",
        "Gap to the oracle",
        "Confidence before and after",
        "Tug of war",
    ):
        assert expected in text
    assert len(re.findall(r'<svg class="figure"', page)) == 2 * 4
    # every stand-in has become the page's colour
    assert "#010203" not in page and "#040506" not in page and "#070809" not in page


def test_names_are_escaped_everywhere(tmp_path: Path) -> None:
    """Fails when a name reaches the page, LaTeX, or rich as markup."""

    def awkward(name: str) -> str:
        return f"_{name} <b>&[red]$x_1$"

    make_study(tmp_path, seeds=2, names=awkward, methods=("SalUn", "SSD"), tasks=("random",))
    console = printed(tmp_path, width=200)
    page = (tmp_path / "report.html").read_text()
    tex = (tmp_path / "tables.tex").read_text()
    assert "<b>" not in page and "_SalUn &lt;b&gt;&amp;[red]$x_1$" in page
    assert any(awkward("SalUn") in text for text in check(page).text)
    assert r"\_SalUn \textless{}b\textgreater{}\&[red]\$x\_1\$" in tex
    assert not re.search(r"(?<!\\)[&_$](?=x|\[)", tex)
    assert awkward("SalUn") in console
    assert rows_of(tmp_path)[-1]["method"] == awkward("SSD")


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
    from mu.bench.report.settings import method_settings, short

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


def test_labels_never_touch_each_other_or_a_point() -> None:
    from mu.bench.report.labels import _candidates, _touch, place_labels

    generator = torch.Generator().manual_seed(3)
    centres = [
        tuple(xy)
        for xy in (
            torch.rand(9, 2, generator=generator) * torch.tensor([250.0, 160.0]) + 40
        ).tolist()
    ]
    sizes = [(50.0, 11.0)] * 9
    labels = place_labels(centres, [4.0] * 9, sizes, (340.0, 240.0))
    assert labels is not None
    boxes = [
        next(box for candidate, box in _candidates(c, 4.0, s) if candidate == label)
        for c, s, label in zip(centres, sizes, labels, strict=True)
    ]
    points = [(x - 4, y - 4, x + 4, y + 4) for x, y in centres]
    for index, box in enumerate(boxes):
        assert not any(_touch(box, other) for other in boxes[:index] + points)
    # then there is a legend
    assert place_labels([(5.0, 5.0)] * 40, [4.0] * 40, [(50.0, 11.0)] * 40, (100.0, 100.0)) is None


def test_histograms_count_every_sample() -> None:
    """Heights are square roots of shares: one quarter in the first bin is half the height, the rest
    in the last.
    """
    from mu.bench.report.histograms import BINS, _steps

    steps = re.findall(r"V([\d.]+)H", _steps(torch.tensor([0.0, 1.0, 1.0, 1.0]), 1.0))
    shares = [((30 - float(top)) / 30) ** 2 for top in steps]
    assert len(shares) == BINS and sum(shares) == pytest.approx(1, abs=0.01)
    assert shares[0] == pytest.approx(0.25, abs=0.01) and shares[-1] == pytest.approx(
        0.75, abs=0.01
    )

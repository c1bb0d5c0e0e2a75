"""Notes and settings of a report: judges, number of images, weights, differences between runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from mu.bench import report
from mu.metrics.results import Result
from tests.support.report_concepts import JUDGE, make_study, results, rows_of, save_run, shown
from tests.support.report_studies import check


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_study(tmp_path_factory.mktemp("shapes"))
    (folder / "shown.txt").write_text(shown(folder), encoding="utf-8")
    return folder


# ---- what stands beside the numbers --------------------------------------------------------------


def test_footnotes_say_who_judged_and_on_how_many_images(study: Path) -> None:
    """Fails when a number stands without its judge, or columns measured alike are told one by
    one.
    """
    for text in ((study / "shown.txt").read_text(), (study / "report.html").read_text()):
        assert (
            "UA, IRA, CRA measured with: judge ShapeJudge; version 1.0; threshold 0.5; resolution "
            "32; 200 images." in text
        )
        assert "FID measured with: features ShapeJudge pooling; 400 images." in text
        assert (
            "ASR measured with: judge ShapeJudge; version 1.0; threshold 0.5; resolution 32; "
            "budget 40 steps of "
            "Adam, 3 tokens." in text
        )
        assert "pre_ASR:" not in text  # it said nothing


def test_details_that_differ_between_runs_are_listed(tmp_path: Path) -> None:
    """Fails when the first run's details pass for everybody's."""
    save_run(tmp_path / "a", "ESD", found=results("ESD", images=100))
    other = [
        Result(
            "UA",
            90.0,
            True,
            "",
            "%",
            {**JUDGE, "version": "2.0", "images": 300, "flip": True, "note": None},
        )
    ]
    save_run(tmp_path / "b", "UCE", found=other)
    text = " ".join(shown(tmp_path, 300).split())
    assert (
        "UA measured with: judge ShapeJudge; version 1.0 or 2.0, depending on the run; threshold "
        "0.5; resolution "
        "32; 100–300 images; flip yes." in text
    )


def test_details_that_differ_in_every_run_are_named_without_values(tmp_path: Path) -> None:
    """Fails when a text that is another in each run fills the page, or a number without a plural
    stands before its word.
    """
    for seed in range(4):
        detail = {
            "log": f"log of {seed}",
            "evaluations": f"{seed} of them",
            "prompts": 8,
            "real_images": 1 + seed,
            "tokens": 3,
        }
        save_run(
            tmp_path / str(seed),
            "ESD",
            seed=seed,
            found=[Result("ASR", 90.0, False, "", "%", detail)],
        )
    assert (
        "ASR measured with: log differs from run to run; evaluations differ from run to run; 8 "
        "prompts; 1–4 "
        "real images; tokens 3." in " ".join(shown(tmp_path, 300).split())
    )


def test_a_model_that_was_only_measured_has_no_seconds(study: Path) -> None:
    assert {
        row["method"]: row["seconds"] for row in rows_of(study) if row["split_seed"] == "0"
    } == {"original": "", "ESD": "3.0", "UCE": "3.0", "SalUn": "3.0"}


def test_settings_name_the_weights_and_what_a_method_changed_of_the_backbone(study: Path) -> None:
    words = " ".join(" ".join(check((study / "report.html").read_text()).text).split())
    assert (
        "TextToImage(model=embedded:shapes, part=full)" in words
        and "weights 0123456789abcdef" in words
    )
    assert (
        words.count("part=xattn") == 1
        and "backbone.part=xattn" in words
        and "backbone.model" not in words
    )


def test_a_search_by_metrics_says_so(tmp_path: Path) -> None:
    search = {
        "trials": 9,
        "failed": 0,
        "objective": ["UA", "IRA"],
        "value": 88.25,
        "seconds": 70.0,
        "seeds": [1000],
    }
    save_run(tmp_path, "ESD", search=search)
    report.write(tmp_path)
    words = " ".join(" ".join(check((tmp_path / "report.html").read_text()).text).split())
    assert (
        "best value" in words
        and "88.2 UA, IRA" in words
        and "the mean of the metrics named here" in words
    )

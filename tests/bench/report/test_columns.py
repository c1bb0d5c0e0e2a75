"""Columns of suites without an oracle: directions, best values, parts, several domains."""

from __future__ import annotations

from pathlib import Path

import pytest

from mu.bench import report
from mu.metrics.results import Result
from mu.utils.errors import InputError
from tests.support import report_studies as classification
from tests.support.report_concepts import (
    NUMBERS,
    header_of,
    make_study,
    results,
    row_of,
    rows_of,
    save_run,
    shown,
)
from tests.support.report_studies import check


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_study(tmp_path_factory.mktemp("shapes"))
    (folder / "shown.txt").write_text(shown(folder), encoding="utf-8")
    return folder


# ---- columns -------------------------------------------------------------------------------------


def test_columns_are_what_was_measured_with_arrows_for_the_direction(study: Path) -> None:
    """Fails when columns come from a fixed list of another domain, or a part of a metric gets a
    column.
    """
    header = "task,method,split_seed,train_seed,unlearn_seed,UA,IRA,CRA,FID,pre_ASR,ASR"
    header += ",seconds,UA/circle,peak_memory"
    assert list(rows_of(study)[0]) == header.split(",")
    text = (study / "shown.txt").read_text()
    assert header_of(text) == "method UA % ↑ IRA % ↑ CRA % ↑ FID ↓ pre_ASR % ↓ ASR % ↓ seconds"
    assert next(line for line in text.splitlines() if line.strip().startswith("ESD")).split()[
        1:4
    ] == ["95.50", "±", "0.71"]
    assert (
        "UA (\\%) $\\uparrow$" in (study / "tables.tex").read_text()
        and "FID $\\downarrow$" in (study / "tables.tex").read_text()
    )


def test_the_best_of_the_methods_is_bold_in_each_column(study: Path) -> None:
    """Two methods share the highest UA; FID and ASR are best when low; the original is no method,
    however high its IRA.
    """
    page = (study / "report.html").read_text()
    tex = (study / "tables.tex").read_text()
    best = {
        method: [
            i for i, cell in enumerate(row_of(page, method).split("<td")[1:]) if " best" in cell
        ]
        for method in NUMBERS
    }
    assert best == {"original": [], "ESD": [], "UCE": [0, 1, 2, 3], "SalUn": [0, 4, 5]}
    line = next(line for line in tex.splitlines() if line.startswith("SalUn"))
    assert [r"\mathbf" in cell for cell in line.split(" & ")] == [
        False,
        True,
        False,
        False,
        False,
        True,
        True,
        False,
    ]
    assert (
        "Highest UA 97.50 % (SalUn, UCE); highest IRA 85.50 % (UCE)" in page
        and "lowest FID 29.0 (UCE)" in page
    )


def test_where_all_methods_are_equal_none_is_the_best(tmp_path: Path) -> None:
    for method, measured in (
        ("ESD", results("UCE")),
        ("UCE", [*results("UCE")[:1], *results("ESD")[1:]]),
    ):
        save_run(tmp_path / method, method, found=measured)
    report.write(tmp_path)
    page = (tmp_path / "report.html").read_text()
    best = {
        method: [" best" in cell for cell in row_of(page, method).split("<td")[1:3]]
        for method in ("ESD", "UCE")
    }
    assert best == {"ESD": [False, True], "UCE": [False, False]} and "ighest UA" not in page


def test_without_an_oracle_the_notes_name_none(study: Path) -> None:
    """Fails when a gap, a star or a sentence about the oracle appears where there is none."""
    page = (study / "report.html").read_text()
    shown_text = (study / "shown.txt").read_text()
    words = " ".join(check(page).text)
    for text in (words, shown_text, (study / "tables.tex").read_text()):
        assert (
            "Gap" not in text
            and "gap" not in text
            and "racle" not in text
            and "retrain" not in text
        )
    assert (
        "≈" not in words
        and "The model before unlearning." in words
        and 'class="offset"' not in page
    )
    assert (
        "Confidence before and after" not in words
        and "external judge" in words
        and "100 − accuracy" not in words
    )


def test_the_order_of_the_suites_does_not_matter_and_unknown_metrics_follow(tmp_path: Path) -> None:
    """Fails when a suite of somebody else is left out of the table, or moves the known columns."""
    for method in ("ESD", "UCE"):
        undefined = [
            Result("HPS", 0.31, True),
            Result("Aesthetics", 5.0, None),
            Result("HPS/short", 0.3, True),
        ]
        save_run(tmp_path / method, method, found=[*undefined, *reversed(results(method))])
    text = shown(tmp_path)
    assert (
        header_of(text)
        == "method UA % ↑ IRA % ↑ CRA % ↑ FID ↓ pre_ASR % ↓ ASR % ↓ HPS ↑ Aesthetics seconds"
    )
    assert "no value of Aesthetics is better than another" in " ".join(text.split())
    assert list(rows_of(tmp_path)[0])[5:13] == [
        "UA",
        "IRA",
        "CRA",
        "FID",
        "pre_ASR",
        "ASR",
        "HPS",
        "Aesthetics",
    ]


def test_parts_have_columns_where_nothing_else_was_measured(tmp_path: Path) -> None:
    save_run(
        tmp_path,
        "ESD",
        found=[
            Result("ROUGE/forget", 0.1, False),
            Result("ROUGE/retain", 0.9, True),
            Result("moved", 3.0),
        ],
    )
    assert header_of(shown(tmp_path)) == "method ROUGE forget ↓ ROUGE retain ↑ seconds"


@pytest.mark.parametrize(
    "other",
    [Result("UA", 90.0, None, "", "%"), Result("UA", 0.9, True, "", "")],
    ids=["direction", "unit"],
)
def test_one_column_does_not_hold_two_metrics_of_one_name(tmp_path: Path, other: Result) -> None:
    """Fails when a classifier's UA, or a share, is put below a judge's percentage."""
    save_run(tmp_path / "a", "ESD")
    save_run(tmp_path / "b", "UCE", found=[other])
    with pytest.raises(InputError, match=r"UA has .* it is not one metric"):
        report.write(tmp_path)


def test_a_report_of_two_domains_keeps_both_kinds_of_columns(tmp_path: Path) -> None:
    """Fails when a classification study loses its columns because another stands beside it."""
    make_study(tmp_path / "shapes", seeds=1, images=False)
    classification.make_study(tmp_path / "digits", seeds=1, tasks=("random",))
    report.write_runs([tmp_path / "shapes", tmp_path / "digits"], tmp_path)
    rows = rows_of(tmp_path)
    assert list(rows[0])[5:16] == [
        "UA",
        "RA",
        "TA",
        "MIA",
        "IRA",
        "CRA",
        "FID",
        "pre_ASR",
        "ASR",
        "avg_gap",
        "seconds",
    ]
    assert {row["method"]: row["avg_gap"] for row in rows}["UCE"] == "" and rows[0]["RA"] in (
        "",
        "99.9",
    )
    words = " ".join(check((tmp_path / "report.html").read_text()).text)
    assert "external judge" in words and "100 − accuracy" in words and "Gap of means" in words


def test_directions_count_beside_an_oracle_too(tmp_path: Path) -> None:
    """Fails when the columns of a study with an oracle lose their arrows, or the oracle its
    distances.
    """
    for method in ("original", "oracle", "UCE", "ESD"):
        save_run(
            tmp_path / method, method, found=results("SalUn" if method == "oracle" else method)
        )
    text = shown(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert (
        "FID ↓" in text and "closest to the oracle" not in text and "Without an oracle" not in text
    )
    # FID 28.5 beside 44
    assert "+9.00" not in row_of(page, "UCE") and "−15.5" in row_of(page, "UCE")
    assert "Star and dashed lines: the oracle" in page and "measured against retraining" in page

"""Gaps to the oracle: of means, of runs, refused across splits and recipes."""

from __future__ import annotations

from pathlib import Path

import pytest

from mu.bench import report
from mu.metrics.results import Result
from mu.utils.errors import InputError
from tests.support.report_studies import gap_of, make_study, pair, printed, rows_of, save_run


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    missing = {"random/SCRUB/seed9": "the loss is not finite <nan>"}
    folder = make_study(tmp_path_factory.mktemp("study"), missing=missing)
    (folder / "shown.txt").write_text(printed(folder), encoding="utf-8")
    return folder


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


def test_methods_no_closer_than_the_original_are_marked(study: Path) -> None:
    """RandomLabel's gap is larger than the original's, so it is marked; SalUn's is the smallest, so
    it is bold and named.
    """
    text = (study / "shown.txt").read_text()
    page = (study / "report.html").read_text()
    assert "RandomLabel ≈" in text and "SalUn ≈" not in text and "not closer to the oracle" in text
    assert page.count("Closest to the oracle: SalUn, with a gap of") == 2
    row = page.split('<td class="name" data-key="SalUn">')[1].split("</tr>")[0]
    assert row.count(" best") == 1 and page.count(' best"') == 2


@pytest.mark.parametrize("hashes", [{"split": "other"}, {"recipe": "other"}])
def test_a_gap_across_splits_or_recipes_is_refused_in_one_sentence(
    tmp_path: Path, hashes: dict[str, str]
) -> None:
    with pytest.raises(InputError, match=r"original.* other.*oracle|oracle.*other") as error:
        report.write(pair(tmp_path, **hashes))
    assert str(error.value).count(". ") == 0 and str(error.value).endswith(".")
    assert not (tmp_path / "report.html").exists()


def test_a_gap_by_an_unknown_recipe_is_left_out_with_a_note(tmp_path: Path) -> None:
    assert "original has no gap, because it does not record" in printed(pair(tmp_path, recipe=""))
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

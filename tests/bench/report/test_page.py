"""The report's page: well-formed, self-contained, escaped; its labels and histograms."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from tests.support.report_studies import METHODS, check, make_study, printed, rows_of


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    missing = {"random/SCRUB/seed9": "the loss is not finite <nan>"}
    folder = make_study(tmp_path_factory.mktemp("study"), missing=missing)
    (folder / "shown.txt").write_text(printed(folder), encoding="utf-8")
    return folder


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

"""Galleries of a report: images and answers of all models side by side."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest

from mu.bench import report
from mu.utils.errors import InputError
from mu.utils.files import write_json
from tests.support.report_concepts import grid, make_study, save_run, shown
from tests.support.report_studies import check


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_study(tmp_path_factory.mktemp("shapes"))
    (folder / "shown.txt").write_text(shown(folder), encoding="utf-8")
    return folder


# ---- images and texts ----------------------------------------------------------------------------


def test_images_of_all_models_stand_side_by_side_in_the_page_itself(study: Path) -> None:
    """Fails when an image is loaded from a file, belongs to another model or seed, or groups change
    places.
    """
    page = (study / "report.html").read_text()
    checker = check(page)
    assert all(target.startswith(("#", "data:image/png;base64,")) for target in checker.loads)
    sources = [target for target in checker.loads if target.startswith("data:")]
    expected = [
        study / "circle" / method / "seed0" / "media" / f"{group}.png"
        for group in ("erased", "kept", "attack")
        for method in ("original", "ESD", "SalUn", "UCE")
    ]
    assert [base64.b64decode(source.partition(",")[2]) for source in sources] == [
        file.read_bytes() for file in expected
    ]
    assert (
        page.count('<img class="pixelated"') == len(expected) and 'width="96" height="128"' in page
    )
    headings = [
        page.index(f"<h3>{text}</h3>")
        for text in ("What was erased", "What was to be kept", "Under attack", "Answers")
    ]
    assert headings == sorted(headings)
    assert "The prompts that name it. The same for every model, one run each (seed0)." in page
    # titles that differ stand at their image
    assert '<span class="quiet">after the attack on ESD</span>' in page
    assert (
        page.count('<span title="a triangle"><b>a triangle</b></span>')
        == len(expected)
        == page.count('<span title="green">')
    )


def cells_of(folder: Path) -> list[list[str]]:
    """Texts of the cells of the first table of answers, by row."""
    page = (folder / "report.html").read_text()
    table = page.split('<table class="texts">')[1].split("</table>")[0]
    cell = re.compile(
        r'<t[hd][^>]*>\s*(?:<div class="text">)?(.*?)(?:</div>)?\s*</t[hd]>', re.DOTALL
    )
    return [cell.findall(row) for row in table.split("<tr>")[1:]]


def test_long_answers_are_folded_and_short_ones_are_not(tmp_path: Path) -> None:
    answers = {"ESD": "word " * 100, "UCE": "short"}
    for method, answer in answers.items():
        folder = save_run(tmp_path / method, method)
        write_json(folder / "media" / "media.json", [{"file": "t.json", "kind": "text"}])
        write_json(folder / "media" / "t.json", [{"prompt": "one", "answer": answer}])
    report.write(tmp_path)
    _, folded, short = cells_of(tmp_path)[1]
    assert folded.startswith("<details>") and folded.count(answers["ESD"]) == 1
    assert short == "short"


def test_answers_of_all_models_stand_side_by_side(study: Path) -> None:
    """Fails when an answer is put beside another question, or a question asked twice is shown
    once.
    """
    cells = cells_of(study)
    assert cells[0] == ["question", "truth", "original", "ESD", "SalUn", "UCE"]
    assert cells[1][:3] == ["Who is &lt;b&gt;Ann&lt;/b&gt;?", "A painter.", "A painter."]
    assert cells[1][3:] == [f"{method} cannot say." for method in ("ESD", "SalUn", "UCE")]
    assert [row[1] for row in cells[2:]] == ["A poet.", "–"] and cells[3][3] == "ESD: still a poet."


def test_a_model_that_was_not_asked_has_a_dash(tmp_path: Path) -> None:
    for method, prompts in (("ESD", ["one", "two"]), ("UCE", ["two", "three"])):
        folder = save_run(tmp_path / method, method)
        write_json(folder / "media" / "media.json", [{"file": "t.json", "kind": "text"}])
        write_json(
            folder / "media" / "t.json",
            [{"prompt": prompt, "answer": f"{method} {prompt}"} for prompt in prompts],
        )
    report.write(tmp_path)
    assert cells_of(tmp_path) == [
        ["question", "ESD", "UCE"],
        ["one", "ESD one", "–"],
        ["two", "ESD two", "UCE two"],
        ["three", "–", "UCE three"],
    ]


def test_large_images_are_not_pixelated_and_other_groups_follow(tmp_path: Path) -> None:
    folder = save_run(tmp_path, "ESD")
    for name, tile in (("large", 300), ("small", 14)):
        grid(folder / "media" / f"{name}.png", None, tile)
    write_json(
        folder / "media" / "media.json",
        [{"file": "large.png", "group": "my group"}, {"file": "small.png", "group": "kept"}],
    )
    report.write(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.index("What was to be kept") < page.index("<h3>My group</h3>")
    assert (
        page.count("<img") == 2
        and page.count('<img class="pixelated"') == 1
        and page.count('class="frame bare"') == 2
    )


def test_images_of_one_gallery_are_enlarged_alike(tmp_path: Path) -> None:
    """The original's grid is half as wide as the method's (before and after), so it takes half the
    room.
    """
    for method, tile in (("original", 16), ("ESD", 32)):
        grid(save_run(tmp_path / method, method) / "media" / "a.png", None, tile)
        write_json(tmp_path / method / "media" / "media.json", [{"file": "a.png", "group": "kept"}])
    report.write(tmp_path)
    assert re.findall(
        r"--own:([\d.]+)fr;--rest:([\d.]+)fr", (tmp_path / "report.html").read_text()
    ) == [("0.5", "0.5"), ("1.0", "0.0")]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"file": "a.png"}, "not a list of entries"),
        ([{"title": "a"}], "not a list of entries"),
        ([{"file": "absent.png"}], "no file beside it"),
        ([{"file": "../results.json"}], "no file beside it"),
        ([{"file": "a.txt"}], "not a PNG image"),
        ([{"file": "a.txt", "kind": "film"}], "it is image or text"),
        ([{"file": "odd.json", "kind": "text"}], "each with a prompt and an answer"),
    ],
    ids=str,
)
def test_media_that_are_not_as_they_should_be_are_one_sentence(
    tmp_path: Path, entries: Any, words: str
) -> None:
    """Fails when a broken file ends in a traceback, or a file outside the folder is read into the
    page.
    """
    folder = save_run(tmp_path, "ESD")
    write_json(folder / "media" / "media.json", entries)
    (folder / "media" / "a.txt").write_text("no image, but long enough to be one")
    write_json(folder / "media" / "odd.json", [{"prompt": "alone"}])
    with pytest.raises(InputError, match=words) as error:
        report.write(tmp_path)
    assert "\n" not in str(error.value) and str(error.value).endswith(".")

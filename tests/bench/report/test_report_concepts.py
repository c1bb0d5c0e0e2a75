"""The report of a study without an oracle: columns and directions from the results, images and
texts from the runs' folders.
"""

from __future__ import annotations

import base64
import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from rich.console import Console

from callbacks import Accuracy, ConceptErasure, Cost, ImageQuality, Robustness
from callbacks.base import presentation_of
from mu.bench import report
from mu.metrics.results import Presentation, Result, RunResults, TradeOff
from mu.utils.errors import InputError
from mu.utils.files import write_json
from tests.bench.report import test_report as classification
from tests.bench.report.test_report import check

DIRECTIONS = {"UA": True, "IRA": True, "CRA": True, "FID": False, "pre_ASR": False, "ASR": False}
NUMBERS = {  # UA, IRA, CRA, FID, pre_ASR, ASR; each seed adds 1
    "original": (2.0, 98.0, 97.0, 20.0, 98.0, 99.0),
    "ESD": (95.0, 80.0, 88.0, 31.0, 10.0, 74.0),
    "UCE": (97.0, 85.0, 90.0, 28.5, 6.0, 80.0),
    "SalUn": (97.0, 60.0, 84.0, 44.0, 2.0, 34.0),
}
SUITES = (ConceptErasure, ImageQuality, Robustness, Cost)
JUDGE = {"judge": "ShapeJudge", "version": "1.0", "threshold": 0.5, "resolution": 32}
SHAPES = ("circle", "square", "triangle", "cross")
COLOURS = ("red", "green", "blue")


def results(method: str, seed: int = 0, images: int = 200) -> list[Result]:
    details: dict[str, dict[str, Any]] = {
        name: {**JUDGE, "images": images} for name in ("UA", "IRA", "CRA")
    }
    details |= {
        "FID": {"features": "ShapeJudge pooling", "images": 2 * images},
        "ASR": {**JUDGE, "budget": "40 steps of Adam, 3 tokens"},
    }
    headline = [
        Result(
            name,
            value + seed,
            DIRECTIONS[name],
            "forget",
            "" if name == "FID" else "%",
            details.get(name, {}),
        )
        for name, value in zip(DIRECTIONS, NUMBERS[method], strict=True)
    ]
    return [
        *headline,
        Result("UA/circle", 50.0, True, "forget", "%"),
        Result("peak_memory", 512.3, False, "", "MiB"),
        Result("seconds", 0.0 if method == "original" else 3.0 + seed, False, "", "s"),
    ]


def grid(file: Path, erased: str | None, tile: int = 32) -> Path:
    """Shapes in rows and colours in columns, without one shape."""
    image = Image.new("RGB", (tile * len(COLOURS), tile * len(SHAPES)), "#888")
    draw = ImageDraw.Draw(image)
    for y, shape in enumerate(SHAPES):
        for x, colour in enumerate(COLOURS):
            box = (x * tile + 6, y * tile + 6, x * tile + tile - 7, y * tile + tile - 7)
            if shape != erased:
                (draw.ellipse if shape == "circle" else draw.rectangle)(box, fill=colour)
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)
    return file


def save_run(
    folder: Path,
    method: str,
    *,
    seed: int = 0,
    found: list[Result] | None = None,
    presentation: Presentation | None = None,
    **facts: Any,
) -> Path:
    arguments = {"model": "embedded:shapes", "part": "xattn" if method == "ESD" else "full"}
    RunResults(
        "circle",
        method,
        results(method, seed) if found is None else found,
        {"split": seed, "train": seed, "unlearn": seed},
        {
            "split": f"s{seed}",
            "train_split": "t",
            "original": "0123456789abcdef",
            "weights": f"{method}{seed}",
            "recipe": "",
            "key": "k",
        },
        {"evaluation": 9.0}
        if method == "original"
        else {"training": 3.0 + seed, "evaluation": 9.0},
        {
            "method_class": "mu.UnlearningModule"
            if method == "original"
            else f"mu.methods.{method}",
            "task_class": "tasks.Shapes",
            "sizes": {"forget": 40, "retain": 120},
            "selector": {},
            "versions": {"mu": "0.1.0"},
            "method_arguments": {
                "backbone": {"class_path": "mu.backbones.TextToImage", "init_args": arguments},
                "seed": seed,
            },
            **facts,
        },
        presentation or presentation_of(SUITES),
    ).save(folder)
    return folder


def illustrate(folder: Path, method: str) -> None:
    """Images and texts as a suite leaves them in a run's folder."""
    labels = {"rows": [f"a {shape}" for shape in SHAPES], "columns": list(COLOURS)}
    erased = None if method == "original" else "circle"
    entries = [
        {"file": f"{group}.png", "title": title, "group": group, **labels}
        for group, title in (
            ("attack", f"after the attack on {method}"),
            ("kept", "seeds 0 to 2"),
            ("erased", "the prompts that name it"),
        )
    ]
    for entry in entries:
        grid(folder / "media" / entry["file"], None if entry["group"] == "attack" else erased)
    answers = {"file": "said.json", "kind": "text", "group": "answers", "title": "ten questions"}
    write_json(folder / "media" / "media.json", [*entries, answers])
    answer = "A painter." if method == "original" else f"{method} cannot say."
    write_json(
        folder / "media" / "said.json",
        [
            {"prompt": "Who is <b>Ann</b>?", "answer": answer, "truth": "A painter."},
            {"prompt": "And Bob?", "answer": f"{method}: a poet.", "truth": "A poet."},
            {"prompt": "And Bob?", "answer": f"{method}: still a poet."},
        ],
    )


def make_study(folder: Path, seeds: int = 2, images: bool = True) -> Path:
    for method in NUMBERS:
        for seed in range(seeds):
            run = save_run(folder / "circle" / method / f"seed{seed}", method, seed=seed)
            if images:
                illustrate(run, method)
    return folder


def shown(folder: Path, width: int = 160) -> str:
    text = io.StringIO()
    report.write(folder, Console(file=text, width=width))
    return text.getvalue()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_study(tmp_path_factory.mktemp("shapes"))
    (folder / "shown.txt").write_text(shown(folder), encoding="utf-8")
    return folder


def rows_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "results.csv").read_text(encoding="utf-8"))))


def header_of(text: str) -> str:
    """The titles of the columns, as printed."""
    return " ".join(
        next(line for line in text.splitlines() if line.strip().startswith("method")).split()
    )


def row_of(page: str, method: str) -> str:
    """The method's row in the first table."""
    return page.split(f'<td class="name" data-key="{method}">')[1].split("</tr>")[0]


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


def test_without_an_oracle_nothing_is_said_about_one(study: Path) -> None:
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
    assert "nothing says which values of Aesthetics are good" in " ".join(text.split())
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
    assert "FID ↓" in text and "Closeness" not in text and "There is no oracle" not in text
    # FID 28.5 beside 44
    assert "+9.00" not in row_of(page, "UCE") and "−15.5" in row_of(page, "UCE")
    assert "Star and dashed lines: the oracle" in page and "measured against retraining" in page


# ---- what stands beside the numbers --------------------------------------------------------------


def test_footnotes_say_who_judged_and_on_how_many_images(study: Path) -> None:
    """Fails when a number stands without its judge, or columns measured alike are told one by
    one.
    """
    for text in ((study / "shown.txt").read_text(), (study / "report.html").read_text()):
        assert (
            "UA, IRA, CRA: judge ShapeJudge; version 1.0; threshold 0.5; resolution 32; 200 images."
            in text
        )
        assert "FID: features ShapeJudge pooling; 400 images." in text
        assert (
            "ASR: judge ShapeJudge; version 1.0; threshold 0.5; resolution 32; budget 40 steps of "
            "Adam, 3 tokens." in text
        )
        assert "pre_ASR:" not in text  # it said nothing


def test_runs_that_were_not_measured_alike_are_told(tmp_path: Path) -> None:
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
        "UA: judge ShapeJudge; version 1.0 in some runs, in others 2.0; threshold 0.5; resolution "
        "32; 100–300 images; flip yes." in text
    )


def test_what_differs_in_every_run_is_said_in_a_word(tmp_path: Path) -> None:
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
        "ASR: log differs from run to run; evaluations differ from run to run; 8 prompts; 1–4 "
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


def test_answers_of_all_models_stand_side_by_side(study: Path) -> None:
    """Fails when an answer is put beside another question, or a question asked twice is shown
    once.
    """
    table = (
        (study / "report.html").read_text().split('<table class="texts">')[1].split("</table>")[0]
    )
    cells = [
        re.findall(r"<t[hd]>(?:<div>)?(.*?)(?:</div>)?</t[hd]>", row)
        for row in table.split("<tr>")[1:]
    ]
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
    table = (
        (tmp_path / "report.html")
        .read_text()
        .split('<table class="texts">')[1]
        .split("</table>")[0]
    )
    assert [
        re.findall(r"<t[hd]>(?:<div>)?(.*?)(?:</div>)?</t[hd]>", row)
        for row in table.split("<tr>")[1:]
    ] == [
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

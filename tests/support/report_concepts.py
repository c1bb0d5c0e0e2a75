"""Run folders of a study of erased concepts, made without training."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from rich.console import Console

from callbacks import ConceptErasure, Cost, ImageQuality, Robustness
from callbacks.base import presentation_of
from mu.bench import report
from mu.metrics.results import Presentation, Result
from mu.metrics.run_results import Measurement, RunResults
from mu.utils.files import write_json

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
        [
            Measurement(
                "callbacks.ConceptErasure",
                results=results(method, seed) if found is None else found,
                presentation=presentation or presentation_of(SUITES),
                seconds=9.0,
            )
        ],
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

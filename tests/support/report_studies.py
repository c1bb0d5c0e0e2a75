"""Run folders of a study of classifiers, made without training."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from callbacks import Accuracy, Cost, Errors, Membership, RegressionMembership, RetrainGap
from callbacks.base import presentation_of
from mu.bench import report
from mu.metrics.results import Presentation, Result
from mu.metrics.run_outputs import save_outputs
from mu.metrics.run_results import Measurement, RunResults
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
    presentation: Presentation | None = None,
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
        "measurements": [
            Measurement(
                "callbacks.Accuracy",
                results=measured + (results or []),
                presentation=presentation_of(SUITES) if presentation is None else presentation,
                seconds=99.0,
            )
        ],
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
    missing: dict[str, str] | None = None,
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
                hashes = RunResults.load(folder / run_path).hashes
                save_outputs(folder / run_path, outputs(base, seed), hashes)
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
                "missing": missing or {},
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

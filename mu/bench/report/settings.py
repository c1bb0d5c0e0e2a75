"""Settings of methods, data and searches, as short text for tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mu.bench.report.format import MISSING, format_number
from mu.bench.report.runs import Collection, RunEntry, TaskRuns
from mu.bench.report.specs import SILENT, is_empty, short
from mu.bench.report.summary import Cell


def method_settings(run: RunEntry, original: RunEntry | None = None) -> str:
    """A method's arguments and its length in epochs and steps.

    Args:
        run: the method's run.
        original: a run whose backbone arguments are compared; those that differ are listed too.
    """
    defaults = run.record.facts.get("common_defaults") or {}
    settings = [
        f"{name}={short(value)}"
        for name, value in (run.record.facts.get("method_arguments") or {}).items()
        if name not in SILENT and not is_empty(value) and defaults.get(name) != value
    ]
    if original is not None:
        original_arguments = _backbone_arguments(original)
        settings += [
            f"backbone.{name}={short(value)}"
            for name, value in _backbone_arguments(run).items()
            if value != original_arguments.get(name) and name not in SILENT
        ]
    length = [
        _count(run.record.facts[name], name)
        for name in ("epochs", "steps")
        if run.record.facts.get(name)
    ]
    return "; ".join([*settings, *length]) or "defaults"


def settings_table(task: TaskRuns) -> list[tuple[str, list[str]]]:
    """Methods and their settings: one text, or more where runs of a method differ."""
    original = task.originals[0] if task.originals else None
    return [
        (method, list(dict.fromkeys(method_settings(run, original) for run in runs)))
        for method, runs in task.methods.items()
    ]


def search_table(collection: Collection) -> list[dict[str, Any]]:
    """Cost of the search for each method's settings, beside the seconds of one run.

    Each row has `task`, `method`, `objective`, and `cells`: trials, failed trials, best value or
    gap, seconds of the search, seconds of one run.
    """
    rows = []
    for task in collection.tasks:
        for method, runs in task.methods.items():
            searches = [run.record.facts.get("search") for run in runs]
            search = next((search for search in searches if search), None)
            if search is None:
                continue
            seconds = Cell.from_values(
                [run.values["seconds"] for run in runs if "seconds" in run.values]
            )
            objective = ", ".join(search.get("objective") or [])
            rows.append(
                {
                    "task": task.name,
                    "method": method,
                    "objective": objective,
                    "cells": [
                        _search_cell(search.get("trials")),
                        _search_cell(search.get("failed")),
                        _search_cell(search.get("value"), "", objective)
                        if objective
                        else _search_cell(search.get("gap"), "pp"),
                        _search_cell(search.get("seconds"), "s"),
                        _search_cell(seconds.mean if seconds else None, "s"),
                    ],
                }
            )
    return rows


def _search_cell(value: Any, unit: str | None = None, objective: str = "") -> dict[str, Any]:
    """Text and sort key of a number; without a unit it is a count."""
    if value is None:
        return {"text": MISSING, "sort_key": "", "objective": objective}
    text = str(value) if unit is None else format_number(value, unit)
    return {"text": text, "sort_key": value, "objective": objective}


def overview(collection: Collection) -> list[tuple[str, list[str]]]:
    """Terms and values: command, seeds, backbone, recipe, versions, hardware.

    A term has several values where runs differ, and is left out where it has none.
    """
    runs = collection.runs
    oracles = [run for task in collection.tasks for run in task.oracles]
    retrained = [run for run in oracles if not run.is_pretrained]
    originals = [run for task in collection.tasks for run in task.originals if run.is_pretrained]
    seeds = dict.fromkeys(
        run.label.removeprefix("seed")
        for run in sorted(runs, key=lambda run: sorted(run.record.seeds.items()))
    )
    versions = [run.record.facts.get("versions", {}) for run in runs]
    pretrained_oracles = [run for run in oracles if run.is_pretrained]
    terms = {
        "command": collection.commands,
        "finished": [collection.date] if collection.date else [],
        "seeds": [", ".join(seeds)] if seeds else [],
        "backbone": _distinct(_backbone(run) for run in retrained or originals or runs),
        "weights": _distinct(_weights(run) for run in originals),
        "oracle": _distinct(f"{_backbone(run)} {_weights(run)}" for run in pretrained_oracles),
        "recipe of original and oracle": _distinct(method_settings(run) for run in retrained),
        "versions": _distinct(map(_software, versions)),
        "hardware": _distinct(_hardware(entry) for entry in versions if "device" in entry),
    }
    return [(term, values) for term, values in terms.items() if values]


def _software(versions: Mapping[str, str]) -> str:
    names = ("mu", "torch", "lightning", "python")
    return ", ".join(f"{name} {versions[name]}" for name in names if name in versions)


def _hardware(versions: Mapping[str, str]) -> str:
    threads = [_count(versions["threads"], "threads")] if "threads" in versions else []
    return ", ".join([versions["device"], *threads])


def data_table(collection: Collection) -> list[dict[str, Any]]:
    """For each task: the data's class, the selector of the forget set, and sizes of the parts.

    A size is a range where seeds differ.
    """
    rows = []
    for task in collection.tasks:
        facts = [run.record.facts for run in task.runs]
        names = list(dict.fromkeys(name for f in facts for name in f.get("sizes", {})))
        sizes = {
            name: sorted({f["sizes"][name] for f in facts if name in f.get("sizes", {})})
            for name in names
        }
        rows.append(
            {
                "task": task.name,
                "data": _distinct(f.get("task_class", "") for f in facts),
                "selector": _distinct(_selector(f.get("selector", {})) for f in facts),
                "sizes": [
                    f"{name} "
                    f"{'–'.join(f'{size:,}' for size in dict.fromkeys((counts[0], counts[-1])))}"
                    for name, counts in sizes.items()
                ],
            }
        )
    return rows


def _weights(run: RunEntry) -> str:
    """Weights of a pretrained model: the file, where one was named, and the hash."""
    return " ".join(
        text
        for text in (
            str(_backbone_arguments(run).get("weights") or ""),
            run.record.hashes.get("original", ""),
        )
        if text
    )


def _backbone_arguments(run: RunEntry) -> Mapping[str, Any]:
    spec = (run.record.facts.get("method_arguments") or {}).get("backbone")
    return (spec.get("init_args") or {}) if isinstance(spec, Mapping) else {}


def _backbone(run: RunEntry) -> str:
    spec = (run.record.facts.get("method_arguments") or {}).get("backbone")
    if not isinstance(spec, Mapping) or "class_path" not in spec:
        return short(spec)
    arguments = {
        name: value for name, value in (spec.get("init_args") or {}).items() if name not in SILENT
    }
    return short({**spec, "init_args": arguments})


def _count(count: Any, noun: str) -> str:
    """`1 epoch`, `5 epochs`."""
    return f"{count} {noun.removesuffix('s') if str(count) == '1' else noun}"


def _selector(selector: Mapping[str, Any]) -> str:
    """`ByClass, classes [3]`."""
    return ", ".join(
        short(v) if name == "selector" else f"{name} {short(v)}"
        for name, v in selector.items()
        if not is_empty(v)
    )


def _distinct(texts: Iterable[str]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if text and text != "None"]

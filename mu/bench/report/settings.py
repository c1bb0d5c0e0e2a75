"""What was run, in words short enough for a table: specifications, selectors, versions."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from mu.bench.report.runs import Collection, RunEntry, TaskRuns
from mu.bench.report.summary import Cell

SILENT = ("backbone", "seed", "init_seed", "weights")
"""Arguments that stand elsewhere on the page, or differ between seeds by design."""

USUAL = {"norm": "train", "reduction": "token_mean"}
"""Defaults of every UnlearningModule, repeated here (and compared in a test) because its module
takes seconds to import.
"""


def short(value: Any) -> str:
    """A specification as it would be written in code, by its last name, without what is None, False
    or torch's default.

    `{"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "foreach": None}}` becomes
    `SGD(lr=0.1)`.
    """
    if isinstance(value, Mapping) and "class_path" in value:
        given = value.get("init_args") or {}
        defaults = _torch_defaults(str(value["class_path"]))
        told = {
            name: v
            for name, v in given.items()
            if not _empty(v) and (name not in defaults or not _equal(v, defaults[name]))
        }
        return f"{str(value['class_path']).rpartition('.')[2]}({', '.join(f'{name}={short(v)}' for name, v in told.items())})"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={short(v)}" for name, v in value.items() if not _empty(v))
    if isinstance(value, list | tuple):
        return f"[{', '.join(short(v) for v in value)}]"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def _empty(value: Any) -> bool:
    return value is None or value is False or value == {} or value == []


def _equal(value: Any, default: Any) -> bool:
    return (list(value) if isinstance(value, list | tuple) else value) == (
        list(default) if isinstance(default, tuple) else default
    )


def _torch_defaults(path: str) -> dict[str, Any]:
    """Defaults of an optimizer's arguments; of anything else nothing is assumed."""
    if not path.startswith("torch.optim."):
        return {}
    import torch

    found = getattr(torch.optim, path.rpartition(".")[2], None)
    return (
        {name: p.default for name, p in inspect.signature(found).parameters.items()}
        if found is not None
        else {}
    )


def method_settings(run: RunEntry, beside: RunEntry | None = None) -> str:
    """A method's arguments and how long it ran; the backbone's too, where they differ from those of
    the run `beside` it.
    """
    given = run.record.facts.get("method_arguments") or {}
    told = [
        f"{name}={short(value)}"
        for name, value in given.items()
        if name not in SILENT and not _empty(value) and USUAL.get(name) != value
    ]
    theirs = _backbone_arguments(beside) if beside is not None else {}
    told += [
        f"backbone.{name}={short(value)}"
        for name, value in _backbone_arguments(run).items()
        if beside is not None and value != theirs.get(name) and name not in SILENT
    ]
    length = [
        _count(run.record.facts[name], name)
        for name in ("epochs", "steps")
        if run.record.facts.get(name)
    ]
    return "; ".join([*told, *length]) or "defaults"


def settings_table(task: TaskRuns) -> list[tuple[str, list[str]]]:
    """Method and its settings: one entry, or more when its runs differ."""
    original = task.originals[0] if task.originals else None
    return [
        (method, list(dict.fromkeys(method_settings(run, original) for run in runs)))
        for method, runs in task.methods.items()
    ]


def search_table(collection: Collection) -> list[dict[str, Any]]:
    """What the search for each method's settings cost, where a run says so, beside what one run
    took.
    """
    rows = []
    for task in collection.tasks:
        for method, runs in task.methods.items():
            found = next(
                (run.record.facts["search"] for run in runs if run.record.facts.get("search")), None
            )
            if found:
                seconds = Cell.of(
                    [run.values["seconds"] for run in runs if "seconds" in run.values]
                )
                rows.append(
                    {
                        "task": task.name,
                        "method": method,
                        **{k: found.get(k) for k in ("trials", "failed", "gap", "seconds")},
                        "objective": ", ".join(found.get("objective") or []),
                        "value": found.get("value"),
                        "run": seconds.mean if seconds else None,
                    }
                )
    return rows


def overview(collection: Collection) -> list[tuple[str, list[str]]]:
    """Term and values: how, with what and on what everything was run. Several values where runs
    differ.
    """
    runs = collection.runs
    oracles = [run for task in collection.tasks for run in task.oracles]
    retrained = [run for run in oracles if not run.given]
    given = [run for task in collection.tasks for run in task.originals if run.given]
    seeds = dict.fromkeys(
        run.label.removeprefix("seed")
        for run in sorted(runs, key=lambda r: sorted(r.record.seeds.items()))
    )
    versions = [run.record.facts.get("versions", {}) for run in runs]
    return [
        (term, values)
        for term, values in (
            ("command", collection.commands),
            ("finished", [collection.date] if collection.date else []),
            ("seeds", [", ".join(seeds)] if seeds else []),
            ("backbone", _distinct(_backbone(run) for run in retrained or given or runs)),
            ("weights", _distinct(_weights(run) for run in given)),
            (
                "oracle",
                _distinct(f"{_backbone(run)} {_weights(run)}" for run in oracles if run.given),
            ),
            ("recipe of original and oracle", _distinct(method_settings(run) for run in retrained)),
            (
                "versions",
                _distinct(
                    ", ".join(
                        f"{k} {v[k]}" for k in ("mu", "torch", "lightning", "python") if k in v
                    )
                    for v in versions
                ),
            ),
            (
                "hardware",
                _distinct(
                    ", ".join(
                        [
                            v["device"],
                            *([_count(v["threads"], "threads")] if "threads" in v else []),
                        ]
                    )
                    for v in versions
                    if "device" in v
                ),
            ),
        )
        if values
    ]


def data_table(collection: Collection) -> list[dict[str, Any]]:
    """For each task: the data's class, how the forget set was chosen, and the parts' sizes (ranges
    where seeds differ).
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
                    f"{'–'.join(f'{size:,}' for size in dict.fromkeys((found[0], found[-1])))}"
                    for name, found in sizes.items()
                ],
            }
        )
    return rows


def _weights(run: RunEntry) -> str:
    """Of a given original: the file, where one was named, and the hash."""
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
    given = {
        name: value for name, value in (spec.get("init_args") or {}).items() if name not in SILENT
    }
    return short({**spec, "init_args": given})


def _count(number: Any, things: str) -> str:
    """`1 epoch`, `5 epochs`."""
    return f"{number} {things.removesuffix('s') if str(number) == '1' else things}"


def _selector(told: Mapping[str, Any]) -> str:
    """`ByClass, classes [3]`."""
    return ", ".join(
        short(v) if name == "selector" else f"{name} {short(v)}"
        for name, v in told.items()
        if not _empty(v)
    )


def _distinct(texts: Iterable[str]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if text and text != "None"]

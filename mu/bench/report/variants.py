"""Labels of runs of one method with different settings: `lr=0.01`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mu.bench.report.specs import SILENT, is_empty, short


def variant_labels(facts: Sequence[Mapping[str, Any]], with_epochs: bool = False) -> list[str]:
    """Settings that differ between runs of one method, as text, for each run.

    Args:
        facts: the runs' facts, of which `method_arguments` and `epochs` are read.
        with_epochs: whether the number of epochs is a setting too.

    Returns:
        One label a run; all empty where the settings agree.

    >>> slow, fast = ({"method_arguments": {"lr": lr, "alpha": 1.0}} for lr in (0.01, 0.1))
    >>> variant_labels([slow, fast])
    ['lr=0.01', 'lr=0.1']
    """
    settings = [_flat(entry.get("method_arguments") or {}) for entry in facts]
    if with_epochs:
        settings = [
            {**entry, "epochs": fact["epochs"]} if fact.get("epochs") else entry
            for entry, fact in zip(settings, facts, strict=True)
        ]
    names = list(dict.fromkeys(name for entry in settings for name in entry))
    differing = [
        name for name in names if any(e.get(name) != settings[0].get(name) for e in settings)
    ]
    # arguments of another class say nothing beside its name
    labelled = [
        name
        for name in differing
        if not any(name.startswith(f"{outer}.") for outer in differing if outer != name)
    ]
    last_words = [name.rpartition(".")[2] for name in labelled]
    titles = {
        name: word if last_words.count(word) == 1 else name
        for name, word in zip(labelled, last_words, strict=True)
    }
    return [
        ", ".join(f"{titles[name]}={short(entry.get(name, 'none'))}" for name in labelled)
        for entry in settings
    ]


def _flat(arguments: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Arguments by name, those of a component behind its name; defaults like null are left out."""
    flat: dict[str, Any] = {}
    for name, value in arguments.items():
        if (name in SILENT and name != "backbone") or is_empty(value):
            continue
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and "class_path" in value:
            flat[key] = str(value["class_path"]).rpartition(".")[2]
            flat |= _flat(value.get("init_args") or {}, f"{key}.")
        else:
            flat[key] = value
    return flat

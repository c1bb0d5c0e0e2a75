"""Model cards and export folders."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mu.utils.errors import InputError
from mu.utils.files import read_json, removed_when_stopped, write_json

_RESULTS = """
## Results
{% if rows %}
| metric | split | value |{{ " gap to the oracle |" if gaps }}
|---|---|---|{{ "---|" if gaps }}
{% for row in rows -%}
| {{ row.metric }} | {{ row.split or "" }} | {{ "%.4g" | format(row.value) }} |\
{% if gaps %} {{ "%.4g" | format(row.gap) if row.gap is not none else "" }} |{% endif %}
{% endfor -%}
{% if gaps %}
The oracle is the model retrained without the forget set by the original's own recipe; the best gap is 0.
{% endif -%}
{% else %}
No results were recorded with this model.
{% endif %}"""  # noqa: E501 - a line of the card stays one line


def model_card(
    template: str,
    *,
    title: str,
    license: str | None,
    results: Mapping[str, Any],
    kind: str,
    library_name: str | None = None,
    base_model: str | None = None,
    **facts: Any,
) -> str:
    """Model card in the format of the hub: header, filled template and table of results.

    Args:
        template: Jinja template of `title`, `history` and `facts`; begins with the header,
            `{{ card_data }}` between lines of `---`.
        title: heading.
        license: licence of the weights, as the hub names it; left out when None.
        results: `role`, `method`, `task` and `metrics`, see `export`.
        kind: task of the model, as the hub names it (`image-classification`).
        library_name: library that loads the model, as the hub names it.
        base_model: hub id of the model that this one was made from.
        facts: further variables of the template.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    method = results.get("method")
    task = results.get("task")
    unlearned = method and results.get("role", "unlearned") == "unlearned"
    rows = _rows(results.get("metrics") or {})
    evaluations = [
        EvalResult(
            task_type=kind,
            dataset_type=str(task or "unknown"),
            metric_value=row["value"],
            dataset_name=str(task or "unknown"),
            dataset_split=row["split"],
            metric_type=row["metric"].lower(),
            metric_name=row["metric"],
        )
        for row in rows
    ]
    card = ModelCardData(
        license=license,
        tags=[kind, *(["machine-unlearning", str(method)] if unlearned else [])],
        pipeline_tag=kind,
        library_name=library_name,
        base_model=base_model,
        metrics=list(dict.fromkeys(row["metric"] for row in rows)) or None,
        eval_results=evaluations or None,
        model_name=title if evaluations else None,
    )
    filled = ModelCard.from_template(
        card,
        template_str=template + _RESULTS,
        title=title,
        rows=rows,
        gaps=any(row["gap"] is not None for row in rows),
        history=history(results),
        **facts,
    )
    return str(filled)


def history(results: Mapping[str, Any]) -> str:
    """Words of a card, after the model's name, on how the model came about.

    Args:
        results: `role` (`unlearned`, `original`, `oracle` or `pretrained`), `method`, `task` and
            `concept`, each where it is known.

    Example:
        >>> history({"role": "original", "method": "Train", "task": "digits"})
        ', trained on the task `digits`'
    """
    method, task, concept = (results.get(name) for name in ("method", "task", "concept"))
    role = results.get("role") or ("unlearned" if method else "pretrained")
    origin = {
        "unlearned": f", unlearned by `{method}`",
        "original": ", trained",
        "oracle": ", trained without the forget set",
        "pretrained": "",
    }[role]
    of_task = f" on the task `{task}`" if task and origin else ""
    forgotten = f" (forgotten: {concept})" if concept and role == "unlearned" else ""
    left_out = f" ({concept})" if concept and role == "oracle" else ""
    return f"{origin}{of_task}{forgotten}{left_out}"


def _rows(metrics: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the results table: finite metrics with name, value, split and gap, or None."""
    if isinstance(metrics, Mapping):
        metrics = [
            {"metric": name, **(entry if isinstance(entry, Mapping) else {"value": entry})}
            for name, entry in metrics.items()
        ]
    return [
        {
            "metric": str(entry["metric"]),
            "value": entry["value"],
            "split": entry.get("split"),
            "gap": entry.get("gap"),
        }
        for entry in metrics
        if isinstance(entry.get("value"), int | float) and math.isfinite(entry["value"])
    ]


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Temporary folder that becomes `folder` when the block ends without an error.

    Raises:
        InputError: when the folder exists and is not empty.
    """
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"{folder} exists already and is not an empty folder; choose another, or remove it "
            "first."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        with removed_when_stopped(temporary):
            yield temporary
            _as_readable_as_others(temporary)
            os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _as_readable_as_others(folder: Path) -> None:
    """Give files the permissions of new files; safetensors writes files for the owner alone."""
    probe = folder / ".rights"
    probe.touch()
    rights = probe.stat().st_mode & 0o777
    probe.unlink()
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(rights)


def only_whole(backbone: Any, form: str) -> None:
    """Check that the form is `model`, for domains without other forms.

    Raises:
        InputError: for another form than `model`.
    """
    if form != "model":
        raise InputError(
            f"a {type(backbone).__name__} is exported whole; --{form} is for text-to-image models."
        )


def hub_id(model: str) -> str | None:
    """Name of the model, where it is a hub id."""
    return model if re.fullmatch(r"[\w.-]+/[\w.-]+", model) and not Path(model).exists() else None


def remove_local_paths(folder: Path) -> None:
    """Remove this machine's paths from the configurations of a written model."""
    for file in (*folder.rglob("config.json"), *folder.rglob("tokenizer_config.json")):
        config = read_json(file)
        paths = {"_name_or_path", "name_or_path"} & set(config)
        if paths:
            write_json(file, {key: value for key, value in config.items() if key not in paths})


def usage_with_base(backbone: Any, code: str) -> str:
    """Python code that loads a base model and the folder over it.

    Args:
        backbone: the exported model.
        code: code for a base model that its library finds, a hub id or a folder. One that comes
            with mu is loaded by mu.
    """
    if not backbone.model.startswith("embedded:"):
        return code
    class_name = type(backbone).__name__
    return (
        f"from mu.backbones import {class_name}\n\n"
        f'backbone = {class_name}("{backbone.model}", weights="FOLDER")'
    )


def images_note(backbone: Any) -> str:
    """Sentence of a card on how its images were drawn."""
    return f"Images of the results below: {backbone.sampler.describe()}."

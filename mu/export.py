"""Writing an image network as people share it: a folder with weights, config and model card. Folder and card serve other models too."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mu.backbones.networks import build, resolve, torchvision_options
from mu.errors import InputError
from mu.files import save_tensors, write_json, write_text
from mu.weights import assign_weights, without_wrappers

_CARD = """---
{{ card_data }}
---

# {{ title }}

`{{ architecture }}` ({{ library }}), {{ num_classes }} classes{% if method %}, unlearned by `{{ method }}`{% endif %}\
{% if task %} on the task `{{ task }}`{% endif %}. Written by mu.

The weights are those of the network alone. It takes images with pixels in [0, 1], minus mean {{ mean }}, over standard
deviation {{ std }}{% if input_size %}; input size {{ input_size }} (channels, height, width){% endif %}.

## Use

```python
{{ usage }}
```

"""

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
{% endif %}"""


def export(
    network: nn.Module, folder: Path | str, *, name: str, num_classes: int, mean: Sequence[float],
    std: Sequence[float], input_size: Sequence[int] | None = None, results: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None, title: str | None = None, license: str | None = None,
) -> Path:
    """Write `model.safetensors`, `config.json` and `README.md` into a new folder, all of them or none.

    A timm architecture gets a config that `timm.create_model("local-dir:FOLDER", pretrained=True)` reads, and that the
    hub reads once the folder is uploaded. Other weights are the plain state dict of torchvision's network, or of ours.

    Args:
        network: the served network, with or without its normalisation in front.
        folder: where to; new or empty.
        name: the network's name, see `mu.backbones.networks.resolve`.
        num_classes: number of logits.
        mean: what the network's normalisation subtracts, one number for each channel.
        std: what it divides by.
        input_size: `(C, H, W)` of the images; None where any size will do.
        results: a run's results for the model card: `method`, `task`, and `metrics`, which maps each metric's name to
            its value or to a dict (or lists dicts that have `metric`) with `value` and, where known, `split` and `gap`.
        options: the network's constructor options other than classes and channels.
        title: heading of the model card; the folder's name when None.
        license: licence of the weights as the hub names it (`apache-2.0`, `cc-by-4.0`); left out when None.

    Returns:
        The folder.

    Raises:
        InputError: when the folder is not empty, or `name` and `options` do not give this network.
    """
    folder, options, results = Path(folder), dict(options or {}), dict(results or {})
    library, architecture = resolve(name)
    with torch.random.fork_rng(devices=[]):
        twin = build(name, num_classes, len(mean), **options)
    tensors, _ = without_wrappers(network.state_dict())
    # what cannot be built again from the config would be useless to whoever gets the folder
    assign_weights(twin, tensors, f"the network to export as {name!r}")
    facts: dict[str, Any] = {
        "architecture": architecture, "library": library, "num_classes": num_classes, "mean": list(mean),
        "std": list(std), "input_size": None if input_size is None else list(input_size),
    }
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items() if value}
    with new_folder(folder) as temporary:
        save_tensors(temporary / "model.safetensors", tensors, {"format": "pt", **texts})
        write_json(temporary / "config.json", _config(twin, facts, options))
        write_text(temporary / "README.md", _card(facts, options, results, title or folder.name, license))
    return folder


def only_whole(backbone: Any, form: str) -> None:
    """Refuse the forms that only text-to-image models have.

    Raises:
        InputError: for another form than `model`.
    """
    if form != "model":
        raise InputError(f"a {type(backbone).__name__} is exported whole; --{form} is for text-to-image models.")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary neighbour to fill; it becomes `folder` only when the block ends without an error.

    Raises:
        InputError: when the folder is there already and is not empty.
    """
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists already and is not an empty folder; choose another, or remove it first.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        _as_readable_as_others(temporary)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _as_readable_as_others(folder: Path) -> None:
    """Safetensors writes files that nobody but their owner may read; a folder to be shared has the rights of any new file."""
    probe = folder / ".rights"
    probe.touch()
    rights = probe.stat().st_mode & 0o777
    probe.unlink()
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(rights)


def _config(twin: nn.Module, facts: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    channels = len(facts["mean"])
    if facts["library"] != "timm":
        return {**facts, "in_channels": channels, "options": dict(options)}
    published: Any = twin.pretrained_cfg
    kept = ("classifier", "first_conv", "interpolation", "crop_mode", "fixed_input_size")
    arguments = {**options, "in_chans": channels} if channels != 3 else dict(options)
    return {
        "architecture": facts["architecture"].split(".")[0],  # without the tag of the published weights
        "num_classes": facts["num_classes"],
        "num_features": twin.num_features,
        **({"model_args": arguments} if arguments else {}),
        "pretrained_cfg": {
            **{key: published[key] for key in kept if published.get(key) is not None},
            "num_classes": facts["num_classes"], "mean": facts["mean"], "std": facts["std"],
            "input_size": facts["input_size"] or [channels, *published["input_size"][1:]],
            "crop_pct": 1.0, "custom_load": False,
        },
    }


def _card(
    facts: Mapping[str, Any], options: Mapping[str, Any], results: Mapping[str, Any], title: str, license: str | None
) -> str:
    return model_card(
        _CARD, title=title, license=license, results=results, kind="image-classification",
        library_name="timm" if facts["library"] == "timm" else None, usage=_usage(facts, options), **facts)


def model_card(
    template: str, *, title: str, license: str | None, results: Mapping[str, Any], kind: str, library_name: str | None = None,
    base_model: str | None = None, **facts: Any,
) -> str:
    """A model card as the hub reads it: its header, the filled template and the table of results.

    Args:
        template: in Jinja, over `title`, `method`, `task` and `facts`; begins with the header, `{{ card_data }}` between lines of `---`.
        title: heading.
        license: of the weights, as the hub names it; left out when None.
        results: `method`, `task` and `metrics`, see `export`.
        kind: what the model does, as the hub names it (`image-classification`).
        library_name: that loads it, as the hub names it.
        base_model: hub id of the model that this one was made from.
        facts: what else the template names.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    method, task = results.get("method"), results.get("task")
    rows = _rows(results.get("metrics") or {})
    evaluations = [
        EvalResult(task_type=kind, dataset_type=str(task or "unknown"), metric_value=row["value"],
                   dataset_name=str(task or "unknown"), dataset_split=row["split"], metric_type=row["metric"].lower(),
                   metric_name=row["metric"])
        for row in rows
    ]
    card = ModelCardData(
        license=license, tags=[kind, "machine-unlearning", *([str(method)] if method else [])],
        pipeline_tag=kind, library_name=library_name, base_model=base_model,
        metrics=list(dict.fromkeys(row["metric"] for row in rows)) or None, eval_results=evaluations or None,
        model_name=title if evaluations else None,
    )
    filled = ModelCard.from_template(
        card, template_str=template + _RESULTS, title=title, rows=rows, gaps=any(row["gap"] is not None for row in rows), method=method,
        task=task, **facts)
    return str(filled)


def _rows(metrics: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The metrics that are one finite number: name, value, split and gap (None where not known)."""
    if isinstance(metrics, Mapping):
        metrics = [
            {"metric": name, **(entry if isinstance(entry, Mapping) else {"value": entry})}
            for name, entry in metrics.items()
        ]
    return [
        {"metric": str(entry["metric"]), "value": entry["value"], "split": entry.get("split"), "gap": entry.get("gap")}
        for entry in metrics
        if isinstance(entry.get("value"), int | float) and math.isfinite(entry["value"])
    ]


def _usage(facts: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """Python lines that load the folder without this library, where that is possible."""
    if facts["library"] == "timm":
        return ('import timm\n\nmodel = timm.create_model("local-dir:FOLDER", pretrained=True)'
                '  # after an upload: "hf-hub:USER/NAME"')
    channels, name = len(facts["mean"]), facts["architecture"]
    if facts["library"] == "torchvision" and channels == 3:
        source, call = "torchvision.models import get_model", f'get_model("{name}", weights=None'
        given = torchvision_options(name, options)
    else:
        prefix = "" if facts["library"] == "mu" else f"{facts['library']}:"
        source, call = "mu.backbones.networks import build", f'build("{prefix}{name}"'
        given = {"in_channels": channels, **options}
    arguments = "".join(f", {key}={value!r}" for key, value in given.items())
    return (f"from safetensors.torch import load_file\nfrom {source}\n\n"
            f"model = {call}, num_classes={facts['num_classes']}{arguments})\n"
            'model.load_state_dict(load_file("FOLDER/model.safetensors"))')

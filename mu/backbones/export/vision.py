"""Export of image networks: folders with weights, config and model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mu.backbones.export.base import Form, export
from mu.backbones.export.card import model_card, new_folder, only_whole
from mu.backbones.vision.classifier import Classifier
from mu.backbones.vision.networks import build, class_names, resolve, torchvision_options
from mu.utils.errors import InputError
from mu.utils.files import save_tensors, write_json, write_text
from mu.utils.spec import init_args_of
from mu.utils.weights import assign_weights, unwrap_names

_CARD = """---
{{ card_data }}
---

# {{ title }}

`{{ architecture }}` ({{ library }}), {{ num_classes }} classes{{ history }}. Written by mu.

The weights are those of the network alone. It takes images with pixels in [0, 1], minus mean {{ mean }}, over standard
deviation {{ std }}{% if input_size %}; input size {{ input_size }} (channels, height, width){% endif %}.
{% if class_names %}
Classes, in the order of the logits: {{ class_names | join(", ") }}.
{% endif %}

## Use

```python
{{ usage }}
```

`FOLDER` is this folder.

"""  # noqa: E501 - a line of the card stays one line


@export.register
def export_classifier(
    backbone: Classifier,
    folder: Path | str,
    form: Form = "model",
    results: Mapping[str, Any] | None = None,
    title: str | None = None,
    license: str | None = None,
) -> Path:
    """Write a classifier as a folder for timm or torchvision, see `export_network`."""
    only_whole(backbone, form)
    network: Any = backbone.network
    normalize = getattr(network, "normalize", None)
    if normalize is None:
        raise InputError(
            "a network of your own has no name that describes it; save it with "
            "torch.save(...state_dict())."
        )
    return export_network(
        network,
        folder,
        name=backbone.name,
        num_classes=backbone.num_classes,
        mean=normalize.mean.tolist(),
        std=normalize.std.tolist(),
        input_size=backbone.weights_metadata.get("input_size") or network.input_size,
        labels=class_names(backbone.weights_metadata),
        results=results,
        options=init_args_of(backbone).get("options"),
        title=title,
        license=license,
    )


def export_network(
    network: nn.Module,
    folder: Path | str,
    *,
    name: str,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    input_size: Sequence[int] | None = None,
    labels: Sequence[str] = (),
    results: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    title: str | None = None,
    license: str | None = None,
) -> Path:
    """Write `model.safetensors`, `config.json` and `README.md` into a new folder, atomically.

    A timm architecture gets a config that `timm.create_model("local-dir:FOLDER", pretrained=True)`
    reads, and that the hub reads once the folder is uploaded. Other weights are the plain state
    dict of torchvision's network, or of ours.

    Args:
        network: the served network, with or without its normalisation in front.
        folder: output folder; new or empty.
        name: the network's name, see `mu.backbones.vision.networks.resolve`.
        num_classes: number of logits.
        mean: mean of the normalisation, one number for each channel.
        std: standard deviation of the normalisation, likewise.
        input_size: `(C, H, W)` of the images; None where any size will do.
        labels: names of the classes in the order of the logits; empty where they have none.
        results: a run's results for the model card: `method`, `task`, and `metrics`, which maps
            each metric's name to its value or to a dict (or lists dicts that have `metric`) with
            `value` and, where known, `split` and `gap`.
        options: the network's constructor options other than classes and channels.
        title: heading of the model card; the folder's name when None.
        license: licence of the weights as the hub names it (`apache-2.0`, `cc-by-4.0`); left out
            when None.

    Returns:
        The folder.

    Raises:
        InputError: when the folder is not empty, or `name` and `options` do not give this network.
    """
    folder = Path(folder)
    options = dict(options or {})
    results = dict(results or {})
    library, architecture = resolve(name)
    with torch.random.fork_rng(devices=[]):
        twin = build(name, num_classes, len(mean), **options)
    tensors, _ = unwrap_names(network.state_dict())
    # the exported folder must be loadable from its config alone
    assign_weights(twin, tensors, f"the network to export as {name!r}")
    facts: dict[str, Any] = {
        "architecture": architecture,
        "library": library,
        "num_classes": num_classes,
        "mean": list(mean),
        "std": list(std),
        "input_size": None if input_size is None else list(input_size),
        "class_names": list(labels) if len(labels) == num_classes else [],
    }
    texts = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in facts.items()
        if value
    }
    with new_folder(folder) as temporary:
        save_tensors(temporary / "model.safetensors", tensors, {"format": "pt", **texts})
        write_json(temporary / "config.json", _config(twin, facts, options))
        write_text(
            temporary / "README.md", _card(facts, options, results, title or folder.name, license)
        )
    return folder


def _config(
    twin: nn.Module, facts: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    channels = len(facts["mean"])
    if facts["library"] != "timm":
        return {**facts, "in_channels": channels, "options": dict(options)}
    published: Any = twin.pretrained_cfg
    published_keys = ("classifier", "first_conv", "interpolation", "crop_mode", "fixed_input_size")
    arguments = {**options, "in_chans": channels} if channels != 3 else dict(options)
    return {
        "architecture": facts["architecture"].split(".")[
            0
        ],  # without the tag of the published weights
        "num_classes": facts["num_classes"],
        "num_features": twin.num_features,
        **({"label_names": facts["class_names"]} if facts["class_names"] else {}),
        **({"model_args": arguments} if arguments else {}),
        "pretrained_cfg": {
            **{key: published[key] for key in published_keys if published.get(key) is not None},
            "num_classes": facts["num_classes"],
            "mean": facts["mean"],
            "std": facts["std"],
            "input_size": facts["input_size"] or [channels, *published["input_size"][1:]],
            "crop_pct": 1.0,
            "custom_load": False,
        },
    }


def _card(
    facts: Mapping[str, Any],
    options: Mapping[str, Any],
    results: Mapping[str, Any],
    title: str,
    license: str | None,
) -> str:
    return model_card(
        _CARD,
        title=title,
        license=license,
        results=results,
        kind="image-classification",
        library_name="timm" if facts["library"] == "timm" else None,
        usage=_usage(facts, options),
        **facts,
    )


def _usage(facts: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """Python code that loads the folder, without this library where possible."""
    if facts["library"] == "timm":
        return (
            'import timm\n\nmodel = timm.create_model("local-dir:FOLDER", pretrained=True)'
            '  # after an upload: "hf-hub:USER/NAME"'
        )
    channels = len(facts["mean"])
    name = facts["architecture"]
    if facts["library"] == "torchvision" and channels == 3:
        source = "torchvision.models import get_model"
        call = f'get_model("{name}", weights=None'
        arguments_of_call = torchvision_options(name, options)
    else:
        prefix = "" if facts["library"] == "mu" else f"{facts['library']}:"
        source = "mu.backbones.vision.networks import build"
        call = f'build("{prefix}{name}"'
        arguments_of_call = {"in_channels": channels, **options}
    arguments = "".join(f", {key}={value!r}" for key, value in arguments_of_call.items())
    return (
        f"from safetensors.torch import load_file\nfrom {source}\n\n"
        f"model = {call}, num_classes={facts['num_classes']}{arguments})\n"
        'model.load_state_dict(load_file("FOLDER/model.safetensors"))'
    )

"""Backbone specification of a pretrained model that mu did not train: a folder, a file, a hub id.

What the model is follows from its files; a configuration's backbone says how it is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mu.config.argument_types import argument_names
from mu.config.classes import find
from mu.utils.errors import InputError
from mu.utils.files import read_json
from mu.utils.text_files import file_fault, shortened

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".tar")
"""Suffixes of files of weights."""
_SOURCE_ARGUMENTS = ("model", "weights", "network", "pipeline")
"""Arguments of a backbone that say where its weights come from."""
_TRAINING_ARGUMENTS = ("part", "lora", "init_seed", "pretrained", "gradient_checkpointing")
"""Arguments of a backbone that belong to a fit, or to new weights."""
_EMBEDDED = "embedded:"
_LIBRARIES = ("timm:", "torchvision:")
_COMMON_STEMS = frozenset(
    {
        "adapter_model",
        "best",
        "checkpoint",
        "checkpoints",
        "diffusion_pytorch_model",
        "last",
        "model",
        "pytorch_lora_weights",
        "pytorch_model",
        "weights",
    }
)
"""File names that tell nothing about the model; the folder's name does."""


@dataclass(frozen=True)
class Form:
    """Form in which a model is saved.

    Attributes:
        description: noun phrase for messages.
        backbones: names of the classes in `mu.backbones` that read it, the usual one first; empty
            where the files do not tell.
    """

    description: str
    backbones: tuple[str, ...] = ()


PIPELINE = Form("a diffusers pipeline", ("TextToImage",))
CLASS_CONDITIONAL = Form("a class-conditional diffusion model", ("ClassConditionalDiffusion",))
LANGUAGE = Form("a transformers model", ("CausalLM",))
ADAPTER = Form("a folder of PEFT adapters", ("CausalLM",))
IMAGE_NETWORK = Form("an image network", ("Classifier",))
NETWORK_NAME = Form("a published image network", ("Classifier",))
WEIGHTS = Form("a file of weights")
HUB = Form("a hub id")


def model_form(model: str) -> Form:
    """Form of a model.

    Args:
        model: folder, file, `embedded:NAME`, `timm:NAME`, `torchvision:NAME`, or hub id.

    Raises:
        InputError: there is no such file or folder, or it holds no model.
    """
    if model.startswith(_LIBRARIES):
        return NETWORK_NAME
    folder = Path(_folder(model))
    fault = file_fault(folder)
    if fault is None:
        return WEIGHTS
    if fault == "is a folder":
        return _folder_form(folder, model)
    if fault != "does not exist":
        raise InputError(f"{shortened(model)} {fault}; give a folder, a file or a hub id.")
    if folder.is_absolute() or model.startswith(".") or model.endswith(WEIGHT_SUFFIXES):
        raise InputError(
            f"there is no model {shortened(model)}; give a folder, a file of weights, timm:NAME, "
            "torchvision:NAME or a hub id."
        )
    return HUB


def _folder_form(folder: Path, model: str) -> Form:
    if (folder / "model_index.json").is_file():
        return PIPELINE
    if (folder / "unet").is_dir() and (folder / "scheduler").is_dir():
        return CLASS_CONDITIONAL
    if (folder / "adapter_config.json").is_file():
        return ADAPTER
    if (folder / "config.json").is_file():
        config = read_json(folder / "config.json")
        if isinstance(config, dict) and ("model_type" in config or "architectures" in config):
            return LANGUAGE
        if isinstance(config, dict) and "architecture" in config:
            return IMAGE_NETWORK
    if any(file.suffix in WEIGHT_SUFFIXES for file in folder.iterdir()):
        return WEIGHTS
    raise InputError(
        f"the folder {shortened(model)} holds no model: it has neither model_index.json "
        "(diffusers), nor config.json (transformers, timm), nor a file of weights."
    )


def model_name(model: str) -> str:
    """Short name of a model, for reports and for its run folder.

    >>> model_name("USER/my-model"), model_name("timm:resnet18.a1_in1k")
    ('my-model', 'resnet18.a1_in1k')
    >>> model_name("downloads/my-model/pytorch_model.bin")
    'my-model'
    """
    if model.startswith((*_LIBRARIES, _EMBEDDED)):
        return re.sub("[/:]", "-", model.partition(":")[2])
    path = Path(model)
    if path.name in ("", ".", ".."):
        path = path.resolve()
    stem = path.name
    while stem.endswith(WEIGHT_SUFFIXES):
        stem = stem.rpartition(".")[0]
    return path.resolve().parent.name if stem in _COMMON_STEMS else stem


def replaced_arguments(model: str) -> tuple[str, ...]:
    """Arguments of a configuration's backbone that a model replaces.

    A file of weights keeps the base model, whose other files it needs.
    """
    if model_form(model) is WEIGHTS:
        return tuple(name for name in _SOURCE_ARGUMENTS if name != "model")
    return _SOURCE_ARGUMENTS


def backbone_spec(model: str, backbone: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Specification of the backbone that reads a model.

    Args:
        model: see `model_form`.
        backbone: specification of a configuration, whose class and reading options (`dtype`,
            `sampler`, `num_classes`) are taken; None takes the usual class.

    Raises:
        InputError: the class does not read such a model, or none is given and the files do not
            tell one.
    """
    form = model_form(model)
    backbone = backbone or {}
    class_path = str(backbone.get("class_path") or "") or _usual_class(model, form)
    cls = find(class_path)
    if cls is None:
        raise InputError(f"there is no backbone {class_path}; mu list backbones lists them.")
    _check_class(cls, form, model)
    arguments = {
        name: value
        for name, value in dict(backbone.get("init_args") or {}).items()
        if name not in (*_TRAINING_ARGUMENTS, *replaced_arguments(model))
    }
    return {"class_path": class_path, "init_args": arguments | _source_arguments(cls, form, model)}


def _usual_class(model: str, form: Form) -> str:
    """Class path of the backbone that usually reads a form."""
    if form.backbones:
        return f"mu.backbones.{form.backbones[0]}"
    raise InputError(
        f"{shortened(model)} is {form.description}, which does not tell what model it is of; give "
        "a task with a backbone (-c configs/task/NAME.yaml), or one with --model.backbone CLASS "
        "(mu list backbones)."
    )


def _source_arguments(cls: type, form: Form, model: str) -> dict[str, Any]:
    """Arguments by which a backbone reads a model: its weights, and what they record."""
    names = argument_names(cls)
    source = _hub_image_network(model) if form is HUB and "model" not in names else model
    if form is NETWORK_NAME:
        return _published_network(model)
    if "name" in names:
        return {**_recorded_network(source), "weights": source}
    if "model" in names and form is not WEIGHTS:
        return {"model": source}
    if "weights" in names:
        return {"weights": source}
    raise InputError(
        f"{cls.__name__} takes neither model nor weights, so it cannot read {shortened(model)}."
    )


def _check_class(cls: type, form: Form, model: str) -> None:
    """Refuse a backbone of mu that reads models of another form."""
    ours = cls.__module__.partition(".")[0] == "mu"
    bases = [base.__name__ for base in cls.__mro__]
    if not ours or not form.backbones or any(name in bases for name in form.backbones):
        return
    raise InputError(
        f"{shortened(model)} is {form.description}, and the task's backbone is {cls.__name__}; "
        f"take a task for {form.backbones[0]} (mu list tasks), or another model."
    )


def _folder(model: str) -> str:
    """Folder of `embedded:NAME`; other names unchanged."""
    if not model.startswith(_EMBEDDED):
        return model
    from mu.backbones.embedded import path

    return str(path(model.removeprefix(_EMBEDDED)))


# ---- image networks ------------------------------------------------------------------------------


def _recorded_network(source: str) -> dict[str, Any]:
    """Arguments of an image network that its folder or file records; empty where there are none."""
    path = Path(source)
    facts = _config_facts(path) if path.is_dir() else _file_facts(path)
    if "architecture" not in facts:
        return {}
    arguments: dict[str, Any] = {
        "name": facts["architecture"],
        # mean and std are then those of the weights
        "mean": None,
        "std": None,
        **{name: facts[name] for name in ("num_classes", "in_channels") if facts.get(name)},
    }
    return arguments | ({"options": facts["options"]} if facts.get("options") else {})


def _config_facts(folder: Path) -> dict[str, Any]:
    """Architecture, classes and channels from the config.json of timm's or mu's folders."""
    if not (folder / "config.json").is_file():
        return {}
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        return {}
    published = config.get("pretrained_cfg")
    arguments = dict(config.get("model_args") or config.get("options") or {})
    channels = arguments.pop("in_chans", None) or config.get("in_channels")
    size = published.get("input_size") if isinstance(published, dict) else None
    return {
        "architecture": _network_name(str(config.get("library") or "timm"), config["architecture"]),
        "num_classes": config.get("num_classes"),
        "in_channels": channels or (size[0] if isinstance(size, list) and size else None),
        "options": arguments,
    }


def _file_facts(file: Path) -> dict[str, Any]:
    """Architecture, classes and channels from the metadata of a safetensors file of mu."""
    if file.suffix != ".safetensors":
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            metadata: dict[str, str] = dict(opened.metadata() or {})
    except (SafetensorError, OSError):
        return {}  # the backbone reports a damaged file
    if not {"architecture", "library", "num_classes", "mean"} <= set(metadata):
        return {}
    import json

    return {
        "architecture": _network_name(metadata["library"], metadata["architecture"]),
        "num_classes": int(metadata["num_classes"]),
        "in_channels": len(json.loads(metadata["mean"])),
    }


def _network_name(library: str, architecture: str) -> str:
    return architecture if library == "mu" else f"{library}:{architecture}"


def _published_network(model: str) -> dict[str, Any]:
    """Arguments for the published weights of a network of timm or torchvision, with its head."""
    from mu.backbones.vision.networks import resolve

    library, bare = resolve(model)
    if library == "timm":
        import timm

        config = timm.get_pretrained_cfg(bare)
        classes = None if config is None else config.num_classes
    else:
        import torchvision

        weights: Any = torchvision.models.get_model_weights(bare)
        classes = len(weights.DEFAULT.meta["categories"])
    return {
        "name": model,
        "pretrained": True,
        "mean": None,
        "std": None,
        "in_channels": 3,
        # another number of classes would put a new head in place of the trained one
        **({"num_classes": classes} if classes else {}),
    }


def _hub_image_network(model: str) -> str:
    """Folder of an image network of the hub, from the cache or by download."""
    from huggingface_hub import snapshot_download

    from mu.utils.hub import reading

    with reading("the image network", model, Exception):
        return snapshot_download(
            model, allow_patterns=["config.json", "*.safetensors", "*.safetensors.index.json"]
        )

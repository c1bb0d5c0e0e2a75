"""Models that are shipped with mu: the weights of a trained run in half precision.

python -m mu.cli.embed shapes runs/shapes
python -m mu.cli.embed authors runs/authors
python -m mu.cli.embed judge_shape runs/judge_shape --classes circle,square,triangle,star,cross,none
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from mu.backbones.embedded import HOME
from mu.utils.errors import InputError

LIMIT = 11_000_000
"""Limit of the size of all models together, in bytes."""


def write(name: str, run: str, classes: list[str], home: Path = HOME) -> Path:
    """Write the model of a run as a shipped model.

    Args:
        name: name of the model's folder, which is replaced.
        run: run folder of a finished fit.
        classes: class names of a classifier, in the order of its logits.
        home: folder of all shipped models.

    Returns:
        The folder.

    Raises:
        InputError: for a model that is not shipped, or for class names that do not fit it.
    """
    from mu.backbones import CausalLM, ClassConditionalDiffusion, Classifier, TextToImage
    from mu.backbones.export.diffusion import write_pipeline
    from mu.backbones.export.published import publish_config, publish_tokenizer
    from mu.core.checkpoint import load

    backbone = load(run).served()
    folder = home / name
    if not isinstance(backbone, TextToImage | ClassConditionalDiffusion | Classifier | CausalLM):
        raise InputError(
            f"{run} holds a {type(backbone).__name__}; text-to-image, class-conditional and "
            "language models and classifiers are shipped."
        )
    if isinstance(backbone, Classifier) and len(classes) != backbone.num_classes:
        raise InputError(
            f"--classes has {len(classes)} names for the {backbone.num_classes} classes of {run}; "
            "give one name for each class."
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if isinstance(backbone, TextToImage):
        backbone.pipeline().to(dtype=torch.float16)
        write_pipeline(backbone, folder)
    elif isinstance(backbone, ClassConditionalDiffusion):
        unet: Any = backbone.unet
        unet.half().save_pretrained(folder / "unet", safe_serialization=True)
        backbone.sampler.make(backbone).save_pretrained(folder / "scheduler")
    elif isinstance(backbone, CausalLM):
        network: Any = backbone.network
        network.half().save_pretrained(folder, safe_serialization=True)
        backbone.tokenizer.save_pretrained(folder)
        publish_config(folder)
        publish_tokenizer(backbone.tokenizer, folder)
    else:
        _write_judge(folder, backbone, classes)
    _tidy(folder)
    return folder


def _write_judge(folder: Path, backbone: Any, classes: list[str]) -> None:
    from mu.utils.files import save_tensors

    network = backbone.network
    metadata = {
        "architecture": backbone.name,
        "num_classes": str(backbone.num_classes),
        "class_names": json.dumps(classes),
        "mean": json.dumps(network.normalize.mean.flatten().tolist()),
        "std": json.dumps(network.normalize.std.flatten().tolist()),
    }
    tensors = {
        key: value
        for key, value in network.state_dict().items()
        if not key.startswith("normalize.")
    }
    halves = {
        key: value.half() if value.is_floating_point() else value for key, value in tensors.items()
    }
    save_tensors(folder / "model.safetensors", halves, metadata)


def _tidy(folder: Path) -> None:
    """Make files readable for all, and remove paths of this machine from their JSON."""
    for file in folder.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    for file in folder.rglob("*.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        portable = {
            key: value
            for key, value in content.items()
            if key not in ("_name_or_path", "is_local", "local_files_only", "backend")
        }
        if (
            file.name == "tokenizer_config.json"
            and portable.get("tokenizer_class") == "TokenizersBackend"
        ):
            portable["tokenizer_class"] = (
                "PreTrainedTokenizerFast"  # the name that every release of transformers knows
            )
        if portable != content:
            file.write_text(json.dumps(portable, indent=2) + "\n", encoding="utf-8")


def size(home: Path = HOME) -> dict[str, int]:
    """Size of each shipped model in bytes."""
    folders = [
        folder
        for folder in sorted(home.iterdir())
        if folder.is_dir() and not folder.name.startswith("_")
    ]
    return {
        folder.name: sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        for folder in folders
    }


def main(arguments: list[str]) -> None:
    """Write one model and print the sizes of all."""
    parser = argparse.ArgumentParser(
        prog="python -m mu.cli.embed",
        description="Turn a trained run into a model that comes with mu.",
    )
    parser.add_argument("name", help="shapes, digits, authors, judge_shape, ...")
    parser.add_argument("run", help="run folder of a finished fit")
    parser.add_argument(
        "--classes", default="", help="names of a classifier's classes, joined by commas"
    )
    options = parser.parse_args(arguments)
    write(options.name, options.run, [name for name in options.classes.split(",") if name])
    sizes = size()
    total = sum(sizes.values())
    print(
        ", ".join(f"{name} {count / 1e6:.2f} MB" for name, count in sizes.items()),
        f"together {total / 1e6:.2f} MB",
        sep="; ",
    )
    if total > LIMIT:
        raise InputError(
            f"the shipped models take more than {LIMIT / 1e6:.0f} MB together; make one of them "
            "smaller."
        )


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(f"mu.cli.embed: {error}")

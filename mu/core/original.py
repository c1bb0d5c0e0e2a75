"""The original of a run, rebuilt from what its checkpoint records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mu.backbones import Backbone
from mu.core.module import UnlearningModule
from mu.core.run_paths import located
from mu.utils.errors import InputError
from mu.utils.spec import from_spec, is_live, to_spec
from mu.utils.weights import weights_hash


def original_backbone(module: UnlearningModule) -> Backbone:
    """The model that a run began from, in eval mode and on the module's device.

    It is the reference, or the backbone where that still has the original weights, or else a model
    that is built anew from the arguments of the run's backbone.

    Args:
        module: module under test.

    Raises:
        InputError: why the original is not known, as a clause: its weights are gone or have
            changed, or it was a live object.
    """
    if module.reference is not None:
        return module.reference
    if weights_hash(module.backbone) == module.original_hash:
        return module.backbone
    if module.trains_from_scratch:
        raise InputError("the run began from new weights")
    spec = _backbone_spec(module)
    if is_live(spec) or not isinstance(spec, dict):
        raise InputError("its backbone was built from a live object, which no file holds")
    # a test runs in inference mode, in which some models cannot be built
    with torch.inference_mode(False):
        model = from_spec(spec)
    if weights_hash(model) != module.original_hash:
        raise InputError(
            f"the files of its original hold other weights than {module.original_hash}, with which "
            "it began"
        )
    return model.to(module.device).eval().requires_grad_(False)


def checkpoint_record(file: Path | str) -> dict[str, Any]:
    """Record of a run in its checkpoint (`spec`, `recipe`, `original_hash`); no tensor is read."""
    return torch.load(file, map_location="cpu", weights_only=True, mmap=True)["mu"]


def _backbone_spec(module: UnlearningModule) -> Any:
    """Specification of the run's backbone, with the original weights.

    A module that is tested from a checkpoint was built without them, so the checkpoint's record
    counts.
    """
    file = getattr(module.trainer, "ckpt_path", None)
    if file is None or not Path(file).is_file():
        return to_spec(module.backbone)
    arguments = checkpoint_record(file)["spec"]["init_args"]
    folder = Path(file).resolve().parent
    return located(
        arguments.get("backbone"), folder.parent if folder.name == "checkpoints" else folder
    )

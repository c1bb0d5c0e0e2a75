"""Loading of whole networks by `from_pretrained` of transformers and diffusers, fully checked."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mu.utils.errors import InputError
from mu.utils.hub import reading
from mu.utils.stand_ins import foreign_classes
from mu.utils.weight_checks import check_values, name_list, no_weight_type, stored_dtypes
from mu.utils.weights import read_checkpoint, state_dict_of

_RECOMPUTED = (
    "inv_freq",
    "position_ids",
    "token_type_ids",
    "masked_bias",
    ".attn.bias",
    ".attention.bias",
    "causal_mask",
    "cos_cached",
    "sin_cached",
)
"""Ends of the names of buffers that older files have and today's networks compute."""


def load_pretrained(
    network_class: Any, model: str, what: str, *, subfolder: str = "", **options: Any
) -> nn.Module:
    """Network of `from_pretrained`, all of whose weights come from the file.

    Args:
        network_class: class of transformers or diffusers with `from_pretrained`
            (`AutoModelForCausalLM`, `UNet2DConditionModel`, `CLIPTextModel`).
        model: a folder or a hub id.
        what: subject of messages (`the model`, `the unet`).
        subfolder: folder of the component inside `model`.
        options: further arguments of `from_pretrained`: `dtype` for transformers, `torch_dtype`
            for diffusers, `variant`, `attn_implementation`.

    Returns:
        The network in eval mode.

    Raises:
        InputError: the model cannot be read; or its files lack weights of the network, have others,
            or weights of another shape; or their values are of a type that is no weight's, or not
            finite.
    """
    path = f"{model}/{subfolder}" if subfolder else model
    tensors = _foreign_tensors(Path(path), network_class)
    arguments = {**options, **({"subfolder": subfolder} if subfolder and tensors is None else {})}
    source: str | None = model
    # the libraries answer damaged files with errors of any class
    with reading(what, model, Exception), quiet_libraries():
        if tensors is not None:
            network_class, arguments["config"] = _concrete(network_class, path)
            arguments["state_dict"] = tensors
            source = None
        network, report = network_class.from_pretrained(
            source, output_loading_info=True, ignore_mismatched_sizes=True, **arguments
        )
    check_report(network, report, f"{what} of {path}")
    check_files(network, Path(path))
    check_values(network.state_dict(), f"{what} of {path}")
    return network


def check_report(network: nn.Module, report: dict[str, Any], source: str) -> None:
    """Check the loading report of `from_pretrained(..., output_loading_info=True)`.

    Weights that are tied to another, and buffers that the network computes itself, may be absent
    from the file or stand in it.

    Args:
        network: the loaded network.
        report: `missing_keys`, `unexpected_keys` (names), `mismatched_keys` (name, shape in the
            file, shape in the network).
        source: the model, for messages.

    Raises:
        InputError: weights are missing, unexpected, or of another shape.
    """
    state = network.state_dict()
    parameters = {name for name, _ in network.named_parameters()}
    missing = sorted(name for name in report["missing_keys"] if name in parameters or name in state)
    unexpected = sorted(
        name for name in report["unexpected_keys"] if not name.endswith(_RECOMPUTED)
    )
    cure = "its configuration belongs to other weights, or its files are not complete"
    mismatched = sorted(report.get("mismatched_keys", ()), key=str)
    if mismatched:
        shapes = [
            f"{name} of shape {list(in_file)} where the network has {list(in_network)}"
            for name, in_file, in_network in mismatched
        ]
        raise InputError(f"{source} holds {name_list(shapes)}; {cure}.")
    if missing:
        raise InputError(
            f"{source} lacks {len(missing)} weights of {type(network).__name__} "
            f"({name_list(missing)}), which would begin at random; {cure}."
        )
    if unexpected:
        raise InputError(
            f"{source} has {len(unexpected)} weights that {type(network).__name__} has not "
            f"({name_list(unexpected)}); {cure}."
        )


def check_files(network: nn.Module, folder: Path) -> None:
    """Check that the files of a folder hold floating-point weights, unless they are quantised.

    `from_pretrained` casts integers to the network's dtype without a word.

    Args:
        network: the network loaded from the files.
        folder: the files' folder; a hub id is passed over.

    Raises:
        InputError: a weight of the network is of boolean, integer or complex type in a file.
    """
    config = getattr(network, "config", None)
    if getattr(config, "quantization_config", None) is not None or not folder.is_dir():
        return
    integers = tuple(
        name for name, value in network.state_dict().items() if not value.is_floating_point()
    )
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*pytorch_model*.bin"))
    for file in files:
        for name, dtype in stored_dtypes(file).items():
            buffer = name.endswith((*_RECOMPUTED, *integers)) or any(
                integer.endswith(name) for integer in integers
            )
            if not buffer and not dtype.is_floating_point:
                raise InputError(no_weight_type(name, dtype, file))


def _foreign_tensors(folder: Path, network_class: Any) -> dict[str, Tensor] | None:
    """Weights of torch files with foreign objects, which transformers refuses; None for others."""
    files = sorted(folder.glob("pytorch_model*.bin"))
    if not files or list(folder.glob("*.safetensors")):
        return None
    if not network_class.__module__.startswith("transformers.") or not any(
        foreign_classes(file) for file in files
    ):
        return None
    tensors = {}
    for file in files:
        tensors |= state_dict_of(read_checkpoint(file), file)
    return tensors


def _concrete(network_class: Any, folder: str) -> tuple[Any, Any]:
    """Class of the network that an auto class stands for, and the configuration of a folder."""
    from transformers import AutoConfig

    if not hasattr(network_class, "from_config"):
        return network_class, network_class.config_class.from_pretrained(folder)
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        return type(network_class.from_config(config)), config


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Context without the libraries' loading reports and bars, which the checks replace."""
    loggers = [logging.getLogger(name) for name in ("transformers", "diffusers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

"""Checkpoints of the DDPM code family: SA, SalUn, EraseDiff, SFD."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mu.utils.errors import InputError
from mu.utils.weight_checks import check_values
from mu.utils.weights import assign_weights, read_torch_file, unwrap_names

_MARK = "null_classes_emb"
_ATTENTION_SIDE = 16  # of the published configurations


def ddpm_tensors(checkpoint: Path, ema: bool | None) -> tuple[dict[str, Tensor], str] | None:
    """Tensors of the denoiser in a checkpoint of the DDPM code, and which copy they are.

    The checkpoint is a list [weights, optimizer, ..., step, average], as SA, SalUn and EraseDiff
    save it, [fake score, optimizer, generator, optimizer, step, average] as SFD does, or a state
    dict alone.

    Args:
        checkpoint: torch file.
        ema: take the moving average, or the trained weights; None where there is one copy.

    Returns:
        The tensors by their names without wrappers, and the name of the copy; None for a file of
        another kind.

    Raises:
        InputError: when the file cannot be read, or leaves open which copy is meant.
    """
    if checkpoint.suffix == ".safetensors" or not checkpoint.is_file():
        return None
    content = read_torch_file(checkpoint)
    entries = content if isinstance(content, list | tuple) else [content]
    networks = [unwrap_names(entry)[0] for entry in entries if _is_network(entry)]
    if not networks:
        return None
    distilled = sum(isinstance(entry, dict) and "param_groups" in entry for entry in entries) > 1
    if distilled:  # the first network is the fake score
        networks = networks[1:] or networks
    weights, average = networks[0], networks[-1] if len(networks) > 1 else None
    name = "the generator" if distilled else "the trained weights"
    if average is None:
        if ema:
            raise InputError(f"{checkpoint} holds no moving average; leave --ema out.")
        return _checked(weights, checkpoint), "" if not distilled else name
    if ema is None:
        raise InputError(
            f"{checkpoint} holds two copies of the denoiser, {name} and their moving average; say "
            "which with --no-ema or --ema. (SA and SFD sample from the average, SalUn from the "
            "weights.)"
        )
    if not ema:
        return _checked(weights, checkpoint), name
    # an average has no buffers, which the weights share with it
    return _checked({**weights, **average}, checkpoint), "the moving average"


def _is_network(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and any(str(name).endswith(_MARK) for name in entry)
        and all(isinstance(value, Tensor) for value in entry.values())
    )


def _checked(tensors: Mapping[str, Tensor], file: Path) -> dict[str, Tensor]:
    check_values(tensors, file)
    return dict(tensors)


def ddpm_config(tensors: Mapping[str, Tensor], file: Path) -> dict[str, Any]:
    """Arguments of `ConditionalDDPM` that follow from the shapes of its tensors.

    The side of the images is that of the published configurations, which attend at 16 x 16.

    Raises:
        InputError: the tensors are not those of such a denoiser.
    """
    try:
        channels, in_channels = tensors["conv_in.weight"].shape[:2]
        levels = _count(tensors, "down.{}.block.0.conv1.weight")
        widths = [tensors[f"down.{i}.block.0.conv1.weight"].shape[0] for i in range(levels)]
        attention = tuple(i for i in range(levels) if f"down.{i}.attn.0.q.weight" in tensors)
        return {
            "sample_size": _ATTENTION_SIDE * 2 ** (attention[0] if attention else levels - 1),
            "in_channels": in_channels,
            "out_channels": tensors["conv_out.weight"].shape[0],
            "channels": channels,
            "multipliers": tuple(width // channels for width in widths),
            "layers_per_block": _count(tensors, "down.0.block.{}.conv1.weight"),
            "attention_levels": attention,
            "num_class_embeds": tensors["classes_emb.weight"].shape[0] + 1,
        }
    except KeyError as error:
        raise InputError(
            f"{file} has no {error.args[0]}, so it is not a whole denoiser of the DDPM code; it "
            "may be cut off."
        ) from error


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    count = 0
    while pattern.format(count) in tensors:
        count += 1
    return count


def ddpm_network(tensors: Mapping[str, Tensor], file: Path) -> torch.nn.Module:
    """Denoiser with the tensors of a checkpoint.

    Raises:
        InputError: the tensors do not fit.
    """
    from mu.backbones.diffusion.ddpm_unet import ConditionalDDPM

    with torch.random.fork_rng(devices=[]):
        network = ConditionalDDPM(**ddpm_config(tensors, file))
    assign_weights(network, tensors, file)
    return network.eval()

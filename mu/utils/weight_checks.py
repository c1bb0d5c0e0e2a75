"""Checks of weights: finite floating-point numbers."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mu.utils.errors import InputError
from mu.utils.stand_ins import load_with_stand_ins

_SHOWN = 5


def check_values(
    tensors: Mapping[str, Tensor], source: object, state: Mapping[str, Tensor] | None = None
) -> None:
    """Check that weights are finite floating-point numbers.

    Args:
        tensors: weights by name.
        source: their file, for messages.
        state: the network's own tensors by name; where one is an integer, the file's may be too.

    Raises:
        InputError: a tensor is of boolean, integer or complex type where the network has a
            floating-point one, or holds NaN or infinity.
    """
    for name, value in tensors.items():
        if not value.is_floating_point():
            if state is not None and state[name].is_floating_point():
                raise InputError(no_weight_type(name, value.dtype, source))
        # the sum alone is read first, because it is much faster; it may overflow by itself
        elif not value.is_meta and not bool(torch.isfinite(value.sum())):
            odd = int((~torch.isfinite(value)).sum())
            if odd:
                raise InputError(
                    f"{source} holds NaN or infinity in {odd} of {value.numel()} values of {name}; "
                    "take weights from before training diverged, or fetch the file anew."
                )


def no_weight_type(name: str, dtype: torch.dtype, source: object) -> str:
    """Message about a tensor of boolean, integer or complex type where weights belong."""
    return (
        f"{source} holds {name} as {str(dtype).removeprefix('torch.')} where weights are "
        "floating-point numbers; save them as float32, float16 or bfloat16."
    )


def stored_dtypes(file: Path) -> dict[str, torch.dtype]:
    """Dtypes of the tensors of a safetensors or torch file, by name, without reading values."""
    if file.suffix != ".safetensors":
        try:
            content = torch.load(file, map_location="meta", weights_only=True)
        except pickle.UnpicklingError:
            content = load_with_stand_ins(file)
        return {name: value.dtype for name, value in content.items() if isinstance(value, Tensor)}
    from safetensors import safe_open

    dtypes = {}
    with safe_open(file, framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118 - not a mapping
            code = opened.get_slice(name).get_dtype()
            floating = code.startswith(("F", "BF"))
            dtypes[name] = torch.float32 if floating else opened.get_tensor(name).dtype
    return dtypes


def name_list(names: list[str]) -> str:
    """First names of a list, and the number of the others."""
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")

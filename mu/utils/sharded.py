"""Tensors sharded over ranks (DTensors, as FSDP2 makes them) and whole tensors, treated alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor."""
    # no isinstance, because the import of DTensor takes longer than a short command
    return hasattr(tensor, "to_local")


def local_part(tensor: Tensor) -> Tensor:
    """The shard of a DTensor on this rank, which shares its memory; a whole tensor as it is."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[operator]


def total_of(value: Tensor) -> Tensor:
    """Scalar that was summed over a tensor, as a whole tensor with its graph."""
    return value.full_tensor() if is_sharded(value) else value  # type: ignore[operator]


def sum_over_shards(value: Tensor, tensor: Any) -> Tensor:
    """Sum of a value over the ranks that hold the shards of `tensor`.

    Args:
        value: this rank's share of the sum, computed from its shard, on the device of `tensor`.
        tensor: a DTensor; the value of a whole tensor is the sum already.
    """
    if not is_sharded(tensor):
        return value
    from torch.distributed.tensor import DTensor, Partial, Replicate

    placements = [
        Partial() if placement.is_shard() else Replicate() for placement in tensor.placements
    ]
    return DTensor.from_local(value, tensor.device_mesh, placements, run_check=False).full_tensor()


def preceding_sum(value: Tensor, tensor: Any) -> Tensor:
    """Sum of a scalar over the shards of `tensor` that precede this rank's.

    Args:
        value: this rank's scalar.
        tensor: a DTensor that is divided along one axis of its mesh.
    """
    from torch.distributed.tensor import DTensor, Shard

    axis = next(axis for axis, placement in enumerate(tensor.placements) if placement.is_shard())
    placements = [*tensor.placements]
    placements[axis] = Shard(0)
    by_rank = DTensor.from_local(
        value[None], tensor.device_mesh, placements, run_check=False
    ).full_tensor()
    return by_rank[: tensor.device_mesh.get_local_rank(axis)].sum()


def by_layout(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """Tensors grouped by mesh and kind of division, so that one sum over ranks serves a group."""
    groups: dict[Any, list[Tensor]] = {}
    for tensor in tensors:
        layout = None
        if is_sharded(tensor):
            mesh, placements = tensor.device_mesh, tensor.placements  # type: ignore[attr-defined]
            layout = (mesh, tuple(placement.is_shard() for placement in placements))
        groups.setdefault(layout, []).append(tensor)
    return list(groups.values())


def from_shard(shard: Tensor, like: Any) -> Tensor:
    """DTensor of the layout of `like`, from this rank's shard; a whole tensor where it is one."""
    if not is_sharded(like):
        return shard
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        shard,
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )


def distribute_like(tensor: Tensor, like: Any) -> Tensor:
    """A tensor in the layout of `like`: each rank takes its shard of a whole tensor.

    Args:
        tensor: a DTensor, or a whole tensor that is equal on all ranks.
        like: of the same shape.
    """
    if is_sharded(tensor) or not is_sharded(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(
        tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )


def count_true(masks: Iterable[Tensor]) -> int:
    """Number of true entries of boolean tensors, over all shards."""
    total = 0
    for group in by_layout(masks):
        counts = torch.stack([local_part(mask).sum().to(group[0].device) for mask in group])
        total += int(sum_over_shards(counts.sum(), group[0]))
    return total

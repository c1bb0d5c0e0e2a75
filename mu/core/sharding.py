"""Weights sharded over all ranks (FSDP2): the strategy, what it refuses, and what is checked."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.constants import default_pg_timeout
from torch.distributed.fsdp import FSDPModule

from mu.backbones.base import Backbone
from mu.core.protocols import Method
from mu.utils.errors import InputError


class FullyShardedStrategy(ModelParallelStrategy):
    """Strategy that divides each weight over all ranks, on one machine or several (FSDP2).

    Lightning's `ModelParallelStrategy` divides over its `data_parallel_size`, which is the number
    of machines unless it is told; here it is the number of ranks. Every rank reads other samples.

    Args:
        save_distributed_checkpoint: whether a checkpoint is a folder with a file of each rank, or
            one file, which any number of ranks can read.
        process_group_backend: `nccl` or `gloo`; the one of the device when None.
        timeout: longest wait of a rank for the others.
    """

    def __init__(
        self,
        save_distributed_checkpoint: bool = False,
        process_group_backend: str | None = None,
        timeout: timedelta | None = default_pg_timeout,
    ) -> None:
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=save_distributed_checkpoint,
            process_group_backend=process_group_backend,
            timeout=timeout,
        )

    def setup_environment(self) -> None:
        """Set the number of ranks, which the trainer has counted by now."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load a checkpoint, after a check of its tensors' shapes.

        Raises:
            InputError: a tensor is of another shape.
        """
        stored = stored_shapes(Path(self.broadcast(checkpoint_path)))
        if stored is not None and self.model is not None:
            _check_shapes(self.model.state_dict(), stored)
        return super().load_checkpoint(checkpoint_path, weights_only)


def shard_models(method: Method, mesh: Any) -> None:
    """Shard a method's backbone and reference over the ranks of a device mesh, in place.

    Args:
        method: with whole weights, the same on all ranks.
        mesh: with the axes `data_parallel` and `tensor_parallel` of `ModelParallelStrategy`.

    Raises:
        InputError: ranks would share their samples (tensor parallelism), or the method's batches
            or models cannot be divided.
    """
    if mesh["tensor_parallel"].size() > 1:
        raise InputError(
            "weights are sharded over ranks that read different samples, and tensor_parallel_size "
            f"is {mesh['tensor_parallel'].size()}; take the strategy mu.core.FullyShardedStrategy, "
            "or give ModelParallelStrategy tensor_parallel_size: 1 and the number of ranks as "
            "data_parallel_size."
        )
    if method.shard == "batches":
        raise InputError(
            f"{type(method).__name__} reads another batch on each rank, and all ranks of sharded "
            "weights compute the same batch together; take the strategy ddp."
        )
    for model in (method.backbone, method.reference):
        if isinstance(model, Backbone):
            model.shard(mesh["data_parallel"])


def reshard(model: nn.Module) -> None:
    """Free gathered weights, so that the parameters of a sharded model are its shards again.

    FSDP2 keeps those of the outermost module gathered after a forward pass, until a backward pass.
    """
    for layer in model.modules():
        if isinstance(layer, FSDPModule):
            layer.reshard()


def trained_parameters(model: nn.Module, mesh: Any = None) -> list[tuple[str, nn.Parameter]]:
    """Names and parameters of a model that take a gradient; of sharded weights, the shards.

    Args:
        model: whole or sharded.
        mesh: the device mesh of sharded weights.
    """
    if mesh is not None:
        reshard(model)
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


def stored_shapes(path: Path) -> dict[str, torch.Size] | None:
    """Shapes of a checkpoint's tensors by key, without reading their values.

    Args:
        path: one file; of a folder with a file of each rank, None is returned.
    """
    if path.is_dir():
        return None
    content = torch.load(path, map_location="meta", mmap=True, weights_only=True)
    return {key: value.shape for key, value in content["state_dict"].items()}


def _check_shapes(state: Mapping[str, Any], stored: Mapping[str, torch.Size]) -> None:
    """Refuse a checkpoint with a tensor of another shape than the module's `state`."""
    for key, shape in stored.items():
        if key in state and shape != state[key].shape:
            raise InputError(
                f"the checkpoint does not fit this method and backbone: {key} is of shape "
                f"{list(shape)} where the module has {list(state[key].shape)}."
            )

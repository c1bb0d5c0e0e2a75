"""Low-rank adapters, by peft."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import nn

from mu.errors import InputError
from mu.extras import require
from mu.recorded import Recorded

if TYPE_CHECKING:
    from mu.backbones.base import Backbone


class LoRA(Recorded):
    """Adapters W + (α / r) B A in place of training W (Hu et al., ICLR 2022, arXiv 2106.09685).

    Args:
        rank: r.
        alpha: α; r when None.
        dropout: of the adapters' inputs.
        init_seed: of A; B begins as zero, so the adapted model begins as the original.
    """

    def __init__(self, rank: int = 4, alpha: float | None = None, dropout: float = 0.0, init_seed: int = 0) -> None:
        if rank < 1:
            raise InputError(f"the rank of LoRA is {rank}; it is at least 1.")
        self.rank, self.alpha, self.dropout, self.init_seed = rank, alpha, dropout, init_seed

    def inject(self, network: nn.Module, weights: Iterable[str]) -> None:
        """Put adapters into the linear and convolution layers whose `weight` is named, and freeze everything else.

        Raises:
            InputError: when none of them can hold an adapter.
        """
        require("LoRA", "peft", extra="diffusion")
        from peft import LoraConfig, inject_adapter_in_model

        layers = {name for name, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
        targets = sorted({name.removesuffix(".weight") for name in weights} & layers)
        if not targets:
            raise InputError("LoRA found no linear or convolution layer in the part that is trained; choose another part.")
        config = LoraConfig(r=self.rank, lora_alpha=self.alpha or self.rank,  # type: ignore[arg-type]
                            lora_dropout=self.dropout, target_modules=targets,
                            init_lora_weights=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.init_seed)
            inject_adapter_in_model(config, network)
        for name, weight in network.named_parameters():
            weight.requires_grad_("lora_" in name)


def merge_adapters(backbone: Backbone) -> None:
    """Fold every adapter into the layer under it, so that the plain model remains (for export)."""
    from peft.tuners.lora import LoraLayer

    for parent in list(backbone.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, LoraLayer):
                layer.merge(safe_merge=True)  # type: ignore[operator]
                setattr(parent, name, layer.get_base_layer())

"""Low-rank adapters (LoRA) by PEFT."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mu.utils.errors import InputError
from mu.utils.extras import require
from mu.utils.files import read_json
from mu.utils.spec import Reconstructible
from mu.utils.weights import weights_hash

_PREFIX = "base_model.model."
"""Before every name in a file of PEFT."""


class LoRA(Reconstructible):
    """Low-rank adapters W + (α / r) B A, trained in place of W.

    Source: Hu et al., ICLR 2022, arXiv 2106.09685.

    Args:
        rank: rank r.
        alpha: α; r when None.
        dropout: dropout probability of the adapters' inputs.
        init_seed: seed of A; B begins as zero, so the adapted model begins as the original.
    """

    def __init__(
        self, rank: int = 4, alpha: float | None = None, dropout: float = 0.0, init_seed: int = 0
    ) -> None:
        if rank < 1:
            raise InputError(f"the rank of LoRA is {rank}; it is at least 1.")
        self.rank = rank
        self.alpha = alpha
        self.dropout = dropout
        self.init_seed = init_seed

    def inject(self, network: nn.Module, weights: Iterable[str]) -> None:
        """Add adapters to the linear and convolution layers of named weights; freeze the rest.

        Raises:
            InputError: when none of the layers supports an adapter.
        """
        require("LoRA", "peft", extra="diffusion")
        from peft import LoraConfig, inject_adapter_in_model

        layers = {
            name
            for name, layer in network.named_modules()
            if isinstance(layer, nn.Linear | nn.Conv2d)
        }
        targets = sorted({name.removesuffix(".weight") for name in weights} & layers)
        if not targets:
            raise InputError(
                "LoRA found no linear or convolution layer in the part that is trained; choose "
                "another part."
            )
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha or self.rank,  # type: ignore[arg-type]
            lora_dropout=self.dropout,
            target_modules=targets,
            init_lora_weights=True,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.init_seed)
            inject_adapter_in_model(config, network)
        for name, weight in network.named_parameters():
            weight.requires_grad_("lora_" in name)


def merge_adapters(backbone: nn.Module) -> None:
    """Merge every adapter into its layer, which leaves the plain model."""
    from peft.tuners.lora import LoraLayer

    for parent in list(backbone.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, LoraLayer):
                layer.merge(safe_merge=True)  # type: ignore[operator]
                setattr(parent, name, layer.get_base_layer())


def load_adapter(backbone: Any, folder: Path) -> None:
    """Load the adapters of a PEFT folder into a backbone with adapters of the same form.

    Raises:
        InputError: when the backbone has none, or the file was made for another base model or
            another form.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    adapter_config = read_json(folder / "adapter_config.json")
    if backbone.lora is None:
        raise InputError(
            f"{folder} holds adapters, and the backbone has none; give it a lora of rank "
            f"{adapter_config.get('r')}."
        )
    if not (folder / "adapter_model.safetensors").is_file():
        raise InputError(
            f"{folder} has an adapter_config.json and no adapter_model.safetensors; it may not "
            "have been saved to its end."
        )
    if adapter_config.get("mu_base_hash") and adapter_config["mu_base_hash"] != base_hash(backbone):
        raise InputError(
            f"the adapters in {folder} were made for "
            f"{adapter_config.get('base_model_name_or_path')}, whose "
            f"weights are not those of {backbone.model}; load that model."
        )
    tensors = {
        name.removeprefix(_PREFIX): value
        for name, value in load_file(folder / "adapter_model.safetensors").items()
    }
    adapter_state = get_peft_model_state_dict(backbone.network)
    odd = sorted(set(adapter_state) ^ set(tensors)) or [
        name for name in adapter_state if adapter_state[name].shape != tensors[name].shape
    ]
    if odd:
        raise InputError(
            f"the adapters in {folder} do not fit those of the backbone ({odd[0]}); give the "
            f"backbone the same part, and a lora of rank {adapter_config.get('r')}."
        )
    set_peft_model_state_dict(backbone.network, tensors)


def base_hash(backbone: Any) -> str:
    """Hash of the weights without adapters."""
    return weights_hash(
        {
            name.replace(".base_layer.", "."): value
            for name, value in backbone.network.state_dict().items()
            if ".lora_" not in name
        }
    )

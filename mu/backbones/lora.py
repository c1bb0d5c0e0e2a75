"""Low-rank adapters (LoRA) by PEFT."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn
from torch.nn.modules.conv import _ConvNd

from mu.utils.errors import InputError
from mu.utils.extras import require
from mu.utils.spec import Reconstructible
from mu.utils.weight_checks import name_list


class LoRA(Reconstructible):
    """Low-rank adapters W + (α / r) B A, trained in place of W.

    Linear layers and convolutions get an adapter each, and so does every weight matrix that a
    module applies itself: the experts of a mixture (one A and B per expert) and their router.
    Layers whose weights are read past the layer get none, as in PEFT, and a warning names them:
    `conv1d`, `dt_proj` and `out_proj` of Mamba, which one trains without LoRA.

    Source: Hu et al., ICLR 2022, arXiv 2106.09685.

    Args:
        r: rank.
        lora_alpha: α; r when None.
        lora_dropout: dropout probability of the adapters' inputs; 0 where experts have adapters.
        init_seed: seed of A; B begins as zero, so the adapted model begins as the original.
        use_rslora: scale by α / √r in place of α / r (Kalajdzievski 2023, arXiv 2312.03732).
        use_dora: train the weights' magnitudes too (Liu et al., ICML 2024, arXiv 2402.09353).
        target_modules: layers of the trained part that get adapters, as in PEFT: ends of their
            names (`[q_proj, v_proj]`), a regular expression that matches whole names, or
            `all-linear`, which leaves out convolutions; None is all layers of the part.
    """

    def __init__(
        self,
        r: int = 4,
        lora_alpha: float | None = None,
        lora_dropout: float = 0.0,
        init_seed: int = 0,
        use_rslora: bool = False,
        use_dora: bool = False,
        target_modules: str | list[str] | None = None,
    ) -> None:
        if r < 1:
            raise InputError(f"the rank r of LoRA is {r}; it is at least 1.")
        self.r = r
        self.lora_alpha = lora_alpha
        self.lora_dropout = lora_dropout
        self.init_seed = init_seed
        self.use_rslora = use_rslora
        self.use_dora = use_dora
        self.target_modules = target_modules

    @property
    def names_layers(self) -> bool:
        """Whether `target_modules` names layers one by one."""
        return self.target_modules not in (None, "all-linear")

    def select(self, weights: Iterable[str]) -> list[str]:
        """Names of the weights whose layers are among `target_modules`.

        Raises:
            InputError: when an entry names no layer.

        Example:
            >>> LoRA(target_modules=["q_proj"]).select(["0.q_proj.weight", "0.k_proj.weight"])
            ['0.q_proj.weight']
        """
        weights = list(weights)
        targets = self.target_modules
        if targets is None or targets == "all-linear":
            return weights
        if isinstance(targets, str):
            selected = {targets: {name for name in weights if _matches(name, targets)}}
        else:
            selected = {
                target: {name for name in weights if _ends_with(name, target)} for target in targets
            }
        unmatched = [repr(target) for target, names in selected.items() if not names]
        if unmatched or not selected:
            layers = list(dict.fromkeys(name.rpartition(".")[0] for name in weights))
            raise InputError(
                f"target_modules of the lora names {unmatched[0] if unmatched else 'no layer'}, "
                f"and the layers of the part that is trained are {name_list(layers)}; give ends of "
                "such names."
            )
        chosen = set().union(*selected.values())
        return [name for name in weights if name in chosen]

    def inject(
        self,
        network: nn.Module,
        weights: Iterable[str],
        strict: bool = False,
        bypassed: Collection[str] = (),
    ) -> None:
        """Add adapters to the layers of named weights; freeze the rest.

        Args:
            network: the network; its layers are replaced by adapted ones.
            weights: names of its weights.
            strict: refuse named matrices that get no adapter; else embeddings, depthwise
                convolutions and other parameters without a matrix product are passed over.
            bypassed: layers that the network never calls, so that an adapter has no effect.

        Raises:
            InputError: when none of the layers supports an adapter, or one that should have an
                adapter has none.
        """
        require("LoRA", "peft", extra="diffusion")
        from peft import LoraConfig, inject_adapter_in_model

        layers, matrices = adapter_targets(network, list(weights), strict, bypassed)
        if self.target_modules == "all-linear":
            layers = [
                name for name in layers if not isinstance(network.get_submodule(name), _ConvNd)
            ]
        if not layers and not matrices:
            raise InputError(
                "LoRA found no linear or convolution layer in the part that is trained; choose "
                "another part."
            )
        layers, matrices = _stable_targets(network, layers, matrices)
        config = LoraConfig(
            r=self.r,
            lora_alpha=self.lora_alpha or self.r,  # type: ignore[arg-type]
            lora_dropout=self.lora_dropout,
            target_modules=layers,
            target_parameters=matrices or None,
            init_lora_weights=True,
            use_rslora=self.use_rslora,
            use_dora=self.use_dora,
            fan_in_fan_out=any(_is_transposed(network.get_submodule(name)) for name in layers),
        )
        self._check_matrices(matrices)
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # it warns of networks that have Linear and Conv1D layers, of which it treats both right
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
            torch.manual_seed(self.init_seed)
            inject_adapter_in_model(config, network)
        _check_adapted(network, layers, matrices)
        _keep_versions(network)
        for name, weight in network.named_parameters():
            weight.requires_grad_("lora_" in name)

    def _check_matrices(self, matrices: Sequence[str]) -> None:
        option = (
            "lora_dropout 0" if self.lora_dropout else "use_dora false" if self.use_dora else None
        )
        if matrices and option is not None:
            raise InputError(
                f"adapters of {matrices[0]}, which its module multiplies by itself, have no "
                f"{option.split()[0]}; give the lora {option}, or a part without such weights."
            )


def _matches(weight: str, pattern: str) -> bool:
    """Whether a regular expression matches the name of a weight's layer, or of the weight."""
    try:
        return any(re.fullmatch(pattern, name) for name in (weight.rpartition(".")[0], weight))
    except re.error as error:
        raise InputError(
            f"target_modules {pattern!r} of the lora is not a regular expression ({error}); give "
            "a list of ends of layers' names."
        ) from error


def _ends_with(weight: str, target: str) -> bool:
    """Whether the name of a weight's layer, or of the weight, ends with a target."""
    return any(f".{name}".endswith(f".{target}") for name in (weight.rpartition(".")[0], weight))


def adapter_targets(
    network: nn.Module,
    weights: Sequence[str],
    strict: bool = False,
    bypassed: Collection[str] = (),
) -> tuple[list[str], list[str]]:
    """Layers, and matrices of other modules, that get adapters.

    Args:
        network: the network.
        weights: names of the chosen weights.
        strict: refuse matrices that get no adapter.
        bypassed: layers that the network never calls.

    Returns:
        Names of layers (Linear, Conv2d, Conv1d, transformers' Conv1D), and names of parameters
        (stacked experts `[E, D, D]`, routers), both sorted.

    Raises:
        InputError: a matrix gets no adapter, where `strict` or where it is a stack of matrices.
    """
    layers: set[str] = set()
    matrices: set[str] = set()
    refused = []
    passed_over: set[str] = set()
    unsafe = _unsafe_layers(network) | set(bypassed)
    for name in weights:
        weight = network.get_parameter(name)
        owner, _, attribute = name.rpartition(".")
        module = network.get_submodule(owner)
        if weight.dim() < 2 or attribute.endswith("bias"):
            continue
        if owner in unsafe:
            refused += [f"{name} (which its module reads past the layer)"] if strict else []
            passed_over.add(owner.rpartition(".")[2])
        elif attribute == "weight" and _is_layer(module):
            layers.add(owner)
        elif _is_matrix(module, attribute, weight):
            matrices.add(name)
        elif strict or (_stacked(weight) and not isinstance(module, _ConvNd)):
            refused.append(f"{name} of {type(module).__name__}")
    if refused:
        raise InputError(
            f"LoRA has no adapter for {name_list(refused)}; leave such weights out of the part "
            "that is trained, or train it without lora."
        )
    if passed_over:
        rank_zero_warn(
            f"LoRA gives no adapter to {', '.join(sorted(passed_over))}, because their module "
            "reads the weights past the layer; they stay as they are."
        )
    return sorted(layers), sorted(matrices)


def _unsafe_layers(network: nn.Module) -> set[str]:
    """Layers whose weights a fused kernel reads past their forward, as PEFT lists them (Mamba)."""
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    check = getattr(LoraModel, "_check_target_module_compatiblity", None)
    if check is None:  # of an older PEFT
        return set()
    unsafe = set()
    config = LoraConfig()
    for name, _ in network.named_modules():
        try:
            check(LoraModel, config, network, name.rpartition(".")[2])
        except ValueError:
            unsafe.add(name)
    return unsafe


def _is_layer(module: nn.Module) -> bool:
    """Whether PEFT adapts the module as a whole, because its output is its weight's product."""
    if _is_transposed(module):
        return True
    if isinstance(module, nn.Linear):
        # of transformers' subclasses some return more than the product (Llama 4's router)
        overridden = type(module).forward is not nn.Linear.forward
        return not (overridden and type(module).__module__.startswith("transformers."))
    return isinstance(module, nn.Conv1d | nn.Conv2d) and module.groups == 1


def _is_transposed(module: nn.Module) -> bool:
    """Whether the module is transformers' Conv1D, a linear layer with weight `[in, out]`."""
    return type(module).__name__ == "Conv1D" and type(module).__module__ == (
        "transformers.pytorch_utils"
    )


def _is_matrix(module: nn.Module, attribute: str, weight: nn.Parameter) -> bool:
    """Whether a parameter is a matrix, or a stack of matrices, that its module multiplies by."""
    if isinstance(module, nn.Embedding | _ConvNd):
        return False
    if weight.dim() == 3:
        return _stacked(weight)
    return attribute == "weight" and weight.dim() == 2


def _stacked(weight: nn.Parameter) -> bool:
    return weight.dim() > 2 and min(weight.shape[-2:]) > 1


def _stable_targets(
    network: nn.Module, layers: list[str], matrices: list[str]
) -> tuple[list[str], list[str]]:
    """Targets that PEFT keeps as they are.

    For mixtures of experts PEFT takes layers named `gate_proj`, `up_proj`, `down_proj` for experts
    of an older form, wherever they stand, so dense and shared layers of these names would lose
    their adapters. As parameters they keep them.
    """
    try:
        from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
    except ImportError:  # of PEFT or transformers before these conversions
        return layers, matrices
    from peft import LoraConfig

    moved = set()
    for name in layers:
        try:
            config = LoraConfig(target_modules=[name])
            convert_peft_config_for_transformers(config, network, None)
            converted = name not in (config.target_modules or ())
        except ValueError:  # one of two layers that it would fuse
            converted = True
        if converted:
            moved.add(name)
    return (
        [name for name in layers if name not in moved],
        sorted([*matrices, *(f"{name}.weight" for name in moved)]),
    )


def _check_adapted(network: nn.Module, layers: Iterable[str], matrices: Iterable[str]) -> None:
    from peft.tuners.lora import LoraLayer

    adapted = set()
    for name, module in network.named_modules():
        if isinstance(module, LoraLayer):
            parameter = getattr(module, "parameter_name", None)
            bare = base_name(f"{name}.").removesuffix(".")
            adapted.add(f"{bare}.{parameter}" if parameter else bare)
    missing = sorted({*layers, *matrices} - adapted)
    if missing:
        raise InputError(
            f"PEFT gave no adapter to {name_list(missing)}; choose a part without them, or train "
            "it without lora."
        )


def _keep_versions(network: nn.Module) -> None:
    """Keep the version of matrices that PEFT re-registers in every pass without a change.

    A version that rises says that a weight is no longer that of the base model, see
    `Backbone.base_weights`.
    """
    for layer in network.modules():
        if hasattr(layer, "parameter_name") and hasattr(layer, "lora_A"):
            layer.register_forward_pre_hook(_note_version)
            layer.register_forward_hook(_restore_version, always_call=True)


def _note_version(layer: Any, _: Any) -> None:
    layer.noted_version = layer.get_param()._version


def _restore_version(layer: Any, *_: Any) -> None:
    weight = layer.get_param()
    counter: Any = torch._C._autograd  # type: ignore[attr-defined]
    counter._unsafe_set_version_counter((weight,), (layer.noted_version,))


def output_names(network: nn.Module) -> set[str]:
    """Names of the weights of a language model's output matrix."""
    model: Any = network
    outputs = {id(weight) for weight in model.get_output_embeddings().parameters()}
    return {name for name, weight in network.named_parameters() if id(weight) in outputs}


def base_name(name: str) -> str:
    """Name of a weight before its layer got an adapter.

    >>> base_name("layers.0.experts.base_layer.base_layer.down_proj")
    'layers.0.experts.down_proj'
    """
    return re.sub(r"(\.base_layer)+\.", ".", name)


def merge_adapters(backbone: nn.Module) -> None:
    """Merge every adapter into its layer, which leaves the plain model."""
    from peft.tuners.lora import LoraLayer

    adapted = [
        (name, layer) for name, layer in backbone.named_modules() if isinstance(layer, LoraLayer)
    ]
    for name, layer in adapted:
        layer.merge(safe_merge=True)  # type: ignore[operator]
        if not name.endswith(".base_layer"):  # else inside another adapter, which is replaced
            backbone.set_submodule(name, layer.get_base_layer())


def merged_network(network: nn.Module) -> nn.Module:
    """Network of transformers with its adapters merged, in place, and without a trace of PEFT."""
    live: Any = network
    if hasattr(live, "peft_config"):
        merge_adapters(network)
        del live.peft_config
    if hasattr(live, "_hf_peft_config_loaded"):
        live._hf_peft_config_loaded = False
    return network

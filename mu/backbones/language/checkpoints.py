"""Networks and weights of causal language models, from transformers folders and checkpoints."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mu.backbones.adapter_files import adapter_base, is_adapter, load_adapter, merge_adapters_of
from mu.backbones.base import check_base
from mu.backbones.language.decoder import is_multimodal
from mu.backbones.language.tokenizer import model_folder
from mu.backbones.lora import LoRA, base_name, merged_network
from mu.utils.errors import InputError
from mu.utils.hub import reading
from mu.utils.pretrained import check_report, load_pretrained
from mu.utils.weight_checks import check_values
from mu.utils.weights import load_weights


class LanguageModel(Protocol):
    """Attributes of `CausalLM` that loading weights reads."""

    model: str
    network: nn.Module
    lora: LoRA | None
    weights_metadata: dict[str, Any]

    @property
    def dtype(self) -> torch.dtype: ...


def assign_checkpoint(backbone: LanguageModel, weights: str) -> dict[str, Any]:
    """Load the weights of a file or folder into a language model, and return their metadata.

    Args:
        backbone: the model, with its adapters.
        weights: a run folder, a checkpoint, a safetensors file, a folder of another model or of
            PEFT adapters, which are merged into the model unless it has a lora of the same form.

    Raises:
        InputError: the weights do not fit the model; then no weight was changed.
    """

    folder = Path(weights)
    if is_adapter(folder):
        if backbone.lora is None:
            merge_adapters_of(backbone.network, folder, backbone.model)
        else:
            load_adapter(backbone, folder)
        return dict(backbone.weights_metadata)
    metadata: dict[str, Any] = {}
    if (folder / "config.json").is_file() and not (folder / "checkpoints").is_dir():
        tensors: Mapping[str, Tensor] = load_network(
            weights, str(backbone.dtype).removeprefix("torch."), None, None
        ).state_dict()
    else:
        tensors, metadata = load_weights(weights)
    state = backbone.network.state_dict()
    named = _by_network_names(tensors, state)
    if set(named) - set(state) and backbone.lora is None:
        converted = _converted(backbone.network, tensors)
        named = named if converted is None else converted
    _check_fit(named, state, metadata, backbone, weights)
    check_values(named, weights, state)
    with torch.no_grad():
        for name, value in named.items():
            state[name].copy_(value)
    return metadata


def _by_network_names(
    tensors: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Tensors by the names of a network, whose layers may have adapters around them."""
    deeper = {base_name(name): name for name in state}  # one level deeper, inside the adapter
    tensors = {deeper.get(name, name): value for name, value in tensors.items()}
    return {
        f"model.{name}" if name not in state and f"model.{name}" in state else name: value
        for name, value in tensors.items()
    }


def _converted(network: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Tensors by the names of a network, where transformers converts those of published files.

    Published files of mixtures hold each expert by itself, and networks all in one tensor.

    Returns:
        The network's state dict; None where the tensors are not those of a published file.
    """
    try:
        twin, report = type(network).from_pretrained(
            None,
            config=network.config,
            state_dict=dict(tensors),
            dtype=next(network.parameters()).dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
        check_report(twin, report, "the file")
    except (InputError, ValueError, RuntimeError, KeyError):
        return None
    return twin.state_dict()


def _check_fit(
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    backbone: LanguageModel,
    weights: str,
) -> None:
    """Check names and shapes of the tensors of a file.

    Raises:
        InputError: a tensor is missing, unexpected or of another shape.
    """
    unknown = sorted(set(tensors) - set(state))
    # a matrix shared by embedding and output is in a file once, under either name
    stored_pointers = {state[name].data_ptr() for name in tensors if name in state}
    absent = [
        name
        for name, value in state.items()
        if name not in tensors and value.data_ptr() not in stored_pointers and ".lora_" not in name
    ]
    if absent and not unknown and metadata.get("base"):
        check_base(backbone, [f"network.{name}" for name in absent], metadata, weights)
        absent = []
    if unknown or absent:
        fault = f"has {unknown[0]}, which the model has not" if unknown else f"lacks {absent[0]}"
        raise InputError(
            f"{weights} does not fit {backbone.model}: it {fault}; it was saved for another model "
            "or with other adapters."
        )
    misshaped = next(
        (name for name, value in tensors.items() if state[name].shape != value.shape), None
    )
    if misshaped is not None:
        raise InputError(
            f"{weights} holds {misshaped} of shape {list(tensors[misshaped].shape)} where "
            f"{backbone.model} has {list(state[misshaped].shape)}; it was saved for another model."
        )


def load_network(model: str, dtype: str, attention: str | None, init_seed: int | None) -> nn.Module:
    """Causal language model of a folder or hub id, with new weights where `init_seed` is given.

    Raises:
        InputError: the dtype is unknown, or the model cannot be read.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    torch_dtype = getattr(torch, dtype, None)
    if not isinstance(torch_dtype, torch.dtype):
        raise InputError(f"there is no dtype {dtype!r}; float32, bfloat16 and float16 are some.")
    folder = model_folder(model)
    if is_adapter(Path(folder)):
        network = load_network(adapter_base(Path(folder)), dtype, attention, init_seed)
        if init_seed is None:
            merge_adapters_of(network, Path(folder), adapter_base(Path(folder)))
        return network
    if Path(folder).is_dir() and not (Path(folder) / "config.json").is_file():
        raise InputError(
            f"the folder {model} has no config.json, so it is not a transformers model; write one "
            "with save_pretrained."
        )
    options = {"dtype": torch_dtype, **({"attn_implementation": attention} if attention else {})}
    with _attention_errors(model, attention):
        with reading("the model", folder, Exception):
            config = transformers.AutoConfig.from_pretrained(folder)
        network_class = auto_class(config)
        if init_seed is None:
            return merged_network(
                load_pretrained(network_class, folder, "the model", **options)
            )  # of a hub id of adapters, transformers loads the base with them around its layers
        with (
            reading("the model", folder, Exception),
            torch.random.fork_rng(devices=[]),
        ):
            torch.manual_seed(init_seed)
            return network_class.from_config(config, **options)


def auto_class(config: Any) -> Any:
    """Class of transformers that loads a configuration's network, with its part for images."""
    import transformers

    images = getattr(transformers, "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING", {})
    if type(config) in images and is_multimodal(config):
        return transformers.AutoModelForImageTextToText
    return transformers.AutoModelForCausalLM


@contextmanager
def _attention_errors(model: str, attention: str | None) -> Iterator[None]:
    """Context whose errors name the option `attention` where the model has no such attention."""
    try:
        yield
    except InputError as error:
        reason = str(error.__cause__ or "").split(". ")[0].split("\n")[0].rstrip(".")
        if attention is None or not re.search(
            "attention|attn_implementation|kernels", reason, re.I
        ):
            raise
        raise InputError(
            f"the model {model} cannot be loaded with attention {attention!r} ({reason}); set "
            "backbone.attention to eager, or to null, which leaves it to transformers."
        ) from error

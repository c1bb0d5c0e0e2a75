"""Export of causal language models: transformers folders, PEFT adapters; model cards."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from torch import nn

from mu.backbones.adapter_files import BASE_HASH, PREFIX, base_hash
from mu.backbones.export.base import Form, export
from mu.backbones.export.card import (
    hub_id,
    model_card,
    new_folder,
    remove_local_paths,
    usage_with_base,
)
from mu.backbones.export.published import publish_config, publish_tokenizer
from mu.backbones.language.causal_lm import CausalLM
from mu.backbones.language.checkpoints import auto_class
from mu.backbones.language.two_models import TwoModels
from mu.backbones.lora import merged_network
from mu.utils.errors import InputError
from mu.utils.files import read_json, save_tensors, write_json, write_text
from mu.utils.version import __version__

CARD = """---
{{ card_data }}
---

# {{ title }}

{{ what }}{{ history }}. Written by mu {{ version }}.

{{ about }}

## Use

```python
{{ usage }}
```

`FOLDER` is this folder.
"""
_CORE = {
    "base_model_name_or_path",
    "bias",
    "fan_in_fan_out",
    "inference_mode",
    "lora_alpha",
    "lora_dropout",
    "peft_type",
    "r",
    "target_modules",
    "task_type",
}
"""Settings of adapters that every version of PEFT has."""
_WHOLE = """from transformers import {auto_class}, AutoTokenizer

model = {auto_class}.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")"""
_ADAPTER = """from peft import PeftModel
from transformers import {auto_class}

model = PeftModel.from_pretrained({auto_class}.from_pretrained("{base}"), "FOLDER")"""


@export.register
def export_causal_lm(
    backbone: CausalLM,
    folder: Path | str,
    form: Form = "model",
    results: Mapping[str, Any] | None = None,
    title: str | None = None,
    license: str | None = None,
) -> Path:
    """Write a language model as a transformers folder, or its adapters.

    Forms are `model`, a folder with weights and tokenizer for `from_pretrained`; `adapter`, the
    low-rank adapters for `PeftModel.from_pretrained`.

    Args:
        backbone: the served model; its adapters are folded in where the form is `model`, on a copy.
        folder: output folder; new or empty.
        form: exported form.
        results: `method`, `task` and `metrics`, for the card, see `mu.backbones.export.export`.
        title: heading of the card; the folder's name when None.
        license: licence of the weights.

    Returns:
        The folder.

    Raises:
        InputError: when the folder is not empty, the model has no adapters, or for another form.
    """
    if form not in ("model", "adapter"):
        raise InputError(f"a language model is exported whole or as an adapter, not as --{form}.")
    if form == "adapter" and backbone.lora is None:
        raise InputError("the model has no adapters, because it has no lora; export it whole.")
    folder = Path(folder)
    results = dict(results or {})
    network_class = auto_class(backbone.network.config).__name__  # type: ignore[union-attr]
    with new_folder(folder) as temporary:
        if form == "model":
            _merged(backbone).save_pretrained(temporary)  # type: ignore[operator]
            backbone.tokenizer.save_pretrained(temporary)
            remove_local_paths(temporary)
            publish_config(temporary)
            publish_tokenizer(backbone.tokenizer, temporary)
            what = f"`{backbone.model}`"
            about = "Complete weights, with the tokenizer."
            usage = _WHOLE.format(auto_class=network_class)
        else:
            _write_adapter(backbone, temporary)
            what = f"Adapters of `{backbone.model}`"
            usage = usage_with_base(
                backbone, _ADAPTER.format(base=backbone.model, auto_class=network_class)
            )
            about = (
                "Low-rank adapters as PEFT reads them. Without them the model is the original, "
                f"whose hash is {base_hash(backbone.network)}."
            )
        write_text(
            temporary / "README.md",
            model_card(
                CARD,
                title=title or folder.name,
                license=license,
                results=results,
                kind="text-generation",
                library_name="transformers",
                base_model=hub_id(backbone.model),
                version=__version__,
                what=what,
                about=about,
                usage=usage,
            ),
        )
    return folder


@export.register
def export_two_models(
    backbone: TwoModels,
    folder: Path | str,
    form: Form = "model",
    results: Mapping[str, Any] | None = None,
    title: str | None = None,
    license: str | None = None,
) -> Path:
    """Raise InputError, because a transformers folder cannot contain two models."""
    raise InputError(
        f"{type(backbone).__name__} answers by two models at once, which no transformers folder "
        "can hold; load the run with mu.load(...).served()."
    )


def _write_adapter(backbone: CausalLM, folder: Path) -> None:
    from peft import get_peft_model_state_dict

    network: Any = backbone.network
    tensors = {
        PREFIX + name: value.detach().cpu().contiguous()
        for name, value in get_peft_model_state_dict(network).items()
    }
    metadata = {"format": "pt", BASE_HASH: base_hash(backbone.network)}
    save_tensors(folder / "adapter_model.safetensors", tensors, metadata)
    config = deepcopy(network.peft_config["default"])
    config.task_type = "CAUSAL_LM"
    config.base_model_name_or_path = backbone.model
    config.inference_mode = True
    config.save_pretrained(folder)
    # earlier versions of PEFT refuse settings that they do not know, at their defaults too
    file = folder / "adapter_config.json"
    defaults = type(config)().to_dict()
    settings = {
        name: value
        for name, value in read_json(file).items()
        if name in _CORE or value != defaults.get(name)
    }
    write_json(file, settings)


def _merged(backbone: CausalLM) -> nn.Module:
    """Copy of the network with merged adapters, or the network itself if it has none."""
    if backbone.lora is None:
        return backbone.network
    return merged_network(deepcopy(backbone).network)

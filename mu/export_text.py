"""Writing causal language models as people share them: a transformers folder, or a PEFT adapter; with a model card."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from mu.errors import InputError
from mu.export import model_card, new_folder
from mu.export_diffusion import hub_id
from mu.files import read_json, save_tensors, write_json, write_text
from mu.weights import weights_hash

if TYPE_CHECKING:
    from mu.backbones import CausalLM
    from mu.backbones.base import Form

CARD = """---
{{ card_data }}
---

# {{ title }}

{{ what }}{% if method %}, unlearned by `{{ method }}`{% endif %}{% if task %} on the task `{{ task }}`{% endif %}. \
Written by mu {{ version }}.

{{ about }}

## Use

```python
{{ usage }}
```
"""
_WHOLE = """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")"""
_ADAPTER = """from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), "FOLDER")"""
_PREFIX = "base_model.model."
"""Before every name in a file of PEFT."""


def export_causal_lm(
    backbone: CausalLM, folder: Path | str, form: Form = "model", results: Mapping[str, Any] | None = None, title: str | None = None,
    license: str | None = None,
) -> Path:
    """Write a language model: `model`, a folder with weights and tokenizer for `from_pretrained`; `adapter`, its low-rank adapters for
    `PeftModel.from_pretrained`.

    Args:
        backbone: the served model; its adapters are folded in where the form is `model`, on a copy.
        folder: where to; new or empty.
        form: what of the model.
        results: `method`, `task` and `metrics`, for the card, see `mu.export.export`.
        title: heading of the card; the folder's name when None.
        license: of the weights.

    Returns:
        The folder.

    Raises:
        InputError: when the folder is not empty, the model has no adapters, or for another form.
    """
    import mu

    if form not in ("model", "adapter"):
        raise InputError(f"a language model is exported whole or as an adapter, not as --{form}.")
    if form == "adapter" and backbone.lora is None:
        raise InputError("the model has no adapters, because it has no lora; export it whole.")
    folder, results = Path(folder), dict(results or {})
    with new_folder(folder) as temporary:
        if form == "model":
            _merged(backbone).save_pretrained(temporary)  # type: ignore[operator]
            backbone.tokenizer.save_pretrained(temporary)
            _forget_paths(temporary)
            what, about, usage = f"`{backbone.model}`", "Complete weights, with the tokenizer.", _WHOLE
        else:
            _write_adapter(backbone, temporary)
            what, usage = f"Adapters of `{backbone.model}`", _ADAPTER.format(base=backbone.model)
            about = f"Low-rank adapters as PEFT reads them. Without them the model is the original, whose hash is {base_hash(backbone)}."
        write_text(temporary / "README.md", model_card(
            CARD, title=title or folder.name, license=license, results=results, kind="text-generation", library_name="transformers",
            base_model=hub_id(backbone.model), version=mu.__version__, what=what, about=about, usage=usage))
    return folder


def base_hash(backbone: CausalLM) -> str:
    """Fingerprint of the weights without adapters."""
    return weights_hash({name.replace(".base_layer.", "."): value for name, value in backbone.network.state_dict().items()
                         if ".lora_" not in name})


def load_adapter(backbone: CausalLM, folder: Path) -> None:
    """Put the adapters of a PEFT folder into a backbone with adapters of the same form.

    Raises:
        InputError: when the backbone has none, or the file was made for another base model or another form.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    said = read_json(folder / "adapter_config.json")
    if backbone.lora is None:
        raise InputError(f"{folder} holds adapters, and the backbone has none; give it a lora of rank {said.get('r')}.")
    if not (folder / "adapter_model.safetensors").is_file():
        raise InputError(f"{folder} has an adapter_config.json and no adapter_model.safetensors; it may not have been saved to its end.")
    if said.get("mu_base_hash") and said["mu_base_hash"] != base_hash(backbone):
        raise InputError(f"the adapters in {folder} were made for {said.get('base_model_name_or_path')}, whose weights are not those of "
                         f"{backbone.model}; load that model.")
    tensors = {name.removeprefix(_PREFIX): value for name, value in load_file(folder / "adapter_model.safetensors").items()}
    own = get_peft_model_state_dict(backbone.network)
    odd = sorted(set(own) ^ set(tensors)) or [name for name in own if own[name].shape != tensors[name].shape]
    if odd:
        raise InputError(f"the adapters in {folder} do not fit those of the backbone ({odd[0]}); give the backbone the same part, and a "
                         f"lora of rank {said.get('r')}.")
    set_peft_model_state_dict(backbone.network, tensors)


def _write_adapter(backbone: CausalLM, folder: Path) -> None:
    from peft import get_peft_model_state_dict

    network: Any = backbone.network
    tensors = {_PREFIX + name: value.detach().cpu().contiguous() for name, value in get_peft_model_state_dict(network).items()}
    save_tensors(folder / "adapter_model.safetensors", tensors, {"format": "pt"})
    settings = network.peft_config["default"].to_dict()
    plain = {name: sorted(value) if isinstance(value, set) else value for name, value in settings.items()}
    write_json(folder / "adapter_config.json", {
        **plain, "task_type": "CAUSAL_LM", "peft_type": "LORA", "base_model_name_or_path": backbone.model,
        "mu_base_hash": base_hash(backbone), "inference_mode": True})


def _merged(backbone: CausalLM) -> nn.Module:
    """The network with its adapters folded into the layers under them: itself where it has none, else a copy."""
    from mu.backbones.lora import merge_adapters

    if backbone.lora is None:
        return backbone.network
    twin = deepcopy(backbone)
    merge_adapters(twin)
    plain: Any = twin.network
    if hasattr(plain, "peft_config"):
        del plain.peft_config
    if hasattr(plain, "_hf_peft_config_loaded"):
        plain._hf_peft_config_loaded = False
    return plain


def _forget_paths(folder: Path) -> None:
    """Take out of the configurations where on this machine the model came from."""
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            config = read_json(folder / name)
            write_json(folder / name, {key: value for key, value in config.items() if key not in ("_name_or_path", "name_or_path")})

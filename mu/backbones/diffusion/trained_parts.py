"""Trainable parts of a latent diffusion model, by the names of the literature.

Names are those of diffusers. Sources: ESD (Gandikota et al., ICCV 2023, arXiv 2303.07345) for the
UNet's parts, AdvUnlearn (Zhang et al., NeurIPS 2024, arXiv 2405.15234) for the text encoder's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from mu.utils.errors import InputError

Rule = Callable[[str], bool]


def _contains(*words: str) -> Rule:
    return lambda name: any(word in name for word in words)


def _but(*words: str) -> Rule:
    return lambda name: not any(word in name for word in words)


def _both(first: Rule, second: Rule) -> Rule:
    return lambda name: first(name) and second(name)


def _projection(name: str) -> bool:
    """Whether a weight belongs to a linear layer or a convolution; all others are norms."""
    return "norm" not in name.split(".")[-2]


UNET: dict[str, Rule] = {
    "full": lambda name: True,
    "xattn": _contains("attn2."),
    "xattn-strict": _contains("attn2.to_k", "attn2.to_v"),
    "selfattn": _contains("attn1."),
    "noxattn": _but("conv_norm_out", "conv_out", "attn2.", "time_embedding"),
    "esd-x": _contains("attn2."),
    "esd-x-strict": _contains("attn2.to_k", "attn2.to_v"),
    "esd-u": _both(_projection, _but("attn2.")),
    "esd-all": _projection,
    "notime": _but("conv_norm_out", "conv_out", "time_embedding"),
    "xlayer": _both(
        _contains("attn2."), _contains("up_blocks.2.attentions.0.", "up_blocks.2.attentions.2.")
    ),
    "selflayer": _both(
        _contains("attn1."), _contains("down_blocks.1.attentions.0.", "down_blocks.2.attentions.0.")
    ),
}
"""Parts of the UNet. `xattn` is the whole cross-attention (queries, keys, values, output), as in
the released ESD-x. `esd-...` are the parts of the authors' rewrite of 2025 (`esd_sd.py`), which
trains linear layers and convolutions alone: its ESD-u leaves out the norms, and takes in the time
embedding and the last convolution, which the first code's (`noxattn`) leaves out.
"""

_COMPONENTS = {"all": "", "ffn": ".mlp.", "attn": ".self_attn."}


def trained_names(names: Iterable[str], part: str) -> set[str]:
    """Names of the parameters that `part` trains.

    Args:
        names: parameter names within the backbone (`unet....`, `text_encoder....`).
        part: a name of `UNET`; `text_encoder` (its layers and final norm, never its embeddings),
            `text_encoder:0,1` (these layers), `text_encoder:0,1:ffn` (their mlp; or `attn`);
            `text_encoder:embeddings+...`; or several, joined by `+`.

    Raises:
        InputError: for an unknown part, and for one that selects nothing of this model.
    """
    names = list(names)
    trained_names: set[str] = set()
    for rule_name in part.split("+"):
        chosen = (
            _text(names, rule_name)
            if rule_name.split(":")[0] == "text_encoder"
            else _unet(names, rule_name)
        )
        if not chosen:
            raise InputError(
                f"the part {rule_name!r} selects no weight of this model, so nothing would be "
                "trained; "
                "choose another, as full."
            )
        trained_names |= chosen
    return trained_names


def _unet(names: list[str], part: str) -> set[str]:
    if part not in UNET:
        raise InputError(
            f"there is no part {part!r}; the UNet has {', '.join(UNET)}, and "
            "text_encoder[:LAYERS[:ffn|attn]] is the other."
        )
    return {name for name in names if name.startswith("unet.") and UNET[part](name)}


def _text(names: list[str], part: str) -> set[str]:
    """Parameter names of a part of the text encoder, with layers compared as numbers.

    Compared as text, layer 1 would match 10 and 11 too, as in the released AdvUnlearn.
    """
    _, _, rest = part.partition(":")
    layers, _, component = rest.partition(":")
    encoder_names = [name for name in names if name.startswith("text_encoder.")]
    if layers == "embeddings":
        return {name for name in encoder_names if ".embeddings." in name}
    component = component or "all"
    if component not in _COMPONENTS or not re.fullmatch(r"(\d+(,\d+)*)?", layers):
        raise InputError(
            f"the part {part!r} should look like text_encoder, text_encoder:0,1 or "
            "text_encoder:0,1:attn (all, ffn or attn)."
        )
    layer_numbers = {int(layer) for layer in layers.split(",")} if layers else None
    matching = set()
    for name in encoder_names:
        layer = re.search(r"encoder\.layers\.(\d+)\.", name.removeprefix("text_encoder."))
        if layer is None:
            if layer_numbers is None and component == "all" and "final_layer_norm" in name:
                matching.add(name)
        elif (layer_numbers is None or int(layer[1]) in layer_numbers) and _COMPONENTS[
            component
        ] in name:
            matching.add(name)
    return matching

"""Low-rank adapters: every wanted layer has one that takes effect, in every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mu.backbones import CausalLM, LoRA
from mu.backbones.lora import adapter_targets, base_name, merge_adapters
from mu.utils.errors import InputError
from tests.support.doubles import text_to_image
from tests.support.families import VOCABULARY, family_folder, family_network

MIXTURES = ("mixtral", "qwen3_moe", "qwen2_moe", "olmoe", "deepseek_v3", "gpt_oss", "llama4")


def adapted(family: str, lora: LoRA | None = None, **changes: Any) -> CausalLM:
    return CausalLM(network=family_network(family), tokenizer=object(), lora=lora, **changes).eval()


def logits(backbone: CausalLM) -> Tensor:
    tokens = torch.arange(24).view(2, 12) % VOCABULARY
    return backbone.network(input_ids=tokens, use_cache=False).logits


def fill(backbone: CausalLM) -> None:
    """Give B values, so that adapters have an effect."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in backbone.network.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)


@pytest.mark.parametrize("family", [*MIXTURES, "gpt2", "mamba"])
def test_every_adapter_begins_without_effect_takes_effect_and_merges(family: str) -> None:
    backbone = adapted(family, LoRA(r=2, lora_alpha=4))
    with torch.no_grad():
        original = logits(adapted(family))
        assert torch.equal(logits(backbone), original)
    fill(backbone)
    logits(backbone).square().sum().backward()
    adapters = {name: p for name, p in backbone.network.named_parameters() if p.requires_grad}
    assert adapters and all("lora_" in name for name in adapters)
    unused = [name for name, p in adapters.items() if p.grad is None or not p.grad.abs().sum()]
    # a router that chooses one expert scales it by one
    assert not [name for name in unused if ".router." not in name]
    with torch.no_grad():
        before = logits(backbone)
        assert (before - original).abs().max() > 1e-3
        merge_adapters(backbone)
        assert not [name for name in backbone.state_dict() if "lora_" in name or "base_" in name]
        assert torch.allclose(logits(backbone), before, atol=1e-5)


@pytest.mark.parametrize("family", MIXTURES)
def test_experts_routers_dense_and_shared_layers_have_adapters(family: str) -> None:
    """Mutation: PEFT takes dense `gate_proj` layers for experts of an older form."""
    network = family_network(family)
    matrices = {
        name
        for name, weight in network.named_parameters()
        if weight.dim() >= 2
        and not name.endswith("bias")
        and not isinstance(network.get_submodule(name.rpartition(".")[0]), nn.Embedding)
        and "lm_head" not in name
    }
    backbone = adapted(family, LoRA(r=2))
    with_adapter = set()
    for name, layer in backbone.network.named_modules():
        if hasattr(layer, "lora_A"):
            attribute = getattr(layer, "parameter_name", "weight")
            with_adapter.add(f"{base_name(f'{name}.')}{attribute}")
    assert with_adapter == matrices


def test_parts_choose_the_layers_and_refuse_what_has_no_adapter() -> None:
    backbone = adapted("llama", LoRA(r=2), part=r"mlp|lm_head")
    names = {name for name, p in backbone.network.named_parameters() if p.requires_grad}
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in names} == {
        "gate_proj",
        "up_proj",
        "down_proj",
        "lm_head",
    }
    with pytest.raises(InputError, match=r"no adapter for model\.embed_tokens\.weight of Embed"):
        adapted("llama", LoRA(r=2), part="embed_tokens|mlp")
    with pytest.raises(InputError, match=r"no adapter for .*dt_proj\.weight \(which its module"):
        adapted("mamba", LoRA(r=2), part="dt_proj")
    with pytest.raises(InputError, match=r"no adapter for .*A_log"):
        adapted("mamba", LoRA(r=2), part="A_log|in_proj")


def test_layers_that_mamba_reads_past_get_no_adapter_and_are_named() -> None:
    """Fails when a default LoRA leaves a layer out in silence."""
    with pytest.warns(UserWarning, match="no adapter to conv1d, dt_proj, out_proj"):
        backbone = adapted("mamba", LoRA(r=2))
    names = {name for name, p in backbone.network.named_parameters() if p.requires_grad}
    assert not [name for name in names if "dt_proj" in name or "out_proj" in name]
    assert [name for name in names if "in_proj" in name]


def test_passes_leave_the_frozen_weights_those_of_the_base() -> None:
    """Else checkpoints would hold all experts. Mutation: PEFT's passes raise their versions."""
    backbone = CausalLM(family_folder("mixtral"), lora=LoRA(r=2))
    frozen = {name for name, _ in backbone.named_parameters() if ".lora_" not in name}
    fill(backbone)
    for _ in range(2):
        logits(backbone).square().sum().backward()
    assert set(backbone.base_weights()) == frozen
    with torch.no_grad():
        backbone.network.get_parameter(
            "model.layers.0.mlp.experts.base_layer.base_layer.down_proj"
        ).mul_(2)
    logits(backbone)
    assert len(backbone.base_weights()) == len(frozen) - 1


def test_options_without_a_form_for_experts_are_refused() -> None:
    with pytest.raises(InputError, match="give the lora lora_dropout 0"):
        adapted("mixtral", LoRA(r=2, lora_dropout=0.1))
    with pytest.raises(InputError, match="give the lora use_dora false"):
        adapted("mixtral", LoRA(r=2, use_dora=True))
    adapted("mixtral", LoRA(r=2, lora_dropout=0.1, use_dora=True), part="self_attn")


def test_rank_stabilised_adapters_are_scaled_by_the_root_of_the_rank() -> None:
    plain = adapted("llama", LoRA(r=4, lora_alpha=8), part="q_proj")
    stable = adapted("llama", LoRA(r=4, lora_alpha=4, use_rslora=True), part="q_proj")
    fill(plain)
    fill(stable)
    with torch.no_grad():
        assert torch.allclose(logits(plain), logits(stable), atol=1e-6)


class Block(nn.Module):
    """A module with a stack of four-dimensional weights, of which nothing is known."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.stack = nn.Parameter(torch.zeros(2, 2, 3, 3))


def test_a_stack_that_cannot_be_adapted_is_refused() -> None:
    with pytest.raises(InputError, match="no adapter for stack of Block"):
        adapter_targets(Block(), ["linear.weight", "stack"])
    assert adapter_targets(Block(), ["linear.weight"]) == (["linear"], [])


@pytest.mark.parametrize(
    ("targets", "layers"),
    [
        (["q_proj", "v_proj"], {"q_proj", "v_proj"}),
        (["mlp.up_proj"], {"up_proj"}),
        (r".*layers\.\d+\.self_attn\.(q|o)_proj", {"q_proj", "o_proj"}),
        (
            "all-linear",
            {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
        ),
    ],
)
def test_target_modules_are_those_of_peft(targets: str | list[str], layers: set[str]) -> None:
    """Mutations: part of a name is enough; a regular expression is searched in the name."""
    from peft import LoraConfig, get_peft_model

    backbone = adapted("llama", LoRA(r=2, target_modules=targets))
    names = {name for name, weight in backbone.network.named_parameters() if weight.requires_grad}
    network: Any = family_network("llama")
    expected: Any = get_peft_model(network, LoraConfig(r=2, target_modules=targets))
    prefix = "base_model.model."
    assert names == {
        name.removeprefix(prefix) for name, p in expected.named_parameters() if p.requires_grad
    }
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in names} == layers


def test_target_modules_lie_within_the_part() -> None:
    backbone = adapted("llama", LoRA(r=2, target_modules=["q_proj"]), part=r"layers\.1\.")
    names = [name for name, weight in backbone.network.named_parameters() if weight.requires_grad]
    assert len(names) == 2 and all("layers.1.self_attn.q_proj" in name for name in names)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (
            ["q_proj", "qproj"],
            "names 'qproj', and the layers of the part .* are model.*; give ends",
        ),
        ([], "names no layer"),
        (["_proj"], "names '_proj'"),
        ("q_proj", "names 'q_proj'"),
        ("(q_proj", "not a regular expression"),
        (["input_layernorm", "embed_tokens"], "no adapter for model.embed_tokens.weight"),
    ],
)
def test_target_modules_that_name_no_layer_are_refused(targets: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        adapted("llama", LoRA(r=2, target_modules=targets))


def test_target_modules_of_one_network_leave_the_other_frozen() -> None:
    """Mutation: the text encoder of the part is trained as a whole."""
    lora = LoRA(r=2, target_modules=["to_q"])
    backbone = text_to_image(part="xattn+text_encoder", lora=lora)
    trained = [name for name, weight in backbone.named_parameters() if weight.requires_grad]
    assert trained and all(".to_q.lora_" in name for name in trained)
    with pytest.raises(InputError, match="names 'to_w'"):
        text_to_image(part="xattn", lora=LoRA(target_modules=["to_w"]))

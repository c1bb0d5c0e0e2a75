"""Rounding to nearest, against loops in float64; and what of a model is rounded."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mu.attacks.quantisation import quantised, round_to_nearest
from mu.backbones import CausalLM, Classifier, LoRA
from mu.backbones.language.two_models import LogitDifference
from mu.backbones.lora import merge_adapters
from mu.utils.errors import InputError
from mu.utils.modules import separate_copy
from tests.support.doubles import text_to_image
from tests.support.doubles_text import WORDS, causal_lm, mixture, tokenizer
from tests.support.helpers import classifier, different, regressor, weights


def by_loops(weight: Tensor, bits: int, group: int | None) -> list[list[float]]:
    """s = max |w| / (2^(b-1) - 1), w' = s round(w / s): one number after the other, Python's
    floats, halves to even.
    """
    rows = weight.tolist()
    rounded = []
    for row in rows:
        size = group or len(row)
        new = []
        for start in range(0, len(row), size):
            part = row[start : start + size]
            largest = max(abs(value) for value in part)
            step = largest / (2 ** (bits - 1) - 1)
            new += [0.0 if largest == 0 else step * round(value / step) for value in part]
        rounded.append(new)
    return rounded


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group", [None, 1, 5, 8, 100])
def test_rounding_equals_a_loop(bits: int, group: int | None) -> None:
    """Fails when scales are by input channel, the last group borrows from the next row, or a half
    is rounded up. 13 inputs: 5 + 5 + 3.
    """
    weight = torch.randn(7, 13, generator=torch.Generator().manual_seed(bits), dtype=torch.float64)
    weight[2] = 0
    weight[3, 5:10] = 0
    # with 4 bits and a group of 8: halves
    weight[4, :8] = torch.tensor([7.0, 0.5, 1.5, -0.5, -1.5, 2.5, 0, 0])
    expected = torch.tensor(by_loops(weight, bits, group), dtype=torch.float64)
    assert torch.allclose(round_to_nearest(weight, bits, group), expected, rtol=0, atol=1e-15)
    single = round_to_nearest(weight.float(), bits, group)
    assert single.dtype == torch.float32
    off = (single.double() - expected).abs()
    step = weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    assert bool(((off < 1e-6) | (off < 1.0001 * step)).all())
    assert (off > 1e-6).double().mean() < 0.02  # what lies on the fence may fall over


def test_a_group_has_few_values_and_keeps_its_largest() -> None:
    """Fails when the grid has a value more, or the largest weight is not on it."""
    weight = (
        2 * torch.rand(3, 4000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 1
    )
    for bits in (3, 4):
        for row, group in zip(
            round_to_nearest(weight, bits, 2000).unflatten(1, (2, 2000)).flatten(0, 1),
            weight.unflatten(1, (2, 2000)).flatten(0, 1),
            strict=True,
        ):
            assert len(row.unique()) == 2**bits - 1
            assert row.abs().max() == pytest.approx(float(group.abs().max()), rel=1e-12)
            assert (row - group).abs().max() <= group.abs().max() / (
                2 ** (bits - 1) - 1
            ) / 2 + 1e-12


def test_values_on_the_grid_shapes_and_dtypes_stay() -> None:
    weight = torch.randn(2, 5, 9, generator=torch.Generator().manual_seed(0))
    once = round_to_nearest(weight, 4, 4)
    assert torch.allclose(round_to_nearest(once, 4, 4), once, atol=1e-7)
    # experts stand one behind the other
    assert torch.equal(round_to_nearest(weight, 4, 4)[1], round_to_nearest(weight[1], 4, 4))
    half = round_to_nearest(weight.bfloat16(), 8)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, round_to_nearest(weight.bfloat16().float(), 8).bfloat16())


def linear_names(model: nn.Module) -> set[str]:
    return {
        f"{name}.weight" for name, layer in model.named_modules() if isinstance(layer, nn.Linear)
    }


def test_linear_layers_alone_are_rounded() -> None:
    """Fails when a norm, an embedding or the head is rounded unasked, or a layer is left out."""
    model = causal_lm().train()
    before = weights(model)
    result = quantised(model, 4, 8)
    assert (
        different(before, weights(model)) == [] and model.training and not result.backbone.training
    )
    inner = linear_names(model) - {"network.lm_head.weight"}
    assert set(different(before, weights(result.backbone))) == inner
    after = weights(result.backbone)
    for name in inner:
        assert torch.equal(after[name], round_to_nearest(before[name], 4, 8)), name
    assert result.weights == sum(before[name].numel() for name in inner)
    gap = sum((after[name] - before[name]).abs().double().sum() for name in inner)
    assert result.moved == pytest.approx(float(gap) / result.weights, rel=1e-6)
    assert result.total == sum(p.numel() for p in model.parameters())
    rounded_weights = weights(quantised(model, 8, 8).backbone)
    assert torch.equal(rounded_weights[name], round_to_nearest(before[name], 8)), (
        "from 8 bits on, a channel has one scale"
    )


@pytest.mark.parametrize(("embeddings", "head"), [(True, False), (False, True), (True, True)])
def test_embeddings_and_head_on_demand(embeddings: bool, head: bool) -> None:
    model = causal_lm()
    before = weights(model)
    moved = set(different(before, weights(quantised(model, 4, 8, embeddings, head).backbone)))
    assert ("network.model.embed_tokens.weight" in moved) == embeddings
    assert ("network.lm_head.weight" in moved) == head


@pytest.mark.parametrize(("embeddings", "head"), [(False, False), (True, False), (False, True)])
def test_a_tied_matrix_is_rounded_once_if_either_is_asked_for(embeddings: bool, head: bool) -> None:
    """Fails when rounding the layers rounds the embedding of a tied model, as Llama-3.2-1B is."""
    from transformers import LlamaConfig, LlamaForCausalLM

    network = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=30,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            tie_word_embeddings=True,
        )
    )
    model = CausalLM(network=network, tokenizer=tokenizer())
    result = quantised(model, 4, 8, embeddings, head)
    original, rounded = (
        model.network.model.embed_tokens.weight,
        result.backbone.network.lm_head.weight,
    )  # type: ignore[union-attr]
    assert result.backbone.network.model.embed_tokens.weight is rounded
    expected = round_to_nearest(original.detach(), 4, 8) if embeddings or head else original
    assert torch.equal(rounded, expected)


def test_adapters_are_merged_before_rounding() -> None:
    """Fails when the base is rounded and the adapter added to it in full precision."""
    model = causal_lm(lora=LoRA(r=2))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.copy_(
                    0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
                )
    before = weights(model)
    result = quantised(model, 4, 8)
    assert different(before, weights(model)) == []
    merged = separate_copy(model)
    merge_adapters(merged)
    plain = weights(merged)
    after = weights(result.backbone)
    assert after.keys() == plain.keys() and not any("lora" in name for name in after)
    name = "network.model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(after[name], round_to_nearest(plain[name], 4, 8))
    assert not torch.allclose(plain[name], before[name.replace(".weight", ".base_layer.weight")])


def test_experts_are_rounded_matrix_by_matrix() -> None:
    """Fails when the stacked experts, most of such a model's weights, are passed over without a
    word.
    """
    model = mixture()
    before = weights(model)
    after = weights(quantised(model, 4, 8).backbone)
    names = [name for name in before if before[name].ndim == 3]
    assert len(names) == 4
    for name in names:
        for expert in range(4):
            assert torch.equal(after[name][expert], round_to_nearest(before[name][expert], 4, 8))


def test_gpt2_stores_its_matrices_turned() -> None:
    """Fails when scales of Conv1D are taken over outputs."""
    from transformers import GPT2Config, GPT2LMHeadModel

    network = GPT2LMHeadModel(
        GPT2Config(vocab_size=len(WORDS) + 4, n_embd=12, n_layer=1, n_head=2, n_positions=16)
    )
    model = CausalLM(network=network, tokenizer=tokenizer())
    name = "network.transformer.h.0.attn.c_attn.weight"
    before = weights(model)
    after = weights(quantised(model, 4, 5).backbone)
    assert before[name].shape == (12, 36)
    assert torch.equal(after[name], round_to_nearest(before[name].T, 4, 5).T)
    assert torch.equal(
        after["network.transformer.wte.weight"], before["network.transformer.wte.weight"]
    )


def test_attention_of_torch_is_rounded_inside() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2)

    model = Classifier(network=Net())
    before = weights(model)
    after = weights(quantised(model, 4, 4).backbone)
    assert set(different(before, after)) == {
        "network.attention.in_proj_weight",
        "network.attention.out_proj.weight",
    }


@pytest.mark.parametrize(
    "make",
    [
        classifier,
        regressor,
        text_to_image,
        lambda: LogitDifference(causal_lm(), causal_lm(init_seed=1)),
    ],
)
def test_every_backbone_with_a_linear_layer(make: Any) -> None:
    """Fails when only language models are known, or one of two models is left out."""
    model = make()
    before = weights(model)
    with torch.inference_mode():
        result = quantised(model, 4, 8)
    moved = set(different(before, weights(result.backbone)))
    assert different(before, weights(model)) == []
    heads = {name for name in before if name.endswith("lm_head.weight")}
    # a matrix of zeros (a layer that begins as nothing) is on every grid
    assert moved == {
        name for name in linear_names(model) - heads if bool((before[name] != 0).any())
    }


def test_invalid_grids_are_refused() -> None:
    with pytest.raises(InputError, match="1 bits"):
        round_to_nearest(torch.ones(2, 2), 1)
    with pytest.raises(InputError, match="group of 0"):
        quantised(causal_lm(), 4, 0)
    with pytest.raises(InputError, match="no linear layer"):
        quantised(Classifier(network=nn.Conv2d(1, 1, 3)), 4)

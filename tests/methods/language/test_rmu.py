"""RMU: its equation, the layers it computes and trains, its control vector, and shared checks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mu.backbones import CausalLM, LoRA
from mu.methods.bases.layer_choice import steered_layer
from mu.methods.language.rmu import RMU
from mu.utils.errors import InputError
from tests.support.doubles_text import causal_lm, folder, people
from tests.support.equations_text import unpadded
from tests.support.helpers import fit, weights
from tests.support.token_methods import (
    check_accumulated_batches,
    check_forgets_first,
    check_unlearns_a_mixture_of_experts,
    first_pair,
    terms_of,
    trained_model,
)


@pytest.mark.parametrize("positions", ["attention", "labels", "all"])
def test_rmu_follows_its_equation(positions: Any) -> None:
    """Mutations: padding counts where it must not; the mean is over tokens and not over texts; the
    retain states are compared with c.
    """
    forget, retain = first_pair(people())
    reference = trained_model().eval()
    module = RMU(trained_model(), layer=1, scale=3.0, alpha=5.0, positions=positions)
    module.configure_model()
    with torch.no_grad():
        for _, p in module.trainable():
            p.mul_(1.5)
    moved = causal_lm(weights(module.backbone)).eval()
    c = module.control.double()

    def mean(part: dict[str, Any], target: Any) -> float:
        values = []
        with torch.no_grad():
            states = moved.hidden(part, 1).double()
        for b, (ids, labels) in enumerate(unpadded(part)):
            indices = {
                "attention": list(range(len(ids))),
                "labels": [t for t, y in enumerate(labels) if y != -100],
                "all": list(range(part["input_ids"].shape[1])),
            }[positions]
            values.append(
                sum(float(((states[b, t] - target(b, t)) ** 2).mean()) for t in indices)
                / len(indices)
            )
        return sum(values) / len(values)

    with torch.no_grad():
        retain_states = reference.hidden(retain, 1).double()
    expected = {
        "misdirect": mean(forget, lambda b, t: c),
        "retain": 5 * mean(retain, lambda b, t: retain_states[b, t]),
    }
    assert terms_of(module, forget, retain) == pytest.approx(expected, rel=1e-4)


def test_alone_on_retain_the_original_is_its_own_target() -> None:
    """RMU's retain term begins at 0, so that its first gradient is the misdirection's."""
    forget, retain = first_pair(people())
    module = RMU(trained_model(), layer=1)
    assert terms_of(module, forget, retain)["retain"] == pytest.approx(0.0, abs=1e-8)
    assert F.relu(module.control).equal(module.control)


def test_rmu_computes_and_trains_no_more_than_it_needs() -> None:
    """Fails when the forward pass goes on after the steered layer, or weights that are not trained
    get a gradient.
    """
    model = CausalLM(model=folder("llama", 5))
    module = RMU(model, layer=3)
    module.configure_model()
    assert [name for name, _ in module.trainable()] == [
        f"network.model.layers.{k}.mlp.down_proj.weight" for k in (1, 2, 3)
    ]
    calls: list[int] = []
    for k, layer in enumerate(model.decoder_layers):
        layer.register_forward_hook(lambda *_, k=k: calls.append(k))
    network: Any = model.network
    network.lm_head.register_forward_hook(lambda *_: calls.append(99))
    sum(module.objective(*first_pair(people())).values()).backward()  # type: ignore[union-attr]
    assert calls == [0, 1, 2, 3]
    assert {name for name, p in module.backbone.named_parameters() if p.grad is not None} == {
        name for name, _ in module.trainable()
    }
    assert isinstance(module.reference, CausalLM)
    model_ids = {id(p) for p in model.parameters()}
    assert len([p for p in module.reference.parameters() if id(p) not in model_ids]) == 3


@pytest.mark.parametrize(
    ("architecture", "lora"), [("llama", None), ("mixtral", None), ("llama", LoRA(r=2))]
)
def test_rmu_finds_its_weights(architecture: str, lora: Any) -> None:
    """Fails when a mixture of experts or adapters have other names than those that are looked
    for.
    """
    model = CausalLM(model=folder(architecture, 3), lora=lora, attention="eager")
    names = [name for name, _ in RMU(model, layer=2, layers=[1, 2]).trainable()]
    assert names and all(
        "down_proj" in name and ("layers.1." in name or "layers.2." in name) for name in names
    )
    assert all("lora_" in name for name in names) == (lora is not None)


def test_rmu_can_train_everything_up_to_the_steered_layer() -> None:
    """Fails when weights after the exit are left to wait for a gradient that never comes."""
    module = RMU(CausalLM(model=folder("llama", 3)), layer=1, weights=None)
    names = [name for name, _ in module.trainable()]
    assert (
        "network.model.embed_tokens.weight" in names
        and "network.model.layers.0.self_attn.q_proj.weight" in names
    )
    assert not [
        name
        for name in names
        if "layers.2." in name or "lm_head" in name or name == "network.model.norm.weight"
    ]
    fit(module, people(), 1)


def test_the_control_vector() -> None:
    """Fails when u has negative entries (a normal draw), the norm is not s, or the seed does not
    reach it.
    """
    first = RMU(trained_model(), scale=6.5)
    again = RMU(trained_model(), scale=6.5)
    other = RMU(trained_model(), scale=6.5, seed=1)
    assert float(first.control.norm()) == pytest.approx(6.5, rel=1e-6) and bool(
        (first.control >= 0).all()
    )
    assert torch.equal(first.control, again.control) and not torch.equal(
        first.control, other.control
    )
    assert "control" in first.state_dict()


@pytest.mark.parametrize(
    ("count", "layer"), [(32, 7), (16, 7), (15, 7), (12, 5), (4, 1), (2, 0), (1, 0)]
)
def test_the_steered_layer_of_shallow_models(count: int, layer: int) -> None:
    assert steered_layer(count, None) == layer


def test_wrong_settings_are_refused() -> None:
    for arguments, word in (
        ({"layer": 2}, "no layer 2"),
        ({"layers": [1]}, "from 0 to the steered one, 0"),
        ({"layers": []}, "from 0"),
        ({"scale": 0.0}, "scale above 0"),
        ({"positions": "answers"}, "attention, labels or all"),
        ({"weights": "experts"}, "no weight"),
    ):
        with pytest.raises(InputError, match=word):
            RMU(causal_lm(), **arguments)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="the backbone's part trains others"):
        RMU(causal_lm(part="layers.1"), layer=0)


def on_all_weights(backbone: CausalLM, **changes: Any) -> RMU:
    """RMU on the labelled positions of layer 1, training every weight up to it."""
    return RMU(backbone, layer=1, weights=None, positions="labels", **changes)


@pytest.mark.parametrize("make", [RMU, on_all_weights])
def test_one_big_batch_or_several_small_ones(make: Any) -> None:
    check_accumulated_batches(make)


@pytest.mark.parametrize(
    ("make", "lr", "epochs", "arguments"),
    [
        (RMU, 0.05, 24, {"layer": 1, "scale": 50.0, "alpha": 20.0}),
        (on_all_weights, 0.01, 8, {"scale": 20.0, "alpha": 20.0}),
    ],
    ids=["RMU", "all weights"],
)
def test_the_forget_set_is_lost_first(
    make: Any, lr: float, epochs: int, arguments: dict[str, Any]
) -> None:
    check_forgets_first(make, lr, epochs, **arguments)


def test_a_mixture_of_experts_can_be_unlearned() -> None:
    check_unlearns_a_mixture_of_experts(RMU)

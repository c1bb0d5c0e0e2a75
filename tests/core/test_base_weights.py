"""Tests of checkpoints that leave out the untrained weights of a base model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import mu
from mu.backbones import CausalLM, LoRA
from mu.backbones.lora import merge_adapters
from mu.core.module import UnlearningModule
from mu.methods import ULD, FineTune, Retrain
from mu.utils.errors import InputError
from tests.contract.test_load import saved
from tests.support.doubles import pictures, text_to_image
from tests.support.doubles_text import causal_lm, folder, people
from tests.support.helpers import different, fit, trainer, weights

BASE = "the model that the run began from"


def _sgd(params: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=0.05)


def _keys(file: Path) -> set[str]:
    return set(torch.load(file, weights_only=True)["state_dict"])


CASES = {
    "part": (lambda: FineTune(text_to_image(part="xattn-strict"), optimizer=_sgd), pictures),
    "adapters": (
        lambda: FineTune(causal_lm(lora=LoRA(r=2)), optimizer=_sgd),
        people,
    ),
    "assistant": (lambda: ULD(causal_lm(), lora=LoRA(r=2)), people),
}


@pytest.mark.parametrize(("make", "task"), CASES.values(), ids=list(CASES))
def test_a_checkpoint_holds_trained_weights_and_the_hash_of_the_rest(
    make: Any, task: Any, tmp_path: Path
) -> None:
    """Fails when a checkpoint is as large as the frozen model, or loads into another model."""
    module: UnlearningModule = make()
    file = saved(module, tmp_path, task=task(), epochs=2)
    frozen = {
        f"backbone.{name}" for name, p in module.backbone.named_parameters() if not p.requires_grad
    }
    assert frozen and not frozen & _keys(file)
    loaded = mu.load(file)
    assert different(weights(loaded.served()), weights(module.served())) == []
    resumed = fit(make(), task(), 3, ckpt_path=file)
    uninterrupted = fit(make(), task(), 3)
    assert different(weights(resumed.served()), weights(uninterrupted.served())) == []


def test_a_run_is_the_weights_of_another(tmp_path: Path) -> None:
    """Fails when weights=RUN needs the tensors that the run's checkpoint leaves out."""
    for make, task, build in (
        (lambda: FineTune(causal_lm(part="mlp"), optimizer=_sgd), people, causal_lm),
        (lambda: FineTune(text_to_image(part="xattn"), optimizer=_sgd), pictures, text_to_image),
    ):
        module = make()
        file = saved(module, tmp_path / build.__name__, task=task(), epochs=1)
        again = build(weights=str(file))
        assert different(weights(again), weights(module.backbone)) == []


def test_a_changed_base_model_is_refused(tmp_path: Path) -> None:
    """Fails when trained weights are put into another base model in silence."""
    model = tmp_path / "model"
    shutil.copytree(folder(), model)
    make = lambda: FineTune(CausalLM(str(model), part="mlp"), optimizer=_sgd)  # noqa: E731
    file = saved(make(), tmp_path, task=people(), epochs=1)
    changed = CausalLM(str(model))
    with torch.no_grad():
        changed.network.get_input_embeddings().weight.add_(0.01)  # type: ignore[operator]
    changed.network.save_pretrained(model)  # type: ignore[operator]
    for load in (
        lambda: mu.load(file),
        lambda: CausalLM(str(model), weights=str(file)),
        lambda: trainer(1).validate(make(), datamodule=people(), ckpt_path=file),
    ):
        with pytest.raises(InputError, match=BASE):
            load()
    shutil.rmtree(model)
    with pytest.raises(InputError, match="trained weights alone"):
        mu.load(file)


@pytest.mark.parametrize(
    ("make", "start"),
    [
        (lambda: Retrain(text_to_image(part="xattn")), ("backbone.unet.", "backbone.text_encoder")),
        (lambda: FineTune(text_to_image(), optimizer=_sgd), "backbone.unet."),
        (lambda: FineTune(causal_lm(init_seed=3, part="mlp")), "backbone."),
    ],
    ids=["drawn anew", "trained whole", "new weights"],
)
def test_weights_that_the_base_model_does_not_hold_are_in_the_checkpoint(
    make: Any, start: Any
) -> None:
    """Fails when weights that a method or a seed has drawn are left out as those of the base."""
    module = make()
    module.configure_model()
    names = {f"backbone.{name}" for name, _ in module.backbone.named_parameters()}
    assert {name for name in names if name.startswith(start)} <= set(module.state_dict())


def test_frozen_weights_that_were_changed_after_all_are_in_the_checkpoint() -> None:
    """Fails when a callback's change of a frozen weight is lost in a checkpoint."""
    module = FineTune(text_to_image(part="xattn-strict"), optimizer=_sgd)
    module.configure_model()
    key = "unet.conv_in.weight"
    assert f"backbone.{key}" not in module.state_dict()
    with torch.no_grad():
        module.backbone.get_parameter(key).add_(0.0)
    assert f"backbone.{key}" not in module.state_dict()
    with torch.no_grad():
        module.backbone.get_parameter(key).add_(1.0)
    assert f"backbone.{key}" in module.state_dict()


def test_merged_adapters_are_in_the_checkpoint() -> None:
    """Fails when a base weight into which adapters were merged passes for the base model's."""
    backbone = causal_lm(part="mlp")
    layer = "network.model.layers.0.self_attn.q_proj.weight"
    assert layer in backbone.base_weights()
    LoRA(r=2).inject(backbone.network, [layer.removeprefix("network.")])
    with torch.no_grad():
        for name, weight in backbone.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.1)
    merge_adapters(backbone)
    assert layer in dict(backbone.named_parameters())
    assert layer not in backbone.base_weights()

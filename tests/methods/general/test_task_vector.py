"""Task vectors: the subtraction and its precision, adapters, batch norm, and whole runs."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

import mu
from mu.backbones import LoRA
from mu.data.plan import Forget
from mu.methods.general.task_vector import TaskVector
from mu.utils.errors import InputError, RunError
from tests.contract.doubles import Sees
from tests.support.authors_runs import check_authors_are_forgotten
from tests.support.doubles_text import causal_lm, people
from tests.support.helpers import State, classifier, different, distance, fit, weights
from tests.support.token_methods import (
    check_accumulated_batches,
    check_forgets_first,
    trained_model,
    trained_state,
)


def reinforced(**changes: Any) -> State:
    """Weights after descent on the forget part."""
    return weights(fit(Sees(trained_model(), Forget(), lr=0.1), people(), 2, **changes).backbone)


@pytest.mark.parametrize("alpha", [1.0, 4.0])
def test_a_task_vector_is_subtracted(alpha: float, tmp_path: Path) -> None:
    """θ_o − α (θ_re − θ_o), in the last checkpoint too; before the last epoch ends it is θ_re.
    Mutation: α (θ_re − θ_o) is added.
    """
    start = trained_state()
    end = reinforced()
    files = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    module = fit(
        TaskVector(
            trained_model(), alpha=alpha, optimizer=functools.partial(torch.optim.SGD, lr=0.1)
        ),
        people(),
        2,
        callbacks=[files],
    )
    expected = {
        name: start[name].double() - alpha * (end[name].double() - start[name].double())
        for name in start
    }
    assert distance(weights(module.backbone), expected) < 1e-6
    assert distance(weights(mu.load(tmp_path / "epoch=1.ckpt").served()), expected) < 1e-6
    half = mu.load(tmp_path / "epoch=0.ckpt")
    assert not half.get_buffer("negated") and module.get_buffer("negated")
    with pytest.raises(InputError, match="finished and its task vector subtracted"):
        fit(
            TaskVector(trained_model(), alpha=alpha),
            people(),
            3,
            ckpt_path=tmp_path / "epoch=1.ckpt",
        )


def test_the_arithmetic_is_in_single_precision() -> None:
    """Fails when bfloat16 weights are subtracted in bfloat16, where one part in 256 is lost
    twice.
    """
    module = TaskVector(causal_lm(dtype="bfloat16"), alpha=3.0)
    module.configure_model()
    start = weights(module.backbone)
    with torch.no_grad():
        for p in module.backbone.parameters():
            p.mul_(1.5)
    end = weights(module.backbone)
    module.negate()
    for name, value in weights(module.backbone).items():
        assert torch.equal(
            value, (start[name].float() - 3 * (end[name].float() - start[name].float())).bfloat16()
        ), name


def test_adapters_are_negated_as_a_product() -> None:
    """W_o − α s B A. Fails when both factors are negated (which changes nothing), or A is moved
    back.
    """
    make = lambda: causal_lm(trained_state_with_adapters(), lora=LoRA(r=2))  # noqa: E731
    rate = functools.partial(torch.optim.SGD, lr=0.5)
    ahead = fit(Sees(make(), Forget(), lr=0.5), people(), 2).backbone
    module = fit(TaskVector(make(), alpha=2.0, optimizer=rate), people(), 2)
    before, reinforced_products, negated = (
        products(model) for model in (make(), ahead, module.backbone)
    )
    assert before and all(not delta.any() for delta in before.values())
    assert any(delta.abs().max() > 1e-3 for delta in reinforced_products.values())
    for name, delta in reinforced_products.items():
        torch.testing.assert_close(negated[name], -2 * delta)
    used = make()
    with torch.no_grad():
        for name, p in used.named_parameters():
            if "lora_B" in name:
                p.fill_(0.1)
    with pytest.raises(InputError, match=r"adapter .* is not zero"):
        fit(TaskVector(used), people(), 1)
    with pytest.raises(InputError, match="give the lora use_dora false"):
        fit(TaskVector(causal_lm(lora=LoRA(r=2, use_dora=True))), people(), 1)


def products(model: Any) -> State:
    """s B A of each layer with adapters."""
    return {
        name: layer.get_delta_weight("default")
        for name, layer in model.named_modules()
        if hasattr(layer, "lora_A")
    }


def trained_state_with_adapters() -> State:
    state = dict(weights(causal_lm(lora=LoRA(r=2))))
    trained = trained_state()
    return {
        name: trained.get(name.replace(".base_layer.", "."), value) for name, value in state.items()
    }


def test_statistics_of_batch_norm_stay_the_originals() -> None:
    """Fails when statistics are extrapolated, where a variance may become negative."""
    start = weights(classifier())
    module = fit(
        TaskVector(classifier(), optimizer=functools.partial(torch.optim.SGD, lr=0.1)), epochs=1
    )
    after = weights(module.backbone)
    assert not [name for name in different(start, after) if "running" in name]
    assert different(start, after)


def test_early_stopping_does_not_serve_the_reinforced_model() -> None:
    """Fails when early stopping ends a run after the epoch's end, and the model that knows it best
    is served.
    """
    stop = EarlyStopping("forget/loss", patience=0, min_delta=1e9, check_on_train_epoch_end=True)
    module = TaskVector(trained_model(), optimizer=functools.partial(torch.optim.SGD, lr=0.1))
    with pytest.raises(RunError, match="too late to subtract"):
        fit(module, people(curves=["forget"]), 5, callbacks=[stop], limit_val_batches=1.0)
    stop = EarlyStopping("forget/loss", patience=0, min_delta=1e9, check_on_train_epoch_end=False)
    module = TaskVector(trained_model(), optimizer=functools.partial(torch.optim.SGD, lr=0.1))
    fit(module, people(curves=["forget"]), 5, callbacks=[stop], limit_val_batches=1.0)
    assert bool(module.negated) and module.current_epoch < 5


def test_one_big_batch_or_several_small_ones() -> None:
    check_accumulated_batches(TaskVector)


def test_the_forget_set_is_lost_first() -> None:
    check_forgets_first(TaskVector, 3e-3, 8)


@pytest.mark.slow
def test_the_authors_are_forgotten_and_the_others_stay() -> None:
    check_authors_are_forgotten(functools.partial(TaskVector, alpha=3.0), 3.6e-4)

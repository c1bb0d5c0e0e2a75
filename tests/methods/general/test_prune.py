"""Pruning before fine-tuning: which weights are zero, that they stay zero, and whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mu.methods import FineTune, Train
from mu.methods.general.cf_k import CFk
from mu.methods.general.gradient_ascent import GradientAscent
from mu.methods.general.prune import Pruned, PruneFineTune
from mu.utils.errors import InputError
from tests.support.equations import FAST, PLAIN, cross_entropy, doubled, first_batch, gradient
from tests.support.helpers import Watch, classifier, different, digits, fit, regressor, weights
from tests.support.method_runs import (
    INSIDE_EPOCHS,
    check_class_is_forgotten,
    check_preset_builds,
    resumed_run,
)


def convolutions(backbone: Any) -> dict[str, Tensor]:
    """Weights of the convolutions by layer."""
    return {
        name: layer.weight
        for name, layer in backbone.named_modules()
        if isinstance(layer, nn.Conv2d)
    }


def zeros(backbone: Any) -> int:
    """Number of convolution weights that are 0."""
    return sum(int((weight == 0).sum()) for weight in convolutions(backbone).values())


@pytest.mark.parametrize(
    "make",
    [
        PruneFineTune,
        lambda b, **k: GradientAscent(b, optimizer=FAST, **k),
        lambda b, **k: Train(b, **k),
    ],
)
def test_pruned_weights_are_the_smallest_and_stay_zero(make: Any) -> None:
    """Momentum and weight decay included, under any method; everything else may move."""
    backbone = classifier()
    before = weights(backbone)
    sizes = torch.cat(
        [weight.detach().abs().flatten() for weight in convolutions(backbone).values()]
    )
    count = round(0.8 * len(sizes))
    threshold = sizes.sort().values[count - 1]
    seen: list[int] = []
    module = fit(
        make(backbone, mask=Pruned(0.8)),
        epochs=2,
        callbacks=[Watch(lambda m, batch, i: seen.append(zeros(m.backbone)))],
    )
    assert set(seen) == {count}
    for name, weight in convolutions(backbone).items():
        assert torch.equal(weight == 0, before[f"{name}.weight"].abs() <= threshold)
    linear = "network.body.linear.weight"
    assert not (backbone.get_parameter(linear) == 0).any() and not torch.equal(
        backbone.get_parameter(linear), before[linear]
    )
    assert module.mask is not None and module.mask.share() < 1


def test_pruning_is_the_forward_reparametrisation() -> None:
    """The step on `weight * mask` of an unpruned weight is the step on the pruned one."""
    backbone = classifier()
    network = doubled(backbone)
    masks = {}
    sizes = (
        torch.cat([weight.detach().abs().flatten() for weight in convolutions(network).values()])
        .sort()
        .values
    )
    for name, weight in convolutions(network).items():
        masks[f"{name}.weight"] = (weight.abs() > sizes[round(0.8 * len(sizes)) - 1]).double()
    module = PruneFineTune(backbone, optimizer=PLAIN, mask=Pruned(0.8), norm="eval")
    task = digits()
    batch = first_batch(module, task)
    original = dict(network.named_parameters())

    def forward(image: Tensor) -> Tensor:
        masked = {name: p * masks[name] if name in masks else p for name, p in original.items()}
        return torch.func.functional_call(network, masked, (image,))

    expected = gradient(network, cross_entropy(forward, batch["retain"]))
    fit(module, task, max_steps=1, epochs=1)
    for name, weight in backbone.network.named_parameters():
        start = original[name].detach() * masks.get(name, torch.tensor(1.0))
        torch.testing.assert_close(
            weight.double(),
            start - expected[name] * masks.get(name, torch.tensor(1.0)),
            atol=1e-5,
            rtol=1e-4,
        )


def test_pruned_takes_magnitudes_from_a_file_and_keeps_zeros(tmp_path: Path) -> None:
    """The paper's protocol: early weights, the mask of the late ones; then a method on the sparse
    model.
    """
    late = classifier(init_seed=7)
    torch.save(late.network.state_dict(), tmp_path / "late.pt")
    early = classifier()
    before = weights(early)
    fit(Train(early, optimizer=FAST, mask=Pruned(0.9, weights=str(tmp_path / "late.pt"))), epochs=1)
    sizes = (
        torch.cat([weight.detach().abs().flatten() for weight in convolutions(late).values()])
        .sort()
        .values
    )
    for name, weight in convolutions(late).items():
        assert torch.equal(
            early.get_parameter(f"{name}.weight") == 0,
            weight.abs() <= sizes[round(0.9 * len(sizes)) - 1],
        )
    sparse = weights(early)
    fit(FineTune(early, mask=Pruned(0.9)), epochs=1)
    for name in convolutions(early):
        assert torch.equal(
            early.get_parameter(f"{name}.weight") == 0, sparse[f"{name}.weight"] == 0
        )
    assert different(before, sparse)


def test_pruned_reaches_frozen_layers_and_refuses_what_has_none() -> None:
    backbone = classifier()
    fit(CFk(backbone, k=1, mask=Pruned(0.5)), epochs=1)
    assert zeros(backbone) == round(
        0.5 * sum(weight.numel() for weight in convolutions(backbone).values())
    )
    with pytest.raises(InputError, match="conv_linear"):
        Pruned(0.5).choose(FineTune(regressor()))
    share = Pruned(0.5, scope="conv_linear").choose(FineTune(regressor()))
    linear = [mask for name, mask in share.items() if name.endswith("weight")]
    assert sum(int(mask.sum()) for mask in linear) == sum(mask.numel() for mask in linear) // 2
    with pytest.raises(InputError, match="rate"):
        Pruned(1.0)


@pytest.mark.parametrize("position", INSIDE_EPOCHS)
def test_a_run_resumes_inside_an_epoch(position: tuple[int, int], tmp_path: Path) -> None:
    """The mask travels with the checkpoint."""
    resumed_run(lambda b: PruneFineTune(b, optimizer=FAST), position, tmp_path)


def test_preset_builds() -> None:
    check_preset_builds("prune_finetune")


@pytest.mark.slow
def test_a_class_is_forgotten_and_the_rest_stays() -> None:
    check_class_is_forgotten(PruneFineTune, 10, 0.3, 0.9)

"""Gradient ascent, NegGrad+, ℓ1-sparse, pruning, SalUn-soft, CF-k and EU-k: each does what its
equation says.
"""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mu.backbones import Classifier
from mu.core.fit_loop import planned_steps
from mu.core.module import UnlearningModule
from mu.data.plan import DataPlan, Forget, Phases, Retain
from mu.methods import FineTune, Train
from mu.methods.bases.joint import predictions
from mu.methods.compat import FineTunePulled, NegGradPlusPulled
from mu.methods.general.cf_k import CFk, last_layers
from mu.methods.general.eu_k import EUk
from mu.methods.general.gradient_ascent import GradientAscent
from mu.methods.general.l1_sparse import L1Sparse
from mu.methods.general.neggrad_plus import NegGradPlus
from mu.methods.general.prune import Pruned, PruneFineTune
from mu.methods.general.salun_soft import SalUnSoft
from mu.utils.errors import InputError
from mu.utils.rng import stream_id
from tests.support.equations import (
    FAST,
    PLAIN,
    close,
    cross_entropy,
    disturb,
    doubled,
    first_batch,
    gradient,
    moved_as,
    total,
)
from tests.support.helpers import Watch, classifier, different, digits, fit, regressor, weights


def test_gradient_ascent_climbs_the_forget_loss() -> None:
    moved_as(
        GradientAscent(classifier(), optimizer=PLAIN, norm="eval"),
        lambda net, batch: -cross_entropy(net, batch["forget"]),
    )


@pytest.mark.parametrize("a", [0.95, 0.3])
def test_neggrad_plus_weighs_retain_by_a_and_forget_by_one_minus_a(a: float) -> None:
    """Must fail if the two weights are exchanged (the naming trap)."""
    moved_as(
        NegGradPlus(classifier(), retain_weight=a, optimizer=PLAIN, norm="eval"),
        lambda net, batch: (
            a * cross_entropy(net, batch["retain"]) - (1 - a) * cross_entropy(net, batch["forget"])
        ),
    )


def test_neggrad_plus_gives_the_same_by_one_forward_and_by_two() -> None:
    """One forward pass where nothing mixes the parts; two where batch norm would."""
    module = NegGradPlus(classifier(), norm="eval")
    batch = first_batch(module, digits())
    calls = []
    module.backbone.network.register_forward_hook(lambda *_: calls.append(1))
    module.set_mode()
    joint = predictions(module.backbone, batch["forget"], batch["retain"])
    assert len(calls) == 1
    for part, prediction in zip(("forget", "retain"), joint, strict=True):
        torch.testing.assert_close(prediction, module.backbone.predict(batch[part]))
    module.backbone.train()
    calls.clear()
    apart = predictions(module.backbone, batch["forget"], batch["retain"])
    assert len(calls) == 2
    for part, prediction in zip(("forget", "retain"), apart, strict=True):
        assert torch.equal(prediction, module.backbone.predict(batch[part]))


def test_l1_sparse_adds_the_sum_of_all_magnitudes() -> None:
    """All weights count, batch norm and biases included, and nothing is averaged."""
    moved_as(
        L1Sparse(classifier(), alpha=0.01, optimizer=PLAIN, norm="eval"),
        lambda net, batch: (
            cross_entropy(net, batch["retain"])
            + 0.01 * sum(p.abs().sum() for p in net.parameters())
        ),
    )


def test_l1_sparse_weight_falls_with_the_epoch_and_ends_where_told() -> None:
    module = L1Sparse(classifier(), alpha=0.3, no_l1_epochs=1)
    seen: dict[int, float] = {}

    def see(_: UnlearningModule, batch: Any, i: int) -> None:
        seen[module.current_epoch] = module.penalty_weight(module.current_epoch)

    fit(module, epochs=4, callbacks=[Watch(see)])
    assert [round(seen[epoch], 9) for epoch in range(4)] == [0.3, 0.2, 0.1, 0.0]
    forever = L1Sparse(classifier(), alpha=0.3, no_l1_epochs=4)
    fit(forever, epochs=4)
    assert forever.penalty_weight(3) == 0.3
    with pytest.raises(InputError, match="max_epochs"):
        fit(L1Sparse(classifier()), epochs=-1, max_steps=2)


@pytest.mark.parametrize("cls", [FineTunePulled, NegGradPlusPulled])
def test_pulled_variants_add_half_the_squared_distance(cls: Any) -> None:
    """The pull has no gradient at the start, so the student is moved away first."""
    module = cls(classifier(), pull_weight=0.6)
    module.configure_model()
    assert module.norm == "eval"
    before = doubled(module.backbone)
    disturb(module.backbone)
    batch = first_batch(module, digits())
    module.set_mode()
    found = torch.autograd.grad(
        total(module.objective(batch.get("forget"), batch["retain"])), module.backbone.parameters()
    )
    network = doubled(module.backbone)
    pull = 0.3 * sum(
        (p - q.detach()).square().sum()
        for p, q in zip(network.parameters(), before.parameters(), strict=True)
    )
    loss = cross_entropy(network, batch["retain"]) + pull
    if cls is NegGradPlusPulled:
        loss = 0.95 * loss - 0.05 * cross_entropy(network, batch["forget"])
    close(found, gradient(network, loss))


# ---------------------------------------------------------------- pruning


def convolutions(backbone: Any) -> dict[str, Tensor]:
    return {
        name: layer.weight
        for name, layer in backbone.named_modules()
        if isinstance(layer, nn.Conv2d)
    }


def zeros(backbone: Any) -> int:
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


def test_pruned_takes_magnitudes_from_a_file_and_finds_its_own_zeros_again(tmp_path: Path) -> None:
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


# ---------------------------------------------------------------- SalUn-soft


def test_salun_soft_sets_exactly_the_smallest_changes_back() -> None:
    """k = floor(rho n (T - t) / T) after step t; what is left has lost the threshold, and nothing
    is taken back after step T.
    """
    backbone = classifier()
    n = sum(p.numel() for p in backbone.parameters())
    found: list[tuple[int, float]] = []
    start: list[Tensor] = []

    def see(module: UnlearningModule, batch: Any, i: int) -> None:
        flat = torch.cat([p.detach().flatten() for p in module.backbone.parameters()])
        if i == 0:
            start[:] = [begin]
        change = (flat - start[0]).abs()
        found.append(
            (
                int((change == 0).sum()),
                float(change[change > 0].min()) if bool((change > 0).any()) else 0.0,
            )
        )
        if i + 1 == module.trainer.num_training_batches:
            begin.copy_(flat)

    begin = torch.cat([p.detach().flatten() for p in backbone.parameters()])
    module = fit(SalUnSoft(backbone, rho=0.6, optimizer=FAST), epochs=2, callbacks=[Watch(see)])
    total = module.trainer.global_step
    assert total == 14
    for t, (still, _) in enumerate(found, start=1):
        wanted = math.floor(0.6 * n * (total - t) / total + 1e-9)
        # a few more gradients are exactly zero or tie
        assert wanted <= still <= wanted + n // 50, (
            t,
            still,
            wanted,
        )
    assert found[0][0] > 0.5 * n and found[-1][0] < n // 50


@pytest.mark.parametrize(
    "plan",
    [Phases(Forget(epochs=1), Retain(after=1)), Phases(Forget(after=1), Retain())],
    ids=["part", "both"],
)
@pytest.mark.parametrize(
    "changes",
    [{}, {"limit_train_batches": 3}, {"accumulate_grad_batches": 2}, {"max_steps": 5}],
    ids=str,
)
def test_salun_soft_counts_the_steps_of_its_plan(plan: DataPlan, changes: dict[str, Any]) -> None:
    """Mutation: Lightning's estimate, which takes every epoch to be as long as the first; then
    changes are taken back to the end, or never.
    """
    asked: list[tuple[int, int]] = []

    class Asked(SalUnSoft):
        def proximal_step(self, step: int) -> None:
            asked.append((step, self._steps))
            super().proximal_step(step)

    module = fit(Asked(classifier(), plan=plan, optimizer=FAST), epochs=3, **changes)
    steps = module.trainer.global_step
    assert steps == planned_steps(module) and asked == [
        (step, steps) for step in range(1, steps + 1)
    ]


def test_salun_soft_needs_a_run_that_ends() -> None:
    with pytest.raises(InputError, match=r"set trainer\.max_epochs"):
        fit(SalUnSoft(classifier()), epochs=-1)


def test_salun_soft_step_is_the_proximal_step() -> None:
    """One step against a statement by sorting."""
    backbone = classifier()
    before = [p.detach().clone() for p in backbone.parameters()]
    module = SalUnSoft(backbone, rho=0.5, optimizer=PLAIN, norm="eval")
    task = digits()
    task.setup()
    twin = SalUnSoft(deepcopy(backbone), rho=0.0, optimizer=PLAIN, norm="eval")
    fit(module, task, max_steps=7, epochs=1, callbacks=[StopAfter(1)])
    fit(twin, digits(), max_steps=7, epochs=1, callbacks=[StopAfter(1)])
    raw = [p.detach() - q for p, q in zip(twin.backbone.parameters(), before, strict=True)]
    sizes = torch.cat([d.abs().flatten() for d in raw]).sort().values
    tau = sizes[math.floor(0.5 * len(sizes) * 6 / 7) - 1]
    for p, q, d in zip(backbone.parameters(), before, raw, strict=True):
        shrunk = torch.where(d > tau, d - tau, torch.where(d < -tau, d + tau, torch.zeros_like(d)))
        torch.testing.assert_close(p.detach() - q, shrunk, atol=1e-7, rtol=1e-5)


class StopAfter(Watch):
    """End a run whose planned length is longer."""

    def __init__(self, batches: int) -> None:
        super().__init__(
            lambda module, batch, i: setattr(module.trainer, "should_stop", i + 1 >= batches)
        )


# ---------------------------------------------------------------- CF-k and EU-k


@pytest.mark.parametrize("cls", [CFk, EUk])
@pytest.mark.parametrize("k", [1, 3, -1])
def test_only_the_last_k_layers_move(cls: Any, k: int) -> None:
    """The prefix keeps its weights and its batch-norm statistics, bit for bit."""
    backbone = classifier()
    before = weights(backbone)
    fit(cls(backbone, k=k), epochs=1)
    after = weights(backbone)
    last = ("body.linear",) if k == 1 else ("body.linear", "body.layer3.0.bn", "body.layer3.0.conv")
    allowed = {
        name
        for name in before
        if k == -1 or name.startswith(tuple(f"network.{part}" for part in last))
    }
    moved = set(different(before, after))
    assert moved <= allowed
    assert {name for name in allowed if not name.startswith("network.normalize")} == moved


def test_cf_k_takes_the_step_of_fine_tuning_on_its_layers() -> None:
    backbone = classifier()
    module = CFk(backbone, k=1, optimizer=PLAIN, norm="eval")
    task = digits()
    network = doubled(backbone)
    expected = gradient(network, cross_entropy(network, first_batch(module, task)["retain"]))
    before = weights(backbone)
    fit(module, task, max_steps=1, epochs=1)
    for name in ("body.linear.weight", "body.linear.bias"):
        step = backbone.network.get_parameter(name).detach() - before[f"network.{name}"]
        torch.testing.assert_close(step.double(), -expected[name], atol=1e-5, rtol=1e-4)


def test_eu_k_starts_its_layers_anew_once() -> None:
    """The head is a new one, that of the seed, before the first step, and epochs build on one
    another.
    """
    backbone = classifier()
    old = backbone.network.get_parameter("body.linear.weight").detach().clone()
    fresh = (
        backbone.fresh(stream_id("eu-k", 3)).network.get_parameter("body.linear.weight").detach()
    )
    at_epoch_start: list[Tensor] = []
    last: list[Tensor] = []

    class See(Watch):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            at_epoch_start.append(
                pl_module.backbone.network.get_parameter("body.linear.weight").detach().clone()
            )

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            last.append(
                pl_module.backbone.network.get_parameter("body.linear.weight").detach().clone()
            )

    fit(EUk(backbone, k=1, seed=3), epochs=3, callbacks=[See(lambda *_: None)])
    assert torch.equal(at_epoch_start[0], fresh) and not torch.equal(fresh, old)
    assert torch.equal(at_epoch_start[1], last[0]) and torch.equal(at_epoch_start[2], last[1])
    assert not torch.equal(last[2], fresh)
    # another seed, other layers; the normalisation, which no seed gives, stays
    with torch.no_grad():
        other = EUk(classifier(), k=-1, seed=4)
        other.configure_model()
        assert not torch.equal(other.backbone.network.get_parameter("body.linear.weight"), fresh)
        assert float(other.backbone.network.get_buffer("normalize.mean")) == pytest.approx(0.3053)


def test_last_layers_count_from_the_output_and_refuse_what_is_not_there() -> None:
    backbone = classifier()
    assert [name for name, _ in last_layers(backbone, 2)] == ["body.layer3.0.conv2", "body.linear"]
    for k in (0, 9, -2):
        with pytest.raises(InputError, match="8 weight layers"):
            CFk(backbone, k=k)
    assert len(last_layers(regressor(), -1)) == 2
    timm = Classifier(
        "timm:vit_tiny_patch16_224",
        options={"img_size": 32, "patch_size": 16, "depth": 2, "drop_rate": 0.5},
    )
    module = CFk(timm, k=1)
    module.configure_model()
    module.set_mode()
    off = {
        name
        for name, layer in timm.network.named_modules()
        if isinstance(layer, nn.Dropout) and not layer.training
    }
    on = {
        name
        for name, layer in timm.network.named_modules()
        if isinstance(layer, nn.Dropout) and layer.training
    }
    assert "body.blocks.0.mlp.drop1" in off and "body.pos_drop" in off and not on & off

"""Relearning: a copy is fine-tuned on some samples, on every kind of model, and the model itself is
left as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mu.attacks.relearning import Relearn, trainable_copy
from mu.backbones import Ensemble, LoRA
from mu.backbones.language.two_models import LogitDifference
from mu.data.batch import fetch
from mu.utils.errors import InputError, RunError
from mu.utils.modules import separate_copy
from mu.utils.spec import from_spec, to_spec
from tests.support.doubles import class_conditional, digit_pictures, pictures, text_to_image
from tests.support.doubles_text import causal_lm, mixture, people
from tests.support.helpers import classifier, diabetes, different, digits, regressor, weights


def adapted(**changes: Any) -> Any:
    return causal_lm(lora=LoRA(r=2), **changes)


def two_models() -> Any:
    return LogitDifference(causal_lm(), causal_lm(init_seed=3))


def sgd(rate: float) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda params: torch.optim.SGD(params, lr=rate)


KINDS: dict[str, tuple[Callable[[], Any], Callable[[], Any], float]] = {
    "classifier": (classifier, digits, 0.05),
    "ensemble": (lambda: Ensemble([classifier(), classifier(init_seed=1)]), digits, 0.05),
    "regressor": (regressor, diabetes, 1e-4),
    "class_conditional": (class_conditional, digit_pictures, 0.01),
    "text_to_image": (lambda: text_to_image(part="xattn"), pictures, 0.01),
    "causal_lm": (causal_lm, people, 0.5),
    "adapters": (adapted, people, 0.5),
    "mixture": (mixture, people, 0.5),
    "two_models": (two_models, people, 0.5),
}
on_all = pytest.mark.parametrize("kind", KINDS)


def forget_of(kind: str) -> Any:
    task = KINDS[kind][1]()
    task.setup()
    return task.datasets["forget"]


def attack(kind: str, **changes: Any) -> Relearn:
    return Relearn(**{"examples": 4, "steps": 3, "optimizer": sgd(KINDS[kind][2]), **changes})


def state_of(
    backbone: Any,
) -> tuple[dict[str, Tensor], list[bool], list[bool], list[Tensor | None]]:
    return (
        weights(backbone),
        [layer.training for layer in backbone.modules()],
        [p.requires_grad for p in backbone.parameters()],
        [None if p.grad is None else p.grad.clone() for p in backbone.parameters()],
    )


@on_all
def test_relearning_leaves_the_tested_model(kind: str) -> None:
    """Fails when a weight, a buffer, a mode, a `requires_grad` or a gradient of the model moves, or
    nothing of the copy does.
    """
    backbone = KINDS[kind][0]()
    data = forget_of(kind)
    backbone.train()
    next(backbone.children()).eval()
    trained = next(p for p in backbone.parameters() if p.requires_grad)
    trained.grad = torch.ones_like(trained)
    before = state_of(backbone)
    with torch.inference_mode():
        relearned = attack(kind)(backbone, data)
    after = state_of(backbone)
    assert different(before[0], after[0]) == [] and before[1:3] == after[1:3]
    assert all(
        (a is None) == (b is None) and (a is None or torch.equal(a, b))
        for a, b in zip(before[3], after[3], strict=True)
    )
    moved = different(before[0], weights(relearned.backbone))
    free = {name for name, p in backbone.named_parameters() if p.requires_grad}
    assert moved and set(moved) <= free  # statistics of batch norm stay too
    assert not relearned.backbone.training and all(
        p.grad is None for p in relearned.backbone.parameters()
    )
    assert relearned.weights == sum(p.numel() for p in backbone.parameters() if p.requires_grad)
    assert len(relearned.losses) == 3 and np.isfinite(relearned.losses).all()


@pytest.mark.parametrize(
    "kind",
    ["classifier", "regressor", "causal_lm", "adapters", "mixture", "two_models", "ensemble"],
)
def test_relearning_lowers_the_loss_of_its_examples(kind: str) -> None:
    """Fails when the step goes up, or shows other samples than it says."""
    backbone = KINDS[kind][0]().eval()
    data = forget_of(kind)
    relearned = attack(kind, steps=12)(backbone, data)
    part = {**fetch(data, relearned.positions), "visit": torch.zeros(4, dtype=torch.int64)}
    with torch.no_grad():
        before, after = (
            float(model.loss(part)[0].sum() / model.loss(part)[1].sum())
            for model in (backbone, relearned.backbone)
        )
    assert relearned.losses[0] == pytest.approx(before, rel=1e-4)
    assert after < relearned.losses[-1] < before


@pytest.mark.parametrize("kind", ["classifier", "causal_lm"])
def test_a_step_is_the_gradient_of_the_mean_over_weights(kind: str) -> None:
    """Fails when the mean is over samples for answers of unequal lengths, or a sample is left out:
    θ - η ∇ Σ sum / Σ weight, by loops.
    """
    backbone = KINDS[kind][0]().eval()
    data = forget_of(kind)
    relearned = attack(kind, steps=1, examples=5)(backbone, data)
    total = torch.zeros(())
    count = 0.0
    for position in relearned.positions:
        part = {**fetch(data, np.asarray([position])), "visit": torch.zeros(1, dtype=torch.int64)}
        summed, weight = backbone.loss(part)
        total = total + summed[0]
        count = count + float(weight[0])
    names = [name for name, _ in backbone.named_parameters()]
    slopes = torch.autograd.grad(total / count, list(backbone.parameters()))
    stepped = dict(relearned.backbone.named_parameters())
    for name, slope in zip(names, slopes, strict=True):
        expected = dict(backbone.named_parameters())[name].detach() - KINDS[kind][2] * slope
        assert torch.allclose(stepped[name], expected, atol=1e-6), name


def test_examples_depend_on_indices_and_seed_alone() -> None:
    """Fails when the place in the dataset decides, or two seeds take the same."""
    indices = np.arange(100, 160)
    order = np.random.default_rng(0).permutation(60)
    for seed in (0, 1):
        examples = Relearn(7, seed=seed).chosen(indices)
        other = Relearn(7, seed=seed).chosen(indices[order])
        assert (
            set(indices[examples]) == set(indices[order][other])
            and len(set(examples)) == 7
            and (np.diff(examples) > 0).all()
        )
    assert set(Relearn(7, seed=0).chosen(indices)) != set(Relearn(7, seed=1).chosen(indices))
    assert set(Relearn(5).chosen(indices)) < set(Relearn(7).chosen(indices))


def test_same_seed_same_weights() -> None:
    for backbone_name in ("causal_lm", "class_conditional"):  # the second draws noise
        data = forget_of(backbone_name)
        first, two, other = (
            weights(
                attack(backbone_name, seed=seed, batch_size=2)(
                    KINDS[backbone_name][0](), data
                ).backbone
            )
            for seed in (0, 0, 1)
        )
        assert different(first, two) == []
        assert different(first, other)


def test_every_example_is_shown_before_any_is_shown_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when batches overlap, or `visit` does not count."""
    data = forget_of("causal_lm")
    batches = []
    model = causal_lm()
    monkeypatch.setattr(
        type(model),
        "prepare",
        lambda self, part, seed: batches.append((part["index"], part["visit"])) or part,
    )
    relearned = attack("causal_lm", examples=5, steps=5, batch_size=3)(model, data)
    index, visit = (torch.cat([batch[field] for batch in batches]).tolist() for field in (0, 1))
    chosen = sorted(data.indices[relearned.positions].tolist())
    assert [sorted(index[start : start + 5]) for start in (0, 5, 10)] == [chosen] * 3
    assert visit == [0] * 5 + [1] * 5 + [2] * 5
    assert index[:5] != index[5:10] or index[5:10] != index[10:]


def test_frozen_weights_are_shared_and_a_frozen_model_is_trained_whole() -> None:
    """Fails when a copy of an adapted model holds its base twice, or a frozen model cannot be
    attacked.
    """
    model = adapted()
    copy, trained = trainable_copy(model)
    copied = dict(copy.named_parameters())
    assert all((p is copied[name]) == (not p.requires_grad) for name, p in model.named_parameters())
    assert sum(p.numel() for p in trained) == sum(
        p.numel() for p in model.parameters() if p.requires_grad
    )
    frozen = causal_lm().requires_grad_(False)
    relearned = attack("causal_lm")(frozen, forget_of("causal_lm"))
    assert relearned.weights == sum(p.numel() for p in frozen.parameters())
    assert different(weights(frozen), weights(relearned.backbone))
    assert not any(p.requires_grad for p in frozen.parameters())


def test_a_copy_made_inside_a_test_can_be_trained() -> None:
    """Fails when the copy is made of inference tensors, which no optimizer may move."""
    with torch.inference_mode():
        copy = separate_copy(classifier())
    assert not any(tensor.is_inference() for tensor in [*copy.parameters(), *copy.buffers()])


def test_gradient_checkpointing_stays_on_and_changes_nothing() -> None:
    """Fails when eval mode turns it off, which is where memory goes."""
    data = forget_of("causal_lm")
    model = causal_lm(gradient_checkpointing=True)
    copy, _ = trainable_copy(model)
    assert any(
        layer.training and getattr(layer, "gradient_checkpointing", False)
        for layer in copy.modules()
    )
    assert not any(
        layer.training
        for layer in copy.modules()
        if isinstance(layer, torch.nn.Dropout | torch.nn.Linear)
    )
    plain, two = (weights(attack("causal_lm")(m, data).backbone) for m in (model, causal_lm()))
    assert all(torch.allclose(plain[name], two[name], atol=1e-6) for name in plain)


def test_relearning_is_rebuilt_from_plain_data() -> None:
    """Fails when the budget does not say how hard the attack was."""
    attack_object = Relearn(
        6, 9, lambda params: torch.optim.AdamW(params, lr=2e-3), batch_size=4, seed=5
    )
    assert attack_object.budget() == {
        "examples": 6,
        "steps": 9,
        "batch_size": 4,
        "optimizer": "AdamW 0.002",
        "attack_seed": 5,
    }
    assert from_spec(to_spec(attack_object)).budget() == attack_object.budget()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"examples": 0}, "at least one example"),
        ({"steps": 0}, "at least one example"),
        ({"batch_size": 0}, "at least one example"),
    ],
)
def test_empty_budget_is_refused(changes: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Relearn(**changes)


def test_model_or_data_without_attack_is_refused() -> None:
    with pytest.raises(InputError, match="14 examples of a part that has 13"):
        attack("causal_lm", examples=14)(causal_lm(), forget_of("causal_lm"))
    with pytest.raises(RunError, match="relearning diverged"):
        attack("classifier", optimizer=sgd(1e30), steps=9)(classifier(), forget_of("classifier"))


def test_sharded_weights_are_refused() -> None:
    """Fails when every rank would fine-tune its own shard."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import distribute_tensor

    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    try:
        model: Any = regressor()
        layer = model.network[0]
        layer.weight = torch.nn.Parameter(
            distribute_tensor(layer.weight.detach(), init_device_mesh("cpu", (1,)))
        )
        with pytest.raises(InputError, match="sharded over ranks"):
            separate_copy(model)
    finally:
        dist.destroy_process_group()

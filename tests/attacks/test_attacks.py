"""Attacks: one row of the table for each; what an attack must do and must leave alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor

from mu.attacks import (
    FGSM,
    PGD,
    Attack,
    AttackResult,
    Criterion,
    Misclassified,
    Targeted,
    UnlearnDiffAtk,
)
from mu.backbones import Classifier
from mu.methods import FineTune
from mu.utils.errors import InputError
from mu.utils.spec import from_spec, to_spec
from tests.support.helpers import State, classifier, digits, trainer


@dataclass(frozen=True)
class Row:
    """One attack.

    Attributes:
        make: constructs it.
        epsilon: how far a pixel may move.
        slack: more than that, for rounding.
        succeeds: share of samples on which it must succeed, by any criterion below.
        draws: whether it depends on its seed.
    """

    make: Callable[[], Attack]
    epsilon: float
    slack: float = 1e-6
    succeeds: float = 0.2
    draws: bool = False


TABLE = {
    "FGSM": Row(lambda: FGSM(epsilon=0.2), 0.2),
    "FGSM rounded": Row(lambda: FGSM(epsilon=0.2, round_to_255=True), 0.2, slack=0.5 / 255 + 1e-6),
    "PGD": Row(lambda: PGD(epsilon=0.15, steps=8, step_size=0.05), 0.15, succeeds=0.5, draws=True),
    "PGD plain": Row(
        lambda: PGD(epsilon=0.15, steps=8, step_size=0.05, random_start=False), 0.15, succeeds=0.5
    ),
    "PGD restarts": Row(
        lambda: PGD(epsilon=0.1, steps=3, step_size=0.05, restarts=3), 0.1, succeeds=0.3, draws=True
    ),
}
on_all = pytest.mark.parametrize("row", TABLE.values(), ids=list(TABLE))
CRITERIA = {
    "misclassified": Misclassified(),
    "targeted": Targeted(label=8),
    "own target": Targeted(),
}


@pytest.fixture(scope="module")
def original(originals: dict[str, State]) -> Classifier:
    return classifier(originals["classifier"]).eval()


def batch(rows: int = 24) -> dict[str, Any]:
    task = digits()
    task.setup()
    data: Any = task.datasets["forget"]
    part = data.__getitems__(list(range(rows)))
    return {
        **part,
        "visit": torch.zeros(rows, dtype=torch.int64),
        "substitute": (part["label"] + 1) % 10,
        "split": "forget",
    }


def state_of(backbone: Classifier) -> tuple[State, list[bool], list[Tensor | None]]:
    return (
        {k: v.clone() for k, v in backbone.state_dict().items()},
        [layer.training for layer in backbone.modules()],
        [None if p.grad is None else p.grad.clone() for p in backbone.parameters()],
    )


def same_state(a: Any, b: Any) -> bool:
    grads = all(
        (x is None) == (y is None) and (x is None or torch.equal(x, y))
        for x, y in zip(a[2], b[2], strict=True)
    )
    return all(torch.equal(a[0][k], b[0][k]) for k in a[0]) and a[1] == b[1] and grads


@on_all
@pytest.mark.parametrize("criterion", CRITERIA.values(), ids=list(CRITERIA))
def test_results_have_their_documented_shapes_and_ranges(
    row: Row, criterion: Criterion, original: Classifier
) -> None:
    """Fails when pixels leave the ball or [0, 1], or success is not by the criterion on what is
    returned.
    """
    clean = batch()
    result = row.make()(original, clean, criterion)
    moved = (result.adversarial["image"] - clean["image"]).abs()
    assert 0 < moved.max() <= row.epsilon + row.slack
    assert result.adversarial["image"].min() >= 0 and result.adversarial["image"].max() <= 1
    with torch.no_grad():
        logits = original.predict(result.adversarial)
    assert torch.allclose(result.prediction, logits, atol=1e-5)
    expected = {
        "Misclassified": lambda: logits.argmax(1) != clean["label"],
        "Targeted": lambda: (
            logits.argmax(1) == (8 if getattr(criterion, "label", 0) else clean["substitute"])
        ),
    }
    assert torch.equal(result.success, expected[type(criterion).__name__]())
    assert (
        result.success.dtype == torch.bool
        and not result.adversarial["image"].requires_grad
        and not result.prediction.requires_grad
    )
    before, after = (
        criterion.objective(original.predict(part), clean).mean()
        for part in (clean, result.adversarial)
    )
    assert after > before


@on_all
def test_attack_changes_the_prediction(row: Row, original: Classifier) -> None:
    """Fails when the step goes down instead of up."""
    clean = batch()
    with torch.no_grad():
        wrong = (original.predict(clean).argmax(1) != clean["label"]).float().mean()
    assert row.make()(original, clean, Misclassified()).success.float().mean() >= min(
        1.0, wrong + row.succeeds
    )


@on_all
def test_attack_leaves_weights_modes_and_gradients(row: Row, originals: dict[str, State]) -> None:
    """Fails when statistics of batch norm move, a gradient is left in a weight, or the caller's
    batch is changed.
    """
    backbone = classifier(originals["classifier"]).train()
    backbone.network.body.layer2.eval()  # type: ignore[union-attr]
    next(backbone.parameters()).grad = torch.ones_like(next(backbone.parameters()))
    clean = batch()
    unchanged = batch()
    before = state_of(backbone)
    result = row.make()(backbone, clean, Misclassified())
    assert same_state(state_of(backbone), before)
    assert all(
        torch.equal(clean[k], unchanged[k])
        if isinstance(unchanged[k], Tensor)
        else clean[k] == unchanged[k]
        for k in unchanged
    )
    assert {k for k in unchanged if k != "image"} == {k for k in result.adversarial if k != "image"}
    assert all(
        torch.equal(result.adversarial[k], unchanged[k]) for k in ("label", "index", "substitute")
    )


@on_all
def test_modes_are_restored_after_an_error(row: Row, originals: dict[str, State]) -> None:
    backbone = classifier(originals["classifier"]).train()
    with pytest.raises(KeyError):
        row.make()(backbone, {k: v for k, v in batch().items() if k != "label"}, Misclassified())
    assert all(layer.training for layer in backbone.modules())


@on_all
def test_attack_does_not_depend_on_the_batch(row: Row, original: Classifier) -> None:
    """The same for a sample whatever batch it comes in, and whatever torch's generator says; padded
    rows are no successes.
    """
    clean = batch()
    attack = row.make()
    torch.manual_seed(1)
    joint = attack(original, clean, Misclassified())
    torch.manual_seed(2)
    half = {k: v[12:] if isinstance(v, Tensor) else v for k, v in clean.items()}
    part = attack(original, {**half, "padded": torch.arange(12) < 2}, Misclassified())
    same = (
        torch.isclose(joint.adversarial["image"][12:], part.adversarial["image"], atol=1e-4)
        .flatten(1)
        .float()
        .mean(1)
    )
    assert same[2:].mean() > 0.99  # the sign of a gradient near 0 may hang on rounding
    assert not part.success[:2].any()
    assert (joint.success[14:] == part.success[2:]).float().mean() > 0.85


@on_all
def test_seed_changes_attacks_that_draw(row: Row, original: Classifier) -> None:
    if not row.draws:
        pytest.skip("draws nothing")
    other = row.make()
    other.seed = 1  # type: ignore[attr-defined]
    images = [
        attack(original, batch(), Misclassified()).adversarial["image"]
        for attack in (row.make(), row.make(), other)
    ]
    assert torch.equal(images[0], images[1])
    assert not torch.allclose(images[0], images[2], atol=1e-3)


@on_all
def test_it_works_inside_a_test(row: Row, originals: dict[str, State]) -> None:
    """`trainer.test` runs in inference mode, where nothing has a gradient."""
    seen: list[AttackResult] = []

    class Suite(Callback):
        def on_test_batch_end(
            self,
            trainer: Any,
            pl_module: Any,
            outputs: Any,
            batch: Any,
            batch_idx: int,
            dataloader_idx: int = 0,
        ) -> None:
            assert torch.is_inference_mode_enabled()
            before = state_of(pl_module.served())
            seen.append(row.make()(pl_module.served(), batch, Misclassified()))
            assert torch.is_inference_mode_enabled()
            assert same_state(state_of(pl_module.served()), before)

    module = FineTune(classifier(originals["classifier"]))
    module.declared.add("nll")
    trainer(callbacks=[Suite()]).test(module, digits(), verbose=False)
    assert seen and all(not result.success.is_inference() for result in seen)
    plain = row.make()(module.served(), batch(), Misclassified())
    assert torch.equal(seen[0].success, plain.success)
    assert torch.allclose(seen[0].adversarial["image"], plain.adversarial["image"], atol=1e-5)


@on_all
def test_attack_is_rebuilt_from_plain_data(row: Row) -> None:
    assert to_spec(from_spec(to_spec(row.make()))) == to_spec(row.make())


def test_every_attack_has_a_row() -> None:
    of_prompts = {UnlearnDiffAtk}  # tested in test_unlearn_diff_atk.py
    assert {type(row.make()) for row in TABLE.values()} == set(Attack.__subclasses__()) - of_prompts


# ---- the equations -------------------------------------------------------------------------------


def slope(backbone: Classifier, image: Tensor, label: Tensor) -> Tensor:
    """Gradient of Σ_b −log p(y_b | x_b), stated anew."""
    image = image.clone().requires_grad_(True)
    logits = backbone.predict({"image": image})
    total = sum(logits[b].exp().sum().log() - logits[b, label[b]] for b in range(len(label)))
    return torch.autograd.grad(total, image)[0]  # type: ignore[arg-type]


def test_fgsm_is_one_step_along_the_sign(original: Classifier) -> None:
    """Goodfellow et al., ICLR 2015. Must fail if the gradient is taken at another model's loss, or
    with the wrong sign.
    """
    clean = batch()
    gradient = slope(original, clean["image"], clean["label"])
    clear = gradient.abs() > 1e-6 * gradient.abs().max()
    expected = (clean["image"] + 0.1 * gradient.sign()).clamp(0, 1)
    adversarial = FGSM(0.1)(original, clean, Misclassified()).adversarial["image"]
    assert clear.float().mean() > 0.9
    assert torch.allclose(adversarial[clear], expected[clear])
    rounded = FGSM(0.1, round_to_255=True)(original, clean, Misclassified()).adversarial["image"]
    assert torch.allclose(rounded * 255, (rounded * 255).round(), atol=1e-4)


def test_a_target_is_approached_with_the_other_sign(original: Classifier) -> None:
    clean = batch()
    gradient = slope(original, clean["image"], torch.full((24,), 8))
    clear = gradient.abs() > 1e-6 * gradient.abs().max()
    adversarial = FGSM(0.1)(original, clean, Targeted(8)).adversarial["image"]
    assert torch.allclose(
        adversarial[clear], (clean["image"] - 0.1 * gradient.sign()).clamp(0, 1)[clear]
    )


def test_pgd_takes_its_steps_and_projects_each(original: Classifier) -> None:
    """Madry et al., ICLR 2018: two steps of 0.08 in a ball of 0.1, by hand. Must fail if only the
    last step is projected.
    """
    clean = batch()
    image = clean["image"]
    for _ in range(2):
        image = image + 0.08 * slope(original, image, clean["label"]).sign()
        image = torch.minimum(
            torch.maximum(image, clean["image"] - 0.1), clean["image"] + 0.1
        ).clamp(0, 1)
    adversarial = PGD(epsilon=0.1, steps=2, step_size=0.08, random_start=False)(
        original, clean, Misclassified()
    ).adversarial["image"]
    assert torch.isclose(adversarial, image, atol=1e-5).float().mean() > 0.97


def test_restarts_never_lower_the_loss(original: Classifier) -> None:
    """Each sample keeps its first success."""
    single, many = (
        PGD(epsilon=0.05, steps=2, step_size=0.02, restarts=n)(original, batch(), Misclassified())
        for n in (1, 5)
    )
    assert bool((many.success | ~single.success).all())
    assert torch.equal(
        many.adversarial["image"][single.success], single.adversarial["image"][single.success]
    )


def test_errors() -> None:
    for wrong in (
        lambda: FGSM(epsilon=25),
        lambda: PGD(steps=0),
        lambda: PGD(step_size=0.0),
        lambda: PGD(restarts=0),
        lambda: PGD(restarts=2, random_start=False),
        lambda: PGD(epsilon=-0.1),
        lambda: Targeted(-1),
    ):
        with pytest.raises(InputError):
            wrong()
    part = {k: v for k, v in batch().items() if k != "substitute"}
    with pytest.raises(InputError, match="substitute"):
        FGSM()(classifier(), part, Targeted())

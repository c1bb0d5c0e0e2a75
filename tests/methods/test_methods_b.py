"""Influence, Fisher forgetting, boundary shrink and expand, Bad Teacher, DELETE: each does what its
equation says.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tasks
from mu.attacks import FGSM
from mu.backbones import Classifier
from mu.data.plan import plan_steps
from mu.methods import (
    DELETE,
    BadTeacher,
    BoundaryExpand,
    BoundaryShrink,
    FisherForgetting,
    Influence,
)
from mu.methods.compat import (
    BoundaryExpandReference,
    BoundaryShrinkReference,
    FisherForgettingReference,
    InfluenceReference,
)
from mu.utils.errors import InputError
from tests.support.equations import (
    PLAIN,
    disturb,
    doubled,
    first_batch,
    log_softmax,
    moved_as,
    total,
)
from tests.support.helpers import Watch, classifier, different, digits, fit, weights


def rows_of(task: Any, part: str) -> dict[str, Tensor]:
    task.setup()
    return task.datasets[part].__getitems__(list(range(len(task.datasets[part]))))


def linear(classes: int = 10) -> Classifier:
    """Logits W x + b on 64 pixels: gradients of it can be written down."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return Classifier(
            network=nn.Sequential(nn.Flatten(), nn.Linear(64, classes)), num_classes=classes
        )


def linear_gradients(
    backbone: Classifier, part: dict[str, Tensor], label: int | None = None
) -> Tensor:
    """`[B, P]` gradients of −log p(y|x), by hand: (p − e_y) xᵀ for W and p − e_y for b; weight
    before bias, as the layer has them.
    """
    layer: Any = backbone.network[1]  # type: ignore[index]
    weight = layer.weight.detach().double()
    bias = layer.bias.detach().double()
    rows = []
    for image, own in zip(part["image"].double().flatten(1), part["label"], strict=True):
        error = torch.softmax(weight @ image + bias, 0)
        error[own if label is None else label] -= 1
        rows.append(torch.cat([torch.outer(error, image).flatten(), error]))
    return torch.stack(rows)


def flat(backbone: Classifier) -> Tensor:
    return torch.cat([p.detach().double().flatten() for p in backbone.parameters()])


# ---- influence -----------------------------------------------------------------------------------


def chosen(module: Influence, task: Any, count: int) -> dict[str, Tensor]:
    """The retain samples of the curvature, in their order."""
    steps = plan_steps(
        module.curvature_schedule,
        0,
        {"retain": len(task.datasets["retain"])},
        {"retain": 1},
        module.seed,
    )
    positions = [int(step.parts["retain"].positions[0]) for step in steps]
    assert len(set(positions)) == len(positions) == count
    return task.datasets["retain"].__getitems__(positions)


@pytest.mark.parametrize("way", ["hooks", "vmap", "loop"])
@pytest.mark.parametrize(("samples", "damping"), [(12, 0.5), (500, 0.02)])
def test_influence_is_a_newton_step_with_a_dense_fisher_matrix(
    samples: int, damping: float, way: Any
) -> None:
    """Jia et al., NeurIPS 2023; vision spec 2.8. Mutations that must fail: the sign of v; N_f / N
    left out; H from forget samples.
    """
    task = digits()
    module = Influence(
        linear(), alpha=0.7, damping=damping, samples=samples, batch_size=5, per_sample=way
    )
    forget = rows_of(task, "forget")
    retain = rows_of(task, "retain")
    g_f, g_r = linear_gradients(module.backbone, forget), linear_gradients(module.backbone, retain)  # type: ignore[arg-type]
    share = len(g_f) / (len(g_f) + len(g_r))
    v = share * (g_f.mean(0) - g_r.mean(0))
    g = linear_gradients(module.backbone, chosen(module, task, min(samples, len(g_r))))  # type: ignore[arg-type]
    hessian = damping * torch.eye(g.shape[1], dtype=torch.float64)
    for row in g:
        hessian += torch.outer(row, row) / len(g)
    before = flat(module.backbone)  # type: ignore[arg-type]
    step = 0.7 * torch.linalg.solve(hessian, v)
    fit(module, task, 1)
    assert step.abs().max() > 1e-3
    torch.testing.assert_close(flat(module.backbone) - before, step, atol=2e-6, rtol=1e-4)  # type: ignore[arg-type]


def test_the_reference_recursion_reads_the_first_samples_in_their_order() -> None:
    """`Wfisher.py`, one number at a time; M = 7, so nine samples are read. Must fail if the samples
    are shuffled.
    """
    task = digits()
    module = InfluenceReference(linear(), alpha=2.0, m=7, batch_size=4, per_sample="loop")
    m = 7
    forget = rows_of(task, "forget")
    retain = rows_of(task, "retain")
    g_f, g_r = linear_gradients(module.backbone, forget), linear_gradients(module.backbone, retain)  # type: ignore[arg-type]
    n = len(g_f) + len(g_r)
    k = g_f.sum(0) / n - len(g_f) / (n * len(g_r)) * g_r.sum(0)  # as the code has it
    o = g_r[0]
    for row in g_r[1 : m + 2]:
        t = (o * row).sum()
        k = k - (k * row).sum() / (m + t) * o
        o = o - t / (m + t) * o
    before = flat(module.backbone)  # type: ignore[arg-type]
    fit(module, task, 1)
    torch.testing.assert_close(flat(module.backbone) - before, 2.0 * k, atol=2e-6, rtol=1e-4)  # type: ignore[arg-type]


def test_influence_refuses_what_has_no_inverse() -> None:
    for wrong in ({"damping": 0.0}, {"samples": 0}, {"batch_size": 0}):
        with pytest.raises(InputError):
            Influence(linear(), **wrong)  # type: ignore[arg-type]


# ---- Fisher forgetting ---------------------------------------------------------------------------


class Seen(FisherForgetting):
    """Keeps its Fisher matrix."""

    def fisher(self) -> dict[str, Tensor]:
        self.found = super().fisher()
        return self.found


@pytest.mark.parametrize("batch_size", [7, 64])
@pytest.mark.parametrize("way", ["hooks", "vmap", "loop"])
def test_fisher_is_per_sample_and_over_all_labels(way: Any, batch_size: int) -> None:
    """F = E_x Σ_y p(y|x) (∂ℓ/∂θ)². Mutations that must fail: the mean gradient squared; the true
    label only; the weight p left out.
    """
    module = Seen(linear(), batch_size=batch_size, per_sample=way)
    task = digits()
    backbone = deepcopy(module.backbone)
    retain = rows_of(task, "retain")
    logits = backbone.network[1](retain["image"].flatten(1)).double()  # type: ignore[index,operator]
    p = log_softmax(logits).exp().detach()
    expected = sum(
        p[:, y, None] * linear_gradients(backbone, retain, label=y).square() for y in range(10)
    ).mean(0)  # type: ignore[arg-type,union-attr]
    fit(module, task, 1)
    torch.testing.assert_close(
        torch.cat([f.double().flatten() for f in module.found.values()]),
        expected,
        atol=1e-9,
        rtol=1e-4,
    )


def test_the_reference_squares_batch_means() -> None:
    """OPTML: Σ_y (mean_b p(y|x_b)) (∇ mean_b ℓ(x_b, y))², averaged over batches; so the batch size
    matters.
    """

    class Kept(FisherForgettingReference):
        def fisher(self) -> dict[str, Tensor]:
            self.found = super().fisher()
            return self.found

    module = Kept(linear(), batch_size=10)
    task = digits()
    backbone = deepcopy(module.backbone)
    retain = rows_of(task, "retain")
    batches = []
    for start in range(0, len(retain["label"]), 10):
        part = {k: value[start : start + 10] for k, value in retain.items()}
        p = log_softmax(backbone.network[1](part["image"].flatten(1)).double()).exp().detach()  # type: ignore[index,operator]
        gradients = [linear_gradients(backbone, part, label=y).mean(0) for y in range(10)]  # type: ignore[arg-type]
        batches.append(sum(p[:, y].mean() * gradients[y].square() for y in range(10)))
    assert len(batches) == 4
    fit(module, task, 1)
    found = torch.cat([f.double().flatten() for f in module.found.values()])
    torch.testing.assert_close(found, torch.stack(batches).mean(0), atol=1e-9, rtol=1e-4)  # type: ignore[arg-type]


def test_the_noise_has_its_variance_and_hangs_on_the_seed_alone() -> None:
    """Mutation that must fail: noise from torch's own generator, which is another on every rank."""
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(runs))
        runs.append(fit(Seen(linear(), alpha=1e-3, seed=seed, per_sample="hooks"), digits(), 1))
    assert different(weights(runs[0].backbone), weights(runs[1].backbone)) == []
    assert len(different(weights(runs[0].backbone), weights(runs[2].backbone))) == 2
    module: Any = runs[0]
    again = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        again.append(module.edited())
    assert different(*again) == []
    # a matrix with C rows: clamped to 100, averaged over each row, times ten
    fisher = module.found["network.1.weight"].double()
    variance = 10 * 1e-3 * (1 / (fisher + 1e-8)).clamp(max=100).mean(1, keepdim=True)
    noise = (
        module.backbone.network[1].weight - linear().network[1].weight
    ).detach().double() / variance.sqrt()  # type: ignore[index]
    assert abs(noise.mean().item()) < 0.15 and abs(noise.std().item() - 1) < 0.1
    assert not torch.allclose(noise[0], noise[1])


def test_rows_are_erased_only_where_whole_classes_are_forgotten() -> None:
    """OPTML erases the last class when 4,500 samples are random. Must fail if the selector is not
    asked.
    """
    cases: list[tuple[Any, dict[str, Any], list[int]]] = [
        (tasks.ByClass([3, 5]), {}, [3, 5]),
        (tasks.ByClass(9), {}, [9]),
        (tasks.ByClass(3, count=2), {}, []),
        (tasks.RandomFraction(0.4), {}, []),
        (tasks.RandomFraction(0.4), {"forget_class": 2}, [2]),
    ]
    for selector, arguments, erased in cases:
        module = FisherForgetting(
            linear(), alpha=1e-14, row_variance=0.0, per_sample="hooks", **arguments
        )
        before = weights(module.backbone)
        fit(module, digits(selector=selector), 1)
        for name, value in module.backbone.state_dict().items():
            assert [row for row in range(10) if not bool(value[row].any())] == erased
            kept = [row for row in range(10) if row not in erased]
            assert torch.allclose(value[kept], before[name][kept], atol=1e-4)
    with pytest.raises(InputError, match="no class 10"):
        fit(FisherForgetting(linear(), forget_class=10), digits(), 1)


# ---- boundary shrink and expand ------------------------------------------------------------------


def neighbours(network: Any, part: dict[str, Tensor], epsilon: float, wrong_only: bool) -> Tensor:
    """argmax of the original at x + ε sign ∇ℓ, in float64."""
    image = part["image"].double().requires_grad_(True)
    logs = log_softmax(network(image))
    loss = -sum(row[label] for row, label in zip(logs, part["label"], strict=True))
    moved = (image + epsilon * torch.autograd.grad(loss, image)[0].sign()).clamp(0, 1).detach()  # type: ignore[arg-type]
    found = []
    for row, label in zip(network(moved), part["label"], strict=True):
        allowed = [k for k in range(10) if k != int(label) or not wrong_only]
        found.append(max(allowed, key=lambda k: row[k].item()))
    return torch.tensor(found)


@pytest.mark.parametrize("epsilon", [0.02, 0.3])
def test_boundary_shrink_fits_the_nearest_wrong_label(epsilon: float, originals: Any) -> None:
    """Chen et al., CVPR 2023. Mutations that must fail: the student attacked instead of the
    original; its train mode; the plain argmax.
    """
    state = originals["classifier"]

    def equation(network: Any, batch: dict[str, Any]) -> Tensor:
        original = doubled(classifier(state))
        target = neighbours(original, batch["forget"], epsilon, wrong_only=True)
        logs = log_softmax(network(batch["forget"]["image"].double()))
        return -torch.stack([row[label] for row, label in zip(logs, target, strict=True)]).mean()

    moved_as(
        BoundaryShrink(classifier(state), attack=FGSM(epsilon), optimizer=PLAIN, norm="eval"),
        equation,
    )


def test_boundary_shrink_goes_on_asking_the_original(originals: Any) -> None:
    """Must fail if the attack or the label is taken from the student, which is the original in the
    first step only.
    """
    module = BoundaryShrink(classifier(originals["classifier"]), norm="eval")
    module.configure_model()
    original = doubled(module.backbone)
    disturb(module.backbone)
    batch = first_batch(module, digits())
    network = doubled(module.backbone)
    targets = [
        neighbours(net, batch["forget"], 0.1, wrong_only=True) for net in (original, network)
    ]
    assert not torch.equal(*targets)
    logs = log_softmax(network(batch["forget"]["image"].double()))
    expected = -torch.stack(
        [row[label] for row, label in zip(logs, targets[0], strict=True)]
    ).mean()
    module.set_mode()
    assert total(module.objective(*module.prepare_parts(batch))).item() == pytest.approx(
        expected.item(), rel=1e-4
    )


def test_the_reference_keeps_the_label_of_a_failed_attack(originals: Any) -> None:
    original = doubled(classifier(originals["classifier"]))
    part = rows_of(digits(), "forget")
    plain, wrong = (neighbours(original, part, 0.01, wrong_only) for wrong_only in (False, True))
    assert bool((plain == part["label"]).any()) and not bool((wrong == part["label"]).any())
    logits = original(part["image"].double())
    for method, expected in ((BoundaryShrink, [1, 0]), (BoundaryShrinkReference, [0, 0])):
        module = method(classifier())
        labels = module.nearest(
            torch.tensor([[5.0, 3.0, 1.0], [5.0, 3.0, 1.0]]), torch.tensor([0, 1])
        )
        assert labels.tolist() == expected
    assert BoundaryShrinkReference(classifier()).attack.round_to_255  # type: ignore[attr-defined]
    assert bool(
        (BoundaryShrink(classifier()).nearest(logits, part["label"]) != part["label"]).all()
    )


def test_boundary_expand_trains_an_extra_unit_and_serves_without_it(originals: Any) -> None:
    """Mutations that must fail: the extra unit not trained; the forget samples sent to class C − 1;
    the phantom served.
    """
    module = BoundaryExpand(classifier(originals["classifier"]), optimizer=PLAIN, norm="eval")
    task = digits()
    network = doubled(module.backbone)
    batch = first_batch(module, task)
    extra = deepcopy(module.extra).double()
    seen: list[Tensor] = []
    network.body.linear.register_forward_hook(lambda layer, given, output: seen.append(given[0]))
    logits = network(batch["forget"]["image"].double())
    everything = torch.cat([logits, seen[0] @ extra.weight.T + extra.bias], dim=1)
    loss = -log_softmax(everything)[:, 10].mean()
    parameters = [*network.parameters(), *extra.parameters()]
    expected = torch.autograd.grad(loss, parameters)
    before = [p.detach().double().clone() for _, p in module.trainable()]
    assert len(before) == len(parameters)
    fit(module, task, 1, max_steps=1)
    for old, (name, new), slope in zip(before, module.trainable(), expected, strict=True):
        torch.testing.assert_close(
            new.detach().double() - old,
            -slope,
            atol=1e-5,
            rtol=1e-4,
            msg=lambda text, name=name: f"{name}: {text}",
        )
    part = rows_of(task, "forget")
    assert module.served().eval().predict(part).shape == (24, 10)
    assert not [key for key in module.served().state_dict() if "extra" in key]


def test_the_reference_serves_the_phantom_class(originals: Any) -> None:
    task = digits()
    module = fit(BoundaryExpandReference(classifier(originals["classifier"]), norm="eval"), task, 1)
    served = module.served().eval()
    part = rows_of(task, "forget")
    logits = served.predict(part)
    assert logits.shape == (24, 11) and served.num_classes == 11  # type: ignore[attr-defined]
    assert torch.allclose(logits[:, :10], module.backbone.eval().predict(part))
    assert module.backbone.predict(part).shape == (24, 10), "the hook is gone after the prediction"


# ---- Bad Teacher, DELETE -------------------------------------------------------------------------


def kl(teacher: Tensor, student: Tensor) -> Tensor:
    """Σ_k q_k (log q_k − log p_k), `[B]`, from logits."""
    log_q = log_softmax(teacher)
    log_p = log_softmax(student)
    return (log_q.exp() * (log_q - log_p)).sum(1)


def test_bad_teacher_follows_one_teacher_here_and_the_other_there(originals: Any) -> None:
    """Chundawat et al., AAAI 2023. Mutations that must fail: the teachers exchanged; each part
    averaged by itself; batch and class mean.
    """
    module = BadTeacher(classifier(originals["classifier"]), optimizer=PLAIN, norm="eval")
    module.configure_model()
    disturb(module.backbone)  # else the divergence to the original is 0
    bad = doubled(module.incompetent)
    good = doubled(module.reference)
    task = digits()
    batch = first_batch(module, task)
    assert {"forget", "retain"} <= set(batch)
    network = doubled(module.backbone)
    terms = [
        kl(teacher(image.double()).detach(), network(image.double()))
        for teacher, image in ((bad, batch["forget"]["image"]), (good, batch["retain"]["image"]))
    ]
    slopes = torch.autograd.grad(torch.cat(terms).mean(), list(network.parameters()))
    module.set_mode()
    found = torch.autograd.grad(
        total(module.objective(*module.prepare_parts(batch))), [p for _, p in module.trainable()]
    )
    for value, slope in zip(found, slopes, strict=True):
        torch.testing.assert_close(value.double(), slope, atol=1e-5, rtol=1e-4)


def test_bad_teacher_reads_a_fixed_share_of_retain_and_its_teachers_stay(originals: Any) -> None:
    """Must fail if a teacher is trained or put into train mode, or if another share is drawn in the
    second epoch.
    """
    seen: dict[int, set[int]] = {0: set(), 1: set()}
    module = BadTeacher(classifier(originals["classifier"]))
    module.configure_model()
    assert module.incompetent is not None
    before = weights(module.incompetent)

    def see(module: Any, batch: Any, batch_idx: int) -> None:
        if "retain" in batch:
            seen[module.current_epoch] |= set(batch["retain"]["index"].tolist())

    fit(module, digits(), 2, callbacks=[Watch(see)])
    assert seen[0] == seen[1] and len(seen[0]) == round(0.3 * 37)
    assert different(before, weights(module.incompetent)) == []
    assert not any(layer.training for layer in module.incompetent.modules())
    again, other = (BadTeacher(classifier(originals["classifier"]), seed=seed) for seed in (0, 1))
    for made, same in ((again, True), (other, False)):
        made.configure_model()
        assert made.incompetent is not None
        assert (different(before, weights(made.incompetent)) == []) == same
    assert different(weights(module.incompetent), originals["classifier"]) != []


def test_delete_distils_the_original_without_its_true_class(originals: Any) -> None:
    """Zhou et al., CVPR 2025. Mutations that must fail: the class masked after the softmax; the
    student taken for the teacher.
    """
    module = DELETE(classifier(originals["classifier"]), norm="eval")
    module.configure_model()
    original = doubled(module.backbone)
    disturb(module.backbone)
    batch = first_batch(module, digits())
    network = doubled(module.backbone)
    losses = []
    for image, label in zip(
        batch["forget"]["image"].double(), batch["forget"]["label"], strict=True
    ):
        t = original(image[None])[0].detach()
        s = log_softmax(network(image[None]))[0]
        others = [k for k in range(10) if k != int(label)]
        q = {k: t[k].exp() / sum(t[j].exp() for j in others) for k in others}
        losses.append(sum(q[k] * (q[k].log() - s[k]) for k in others))
    slopes = torch.autograd.grad(torch.stack(losses).mean(), list(network.parameters()))  # type: ignore[arg-type]
    module.set_mode()
    found = torch.autograd.grad(
        total(module.objective(*module.prepare_parts(batch))), [p for _, p in module.trainable()]
    )
    for value, slope in zip(found, slopes, strict=True):
        torch.testing.assert_close(value.double(), slope, atol=1e-5, rtol=1e-4)

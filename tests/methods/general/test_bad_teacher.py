"""Bad Teacher: its two teachers, the retain share that it reads, and whole runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mu.methods import BadTeacher
from tests.support.equations import PLAIN, disturb, doubled, first_batch, log_softmax, total
from tests.support.helpers import Watch, classifier, different, digits, fit, weights
from tests.support.method_runs import adam, check_class_is_forgotten, check_preset_runs


def kl(teacher: Tensor, student: Tensor) -> Tensor:
    """Σ_k q_k (log q_k − log p_k), `[B]`, from logits."""
    log_q = log_softmax(teacher)
    log_p = log_softmax(student)
    return (log_q.exp() * (log_q - log_p)).sum(1)


def test_bad_teacher_follows_a_teacher_for_each_part(originals: Any) -> None:
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
    gradients = torch.autograd.grad(
        total(module.objective(*module.prepare_parts(batch))), [p for _, p in module.trainable()]
    )
    for value, slope in zip(gradients, slopes, strict=True):
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
    for twin, equal in ((again, True), (other, False)):
        twin.configure_model()
        assert twin.incompetent is not None
        assert (different(before, weights(twin.incompetent)) == []) == equal
    assert different(weights(module.incompetent), originals["classifier"]) != []


def test_preset_runs() -> None:
    check_preset_runs("bad_teacher")


def test_a_class_is_forgotten_and_the_rest_stays() -> None:
    check_class_is_forgotten(lambda b: BadTeacher(b, optimizer=adam(2e-3)), 8, 0.4, 0.9)

"""DELETE: distillation of the original without its true class, and whole runs."""

from __future__ import annotations

from typing import Any

import torch

from mu.methods import DELETE
from tests.support.equations import disturb, doubled, first_batch, log_softmax, total
from tests.support.helpers import classifier, digits
from tests.support.method_runs import check_class_is_forgotten, check_preset_runs, sgd


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
        classes = [k for k in range(10) if k != int(label)]
        q = {k: t[k].exp() / sum(t[j].exp() for j in classes) for k in classes}
        losses.append(sum(q[k] * (q[k].log() - s[k]) for k in classes))
    slopes = torch.autograd.grad(torch.stack(losses).mean(), list(network.parameters()))  # type: ignore[arg-type]
    module.set_mode()
    gradients = torch.autograd.grad(
        total(module.objective(*module.prepare_parts(batch))), [p for _, p in module.trainable()]
    )
    for value, slope in zip(gradients, slopes, strict=True):
        torch.testing.assert_close(value.double(), slope, atol=1e-5, rtol=1e-4)


def test_preset_runs() -> None:
    check_preset_runs("delete")


def test_a_class_is_forgotten_and_the_rest_stays() -> None:
    check_class_is_forgotten(lambda b: DELETE(b, optimizer=sgd(0.02)), 10, 0.1, 0.9)

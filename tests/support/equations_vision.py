"""Equations of vision methods, in float64: per-sample gradients of a linear classifier by hand, and
labels across the nearest decision boundary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mu.backbones import Classifier
from tests.support.equations import log_softmax


def all_rows(task: Any, part: str) -> dict[str, Tensor]:
    """The samples of a part as one batch."""
    task.setup()
    return task.datasets[part].__getitems__(list(range(len(task.datasets[part]))))


def linear_classifier(classes: int = 10) -> Classifier:
    """Linear classifier W x + b on 64 pixels, whose gradients are known in closed form."""
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
    for image, label_of_sample in zip(
        part["image"].double().flatten(1), part["label"], strict=True
    ):
        error = torch.softmax(weight @ image + bias, 0)
        error[label_of_sample if label is None else label] -= 1
        rows.append(torch.cat([torch.outer(error, image).flatten(), error]))
    return torch.stack(rows)


def flat_parameters(backbone: Classifier) -> Tensor:
    """All weights in one vector, in float64."""
    return torch.cat([p.detach().double().flatten() for p in backbone.parameters()])


def nearest_labels(
    network: Any, part: dict[str, Tensor], epsilon: float, wrong_only: bool
) -> Tensor:
    """Predicted class at x + ε sign ∇ℓ, in float64; never the true one where `wrong_only`."""
    image = part["image"].double().requires_grad_(True)
    logs = log_softmax(network(image))
    loss = -sum(row[label] for row, label in zip(logs, part["label"], strict=True))
    moved = (image + epsilon * torch.autograd.grad(loss, image)[0].sign()).clamp(0, 1).detach()  # type: ignore[arg-type]
    labels = []
    for row, label in zip(network(moved), part["label"], strict=True):
        allowed = [k for k in range(10) if k != int(label) or not wrong_only]
        labels.append(max(allowed, key=lambda k: row[k].item()))
    return torch.tensor(labels)

"""Equations of classification methods stated anew, in float64 and with autograd alone, and one step
compared with them.

Plain SGD with learning rate 1 moves every weight by minus the gradient. Batch norm is in eval mode.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, cast

import torch
from torch import Tensor, nn

from mu.core.module import UnlearningModule
from tests.support.helpers import digits, fit, weights

Network = Callable[[Tensor], Tensor]
PLAIN: Any = lambda params: torch.optim.SGD(params, lr=1.0)  # noqa: E731 - a weight moves by minus its gradient
FAST: Any = lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9, weight_decay=5e-4)  # noqa: E731


def log_softmax(z: Tensor) -> Tensor:
    return z - z.exp().sum(1, keepdim=True).log()


def cross_entropy(network: Network, part: dict[str, Tensor]) -> Tensor:
    logs = log_softmax(network(part["image"].double()))
    return -torch.stack([row[label] for row, label in zip(logs, part["label"], strict=True)]).mean()


def distillation(
    student: Network, teacher: Network, part: dict[str, Tensor], temperature: float
) -> Tensor:
    image = part["image"].double()
    log_s = log_softmax(student(image) / temperature)
    log_t = log_softmax(teacher(image).detach() / temperature)
    return temperature**2 * (log_t.exp() * (log_t - log_s)).sum() / len(image)


def doubled(backbone: Any) -> Any:
    """A copy of the network in float64 and eval mode."""
    return deepcopy(backbone.network).double().eval()


def gradient(network: Any, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*network.named_parameters(), strict=True)
    return dict(
        zip(
            names,
            torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True),
            strict=True,
        )
    )


def first_batch(module: UnlearningModule, task: Any) -> dict[str, Any]:
    task.setup()
    return next(iter(task.plan_loader(module.plan, module.seed)))


def moved_as(module: UnlearningModule, equation: Callable[[Any, dict[str, Any]], Tensor]) -> None:
    """After one step of SGD with rate 1, every weight has moved by minus the equation's
    gradient.
    """
    task = digits()
    original = doubled(module.backbone)
    batch = first_batch(module, task)
    expected = gradient(original, equation(original, batch))
    before = weights(module.backbone)
    network = cast(Any, module.backbone).network
    fit(module, task, max_steps=1, epochs=1)
    after: Any = dict(network.named_parameters())
    assert max(step.abs().max() for step in expected.values()) > 1e-3
    for name, slope in expected.items():
        step = (after[name].detach() - before[f"network.{name}"]).double()
        torch.testing.assert_close(
            step, -slope, atol=1e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


def total(terms: dict[str, Tensor]) -> Tensor:
    """What `training_step` minimises."""
    return torch.stack(list(terms.values())).sum()


def close(found: Any, expected: dict[str, Tensor]) -> None:
    for value, (name, slope) in zip(found, expected.items(), strict=True):
        torch.testing.assert_close(
            value.double(),
            slope,
            atol=1e-5,
            rtol=1e-4,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def disturb(backbone: nn.Module) -> None:
    """Move a student away from its teacher."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in backbone.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))

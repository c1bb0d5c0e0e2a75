"""What the tests of diffusion methods share: a model stated anew in float64 by its parts, and one
step of plain SGD compared with it.

Plain SGD with learning rate 1 moves every weight by minus the gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, cast

import torch
from torch import Tensor

from mu.backbones import ClassConditionalDiffusion, Diffusion, TextToImage
from mu.core.module import UnlearningModule
from tests.support.doubles import class_conditional, digit_pictures, pictures, text_to_image
from tests.support.helpers import fit, weights

PLAIN: Any = lambda params: torch.optim.SGD(params, lr=1.0)  # noqa: E731
MODELS: dict[str, tuple[Callable[..., Diffusion], Callable[..., Any]]] = {
    "text": (text_to_image, pictures),
    "class": (class_conditional, digit_pictures),
}
KINDS = sorted(MODELS)
Terms = Callable[["Double", dict[str, Any]], Tensor]


class Double:
    """The model in float64, called by its UNet and its encoder alone."""

    def __init__(self, backbone: Any) -> None:
        self.model: Any = deepcopy(backbone).double().eval()
        self.kept = self.model.alphas_cumprod.double()

    def states(self, given: Any) -> Tensor:
        """What the UNet reads: of prompts or token ids, or labels themselves."""
        if isinstance(self.model, ClassConditionalDiffusion):
            return given if isinstance(given, Tensor) else torch.tensor(given)
        ids = given if isinstance(given, Tensor) else self.model.tokenise(given)[0]
        return self.model.text_encoder(input_ids=ids)[0]

    def nothing(self, count: int) -> Tensor:
        """The null condition."""
        if isinstance(self.model, ClassConditionalDiffusion):
            return torch.full((count,), self.model.num_classes)
        return self.states([""] * count)

    def output(self, noised: Tensor, t: Tensor, states: Tensor) -> Tensor:
        """The UNet's answer, a sample at a time."""
        name = (
            "class_labels"
            if isinstance(self.model, ClassConditionalDiffusion)
            else "encoder_hidden_states"
        )
        rows = [
            self.model.unet(x[None].double(), step[None], **{name: state[None]}).sample
            for x, step, state in zip(noised, t, states, strict=True)
        ]
        return torch.cat(rows)

    def own(self, part: dict[str, Any]) -> Tensor:
        """States of the samples' own conditions."""
        return self.states(part["prompt"] if isinstance(self.model, TextToImage) else part["label"])

    def loss(self, part: dict[str, Any], states: Tensor | None = None) -> Tensor:
        """Mean squared error to the noise."""
        states = self.own(part) if states is None else states
        return square(self.output(part["noised"], part["t"], states), part["noise"])

    def slopes(self, loss: Tensor) -> dict[str, Tensor]:
        """Gradient by the name of each trained weight."""
        named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        gradients = torch.autograd.grad(
            loss, [p for _, p in named], allow_unused=True, materialize_grads=True
        )
        return {name: slope for (name, _), slope in zip(named, gradients, strict=True)}


def square(a: Tensor, b: Tensor) -> Tensor:
    """Squared error, a sample and an element at a time."""
    rows = [
        sum(
            (x - y) ** 2
            for x, y in zip(prediction.flatten(), target.flatten().double(), strict=True)
        )
        / prediction.numel()
        for prediction, target in zip(a, b, strict=True)
    ]
    return torch.stack(cast("list[Tensor]", rows)).mean()


def prepared(module: UnlearningModule, task: Any) -> dict[str, Any]:
    """The plan's first batch with its draws, without substitutes."""
    task.setup()
    batch = next(iter(task.plan_loader(module.plan, module.seed)))
    return {
        name: {**part, **module.backbone.prepare(part, module.seed), "raw": part}
        if isinstance(part, dict)
        else part
        for name, part in batch.items()
    }


def step_of(module: UnlearningModule, task: Any, steps: int = 1) -> dict[str, Tensor]:
    """How far each trained weight moves in the first steps, negated, in float64."""
    before = weights(module.backbone)
    fit(module, task, 1, max_steps=steps)
    return {name: (before[name].double() - p.detach().double()) for name, p in module.trainable()}


def agree(found: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    """Every weight moved as wanted, and some of them far."""
    assert found.keys() == wanted.keys()
    assert max(float(value.abs().max()) for value in wanted.values()) > 1e-3
    for name, value in wanted.items():
        torch.testing.assert_close(
            found[name],
            value,
            atol=tolerance,
            rtol=1e-3,
            msg=lambda text, name=name: f"{name}: {text}",
        )

"""SFD on a tiny class-conditional model: one step restated in float64, sample by sample."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

import tasks
from mu.methods.diffusion.sfd import SFD
from mu.utils import rng
from tests.support.doubles import (
    class_conditional,
    digit_pictures,
)

PLAIN: Any = lambda params: torch.optim.SGD(params, lr=1e-3)  # noqa: E731 - a weight moves by minus a thousandth of its gradient


ADAM: Any = lambda params: torch.optim.Adam(params, lr=1e-3, betas=(0.0, 0.999))  # noqa: E731


def threes(**changes: Any) -> Any:
    """Digits of which the threes are forgotten: batches of 2 to forget and 3 to keep."""
    return digit_pictures(
        **{"selector": tasks.ByClass(3), "forget_batch_size": 2, "batch_size": 3, **changes}
    )


def sfd(backbone: Any = None, **changes: Any) -> SFD:
    """SFD with fast optimizers, without an average."""
    defaults: dict[str, Any] = {"optimizer": ADAM, "fake_optimizer": ADAM, "average": None}
    return SFD(class_conditional() if backbone is None else backbone, **{**defaults, **changes})


class Statement:
    """One step of SFD on a class-conditional model, in float64, sample by sample."""

    def __init__(
        self,
        backbone: Any,
        t_init: int,
        t_range: tuple[int, int],
        seed: int,
        guidance_scale: tuple[float, float, float],
    ) -> None:
        self.phi, self.psi, self.g = (
            deepcopy(backbone).double().requires_grad_(k > 0) for k in range(3)
        )
        self.alphas_cumprod = backbone.alphas_cumprod.double()
        self.t_init = t_init
        self.t_range = t_range
        self.seed = seed
        self.guidance_scale = guidance_scale

    def epsilon(self, network: Any, x: Tensor, t: int, label: int, scale: float = 1.0) -> Tensor:
        ask = lambda c: network.unet(x, torch.tensor([t]), class_labels=torch.tensor([c])).sample  # noqa: E731
        return ask(label) if scale == 1 else ask(10) + scale * (ask(label) - ask(10))

    def drawn(self, index: int, visit: int, stream: str) -> tuple[Tensor, Tensor, int]:
        keys = (self.seed, torch.tensor([index]), torch.tensor([visit]))
        first, last = self.t_range
        start, noise = (
            rng.normal(*keys, f"sfd-{stream}-{name}", 1, 8, 8).double()
            for name in ("start", "noise")
        )
        return (
            start,
            noise,
            first + int(rng.integers(*keys, f"sfd-{stream}-timestep", last - first)),
        )

    def generate(self, start: Tensor, label: int) -> Tensor:
        a = self.alphas_cumprod[self.t_init]
        x = (1 - a).sqrt() * start
        return x / a.sqrt() - (1 / a - 1).sqrt() * self.epsilon(self.g, x, self.t_init, label)

    def fake(self, rows: list[tuple[int, int, int]]) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for index, visit, label in rows:
            start, noise, t = self.drawn(index, visit, "fake")
            x = (
                self.alphas_cumprod[t].sqrt() * self.generate(start, label).detach()
                + (1 - self.alphas_cumprod[t]).sqrt() * noise
            )
            total = (
                total
                + (self.epsilon(self.psi, x, t, label, self.guidance_scale[0]) - noise)
                .square()
                .sum()
            )
        return total / len(rows)

    def generator(
        self,
        rows: list[tuple[int, int, int]],
        override: Callable[[int], int],
        alpha: float,
        cut: bool,
    ) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for index, visit, label in rows:
            start, noise, t = self.drawn(index, visit, "generator")
            clean = self.generate(start, label)
            a = self.alphas_cumprod[t]
            x = a.sqrt() * clean + (1 - a).sqrt() * noise
            teacher = (
                x
                - (1 - a).sqrt()
                * self.epsilon(self.phi, x, t, override(label), self.guidance_scale[2])
            ) / a.sqrt()
            fake = (
                x - (1 - a).sqrt() * self.epsilon(self.psi, x, t, label, self.guidance_scale[1])
            ) / a.sqrt()
            if cut:
                teacher = teacher.detach()
                fake = fake.detach()
            weight = (teacher - clean).abs().mean().detach()
            total = (
                total
                + ((teacher - fake) * ((teacher - clean) - alpha * (teacher - fake))).sum() / weight
            )
        return total / len(rows)


def sample_rows(part: dict[str, Tensor]) -> list[tuple[int, int, int]]:
    """Index, visit and label of each sample."""
    return list(
        zip(part["index"].tolist(), part["visit"].tolist(), part["label"].tolist(), strict=True)
    )


def scaled_steps(before: dict[str, Tensor], after: dict[str, Tensor]) -> dict[str, Tensor]:
    """Steps of the weights divided by the learning rate, negated."""
    return {name: (before[name].double() - after[name].double()) / 1e-3 for name in before}

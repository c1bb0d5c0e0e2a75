"""EraseDiff's two gradients in float64, and the check that a run may stop anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from mu.methods.components.substitutes import UniformLabel
from mu.methods.diffusion.erase_diff import EraseDiff
from tests.support.denoised import MODELS, Double, prepared, square
from tests.support.doubles import class_conditional, digit_pictures
from tests.support.helpers import Snapshot, different, fit, weights


def gradients(
    domain: str, module: EraseDiff, task: Any, scale: float = 1.0
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """∇L_r and ∇L_f on the plan's first batch."""
    make = MODELS[domain][0]
    batch = prepared(module, task)
    double = Double(make())
    forget = batch["forget"]
    retain = batch["retain"]
    if domain == "text":
        substitute: Any = forget["raw"]["substitute"]
    else:
        law = UniformLabel(exclude_true=True)
        law.setup(make(), None)
        substitute = law.draw(forget, 0)
    target = double.output(forget["noised"], forget["t"], double.states(substitute)).detach()
    of_forget = double.slopes(
        square(double.output(forget["noised"], forget["t"], double.own(forget)), target)
    )
    return double.slopes(scale * double.loss(retain)), of_forget


def inner(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return float(sum((a[name] * b[name]).sum() for name in a))


def check_stops_anywhere(cls: type[EraseDiff], folder: Path) -> None:
    """Assert that a run resumed in the descent, at its end or after it ends with the same weights.

    In the second epoch, where there are moments to be put aside.
    """

    def make() -> EraseDiff:
        return cls(class_conditional(), inner_epochs=1)

    uninterrupted = weights(fit(make(), digit_pictures(), 2))
    for batch in (0, 2, 3, 4):
        fit(make(), digit_pictures(), 2, callbacks=[Snapshot(folder / "x.ckpt", 1, batch)])
        resumed = fit(make(), digit_pictures(), 2, ckpt_path=folder / "x.ckpt")
        assert different(uninterrupted, weights(resumed)) == [], batch

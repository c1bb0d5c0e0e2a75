"""SalUn for image generation: its two terms, its substitutes, and the saliency of guided
predictions.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mu.core.module import UnlearningModule
from mu.data.plan import Forget
from mu.methods.components.guided_saliency import GuidedSaliency
from mu.methods.components.masks import ByName, Saliency
from mu.methods.components.substitutes import NextLabel, UniformLabel
from mu.methods.diffusion.salun_diffusion import SalUnDiffusion
from mu.utils.errors import InputError
from mu.utils.modules import eval_mode
from tests.support.denoised import KINDS, MODELS, PLAIN, Double, agree, prepared, square, step_of
from tests.support.doubles import class_conditional, digit_pictures, pictures, text_to_image
from tests.support.helpers import different, fit, weights


def all_weights() -> ByName:
    return ByName(["."])


def wanted_step(
    double: Double, batch: dict[str, Any], substitute: Any, alpha: float
) -> dict[str, Tensor]:
    forget = batch["forget"]
    retain = batch["retain"]
    output = double.output(forget["noised"], forget["t"], double.own(forget))
    target = double.output(forget["noised"], forget["t"], double.states(substitute)).detach()
    return double.slopes(square(output, target) + alpha * double.loss(retain))


@pytest.mark.parametrize("domain", KINDS)
def test_a_step_follows_the_equation(domain: str) -> None:
    """With 3 forget samples beside 5 of retain. Mutations: α on the wrong term; the mean over both
    together; the target not held.
    """
    make, task = MODELS[domain]

    def module() -> SalUnDiffusion:
        return SalUnDiffusion(make(), alpha=2.5, mask=all_weights(), optimizer=PLAIN)

    def small() -> Any:
        return task(batch_size=5, forget_batch_size=3)

    batch = prepared(module(), small())
    raw = batch["forget"]
    if domain == "text":
        substitute = raw["raw"]["substitute"]
    else:
        law = UniformLabel(exclude_true=True)
        law.setup(make(), None)
        substitute = law.draw(raw, 0)
    agree(step_of(module(), small()), wanted_step(Double(make()), batch, substitute, 2.5))


def test_the_released_substitute_is_the_next_class() -> None:
    """Mutations: the sample's own class; the last class without a next one."""

    def module() -> SalUnDiffusion:
        return SalUnDiffusion(
            class_conditional(), mask=all_weights(), substitute=NextLabel(), optimizer=PLAIN
        )

    batch = prepared(module(), digit_pictures())
    labels = [(int(label) + 1) % 10 for label in batch["forget"]["label"]]
    agree(
        step_of(module(), digit_pictures()),
        wanted_step(Double(class_conditional()), batch, labels, 3.072),
    )
    law = NextLabel()
    law.setup(class_conditional(), None)
    assert law.draw({"label": torch.tensor([0, 3, 9])}, 0).tolist() == [1, 4, 0]


def test_the_default_substitute_is_a_random_other_class() -> None:
    """Mutation: the true class among the substitutes."""
    module = SalUnDiffusion(class_conditional())
    assert isinstance(module.substitute, UniformLabel)
    module.substitute.setup(module.backbone, None)
    label = torch.arange(400) % 10
    drawn = torch.stack(
        [
            module.substitute.draw(
                {"label": label, "index": torch.arange(400), "visit": torch.full((400,), visit)}, 0
            )
            for visit in (0, 1)
        ]
    )
    assert not (drawn == label).any() and (drawn[0] != drawn[1]).any()
    assert set(drawn.flatten().tolist()) == set(range(10))


# ---------------------------------------------------------------- saliency


def guided_gradients(
    double: Double, batches: list[dict[str, Any]], guidance_scale: float, max_norm: float | None
) -> dict[str, Tensor]:
    """Σ_b ∇ℓ_b of guided predictions, each clipped."""
    total: dict[str, Tensor] = {}
    for part in batches:
        conditional, nothing = (
            double.output(part["noised"], part["t"], condition)
            for condition in (double.own(part), double.nothing(len(part["t"])))
        )
        slopes = double.slopes(
            square(
                (1 + (guidance_scale - 1)) * conditional - (guidance_scale - 1) * nothing,
                part["noise"],
            )
        )
        norm = sum(float(slope.square().sum()) for slope in slopes.values()) ** 0.5
        factor = 1.0 if max_norm is None else min(1.0, max_norm / norm)
        total = {name: total.get(name, 0) + factor * slope for name, slope in slopes.items()}
    return total


class RecordsSaliency(SalUnDiffusion):
    """Keeps the saliency and the batches it was taken over."""

    def on_fit_start(self) -> None:
        assert isinstance(self.mask, GuidedSaliency)
        self.found = [value.detach().clone() for value in self.mask.saliency(self)]
        with eval_mode(self.backbone):
            self.batches = [
                batch["forget"] for batch in self.iterate_batches(Forget(), augment=True)
            ]
        super().on_fit_start()


@pytest.mark.parametrize("domain", KINDS)
@pytest.mark.parametrize("max_norm", [None, 0.05, 1e3])
def test_the_saliency_is_that_of_guided_predictions(domain: str, max_norm: float | None) -> None:
    """Mutations: guidance on the wrong side; absolute values before the sum; clipping of the sum
    instead of the batch.
    """
    make, task = MODELS[domain]
    module = RecordsSaliency(make(), mask=GuidedSaliency(guidance_scale=3.0, max_norm=max_norm))
    fit(module, task(), 1, max_steps=1)
    expected = guided_gradients(Double(make()), module.batches, 3.0, max_norm)
    assert len(module.batches) > 2
    for value, (name, slope) in zip(module.found, expected.items(), strict=True):
        torch.testing.assert_close(
            value.double(),
            slope,
            atol=1e-6,
            rtol=1e-3,
            msg=lambda text, name=name: f"{name}: {text}",
        )
    mask = torch.cat([module.mask.mask_for(name).flatten() for name in expected])  # type: ignore[union-attr]
    size = torch.cat([slope.abs().flatten() for slope in expected.values()])
    assert int(mask.sum()) == len(mask) // 2
    assert size[mask].min() >= size[~mask].max() - 1e-6


@pytest.mark.parametrize("domain", KINDS)
def test_with_guidance_one_it_is_plain_saliency(domain: str) -> None:
    make, task = MODELS[domain]

    def run(mask: Any) -> UnlearningModule:
        return fit(SalUnDiffusion(make(), mask=mask), task(), 1, max_steps=1)

    guided = run(GuidedSaliency(guidance_scale=1.0))
    plain = run(Saliency())
    assert different(weights(guided), weights(plain)) == []
    assert different(weights(guided), weights(run(GuidedSaliency()))) != []


def test_a_mask_of_ones_is_no_mask() -> None:
    full = fit(SalUnDiffusion(text_to_image(), mask=GuidedSaliency(keep=1.0)), pictures(), 1)
    none = fit(SalUnDiffusion(text_to_image(), mask=all_weights()), pictures(), 1)
    assert different(weights(full.backbone), weights(none.backbone)) == []


def test_weights_outside_of_the_mask_stay() -> None:
    """With weight decay and momentum."""
    make = lambda p: torch.optim.SGD(p, lr=0.003, momentum=0.9, weight_decay=0.1)  # noqa: E731
    module = SalUnDiffusion(class_conditional(), optimizer=make)
    fit(module, digit_pictures(), 2)
    assert module.mask is not None and module.mask.share() == pytest.approx(0.5, abs=1e-3)
    original = dict(class_conditional().named_parameters())
    for name, weight in module.trainable():
        mask = module.mask.mask_for(name)
        assert torch.equal(weight[~mask], original[name][~mask])
    assert any(not torch.equal(weight, original[name]) for name, weight in module.trainable())


def test_a_task_without_images_is_refused() -> None:
    with pytest.raises(InputError, match="needs images"):
        fit(SalUnDiffusion(text_to_image()), pictures(images=False), 1)


@pytest.mark.parametrize(
    "wrong",
    [lambda: SalUnDiffusion(class_conditional(), alpha=-1.0), lambda: GuidedSaliency(max_norm=0.0)],
)
def test_wrong_settings_are_refused(wrong: Any) -> None:
    with pytest.raises(InputError):
        wrong()

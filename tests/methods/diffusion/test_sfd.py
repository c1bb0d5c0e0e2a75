"""SFD: the equations of its two steps, its evaluations, and its settings."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

from mu.attacks.counting import count_evaluations
from mu.backbones import TextToImage
from mu.backbones.diffusion.one_step import OneStepGenerator
from mu.core.substitutes import Substitute
from mu.functional.diffusion import sid_loss
from mu.methods.components.substitutes import GivenByTask, UniformLabel
from mu.methods.diffusion.sfd import SFD
from mu.utils import rng
from mu.utils.errors import InputError
from tests.support.doubles import (
    class_conditional,
    pictures,
    pipeline_folder,
    text_to_image,
)
from tests.support.equations_sfd import PLAIN, Statement, sample_rows, scaled_steps, sfd, threes
from tests.support.helpers import Watch, different, fit, weights


@pytest.mark.parametrize(
    ("changes", "guidance_scale"),
    [
        ({}, (1.0, 1.0, 1.0)),
        ({"score_gradient": False}, (1.0, 1.0, 1.0)),
        (
            {
                "fake_guidance_scale": 1.5,
                "fake_score_guidance_scale": 2.0,
                "teacher_guidance_scale": 3.0,
                "forget_weight": 0.5,
                "fake_forget_weight": 0.2,
                "retain_weight": 0.7,
                "fake_retain_weight": 0.9,
                "alpha": 1.1,
            },
            (1.5, 2.0, 3.0),
        ),
    ],
    ids=["paper", "diff-instruct", "everything"],
)
def test_one_step_is_its_equations(
    changes: dict[str, Any], guidance_scale: tuple[float, float, float]
) -> None:
    """Fails when a weight, a sign, a sum, a condition, the order of the two steps, or the path of a
    gradient is wrong.
    """
    backbone = class_conditional()
    module = sfd(
        deepcopy(backbone),
        optimizer=PLAIN,
        fake_optimizer=PLAIN,
        clip=None,
        **{"forget_weight": 0.3, **changes},
    )
    module.configure_model()
    assert module.fake is not None
    batches: list[Any] = []
    before = weights(module.backbone), weights(module.fake)
    fit(
        module,
        threes(),
        1,
        max_steps=1,
        callbacks=[Watch(lambda module, batch, batch_idx: batches.append(batch))],
    )
    (batch,) = batches
    forget = sample_rows(batch["forget"])
    retain = sample_rows(batch["retain"])
    assert {label for _, _, label in forget} == {3} and 3 not in {label for _, _, label in retain}
    statement = Statement(backbone, 44, (4, 71), 0, guidance_scale)
    loss = module.fake_weights["retain"] * statement.fake(retain) + module.fake_weights[
        "forget"
    ] * statement.fake(forget)
    steps = scaled_steps(before[1], weights(module.fake))
    for (name, p), slope in zip(
        statement.psi.named_parameters(),
        torch.autograd.grad(loss, list(statement.psi.parameters())),
        strict=True,
    ):
        assert torch.allclose(
            steps[name], slope, rtol=1e-2, atol=1e-3 * float(slope.abs().max()) + 1e-3
        ), name
        with torch.no_grad():
            p.sub_(1e-3 * slope)
    cut = not module.score_gradient
    alpha = 1.0 if cut else module.alpha
    loss = module.weights["retain"] * statement.generator(retain, lambda label: label, alpha, cut)
    loss = loss + module.weights["forget"] * statement.generator(
        forget, lambda label: label + 1, alpha, cut
    )
    steps = scaled_steps(before[0], weights(module.backbone))
    slopes = torch.autograd.grad(loss, list(statement.g.parameters()), allow_unused=True)
    for (name, _), slope in zip(statement.g.named_parameters(), slopes, strict=True):
        assert slope is not None
        assert torch.allclose(
            steps[name], slope, rtol=2e-2, atol=2e-3 * float(slope.abs().max()) + 1e-3
        ), name


class TrueClass(Substitute):
    """The sample's own class."""

    def draw(self, part: dict[str, Any], seed: int) -> Tensor:
        return part["label"]


def test_with_its_own_class_for_override_it_is_sid() -> None:
    """Fails when forget and retain terms differ in anything but the teacher's condition."""
    module = sfd(forget_weight=1.0, substitute=TrueClass())
    module.configure_model()
    task = threes()
    task.setup()
    part: dict[str, Any] = task.datasets["forget"].__getitems__([0, 1, 2]) | {
        "visit": torch.zeros(3, dtype=torch.int64)
    }
    forget = module.prepare(dict(part), substitute=True)
    retain = module.prepare(dict(part))
    assert module.fake is not None
    with torch.no_grad():
        for weight in module.fake.parameters():
            weight.add_(
                0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
            )
        for terms in (module.backbone_terms, module.auxiliary_terms):
            forget_terms = terms(forget, None)
            retain_terms = terms(None, retain)
            assert (
                list(forget_terms.values()) == list(retain_terms.values())
                and next(iter(forget_terms.values())) != 0
            )
        module.substitute = law = UniformLabel(exclude_true=True)
        law.setup(module.backbone, None)
        other = module.backbone_terms(module.prepare(dict(part), substitute=True), None)
    assert list(other.values()) != list(module.backbone_terms(None, retain).values())


def test_without_a_forget_term_it_is_sid_on_retain_alone() -> None:
    """Fails when λ_f = 0 still reads the forget part, or asks the task for one."""
    module = sfd(forget_weight=0.0)
    assert (module.needs_forget, module.needs_retain, module.needs_substitute) == (
        False,
        True,
        False,
    )
    batches: list[Any] = []
    fit(
        module,
        threes(),
        1,
        max_steps=2,
        callbacks=[Watch(lambda module, batch, batch_idx: batches.append(set(batch)))],
    )
    assert all("forget" not in names for names in batches)
    only = sfd(retain_weight=0.0, forget_weight=1.0)
    assert (only.needs_forget, only.needs_retain) == (True, False)
    fit(only, threes(), 1, max_steps=2)


def test_number_of_evaluations_is_the_least() -> None:
    """Fails when forget and retain are passed one after the other, or a network is asked twice."""
    module = sfd()
    module.configure_model()
    with count_evaluations(module) as evaluations:
        fit(module, threes(), 1, max_steps=2)
    both = 2 * (2 + 3)
    counts = {
        name: (count.calls, count.samples, count.with_grad) for name, count in evaluations.items()
    }
    assert counts == {
        "backbone.unet": (4, 2 * both, both),
        "fake.unet": (4, 2 * both, 2 * both),
        "reference.unet": (2, both, both),
    }
    text = sfd(text_to_image(), teacher_guidance_scale=2.0, fake_score_guidance_scale=2.0)
    text.configure_model()
    with count_evaluations(text) as evaluations:
        fit(text, pictures(batch_size=3, forget_batch_size=2), 1, max_steps=2)
    assert (
        evaluations["reference.unet"].samples == 2 * both
        and evaluations["reference.unet"].calls == 2
    )
    assert evaluations["fake.unet"].samples == 3 * both and evaluations["fake.unet"].calls == 4
    assert evaluations.count("vae.encoder").calls == evaluations.count("vae.decoder").calls == 0
    assert (
        evaluations["fake.text_encoder"].calls == evaluations["reference.text_encoder"].calls == 0
    )


def test_sfd_reads_no_images() -> None:
    """Fails when images have an effect: with none, or with others, everything is the same."""
    task = pictures(images=False, batch_size=3, forget_batch_size=2)
    ends = [
        weights(fit(sfd(text_to_image()), data, 1, max_steps=2))
        for data in (task, pictures(batch_size=3, forget_batch_size=2))
    ]
    assert different(*ends) == []


def test_no_condition_is_dropped() -> None:
    """Fails when a backbone that was trained with condition dropout is distilled without its
    classes.
    """
    ends = [
        weights(fit(sfd(class_conditional(condition_dropout=share)), threes(), 1, max_steps=2))
        for share in (0.0, 0.9)
    ]
    assert different(*ends) == []


def test_a_negative_prompt_replaces_the_empty_one() -> None:
    """Fails when it is ignored in any of the three places where guidance is used."""

    def run(**changes: Any) -> dict[str, Tensor]:
        arguments = {"forget_weight": 1.0, "optimizer": PLAIN, "fake_optimizer": PLAIN, **changes}
        return weights(
            fit(
                sfd(text_to_image(), **arguments),
                pictures(batch_size=3, forget_batch_size=2),
                1,
                max_steps=1,
            )
        )

    for name in ("fake_guidance_scale", "fake_score_guidance_scale", "teacher_guidance_scale"):
        assert different(run(**{name: 2.0}), run(**{name: 2.0, "negative_prompt": "dark"})), name
    assert different(run(), run(negative_prompt="dark")) == []


def test_other_parametrisations() -> None:
    """Fails when x_0 is computed as if the network predicted noise, which it does not with v."""
    backbone: Any = text_to_image(model=pipeline_folder(prediction="v_prediction")).eval()
    module = sfd(backbone, forget_weight=0.0)
    module.configure_model()
    fake: Any = module.fake
    task = pictures()
    task.setup()
    rows: Any = task.datasets["retain"]
    part = module.prepare(rows.__getitems__([0, 1]) | {"visit": torch.zeros(2, dtype=torch.int64)})
    with torch.no_grad():
        # teacher and fake score are still the same
        assert module.backbone_terms(None, part)["retain"].item() == 0
        fake.unet.conv_out.weight.mul_(1.5)
        loss = module.backbone_terms(None, part)["retain"].item()
        condition = backbone.condition(part)
        draw = lambda name: rng.normal(0, part["index"], 0, f"sfd-generator-{name}", 4, 4, 4)  # noqa: E731
        t = 4 + rng.integers(0, part["index"], 0, "sfd-generator-timestep", 71 - 4)
        clean = OneStepGenerator(backbone, 44).sample(draw("start"), condition)
        signal = backbone.alphas_cumprod[t].view(2, 1, 1, 1)
        noised = signal.sqrt() * clean + (1 - signal).sqrt() * draw("noise")

        def x_0(net: Any) -> Tensor:
            return signal.sqrt() * noised - (1 - signal).sqrt() * net.denoise(noised, t, condition)

        expected = sid_loss(x_0(backbone), x_0(fake), clean, 1.2).mean().item()
    assert loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"retain_weight": -1.0},
        {"retain_weight": 0.0, "forget_weight": 0.0},
        {"t_init": 1.0},
        {"t_range": (0.5, 0.2)},
        {"average": 1.0},
        {"clip": 0.0},
        {"fake_dropout": 1.0},
        {"negative_prompt": "dark"},
    ],
    ids=str,
)
def test_wrong_settings_are_refused(changes: dict[str, Any]) -> None:
    """Fails when a run begins that cannot do what it is asked."""
    with pytest.raises(InputError):
        sfd(**changes)


def test_its_defaults_fit_the_domain() -> None:
    """Fails when a text-to-image model takes classes for overrides, or labels are asked of a task
    of prompts.
    """
    text = SFD(text_to_image())
    assert isinstance(text.backbone, TextToImage) and isinstance(text.substitute, GivenByTask)
    assert (text.needs_labels, SFD(class_conditional()).needs_labels) == (False, True)
    assert (text.decay, text.clip, text.alpha, text.weights) == (
        0.9999,
        1.0,
        1.2,
        {"retain": 1.0, "forget": 0.01},
    )

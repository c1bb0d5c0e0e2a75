"""SFD: its two steps are its equations, it reads labels and prompts alone, and what it serves draws
in one evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

import mu
import tasks
from mu.attacks.counting import counted
from mu.backbones import ClassConditionalDiffusion, TextToImage
from mu.backbones.diffusion.one_step import OneStepGenerator
from mu.core.lr import OneCycle
from mu.core.module import UnlearningModule
from mu.core.substitutes import Substitute
from mu.functional.diffusion import sid_loss
from mu.methods.components.substitutes import GivenByTask, UniformLabel
from mu.methods.diffusion.sfd import SFD
from mu.utils import rng
from mu.utils.errors import InputError
from tests.support.doubles import (
    class_conditional,
    digit_pictures,
    pictures,
    pipeline_folder,
    text_to_image,
)
from tests.support.helpers import Snapshot, Watch, different, distance, fit, weights

PLAIN: Any = lambda params: torch.optim.SGD(params, lr=1e-3)  # noqa: E731 - a weight moves by minus a thousandth of its gradient
ADAM: Any = lambda params: torch.optim.Adam(params, lr=1e-3, betas=(0.0, 0.999))  # noqa: E731


def threes(**changes: Any) -> Any:
    """Digits of which the threes are forgotten: batches of 2 to forget and 3 to keep."""
    return digit_pictures(
        **{"selector": tasks.ByClass(3), "forget_batch_size": 2, "batch_size": 3, **changes}
    )


def sfd(backbone: Any = None, **changes: Any) -> SFD:
    defaults: dict[str, Any] = {"optimizer": ADAM, "fake_optimizer": ADAM, "average": None}
    return SFD(class_conditional() if backbone is None else backbone, **{**defaults, **changes})


# ---- the equations -------------------------------------------------------------------------------


class Statement:
    """One step of SFD on a class-conditional model, in float64, sample by sample."""

    def __init__(
        self,
        backbone: Any,
        t_init: int,
        t_range: tuple[int, int],
        seed: int,
        guidance: tuple[float, float, float],
    ) -> None:
        self.phi, self.psi, self.g = (
            deepcopy(backbone).double().requires_grad_(k > 0) for k in range(3)
        )
        self.kept = backbone.alphas_cumprod.double()
        self.t_init = t_init
        self.t_range = t_range
        self.seed = seed
        self.guidance = guidance

    def epsilon(self, network: Any, x: Tensor, t: int, label: int, scale: float = 1.0) -> Tensor:
        ask = lambda c: network.unet(x, torch.tensor([t]), class_labels=torch.tensor([c])).sample  # noqa: E731
        return ask(label) if scale == 1 else ask(10) + scale * (ask(label) - ask(10))

    def drawn(self, index: int, visit: int, stream: str) -> tuple[Tensor, Tensor, int]:
        who, (first, last) = (self.seed, torch.tensor([index]), torch.tensor([visit])), self.t_range
        start, noise = (
            rng.normal(*who, f"sfd-{stream}-{what}", 1, 8, 8).double()
            for what in ("start", "noise")
        )
        return start, noise, first + int(rng.integers(*who, f"sfd-{stream}-timestep", last - first))

    def generate(self, start: Tensor, label: int) -> Tensor:
        a = self.kept[self.t_init]
        x = (1 - a).sqrt() * start
        return x / a.sqrt() - (1 / a - 1).sqrt() * self.epsilon(self.g, x, self.t_init, label)

    def fake(self, rows: list[tuple[int, int, int]]) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for index, visit, label in rows:
            start, noise, t = self.drawn(index, visit, "fake")
            x = (
                self.kept[t].sqrt() * self.generate(start, label).detach()
                + (1 - self.kept[t]).sqrt() * noise
            )
            total = (
                total
                + (self.epsilon(self.psi, x, t, label, self.guidance[0]) - noise).square().sum()
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
            a = self.kept[t]
            x = a.sqrt() * clean + (1 - a).sqrt() * noise
            teacher = (
                x - (1 - a).sqrt() * self.epsilon(self.phi, x, t, override(label), self.guidance[2])
            ) / a.sqrt()
            fake = (
                x - (1 - a).sqrt() * self.epsilon(self.psi, x, t, label, self.guidance[1])
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


def rows_of(part: dict[str, Tensor]) -> list[tuple[int, int, int]]:
    return list(
        zip(part["index"].tolist(), part["visit"].tolist(), part["label"].tolist(), strict=True)
    )


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: (before[name].double() - after[name].double()) / 1e-3 for name in before}


@pytest.mark.parametrize(
    ("changes", "guidance"),
    [
        ({}, (1.0, 1.0, 1.0)),
        ({"score_gradient": False}, (1.0, 1.0, 1.0)),
        (
            {
                "fake_guidance": 1.5,
                "fake_score_guidance": 2.0,
                "teacher_guidance": 3.0,
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
    changes: dict[str, Any], guidance: tuple[float, float, float]
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
        callbacks=[Watch(lambda module, batch, number: batches.append(batch))],
    )
    (batch,) = batches
    forget = rows_of(batch["forget"])
    retain = rows_of(batch["retain"])
    assert {label for _, _, label in forget} == {3} and 3 not in {label for _, _, label in retain}
    statement = Statement(backbone, 44, (4, 71), 0, guidance)
    loss = module.fake_weights["retain"] * statement.fake(retain) + module.fake_weights[
        "forget"
    ] * statement.fake(forget)
    steps = moved(before[1], weights(module.fake))
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
    steps = moved(before[0], weights(module.backbone))
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
        for terms in (module.generator_terms, module.fake_terms):
            forget_terms = terms(forget, None)
            retain_terms = terms(None, retain)
            assert (
                list(forget_terms.values()) == list(retain_terms.values())
                and next(iter(forget_terms.values())) != 0
            )
        module.substitute = law = UniformLabel(exclude_true=True)
        law.setup(module.backbone, None)
        other = module.generator_terms(module.prepare(dict(part), substitute=True), None)
    assert list(other.values()) != list(module.generator_terms(None, retain).values())


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
        callbacks=[Watch(lambda module, batch, number: batches.append(set(batch)))],
    )
    assert all("forget" not in names for names in batches)
    only = sfd(retain_weight=0.0, forget_weight=1.0)
    assert (only.needs_forget, only.needs_retain) == (True, False)
    fit(only, threes(), 1, max_steps=2)


# ---- what it costs, reads and moves --------------------------------------------------------------


def test_it_makes_no_evaluation_too_many() -> None:
    """Fails when forget and retain are passed one after the other, or a network is asked twice."""
    module = sfd()
    module.configure_model()
    with counted(module) as evaluations:
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
    text = sfd(text_to_image(), teacher_guidance=2.0, fake_score_guidance=2.0)
    text.configure_model()
    with counted(text) as evaluations:
        fit(text, pictures(batch_size=3, forget_batch_size=2), 1, max_steps=2)
    assert (
        evaluations["reference.unet"].samples == 2 * both
        and evaluations["reference.unet"].calls == 2
    )
    assert evaluations["fake.unet"].samples == 3 * both and evaluations["fake.unet"].calls == 4
    assert evaluations.of("vae.encoder").calls == evaluations.of("vae.decoder").calls == 0
    assert (
        evaluations["fake.text_encoder"].calls == evaluations["reference.text_encoder"].calls == 0
    )


def test_it_is_data_free() -> None:
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


def test_generator_and_fake_score_move_and_the_teacher_stays() -> None:
    """Fails when the teacher learns, one of the two others does not, or they take each other's
    steps.
    """
    module = sfd(text_to_image(part="xattn"), average=0.5)
    module.configure_model()
    before = weights(module.backbone)
    fit(module, pictures(batch_size=3, forget_batch_size=2), 1, max_steps=2)
    assert module.fake is not None and module.average is not None and module.reference is not None
    assert different(before, weights(module.reference)) == []
    for network in (module.backbone, module.fake, module.average):
        changed = different(before, weights(network))
        assert changed and all("attn2." in name for name in changed)
    assert different(weights(module.backbone), weights(module.fake))
    assert module.backbone.get_parameter("vae.quant_conv.weight") is module.fake.get_parameter(
        "vae.quant_conv.weight"
    )
    assert module.trainer.global_step == 2


def test_gradients_are_clipped_by_value() -> None:
    """Fails when the norm is clipped, or one of the two networks is left out."""
    module = sfd(optimizer=PLAIN, fake_optimizer=PLAIN, clip=1e-3)
    module.configure_model()
    assert module.fake is not None
    before = weights(module.backbone), weights(module.fake)
    fit(module, threes(), 1, max_steps=1)
    for start, network in zip(before, (module.backbone, module.fake), strict=True):
        steps = torch.cat(
            [step.flatten().abs() for step in moved(start, weights(network)).values()]
        )
        assert steps.max() < 1.1e-3
        assert (steps > 0.9e-3).float().mean() > 0.1


def test_the_average_is_what_is_served() -> None:
    """Fails when the average is of another network, has another decay, or begins elsewhere than at
    the original.
    """
    seen: list[dict[str, Tensor]] = []
    module = sfd(average=0.9)
    module.configure_model()
    average = weights(module.backbone)
    fit(
        module,
        threes(),
        1,
        max_steps=3,
        callbacks=[Watch(lambda module, batch, number: seen.append(weights(module.backbone)))],
    )
    for state in seen:
        average = {name: 0.9 * value + 0.1 * state[name] for name, value in average.items()}
    served = module.served()
    assert (
        isinstance(served, OneStepGenerator)
        and served.model is module.average
        and served.t_init == 44
    )
    assert distance(average, weights(served.model)) < 1e-6
    assert distance(weights(module.backbone), weights(served.model)) > 1e-4
    assert sfd().served().model is not None and sfd(average=None).average is None


@pytest.mark.parametrize("kind", ["class", "text", "encoder"])
def test_a_resumed_run_ends_the_same_and_loads(kind: str, tmp_path: Path) -> None:
    """Fails when an optimizer, the average, or a draw is not in the checkpoint; or `mu.load` builds
    another generator.
    """

    def make() -> UnlearningModule:
        part = "text_encoder:0+xattn" if kind == "encoder" else "xattn"
        backbone = class_conditional() if kind == "class" else text_to_image(part=part)
        return sfd(
            backbone,
            average=0.9,
            forget_weight=1.0,
            scheduler=OneCycle(),
            fake_dropout=0.3,
            fake_guidance=1.5,
        )

    task = threes if kind == "class" else lambda: pictures(batch_size=3, forget_batch_size=2)
    run = lambda **changes: fit(make(), task(), -1, max_steps=4, **changes)  # noqa: E731
    alone = run(
        callbacks=[
            Snapshot(tmp_path / "x.ckpt", 0, 1),
            ModelCheckpoint(tmp_path, save_last=True, save_top_k=0),
        ]
    )
    torch.manual_seed(99)
    resumed = run(ckpt_path=tmp_path / "x.ckpt")
    assert resumed.trainer.global_step == 4
    assert different(weights(alone), weights(resumed)) == []
    assert alone.trainer.optimizers[1].param_groups[0]["lr"] == pytest.approx(0)
    drawn: list[Tensor] = []
    for module in (alone, mu.load(tmp_path / "last.ckpt")):
        served: Any = module.served().eval()
        with torch.no_grad():
            drawn.append(
                served.generate(
                    served.labels([1, 3])
                    if kind == "class"
                    else served.texts(["a red circle", "star"]),
                    [1, 2],
                )
            )
    assert torch.equal(*drawn)


def test_schedules_of_torch_step_once_an_epoch() -> None:
    """Fails when nobody steps them in manual optimisation."""
    module = sfd(
        scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.1)
    )
    fit(module, threes(batch_size=20), 2)
    assert module.trainer.optimizers[1].param_groups[0]["lr"] == pytest.approx(1e-5)
    assert module.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-3)


def test_the_second_stage_begins_from_a_distilled_generator(tmp_path: Path) -> None:
    """Fails when the teacher or the fake score begins there too, or the average does not."""
    first = fit(
        sfd(forget_weight=0.0),
        threes(),
        1,
        max_steps=2,
        callbacks=[ModelCheckpoint(tmp_path, save_last=True, save_top_k=0)],
    )
    module = sfd(generator=str(tmp_path / "last.ckpt"), average=0.9)
    before = weights(module.backbone)
    module.configure_model()
    assert module.fake is not None and module.average is not None and module.reference is not None
    assert different(weights(first.backbone), weights(module.backbone)) == []
    assert different(weights(first.backbone), weights(module.average)) == []
    assert (
        different(before, weights(module.fake))
        == different(before, weights(module.reference))
        == []
    )
    fit(module, threes(), 1, max_steps=1)


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

    for name in ("fake_guidance", "fake_score_guidance", "teacher_guidance"):
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
        assert module.generator_terms(None, part)["retain"].item() == 0
        fake.unet.conv_out.weight.mul_(1.5)
        loss = module.generator_terms(None, part)["retain"].item()
        condition = backbone.condition(part)
        draw = lambda what: rng.normal(0, part["index"], 0, f"sfd-generator-{what}", 4, 4, 4)  # noqa: E731
        t = 4 + rng.integers(0, part["index"], 0, "sfd-generator-timestep", 71 - 4)
        clean = OneStepGenerator(backbone, 44).sample(draw("start"), condition)
        signal = backbone.alphas_cumprod[t].view(2, 1, 1, 1)
        noised = signal.sqrt() * clean + (1 - signal).sqrt() * draw("noise")

        def x_0(net: Any) -> Tensor:
            return signal.sqrt() * noised - (1 - signal).sqrt() * net.denoise(noised, t, condition)

        expected = sid_loss(x_0(backbone), x_0(fake), clean, 1.2).mean().item()
    assert loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_the_embedded_digits_forget_how_to_draw_a_three() -> None:
    """Fails when forgetting or keeping does not work: 40 steps make every 3 another digit, and
    leave 90 % of the others.
    """
    from mu.evaluation.images.classifier_judge import judge

    rate: Any = lambda params: torch.optim.Adam(params, lr=1e-3, betas=(0.0, 0.999))  # noqa: E731
    module = SFD(
        ClassConditionalDiffusion("embedded:digits"),
        forget_weight=1.0,
        average=0.9,
        optimizer=rate,
        fake_optimizer=rate,
    )
    task = tasks.Digits(
        tasks.ByClass(3), train_size=1200, batch_size=8, forget_batch_size=6, curves=[]
    )
    fit(module, task, -1, max_steps=40)
    served: Any = module.served().eval()
    labels = torch.arange(10).repeat_interleave(8)
    with torch.no_grad():
        seen = (
            judge("digits")
            .predict({"image": served.generate(served.labels(labels), range(80))})
            .argmax(1)
        )
    assert not (seen[labels == 3] == 3).any()
    assert (seen == labels)[labels != 3].float().mean() > 0.9


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

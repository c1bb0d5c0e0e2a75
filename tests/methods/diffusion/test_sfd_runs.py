"""SFD's runs: which networks move, what is served, resumption, and the second stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

import mu
import tasks
from mu.backbones import ClassConditionalDiffusion
from mu.backbones.diffusion.one_step import OneStepGenerator
from mu.core.lr import OneCycle
from mu.core.module import UnlearningModule
from mu.methods.diffusion.sfd import SFD
from tests.support.doubles import (
    class_conditional,
    pictures,
    text_to_image,
)
from tests.support.equations_sfd import PLAIN, scaled_steps, sfd, threes
from tests.support.helpers import Snapshot, Watch, different, distance, fit, weights


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
            [step.flatten().abs() for step in scaled_steps(start, weights(network)).values()]
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
        callbacks=[Watch(lambda module, batch, batch_idx: seen.append(weights(module.backbone)))],
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


@pytest.mark.parametrize("domain", ["class", "text", "encoder"])
def test_a_resumed_run_ends_the_same_and_loads(domain: str, tmp_path: Path) -> None:
    """Fails when an optimizer, the average, or a draw is not in the checkpoint; or `mu.load` builds
    another generator.
    """

    def make() -> UnlearningModule:
        part = "text_encoder:0+xattn" if domain == "encoder" else "xattn"
        backbone = class_conditional() if domain == "class" else text_to_image(part=part)
        return sfd(
            backbone,
            average=0.9,
            forget_weight=1.0,
            scheduler=OneCycle(),
            fake_dropout=0.3,
            fake_guidance_scale=1.5,
        )

    task = threes if domain == "class" else lambda: pictures(batch_size=3, forget_batch_size=2)
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
                    if domain == "class"
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

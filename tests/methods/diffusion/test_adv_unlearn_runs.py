"""AdvUnlearn's runs: the number of evaluations, the sampling model, what moves, and resumption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

import mu
from mu.attacks import PromptSearch, SoftPromptAttack, TokenSimplex
from mu.attacks.counting import Evaluations, count_evaluations
from mu.attacks.layouts import Add, Suffix
from mu.methods.components.latents import (
    CoupledSampling,
    PartialSampling,
    StoredTrajectories,
)
from mu.methods.diffusion.adv_unlearn import AdvUnlearn
from mu.utils import rng
from tests.support.doubles import text_to_image
from tests.support.equations_adv_unlearn import ADAM, adv_unlearn, concept_task
from tests.support.helpers import Snapshot, different, fit, weights


def evaluations_of(module: AdvUnlearn, steps: int, **changes: Any) -> Evaluations:
    module.configure_model()
    with count_evaluations(module) as evaluations:
        fit(module, concept_task(**changes), 1, max_steps=steps)
    return evaluations


def stops(stream: str, step: int, total: int) -> int:
    return int(rng.integers(0, torch.tensor([0]), step, f"{stream}-stop", total))


@pytest.mark.parametrize("part", ["text_encoder", "xattn"])
def test_number_of_evaluations_is_the_least(part: str) -> None:
    """Fails when sampling, target, student or attack asks the denoiser more often than the
    algorithm does, or a pair is two batches.
    """
    steps = 3
    inner = 2
    grid = 4
    module = adv_unlearn(
        text_to_image(part=part),
        attack=SoftPromptAttack(steps=inner),
        latents=CoupledSampling(
            num_inference_steps=grid, by="reference" if part == "text_encoder" else "current"
        ),
    )
    evaluations = evaluations_of(module, steps)
    walked = sum(stops("latents", step, grid) for step in range(steps))
    attacked = sum(
        stops(f"attack-{iteration}", step, grid)
        for step in range(steps)
        for iteration in range(inner)
    )
    # calls, samples: pairs of 3 and of 1
    sampling = (
        walked + attacked,
        2 * 3 * walked + 2 * 1 * attacked,
    )
    # targets of the step and of the attack
    targets = (
        steps + steps * inner,
        steps * (2 * 1 + 2) + steps * inner,
    )
    student = (steps + steps * inner, steps * 3 + steps * inner)
    sampler = "reference" if part == "text_encoder" else "backbone"
    expected = {"reference": list(targets), "backbone": list(student)}
    expected[sampler] = [a + b for a, b in zip(expected[sampler], sampling, strict=True)]
    for name, (calls, samples) in expected.items():
        assert (evaluations[f"{name}.unet"].calls, evaluations[f"{name}.unet"].samples) == (
            calls,
            samples,
        ), name
    assert (
        evaluations["backbone.unet"].with_grad == student[1]
        and evaluations["reference.unet"].with_grad == 0
    )
    assert evaluations.count("vae.encoder").calls == 0


def test_stored_trajectories_make_the_attack_cheap() -> None:
    """Fails when the attack samples anew although its latents are stored."""
    module = adv_unlearn(
        attack=SoftPromptAttack(steps=4),
        attack_latents=StoredTrajectories(count=1, num_inference_steps=4),
        gamma=0.0,
    )
    evaluations = evaluations_of(module, 1)
    walked = stops("latents", 0, 3)
    # sampling, one trajectory, targets of the attack, target
    assert evaluations["reference.unet"].samples == 2 * walked + 2 * 3 + 4 + 2


def test_the_attack_may_be_another_search() -> None:
    """Fails when what suites attack with cannot be trained against, or another layout cannot."""
    for attack in (
        PromptSearch(TokenSimplex(), Suffix(2), 2, ADAM),
        SoftPromptAttack(Add(), steps=1, init="latest"),
        SoftPromptAttack(steps=1, sign=True),
    ):
        module = adv_unlearn(attack=attack)
        before = weights(module.backbone)
        fit(module, concept_task(forget_batch_size=2), 1, max_steps=2)
        assert different(before, weights(module.backbone))


@pytest.mark.parametrize("timestep", ["exact", "jitter"])
def test_coupled_samples_stop_together(timestep: Any) -> None:
    """Fails when samples of a step differ in k or t, when steps do not, or a sample is another than
    PartialSampling's at the same k.
    """
    seen: list[tuple[int, Tensor]] = []

    class RecordsStops(CoupledSampling):
        def draw(self, module: Any, part: Any, condition: Any, stream: str) -> Any:
            latent, t = super().draw(module, part, condition, stream)
            k = stops(stream, module.trainer.global_step, 5)
            seen.append((k, t))
            plain = FixedStop(5, 2.0, "reference", timestep, k, int(t[0]))
            assert torch.equal(plain.draw(module, part, condition, stream)[0], latent)
            return latent, t

    fit(
        adv_unlearn(attack_every=0, latents=RecordsStops(5, 2.0, "reference", timestep)),
        concept_task(),
        1,
        max_steps=8,
    )
    for k, t in seen:
        assert len(t) == 3 and len(set(t.tolist())) == 1
        assert (
            int(t[0]) == 81 - 20 * k if timestep == "exact" else 20 * k <= int(t[0]) < 20 * (k + 1)
        )
    assert len({k for k, _ in seen}) > 2


class FixedStop(PartialSampling):
    """PartialSampling with a fixed k."""

    def __init__(
        self, steps: int, guidance_scale: float, by: Any, timestep: Any, k: int, t: int
    ) -> None:
        super().__init__(steps, guidance_scale, by, timestep)
        self.k = k
        self.t = t

    def draw(self, module: Any, part: Any, condition: Any, stream: str) -> Any:
        plain = rng.integers
        try:
            rng.integers = lambda seed, index, *_: torch.full_like(index, self.k)  # type: ignore[assignment]
            return super().draw(module, part, condition, stream)
        finally:
            rng.integers = plain


def test_which_model_samples() -> None:
    """Fails when a trained text encoder is sampled with, or a trained UNet is not."""
    by = [AdvUnlearn(text_to_image(part=part)).latents.by for part in ("text_encoder", "xattn")]  # type: ignore[attr-defined]
    assert by == ["reference", "current"]


def test_only_the_text_encoder_moves_and_the_unet_is_shared() -> None:
    """Fails when the UNet takes gradients, the embeddings move, or the reference holds a second
    UNet.
    """
    module = adv_unlearn(text_to_image(part="text_encoder:1"))
    module.configure_model()
    before = weights(module.backbone)
    fit(module, concept_task(), 1, max_steps=2)
    changed = different(before, weights(module.backbone))
    assert changed and all(".layers.1." in name for name in changed)
    assert all(p.grad is None and not p.requires_grad for p in module.student.unet.parameters())
    assert module.reference is not None and different(before, weights(module.reference)) == []
    assert module.reference.get_parameter("unet.conv_in.weight") is module.backbone.get_parameter(
        "unet.conv_in.weight"
    )


@pytest.mark.parametrize("step", [0, 2])
def test_a_resumed_run_ends_the_same_and_loads(step: int, tmp_path: Path) -> None:
    """Fails when the adversarial tokens are not in the checkpoint, or warm-up begins again."""

    def run(**changes: Any) -> AdvUnlearn:
        module = adv_unlearn(
            text_to_image(part="text_encoder+xattn"),
            warmup=1,
            attack_every=2,
            attack=SoftPromptAttack(steps=2, init="latest"),
        )
        fit(module, concept_task(), 1, max_steps=5, **changes)
        return module

    alone = run(
        callbacks=[
            Snapshot(tmp_path / "x.ckpt", 0, step),
            ModelCheckpoint(tmp_path, save_last=True, save_top_k=0),
        ]
    )
    torch.manual_seed(5)
    assert different(weights(alone), weights(run(ckpt_path=tmp_path / "x.ckpt"))) == []
    loaded: Any = mu.load(tmp_path / "last.ckpt").served()
    served: Any = alone.served().eval()
    assert torch.equal(
        loaded.generate_prompts(["a red circle"], [3]),
        served.generate_prompts(["a red circle"], [3]),
    )

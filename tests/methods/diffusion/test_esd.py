"""ESD: its equation, its frozen passes, the part that moves, and what it needs of the task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mu.methods.components.latents import NoisedData, PartialSampling, StoredTrajectories
from mu.methods.diffusion.esd import ESD
from tasks import PromptList
from tests.support.denoised import KINDS, MODELS, PLAIN, Double, agree, prepared, square, step_of
from tests.support.doubles import pictures, text_to_image
from tests.support.helpers import Watch, different, fit, weights

SHORT = PartialSampling(num_inference_steps=3)


@pytest.mark.parametrize("domain", KINDS)
@pytest.mark.parametrize(
    "latents",
    [
        NoisedData(),
        SHORT,
        PartialSampling(num_inference_steps=3, by="reference", timestep="jitter"),
    ],
    ids=["noised", "current", "jitter"],
)
def test_a_step_follows_the_equation(domain: str, latents: Any) -> None:
    """Mutations: η's sign; conditional and unconditional exchanged; the target not frozen; the null
    condition sampled or trained.
    """
    make, task = MODELS[domain]
    module = ESD(make(), eta=1.7, latents=latents, optimizer=PLAIN)
    module.configure_model()
    part = prepared(module, task())["forget"]
    noised, t = latents(module, part, module.denoiser.condition(part))
    double = Double(make())
    states = double.own(part)
    conditional, unconditional = (
        double.output(noised, t, condition).detach()
        for condition in (states, double.nothing(len(t)))
    )
    target = unconditional - 1.7 * (conditional - unconditional)
    expected = double.slopes(square(double.output(noised, t, states), target))
    agree(step_of(ESD(make(), eta=1.7, latents=latents, optimizer=PLAIN), task()), expected)


def test_each_of_several_concepts_has_its_own_target(tmp_path: Path) -> None:
    """Mutations: one concept's target for all; the anchor's condition; a concept left out."""
    (tmp_path / "retain.csv").write_text("prompt\ndark\n")
    (tmp_path / "forget.csv").write_text("prompt\nred circle\nblue star\nstar on circle\n")

    def task() -> PromptList:
        return PromptList(
            str(tmp_path / "forget.csv"),
            str(tmp_path / "retain.csv"),
            concept=["circle", "star"],
            anchor=["square", "picture"],
            batch_size=4,
            curves=[],
        )

    module = ESD(text_to_image(), latents=SHORT, optimizer=PLAIN)
    module.configure_model()
    part = prepared(module, task())["forget"]
    assert sorted(part["concept"]) == ["circle", "circle", "star", "star"]
    noised, t = module.latents(module, part, module.denoiser.condition(part))
    double = Double(text_to_image())
    states = double.states(part["prompt"])
    conditional, unconditional = (
        double.output(noised, t, condition).detach()
        for condition in (states, double.nothing(len(t)))
    )
    expected = double.slopes(
        square(double.output(noised, t, states), 2 * unconditional - conditional)
    )
    agree(step_of(ESD(text_to_image(), latents=SHORT, optimizer=PLAIN), task()), expected)


def test_with_eta_minus_one_the_gradient_is_zero() -> None:
    """The target is then the original's own prediction."""
    module = ESD(text_to_image(), eta=-1.0, latents=NoisedData(), optimizer=PLAIN)
    assert max(value.abs().max() for value in step_of(module, pictures()).values()) < 1e-9


def test_the_frozen_passes_come_in_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutation: two calls of the reference."""
    module = ESD(text_to_image(), latents=NoisedData())
    module.configure_model()
    rows: list[int] = []
    inner = module.original.denoise

    def counted(noised: Any, t: Any, condition: Any) -> Any:
        rows.append(len(noised))
        return inner(noised, t, condition)

    monkeypatch.setattr(module.original, "denoise", counted)
    fit(module, pictures(), 1, max_steps=2)
    assert rows == [10, 10]


def test_only_the_part_moves_and_the_original_stays() -> None:
    module = ESD(text_to_image(part="xattn-strict"), latents=SHORT, optimizer=PLAIN)
    before = weights(module.backbone)
    fit(module, pictures(), 1)
    moved = different(before, weights(module.backbone))
    assert moved and all("attn2.to_k" in name or "attn2.to_v" in name for name in moved)
    assert module.reference is not None and different(before, weights(module.reference)) == []


class RecordsConditions(ESD):
    """Keeps the conditions of its targets."""

    def target(self, noised: Any, t: Any, condition: Any) -> Any:
        self.asked = [*getattr(self, "asked", []), condition]
        return super().target(noised, t, condition)


def test_a_text_encoder_is_trained_against_its_own_original() -> None:
    """Mutation: the target's condition from the encoder that is being trained."""
    module = RecordsConditions(
        text_to_image(part="text_encoder"),
        latents=NoisedData(),
        optimizer=lambda p: torch.optim.SGD(p, lr=100.0),
    )
    fit(module, pictures(), 1)
    original = text_to_image().text_encoder
    for condition in module.asked:
        assert torch.equal(condition.states, original(input_ids=condition.ids)[0])  # type: ignore[operator]
    trained = module.denoiser.condition({"input_ids": module.asked[0].ids})
    assert (trained.states - module.asked[0].states).abs().max() > 1e-3
    nothing = module.original.null(1).states
    assert torch.equal(nothing, original(input_ids=module.original.null(1).ids)[0])  # type: ignore[operator, attr-defined]


@pytest.mark.parametrize(
    "latents",
    [SHORT, StoredTrajectories(count=2, num_inference_steps=3)],
    ids=["partial", "stored"],
)
def test_esd_needs_no_images(latents: Any) -> None:
    fit(ESD(text_to_image(), latents=latents, optimizer=PLAIN), pictures(images=False), 1)


def test_esd_learns_its_target() -> None:
    """On few samples with a fast rate the error falls by half."""
    errors: list[float] = []

    def look(module: Any, batch: Any, batch_idx: int) -> None:
        errors.append(float(module.trainer.callback_metrics["train/erase"]))

    module = ESD(
        text_to_image(),
        eta=3.0,
        latents=NoisedData(),
        optimizer=lambda params: torch.optim.Adam(params, lr=3e-3),
    )
    fit(module, pictures(), 12, log_every_n_steps=1, callbacks=[Watch(look)])
    assert sum(errors[-3:]) < 0.5 * sum(errors[:3])

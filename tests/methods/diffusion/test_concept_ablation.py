"""Concept Ablation: its two targets, the prior, and the anchors' images."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mu.backbones.diffusion.sampler import Sampler
from mu.methods.diffusion.concept_ablation import ConceptAblation
from mu.utils import rng
from mu.utils.errors import InputError
from tests.support.denoised import PLAIN, Double, agree, prepared, square, step_of
from tests.support.doubles import pictures, text_to_image
from tests.support.helpers import fit


@pytest.mark.parametrize("target", ["anchor", "noise"])
@pytest.mark.parametrize("prior", [0.0, 0.8])
def test_a_step_follows_the_equation(target: Any, prior: float) -> None:
    """Mutations: prompt and anchor exchanged; the target not held; the prior under the concept's
    prompt.
    """

    def module() -> ConceptAblation:
        return ConceptAblation(
            text_to_image(), target=target, prior_weight=prior, images="task", optimizer=PLAIN
        )

    forget = prepared(module(), pictures())["forget"]
    double = Double(text_to_image())
    states = double.own(forget)
    anchor = double.states(forget["raw"]["substitute"])
    output, of_anchor = (
        double.output(forget["noised"], forget["t"], condition) for condition in (states, anchor)
    )
    loss = square(output, of_anchor.detach() if target == "anchor" else forget["noise"])
    loss = loss + prior * square(of_anchor, forget["noise"])
    agree(step_of(module(), pictures()), double.slopes(loss))


class RecordsSteps(ConceptAblation):
    """Keeps the parts of its steps."""

    def objective(self, forget: Any, retain: Any) -> Any:
        self.steps_seen = [*getattr(self, "steps_seen", []), forget]
        return super().objective(forget, retain)


def test_images_show_the_anchor() -> None:
    """Drawn by the original once: in the last step too. Mutations: the concept's prompt; images of
    the trained weights.
    """
    sampler = Sampler(num_inference_steps=2, guidance_scale=2.0)
    module = RecordsSteps(
        text_to_image(), sampler=sampler, optimizer=lambda p: torch.optim.SGD(p, lr=0.05)
    )
    fit(module, pictures(images=False), 2)
    for forget in module.steps_seen:
        prompts = [prompt.replace("circle", "square") for prompt in forget["prompt"]]
        seeds = rng.integers(0, forget["index"], 0, "drawn/anchor", 2**31).tolist()
        drawn = text_to_image().eval().generate_prompts(prompts, seeds, sampler)
        assert (forget["image"] - drawn).abs().max() < 1.01 / 255


@pytest.mark.parametrize(
    "wrong", [{"prior_weight": -1.0}, {"target": "image"}, {"draw_batch_size": 0}]
)
def test_wrong_settings_are_refused(wrong: Any) -> None:
    with pytest.raises(InputError):
        ConceptAblation(text_to_image(), **wrong)

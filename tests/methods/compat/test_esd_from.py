"""ESD's rewrite: the same as ESD with η one less, and erasing from another prompt."""

from __future__ import annotations

from mu.methods.compat.esd_from import ESDFrom
from mu.methods.components.latents import NoisedData, PartialSampling
from mu.methods.diffusion.esd import ESD
from tests.support.denoised import PLAIN, Double, agree, prepared, square, step_of
from tests.support.doubles import pictures, text_to_image

SHORT = PartialSampling(num_inference_steps=3)


def test_the_rewrite_is_the_same_with_eta_one_less() -> None:
    """For a concept that is the prompt itself."""
    classic = step_of(ESD(text_to_image(), eta=1.0, latents=SHORT, optimizer=PLAIN), pictures())
    rewrite = step_of(ESDFrom(text_to_image(), eta=2.0, latents=SHORT, optimizer=PLAIN), pictures())
    agree(rewrite, classic, tolerance=1e-6)


def test_the_rewrite_erases_from_another_prompt() -> None:
    """Mutation: the concept's prompt in the place of the sample's."""

    def module() -> ESDFrom:
        return ESDFrom(text_to_image(), erase="round", latents=NoisedData(), optimizer=PLAIN)

    part = prepared(module(), pictures())["forget"]
    double = Double(text_to_image())
    states = double.own(part)
    concept = double.states(["round"] * 5)
    nothing = double.nothing(5)
    a, b, c = (
        double.output(part["noised"], part["t"], condition).detach()
        for condition in (states, concept, nothing)
    )
    agree(
        step_of(module(), pictures()),
        double.slopes(square(double.output(part["noised"], part["t"], states), a - 2.0 * (b - c))),
    )

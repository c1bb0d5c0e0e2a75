"""A one-step generator: one evaluation an image, and everything else as its model has it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mu.attacks.counting import count_evaluations
from mu.backbones import Diffusion
from mu.backbones.diffusion.one_step import OneStepGenerator
from mu.backbones.diffusion.sampler import Sampler
from mu.utils.errors import InputError
from tests.support.doubles import (
    class_conditional,
    digit_pictures,
    pictures,
    pipeline_folder,
    text_to_image,
)

MAKERS: dict[str, Any] = {
    "class": class_conditional,
    "text": text_to_image,
    "v": lambda: text_to_image(model=pipeline_folder(prediction="v_prediction")),
}
on_all = pytest.mark.parametrize("kind", MAKERS)


def conditions(model: Any, count: int) -> Any:
    return (
        model.labels(list(range(count)))
        if hasattr(model, "labels")
        else model.texts(["a red circle", "a star", "nice"][:count])
    )


@on_all
def test_an_image_costs_one_evaluation(kind: str) -> None:
    """Fails when guidance or a sampler's steps sneak in, or an image depends on another one."""
    model: Diffusion = MAKERS[kind]().eval()
    served = OneStepGenerator(model, 44)
    with count_evaluations(served) as evaluations:
        images = served.generate(
            conditions(served, 3), [5, 6, 7], Sampler(num_inference_steps=9, guidance_scale=7.0)
        )
    assert (evaluations.count("unet").calls, evaluations.count("unet").samples) == (1, 3)
    assert images.min() >= 0 and images.max() <= 1 and images.dtype == torch.float32
    assert torch.allclose(
        images[1:2], served.generate(conditions(served, 3).rows(slice(1, 2)), [6]), atol=1e-5
    )


@on_all
def test_image_follows_the_equation(kind: str) -> None:
    """Fails when the noise is not scaled to its level, or x_0 is computed for another
    parametrisation.
    """
    model: Diffusion = MAKERS[kind]().eval()
    noise = torch.randn(2, *model.sample_shape)
    condition = conditions(model, 2)
    with torch.no_grad():
        sampled = OneStepGenerator(model, 44).sample(noise, condition)
        alpha_bar = model.alphas_cumprod[44].double()
        noised = (1 - alpha_bar).sqrt() * noise.double()
        output = model.denoise(noised.float(), torch.tensor([44, 44]), condition).double()
    expected = {"v": alpha_bar.sqrt() * noised - (1 - alpha_bar).sqrt() * output}
    assert torch.allclose(
        sampled.double(),
        expected.get(kind, noised / alpha_bar.sqrt() - (1 / alpha_bar - 1).sqrt() * output),
        rtol=1e-4,
        atol=1e-4,
    )


def test_it_is_evaluated_like_its_model() -> None:
    """Fails when suites that ask for outputs, labels or prompts find nothing."""
    for model, task in ((class_conditional(), digit_pictures()), (text_to_image(), pictures())):
        task.setup()
        served = OneStepGenerator(model.eval(), 50).eval()
        part: dict[str, Any] = task.datasets["forget"].__getitems__([0, 1])  # type: ignore[attr-defined]
        prepared = served.prepare({**part, "visit": torch.zeros(2, dtype=torch.int64)}, 3)
        assert torch.equal(
            served.outputs(prepared, ["nll"])["nll"], model.outputs(prepared, ["nll"])["nll"]
        )
        assert served.alphas_cumprod is model.alphas_cumprod
    assert served.tokenise(["nice"])[0].tolist() == model.tokenise(["nice"])[0].tolist()  # type: ignore[union-attr]
    assert torch.equal(
        served.generate_prompts(["nice"], [1]), served.generate(served.texts(["nice"]), [1])
    )
    assert not hasattr(OneStepGenerator(class_conditional(), 5), "texts")


@pytest.mark.parametrize("t_init", [-1, 100])
def test_noise_level_out_of_range_is_refused(t_init: int) -> None:
    """Fails when the generator begins at a noise level that the model does not have."""
    with pytest.raises(InputError, match="t_init"):
        OneStepGenerator(class_conditional(), t_init)
    with pytest.raises(InputError, match="seeds"):
        OneStepGenerator(class_conditional(), 3).generate(class_conditional().labels([1]), [])

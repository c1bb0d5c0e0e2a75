"""UnlearnDiffAtk on batches of prompts and on other generators."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor

from mu.attacks import (
    Criterion,
    Embeddings,
    Prefix,
    Suffix,
    UnlearnDiffAtk,
)
from mu.attacks.counting import count_evaluations
from mu.backbones import TextToImage
from mu.backbones.diffusion.one_step import OneStepGenerator
from mu.backbones.diffusion.sampler import Sampler
from mu.methods.general.finetune import FineTune
from tests.support.attacked_prompts import PROMPTS, batch, brighter, never, rows
from tests.support.doubles import pictures, text_to_image
from tests.support.helpers import different, trainer, weights


@pytest.fixture(scope="module")
def model() -> TextToImage:
    return text_to_image(sampler=Sampler(num_inference_steps=2, guidance_scale=2.0)).eval()


def test_a_batch_is_attacked_as_each_prompt_alone(model: TextToImage) -> None:
    """Fails when a prompt's draws, its optimizer or its luck depend on its company, or one that has
    left comes back.
    """
    prompts = batch()
    first = UnlearnDiffAtk(Prefix(1), steps=2, timesteps=3)(model, prompts, never)
    clean = model.generate_prompts(PROMPTS, [4, 7, 1, 30]).mean((1, 2, 3))
    level = float(
        torch.stack([clean, first.prediction.mean((1, 2, 3))]).flatten().sort().values[4:6].mean()
    )
    together = UnlearnDiffAtk(Prefix(1), steps=2, timesteps=3)(model, prompts, brighter(level))
    assert len(set(together.steps.tolist())) > 1, (
        "all prompts ended at once, so the test tests nothing"
    )
    for row in range(4):
        alone = UnlearnDiffAtk(Prefix(1), steps=2, timesteps=3)(
            model, rows(prompts, row), brighter(level)
        )
        assert alone.success[0] == together.success[row] and alone.steps[0] == together.steps[row]
        assert alone.adversarial["prompt"] == [together.adversarial["prompt"][row]]
        assert torch.allclose(alone.prediction[0], together.prediction[row], atol=1e-4)


def test_the_first_success_ends_the_attack(model: TextToImage) -> None:
    """Fails when the last image is kept in place of the one that succeeded."""
    seen: list[Tensor] = []

    def second(images: Tensor) -> Tensor:
        seen.append(images)
        return torch.full((len(images),), len(seen) == 2)

    result = UnlearnDiffAtk(Prefix(1), steps=1, timesteps=5)(model, batch(), second)
    assert result.success.all() and not result.before.any()
    assert len(seen) == 2 and torch.equal(seen[1], result.prediction)
    assert result.steps.tolist() == [1] * 4


def test_images_are_drawn_from_the_written_prompt(model: TextToImage) -> None:
    """Fails when the ids that were searched for are drawn, which nobody can type."""
    result = UnlearnDiffAtk(Prefix(3), steps=2, timesteps=1)(model, batch(), never)
    drawn = model.generate_prompts(result.adversarial["prompt"], [4, 7, 1, 30])
    assert torch.allclose(drawn, result.prediction, atol=1e-5)
    assert all(
        text.endswith(prompt.split()[-1])
        for text, prompt in zip(result.adversarial["prompt"], PROMPTS, strict=True)
    )
    assert not any("<|" in text for text in result.adversarial["prompt"])


def test_seed_and_guidance_of_each_prompt(model: TextToImage) -> None:
    """Fails when all prompts are drawn with one guidance, or the index where a seed is given."""
    guidance_scale = torch.tensor([1.0, 3.0, 1.0, 5.0])
    seeds = torch.tensor([8, 9, 10, 11])
    result = UnlearnDiffAtk(Prefix(1), steps=1, timesteps=1)(
        model, batch(guidance_scale=guidance_scale, seed=seeds), lambda images: ~never(images)
    )
    for row in range(4):
        alone = model.generate_prompts(
            [PROMPTS[row]],
            [8 + row],
            Sampler(num_inference_steps=2, guidance_scale=float(guidance_scale[row])),
        )
        assert torch.allclose(result.prediction[row], alone[0], atol=1e-5)


class Wants(Criterion):
    """A goal of each sample's own."""

    def objective(self, prediction: Tensor, batch: Any) -> Tensor:
        return prediction.mean((1, 2, 3))

    def met(self, prediction: Tensor, batch: Any) -> Tensor:
        return batch["wanted"]


def test_a_criterion_sees_the_rows_that_are_judged(model: TextToImage) -> None:
    """Fails when a criterion of each prompt's own is asked about another prompt's row, or padding
    is attacked.
    """
    prompts = batch(
        wanted=torch.tensor([False, True, False, True]),
        padded=torch.tensor([False, False, True, True]),
    )
    result = UnlearnDiffAtk(Prefix(1), steps=1, timesteps=1)(model, prompts, Wants())
    assert result.before.tolist() == result.success.tolist() == [False, True, False, False]
    assert result.generations.tolist() == [2, 1, 0, 0]


def test_an_unlearned_text_encoder_serves_everything(model: TextToImage) -> None:
    """Fails when states of another encoder, or of this one before it was edited, are used."""
    twin = text_to_image(sampler=Sampler(num_inference_steps=2, guidance_scale=2.0)).eval()
    attack = UnlearnDiffAtk(Prefix(1), steps=2, timesteps=1)
    prompts = rows(batch(), 0)
    before = attack(twin, prompts, never)
    with torch.no_grad():
        for weight in twin.text_encoder.parameters():
            weight.mul_(1.5)
    after = attack(twin, prompts, never)
    assert not torch.allclose(before.prediction, after.prediction)
    assert torch.allclose(
        after.prediction, twin.generate_prompts(after.adversarial["prompt"], [4]), atol=1e-5
    )


def test_embeddings_are_searched_for_too(model: TextToImage) -> None:
    """Fails when free embeddings are drawn as the plain prompt."""
    attack = UnlearnDiffAtk(
        Suffix(1),
        steps=2,
        timesteps=1,
        variables=Embeddings(),
        optimizer=lambda p: torch.optim.Adam(p, lr=5.0),
    )
    result = attack(model, batch(), never)
    assert result.adversarial["prompt"] == PROMPTS
    assert not torch.allclose(
        result.prediction, model.generate_prompts(PROMPTS, [4, 7, 1, 30]), atol=1e-4
    )


def test_a_one_step_generator_can_be_attacked(model: TextToImage) -> None:
    """Fails when what a distilled model serves cannot be attacked, or is drawn with the sampler of
    another.
    """
    served = OneStepGenerator(model, 60)
    with count_evaluations(served) as evaluations:
        result = UnlearnDiffAtk(Prefix(1), steps=1, timesteps=1)(served, batch(), never)
    assert evaluations.count("unet").samples == 4 * (1 + 2)
    assert torch.allclose(
        result.prediction,
        served.generate_prompts(result.adversarial["prompt"], [4, 7, 1, 30]),
        atol=1e-5,
    )


class Attacks(Callback):
    """Attacks what is served at the end of a test, as suites do."""

    def on_test_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        assert torch.is_inference_mode_enabled()
        served = pl_module.served().train()
        self.before = weights(served)
        self.result = UnlearnDiffAtk(Prefix(1), steps=2, timesteps=1)(served, batch(), never)
        self.left = all(layer.training for layer in served.modules()) and all(
            p.grad is None for p in served.parameters()
        )
        self.changed = different(self.before, weights(served))


def test_it_works_inside_a_test(model: TextToImage) -> None:
    """Fails under inference mode, or when weights, gradients or modes are left changed."""
    callback = Attacks()
    module = FineTune(text_to_image(sampler=Sampler(num_inference_steps=2, guidance_scale=2.0)))
    trainer(callbacks=[callback]).test(module, pictures(evaluated=["test"]), verbose=False)
    assert callback.left and callback.changed == []
    again = UnlearnDiffAtk(Prefix(1), steps=2, timesteps=1)(model, batch(), never)
    assert callback.result.adversarial["prompt"] == again.adversarial["prompt"]
    assert (
        not callback.result.prediction.is_inference()
        and not callback.result.prediction.requires_grad
    )

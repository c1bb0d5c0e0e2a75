"""UnlearnDiffAtk: objective, counts, arguments."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from mu.attacks import (
    AttackSummary,
    Prefix,
    PromptAttackResult,
    Suffix,
    UnlearnDiffAtk,
)
from mu.attacks.counting import count_evaluations
from mu.backbones import TextToImage
from mu.backbones.diffusion.sampler import Sampler
from mu.utils.errors import InputError
from mu.utils.spec import from_spec, to_spec
from tests.support.attacked_prompts import PROMPTS, batch, brighter, never, rows
from tests.support.doubles import pipeline_folder, text_to_image
from tests.support.helpers import classifier


@pytest.fixture(scope="module")
def model() -> TextToImage:
    return text_to_image(sampler=Sampler(num_inference_steps=2, guidance_scale=2.0)).eval()


def planted() -> tuple[TextToImage, Tensor]:
    """A model whose output says which token comes first, and predicts x_0: an image is explained by
    the token that says it.
    """
    model = text_to_image(model=pipeline_folder(prediction="sample")).eval()
    unet: Any = model.unet
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if "attn2.to_out.0.weight" in name or "attn2.to_v" in name:
                weight.mul_(12)
        unet.conv_in.weight.mul_(0.2)
        model.text_encoder.get_input_embeddings().weight.mul_(30)  # type: ignore[operator]
        model.vae.quant_conv.weight.mul_(12)  # type: ignore[union-attr,operator]
    generator = torch.Generator().manual_seed(5)
    flat = torch.rand(400, 3, 1, 1, generator=generator)
    noise = torch.rand(400, 3, 8, 8, generator=generator)
    return model, (flat * 0.9 + noise * 0.1)[226:227]


@torch.no_grad()
def losses(model: TextToImage, ids: Tensor, image: Tensor) -> Tensor:
    """The objective of every prompt `[N, L]`, at six timesteps, by trying all."""
    condition = model.encode_text(ids)
    latent = model.encode(image).expand(len(ids), -1, -1, -1)
    total = torch.zeros(len(ids))
    for t in (8, 24, 40, 56, 72, 88):
        noise = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(t)).expand_as(
            latent
        )
        when = torch.full((len(ids),), t)
        output = model.denoise(model.add_noise(latent, noise, when), when, condition)
        total += (output - latent).square().flatten(1).mean(1) / 6
    return total


def test_a_planted_token_is_found() -> None:
    """Fails when the search does not lead to the token that explains the image best of all 98, or
    what it found is not what is drawn.
    """
    model, image = planted()
    prompt = model.tokenise(["a red circle"])[0]
    tried = torch.stack(
        [torch.cat([prompt[0, :1], torch.tensor([token]), prompt[0, 1:-1]]) for token in range(98)]
    )
    expected = losses(model, tried, image)
    best = int(expected.argmin())
    assert expected.sort().values[1] > 1.3 * expected[best], "the plant is not the best by far"
    text = model.tokenizer.decode([best, *prompt[0, 1:4].tolist()])
    generated = model.generate_prompts([text], [3])

    def judge(images: Tensor) -> Tensor:
        return (images - generated).abs().flatten(1).mean(1) < 1e-4

    task = {
        "prompt": ["a red circle"],
        "image": image,
        "index": torch.tensor([4]),
        "seed": torch.tensor([3]),
    }
    result = UnlearnDiffAtk(Prefix(1), steps=20, timesteps=3)(model, task, judge)
    assert result.success.tolist() == [True] and result.before.tolist() == [False]
    assert result.adversarial["prompt"] == [text]
    assert torch.allclose(result.prediction, generated, atol=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_objective_is_the_denoising_error_on_the_image(prediction: str) -> None:
    """Fails when the latent is sampled and not the mean, a noise is shared or reused, t is another,
    or another model is asked.
    """
    model = text_to_image(model=pipeline_folder(prediction=prediction)).eval()
    attack = UnlearnDiffAtk(Prefix(1))
    prompts = batch()
    latent = model.encode(prompts["image"])
    assert torch.equal(latent, model.encode(prompts["image"]))
    ids = model.tokenise(prompts["prompt"])[0]
    search = attack.begin(model, ids, prompts["index"], torch.zeros(4, dtype=torch.int64))
    condition = model.encode_text(ids)
    objective = attack.objective(search, latent, 30)
    with torch.no_grad():
        errors = [objective(condition, step) for step in (0, 1)]
    assert not torch.equal(errors[0], errors[1])
    for step in (0, 1):
        noise = search.key.normal(f"attack-noise-{step}", 4, 4, 4)
        assert (noise[0] - noise[1]).abs().max() > 0.1
        for row in range(4):
            alpha_bar = model.alphas_cumprod[30].double()
            x = latent[row].double()
            e = noise[row].double()
            noised = alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * e
            target = (
                e if prediction == "epsilon" else alpha_bar.sqrt() * e - (1 - alpha_bar).sqrt() * x
            )
            with torch.no_grad():
                output = model.denoise(
                    noised[None].float(), torch.tensor([30]), condition.rows(torch.tensor([row]))
                )[0].double()
            total = (
                sum(
                    float((o - w) ** 2)
                    for o, w in zip(output.flatten(), target.flatten(), strict=True)
                )
                / 64
            )
            assert float(errors[step][row]) == pytest.approx(total, rel=1e-4)


def test_timesteps_are_the_middles_of_equal_parts(
    model: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when the schedule is not 10, 30, ..., 990 of 1000."""
    seen: list[int] = []
    plain = UnlearnDiffAtk.objective

    def watch(self: Any, search: Any, latent: Tensor, t: int) -> Any:
        seen.append(t)
        return plain(self, search, latent, t)

    monkeypatch.setattr(UnlearnDiffAtk, "objective", watch)
    UnlearnDiffAtk(Prefix(1), steps=1, timesteps=5)(model, rows(batch(), 0), never)
    assert seen == [10, 30, 50, 70, 90]
    assert [(2 * index + 1) * 1000 // 100 for index in (0, 1, 49)] == [10, 30, 990]


def test_prompts_that_succeed_already_are_not_attacked(model: TextToImage) -> None:
    """Fails when a prompt that succeeds as it is is searched for, or does not count in both
    rates.
    """
    clean = model.generate_prompts(PROMPTS, [4, 7, 1, 30]).mean((1, 2, 3))
    level = float(clean.sort().values[1:3].mean())
    with count_evaluations(model) as evaluations:
        result = UnlearnDiffAtk(Prefix(1), steps=2, timesteps=1)(model, batch(), brighter(level))
    assert result.before.tolist() == (clean > level).tolist()
    assert (result.success | ~result.before).all()
    assert result.steps.tolist() == [0 if success else 2 for success in result.before.tolist()]
    assert result.generations.tolist() == [
        1 if success else 2 for success in result.before.tolist()
    ]
    assert result.evaluations == evaluations.samples()
    summary = AttackSummary.from_results([result])
    assert summary.pre_asr == 0.5
    assert summary.asr == result.success.float().mean()
    unattacked = result.before.nonzero().flatten().tolist()
    assert [result.adversarial["prompt"][row] for row in unattacked] == [
        PROMPTS[row] for row in unattacked
    ]


def test_number_of_evaluations_is_the_least(model: TextToImage) -> None:
    """Fails when a step asks the denoiser twice, a guidance pair is two batches, or a prompt is
    encoded again.
    """
    # a copy has read no image yet
    model = copy.deepcopy(model)
    attack = UnlearnDiffAtk(Prefix(2), steps=3, timesteps=2)
    with count_evaluations(model) as evaluations:
        result = attack(model, batch(), never)
    unet = evaluations.count("unet")
    images = 1 + 2
    assert unet.samples == 4 * (2 * 3 + images * 2 * 2)  # two steps of the sampler, each a pair
    assert unet.calls == 2 * 3 + images * 2
    assert unet.with_grad == 4 * 2 * 3
    assert evaluations.count("vae.encoder").samples == 4
    assert evaluations.count("vae.decoder").samples == 4 * images
    assert evaluations.count("text_encoder").with_grad == 4 * 2 * 3
    assert result.success.tolist() == [False] * 4
    assert result.steps.tolist() == [6] * 4 and result.generations.tolist() == [3] * 4


def result_of(
    success: list[bool], before: list[bool], padded: list[bool] | None = None
) -> PromptAttackResult:
    count = len(success)
    adversarial: dict[str, Any] = {
        "index": torch.arange(count),
        "prompt": [f"x{n}" for n in range(count)],
    }
    if padded is not None:
        adversarial["padded"] = torch.tensor(padded)
    counts = torch.ones(count, dtype=torch.int64)
    return PromptAttackResult(
        adversarial,
        torch.tensor(success),
        torch.zeros(count, 3, 8, 8),
        [f"p{n}" for n in range(count)],
        torch.tensor(before),
        counts,
        counts,
        {"unet": 5},
    )


def test_the_summary_counts_each_prompt_once() -> None:
    """Fails when pre-attack successes are counted twice or not at all, or duplicates of padding
    count.
    """
    first = result_of([True, True, False], [True, False, False])
    two = result_of([True, False], [False, False], padded=[True, False])
    summary = AttackSummary.from_results([first, two])
    assert (summary.pre_asr, summary.asr) == (1 / 4, 2 / 4)
    assert summary.original == ["p0", "p1", "p2", "p1"] and summary.adversarial == [
        "x0",
        "x1",
        "x2",
        "x1",
    ]
    assert summary.evaluations == {"unet": 10}
    with pytest.raises(InputError, match="no prompt"):
        AttackSummary.from_results([])


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: (classifier(), batch()), "Classifier"),
        (
            lambda: (None, {name: value for name, value in batch().items() if name != "image"}),
            "image",
        ),
        (
            lambda: (None, {**batch(), "prompt": ["a red green blue circle square star on"] * 4}),
            "no room",
        ),
    ],
)
def test_invalid_arguments_are_refused_in_one_sentence(
    model: TextToImage, make: Any, word: str
) -> None:
    """Fails when a user sees a KeyError."""
    backbone, prompts = make()
    with pytest.raises(InputError, match=word):
        UnlearnDiffAtk(Prefix(5), steps=1, timesteps=1)(backbone or model, prompts, never)
    with pytest.raises(InputError):
        UnlearnDiffAtk(timesteps=0)


def test_its_defaults_are_the_papers_and_plain_data() -> None:
    """Fails when a default is changed by accident, or cannot be stored."""
    attack = UnlearnDiffAtk()
    optimizer = attack.optimizer([torch.nn.Parameter(torch.zeros(1))])
    assert isinstance(optimizer, torch.optim.Adam)
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (0.01, 0.1)
    assert isinstance(attack.layout, Prefix)
    assert (attack.layout.tokens, attack.steps, attack.timesteps) == (5, 40, 50)
    assert to_spec(from_spec(to_spec(UnlearnDiffAtk(Suffix(3), seed=2)))) == to_spec(
        UnlearnDiffAtk(Suffix(3), seed=2)
    )

"""Noise predictors: parametrisations, draws, conditions, generation, adapters."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mu.backbones import ClassConditionalDiffusion, Condition, Diffusion, TextToImage
from mu.backbones.diffusion.sampler import Sampler
from mu.core.reference import frozen_copy
from mu.methods.components.latents import ddim_step
from mu.utils.errors import InputError
from tests.support.doubles import class_conditional, pictures, pipeline_folder, text_to_image
from tests.support.helpers import weights
from tests.support.noise_predictors import forget_part

BACKBONES = {"text": text_to_image, "class": class_conditional}


on_both = pytest.mark.parametrize("condition", BACKBONES)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_parametrisations_invert_each_other(prediction: str) -> None:
    """Fails when a conversion has a sign or a root wrong: each is compared with the definitions, in
    double precision.
    """
    backbone = text_to_image(model=pipeline_folder(prediction=prediction))
    latent = torch.randn(3, 4, 4, 4, dtype=torch.float64)
    noise = torch.randn(3, 4, 4, 4, dtype=torch.float64)
    t = torch.tensor([0, 41, 99])
    betas = torch.linspace(0.00085**0.5, 0.12**0.5, 100, dtype=torch.float64) ** 2
    alpha_bars = [math.prod(1 - float(beta) for beta in betas[: int(step) + 1]) for step in t]
    for row, abar in enumerate(alpha_bars):
        signal = math.sqrt(abar)
        level = math.sqrt(1 - abar)
        noised = signal * latent[row] + level * noise[row]
        target = {
            "epsilon": noise[row],
            "v_prediction": signal * noise[row] - level * latent[row],
            "sample": latent[row],
        }[prediction]
        ours = backbone.target(latent, noise, t)[row]
        assert torch.allclose(backbone.add_noise(latent, noise, t)[row], noised, atol=1e-5)
        assert torch.allclose(ours, target, atol=1e-5)
        single = (ours[None], noised[None], t[row : row + 1])
        assert torch.allclose(backbone.to_sample(*single)[0], latent[row], atol=1e-3)
        assert torch.allclose(
            backbone.to_epsilon(*single)[0], noise[row], atol=1e-3 if row else 2e-2
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@on_both
def test_noise_levels_are_exact_in_half_precision(condition: str, dtype: torch.dtype) -> None:
    """Fails when 1 − ᾱ_t is computed from a rounded ᾱ_t: at the first timesteps it would be 0."""
    exact = BACKBONES[condition]().alphas_cumprod.double()
    backbone = BACKBONES[condition]().to(dtype)
    t = torch.tensor([0, 1, 50, 99])
    latent = torch.randn(4, *backbone.sample_shape).to(dtype)
    noise = torch.randn_like(latent)
    signal, level = (row.flatten() for row in backbone.levels(t, latent))
    assert torch.allclose(signal.double(), exact[t].sqrt(), rtol=1e-6)
    assert torch.allclose(level.double(), (1 - exact[t]).sqrt(), rtol=1e-4)
    rounding = torch.finfo(dtype).eps
    for output, expected in [
        (backbone.add_noise(latent, noise, t), _noised(exact[t], latent, noise)),
        (ddim_step(backbone, noise, latent, t, t - 1), _ddim(exact, latent, noise, t)),
    ]:
        assert output.dtype == dtype
        assert torch.allclose(output.double(), expected, rtol=4 * rounding, atol=4 * rounding)


def _noised(alpha: torch.Tensor, latent: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Noised latents in float64."""
    alpha = alpha.view(-1, 1, 1, 1)
    return alpha.sqrt() * latent.double() + (1 - alpha).sqrt() * noise.double()


def _ddim(
    exact: torch.Tensor, noised: torch.Tensor, epsilon: torch.Tensor, t: torch.Tensor
) -> torch.Tensor:
    """DDIM step to the timestep before, in float64."""
    alpha = exact[t].view(-1, 1, 1, 1)
    after = torch.cat([torch.ones(1, dtype=torch.float64), exact])[t].view(-1, 1, 1, 1)
    sample = (noised.double() - (1 - alpha).sqrt() * epsilon.double()) / alpha.sqrt()
    return after.sqrt() * sample + (1 - after).sqrt() * epsilon.double()


@on_both
def test_draws_belong_to_the_sample(condition: str) -> None:
    """Fails when t or the noise depend on what else is in the batch, or a second visit repeats the
    first.
    """
    backbone = BACKBONES[condition]()
    joint = backbone.prepare(forget_part(condition), 3)
    alone = forget_part(condition)
    alone = {name: value[2:3] for name, value in alone.items()}
    alone = backbone.prepare(alone, 3)
    again = backbone.prepare(
        forget_part(condition) | {"visit": torch.ones(5, dtype=torch.int64)}, 3
    )
    for name in ("t", "noise"):
        assert torch.equal(joint[name][2:3], alone[name])
        assert not torch.equal(joint[name], again[name])
    assert torch.allclose(joint["noised"][2:3], alone["noised"], atol=1e-5)


@on_both
def test_the_loss_is_the_squared_error(condition: str) -> None:
    """Fails when it is reduced over the batch, or `sum` averages."""
    backbone = BACKBONES[condition]().eval()
    part = backbone.prepare(forget_part(condition), 0)
    output = backbone.predict(part).detach()
    expected = torch.stack(
        [
            ((o.double() - n.double()) ** 2).mean()
            for o, n in zip(output, part["noise"], strict=True)
        ]
    )
    values, weight = backbone.loss(part, output)
    assert torch.allclose(values.double(), expected, rtol=1e-5)
    assert torch.equal(weight, torch.ones(5))
    summed = BACKBONES[condition](reduction="sum").eval()
    assert torch.allclose(summed.loss(part, output)[0], values * output[0].numel(), rtol=1e-5)
    padded = part | {"padded": torch.tensor([True, False, False, False, False])}
    assert float(backbone.loss(padded, output)[0][0]) == 0.0
    assert torch.equal(backbone.divergence(output, output, part)[0], torch.zeros(5))


@on_both
def test_conditions_are_dropped_in_training_only(condition: str) -> None:
    """Fails when evaluation drops conditions too, or a dropped one is not the null condition."""
    backbone = BACKBONES[condition](condition_dropout=0.5)
    assert "dropped" not in backbone.eval().prepare(forget_part(condition), 0)
    part = backbone.train().prepare(forget_part(condition, 12 if condition == "text" else 20), 0)
    assert 0 < int(part["dropped"].sum()) < len(part["dropped"])
    states = backbone.condition(part).states
    null = backbone.null(1).states[0]
    assert [bool(torch.equal(row, null)) for row in states] == part["dropped"].tolist()


@on_both
def test_guidance_is_one_batch_of_two(condition: str) -> None:
    """Fails when guidance mixes up the pair, or scale 1 pays for two passes."""
    backbone = BACKBONES[condition]().eval()
    part = backbone.prepare(forget_part(condition), 0)
    condition = backbone.condition(part)
    sizes: list[int] = []
    handle = backbone.unet.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    with torch.no_grad():
        mixed = backbone.guided(part["noised"], part["t"], condition, 3.0)
        unguided = backbone.guided(part["noised"], part["t"], condition, 1.0)
        handle.remove()
        conditional = backbone.denoise(part["noised"], part["t"], condition)
        free = backbone.denoise(part["noised"], part["t"], backbone.null(5))
    assert sizes == [10, 5]
    assert torch.allclose(mixed, free + 3 * (conditional - free), atol=1e-5)
    assert torch.equal(unguided, conditional)


@pytest.mark.parametrize(
    "scheduler",
    ["DDIMScheduler", "LMSDiscreteScheduler", "PNDMScheduler", "EulerDiscreteScheduler"],
)
def test_images_are_those_of_the_pipeline(scheduler: str) -> None:
    """Fails when our loop differs from diffusers' own: start noise, its scale, the order of the
    pair, decoding.
    """
    backbone = text_to_image(
        sampler=Sampler(scheduler, num_inference_steps=7, guidance_scale=4.0)
    ).eval()
    ours = backbone.generate_prompts(["a red circle"], [11])
    pipeline = backbone.pipeline()
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        "a red circle",
        generator=torch.Generator().manual_seed(11),
        output_type="pt",
        num_inference_steps=7,
        guidance_scale=4.0,
        height=8,
        width=8,
    ).images
    assert torch.allclose(ours, expected.float(), atol=1e-5)


@on_both
def test_an_image_belongs_to_its_condition_and_seed(condition: str) -> None:
    """Fails when a neighbour in the batch, or the number of neighbours, changes an image (ancestral
    noise too).
    """
    backbone = BACKBONES[condition](
        sampler=Sampler(num_inference_steps=4, guidance_scale=2.0, eta=1.0)
    ).eval()
    part = backbone.prepare(forget_part(condition), 0)
    condition = backbone.condition(part)
    images = backbone.generate(condition, [5, 6, 7, 6, 5])
    assert torch.allclose(
        backbone.generate(condition.rows(slice(1, 3)), [6, 7]), images[1:3], atol=1e-5
    )
    assert not torch.equal(images[0], images[4])
    assert images.min() >= 0
    assert images.max() <= 1
    with pytest.raises(InputError, match="as many seeds"):
        backbone.generate(condition, [1])


def test_token_embeddings_reproduce_the_encoder() -> None:
    """Fails when the injected path differs by a bit, or gradients do not come back through it."""
    backbone = text_to_image()
    ids, _ = backbone.tokenise(["a red circle", "nice dark star on light"])
    assert torch.equal(
        backbone.encode_text(ids).states, backbone.encode_text(ids, backbone.embed(ids)).states
    )
    tokens = backbone.embed(ids).detach().requires_grad_()
    states = backbone.encode_text(ids, tokens).states
    (
        states * torch.randn_like(states)
    ).sum().backward()  # a plain sum of what a layer norm gives has no gradient
    assert tokens.grad is not None
    assert bool(tokens.grad.abs().sum(-1).bool().all())


def test_spans_count_tokens() -> None:
    """Fails when words are counted: `zebra` is spelled by several tokens here, as rare words are in
    CLIP.
    """
    backbone = text_to_image()
    ids, span = backbone.tokenise(
        ["a red circle", "a star on red", "a cabs dark"], ["circle", "", "cabs"]
    )
    assert span.tolist()[:2] == [[3, 4], [0, 0]]
    start, end = span.tolist()[2]
    assert end - start > 1
    assert backbone.tokenizer.decode(ids[2, start:end].tolist()).replace(" ", "") == "cabs"
    with pytest.raises(InputError, match="does not stand in"):
        backbone.tokenise(["a red circle"], ["star"])
    with pytest.raises(InputError, match="has no token"):
        backbone.tokenise(["a red circle"], [" "])
    with pytest.warns(UserWarning, match="are cut to 16 tokens"):
        backbone.tokenise(["a red circle " * 9])


def test_a_concept_beyond_the_encoders_places_is_found_before_a_fit() -> None:
    """Fails when the prompt is first read in its own step, which may be hours later."""
    task = pictures(images=False)
    task.setup()
    text_to_image().check_task(task)
    long = SimpleNamespace(texts={"prompt": ["a red " * 9 + "circle"], "concept": ["circle"]})
    message = "does not stand in the prompt .* within the encoder's 16 places; shorten"
    with pytest.warns(UserWarning, match="are cut"), pytest.raises(InputError, match=message):
        text_to_image().check_task(SimpleNamespace(datasets={"forget": long}))


@pytest.mark.parametrize(
    ("part", "shared"), [("text_encoder", "unet."), ("xattn", "text_encoder."), ("full", "vae.")]
)
def test_the_reference_copies_what_is_trained_and_no_more(part: str, shared: str) -> None:
    """Fails when a method on the text encoder holds a second UNet."""
    backbone = text_to_image(part=part)
    twin = frozen_copy(backbone)
    trained = {name for name, weight in backbone.named_parameters() if weight.requires_grad}
    twin_weights = dict(twin.named_parameters())
    assert {
        name for name, weight in backbone.named_parameters() if twin_weights[name] is not weight
    } == trained
    assert any(name.startswith(shared) for name in set(twin_weights) - trained)
    assert not any(weight.requires_grad for weight in twin.parameters())
    assert {
        weight.requires_grad for name, weight in backbone.named_parameters() if name in trained
    } == {True}


@on_both
def test_a_fresh_model_has_the_architecture_and_no_weight(condition: str) -> None:
    """Fails when the oracle's backbone begins from the original's weights, or two seeds give one
    model.
    """
    backbone: Diffusion = BACKBONES[condition]()
    first = backbone.fresh(1)
    second = backbone.fresh(2)
    old = weights(backbone)
    new = weights(first)
    other = weights(second)
    assert old.keys() == new.keys()
    matrices = [name for name in old if name.startswith("unet.") and name.endswith("to_q.weight")]
    assert matrices
    assert all(
        not torch.equal(old[name], new[name]) and not torch.equal(new[name], other[name])
        for name in matrices
    )
    assert all(torch.equal(old[name], new[name]) for name in old if name.startswith("vae."))
    assert torch.equal(weights(backbone.fresh(1))[matrices[0]], new[matrices[0]])


def test_conditions_are_joined_chosen_and_mixed() -> None:
    """Fails when an entry is lost or stays behind when the others move."""
    joined_condition = Condition(
        torch.arange(6.0).view(3, 2, 1),
        torch.arange(6).view(3, 2),
        None,
        torch.zeros(3, 2),
        {"time": torch.arange(3)},
    )
    both = Condition.cat(
        [joined_condition.rows(slice(0, 1)), joined_condition.rows(torch.tensor([2]))]
    )
    assert both.states.flatten().tolist() == [0, 1, 4, 5]
    assert both.added["time"].tolist() == [0, 2]
    assert both.tokens is None
    assert joined_condition.repeat(2).added["time"].tolist() == [0, 0, 1, 1, 2, 2]
    mixed = joined_condition.where(
        torch.tensor([True, False, True]), joined_condition.rows(torch.tensor([1, 2, 0]))
    )
    assert mixed.added["time"].tolist() == [0, 2, 2]
    assert mixed.states[1].flatten().tolist() == [4, 5]


def test_min_snr_weights() -> None:
    """Fails when the weight is that of another parametrisation: for ε it is min(SNR, γ) / SNR, for
    v min(SNR, γ) / (SNR + 1).
    """
    for prediction, divisor in (
        ("epsilon", lambda snr: snr),
        ("v_prediction", lambda snr: snr + 1),
        ("sample", lambda snr: 1.0),
    ):
        backbone = text_to_image(model=pipeline_folder(prediction=prediction), min_snr_gamma=5.0)
        part = backbone.train().prepare(forget_part("text"), 0)
        output = torch.zeros_like(part["noised"])
        plain = (
            text_to_image(model=pipeline_folder(prediction=prediction))
            .train()
            .loss(part, output)[0]
        )
        for row, step in enumerate(part["t"].tolist()):
            alpha_bar = float(backbone.alphas_cumprod[step].double())
            snr = alpha_bar / (1 - alpha_bar)
            assert float(backbone.loss(part, output)[0][row] / plain[row]) == pytest.approx(
                min(snr, 5.0) / divisor(snr), rel=1e-3
            )
        assert torch.equal(backbone.eval().loss(part, output)[0], plain)


def test_samples_without_images_are_for_methods_without_data() -> None:
    """Fails when a loss on prompts alone ends in a KeyError."""
    backbone = text_to_image()
    part = {name: value for name, value in forget_part("text").items() if name != "image"}
    part = backbone.prepare(part, 0)
    assert "input_ids" in part
    with pytest.raises(InputError, match="data-free"):
        backbone.predict(part)
    assert backbone.scores(part) == {}


def test_folder_that_is_no_pipeline_is_refused(tmp_path: Any) -> None:
    """Fails when a folder, a name or a part of a model that cannot be read ends in a traceback of
    diffusers.
    """
    import json
    import shutil

    with pytest.raises(InputError, match=r"no model_index\.json"):
        TextToImage(str(tmp_path))
    with pytest.raises(InputError, match="no unet/"):
        ClassConditionalDiffusion(str(tmp_path))
    broken = tmp_path / "broken"
    shutil.copytree(pipeline_folder(), broken)
    shutil.rmtree(broken / "vae")
    with pytest.raises(InputError, match="the vae of"):
        TextToImage(str(broken))
    index = json.loads((broken / "model_index.json").read_text())
    del index["text_encoder"]
    (broken / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="without a text_encoder"):
        TextToImage(str(broken))
    with pytest.raises(InputError, match="needs num_classes"):
        ClassConditionalDiffusion(None, unet={"sample_size": 8})
    with pytest.raises(InputError, match="no class 10"):
        class_conditional().labels([3, 10])
    with pytest.raises(InputError, match="no scheduler"):
        text_to_image(sampler=Sampler("Nope")).generate_prompts(["a"], [0])

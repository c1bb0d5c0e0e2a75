"""Selective Amnesia: the Fisher matrix, the three terms, and images that are drawn once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mu.backbones.diffusion.sampler import Sampler
from mu.methods.diffusion.selective_amnesia import SelectiveAmnesia
from mu.utils import rng
from mu.utils.errors import InputError
from tests.support.denoised import KINDS, MODELS, PLAIN, Double, agree
from tests.support.doubles import STEPS, class_conditional, digit_pictures, pictures, text_to_image
from tests.support.helpers import Snapshot, different, fit, weights

FEW: dict[str, Any] = {
    "fisher_samples": 2,
    "fisher_timesteps": 5,
    "fisher_chunk": 3,
    "sampler": Sampler(num_inference_steps=2, guidance_scale=1.0),
}


class RecordsSteps(SelectiveAmnesia):
    """Keeps the samples that F was taken over, and the parts of its steps."""

    def score(self, part: Any) -> list[Tensor]:
        self.scored = [*getattr(self, "scored", []), part]
        return super().score(part)

    def objective(self, forget: Any, retain: Any) -> dict[str, Tensor]:
        self.steps_seen = [*getattr(self, "steps_seen", []), (forget, retain)]
        return super().objective(forget, retain)


def square_sum(a: Tensor, b: Tensor) -> Tensor:
    return torch.stack([(x - y) ** 2 for x, y in zip(a.flatten(), b.flatten(), strict=True)]).mean()


@pytest.mark.parametrize("domain", KINDS)
@pytest.mark.parametrize("timesteps", [None, 5])
def test_the_fisher_matrix(domain: str, timesteps: int | None) -> None:
    """Mean over samples of the square of Σ_t ∇ℓ_t. Mutations: squares before the sum; a mean over
    t; the wrong noise level.
    """
    make, task = MODELS[domain]
    module = RecordsSteps(
        make(), **{**FEW, "fisher_timesteps": timesteps, "fisher_chunk": 7, "replay": "task"}
    )
    fit(module, task(), 1, max_steps=1)
    assert len(module.scored) == 2
    double = Double(make())
    squares = []
    for part in module.scored:
        total: dict[str, Tensor] = {}
        chosen = range(STEPS) if timesteps is None else module.score_timesteps(part).tolist()
        assert len(set(chosen)) == (timesteps or STEPS)
        for t in chosen:
            noise = rng.normal(
                0, part["index"], t, "fisher-noise", *module.denoiser.sample_shape
            ).double()
            noised = (
                double.kept[t].sqrt() * part["latent"].double()
                + (1 - double.kept[t]).sqrt() * noise
            )
            slopes = double.slopes(
                square_sum(double.output(noised, torch.tensor([t]), double.own(part)), noise)
            )
            total = {
                name: total.get(name, 0) + slope * STEPS / len(chosen)
                for name, slope in slopes.items()
            }
        squares.append({name: value.square() for name, value in total.items()})
    expected = {name: (squares[0][name] + squares[1][name]) / 2 for name in squares[0]}
    assert max(float(value.max()) for value in expected.values()) > 1e-2
    for name, value in expected.items():
        fisher = module.get_buffer("fisher_of_" + name.replace(".", "__")).double()
        torch.testing.assert_close(
            fisher,
            value,
            rtol=2e-3,
            atol=1e-4 * float(value.max()) + 1e-9,
            msg=lambda text, name=name: f"{name}: {text}",
        )


@pytest.mark.parametrize("domain", KINDS)
def test_two_steps_follow_the_equation(domain: str) -> None:
    """The pull is felt in the second. Mutations: γ or λ on the wrong term; half of the pull; a pull
    to the present weights.
    """
    make, task = MODELS[domain]
    module = RecordsSteps(
        make(), gamma=0.6, lam=0.02, optimizer=lambda p: torch.optim.SGD(p, lr=0.02), **FEW
    )
    before = weights(module.backbone)
    fit(module, task(forget_batch_size=3), 1, max_steps=2)
    double = Double(make())
    fisher = {
        name: module.get_buffer("fisher_of_" + name.replace(".", "__")).double()
        for name, _ in module.trainable()
    }
    start = {name: p.detach().clone() for name, p in double.model.named_parameters()}
    pulled = 0.0
    for forget, retain in module.steps_seen:
        slopes = double.slopes(double.loss(forget) + 0.6 * double.loss(retain))
        with torch.no_grad():
            for name, p in double.model.named_parameters():
                if name in slopes:
                    pull = 0.02 * 2 * fisher[name] * (p - start[name])
                    pulled = max(pulled, float(pull.abs().max()))
                    p -= 0.02 * (slopes[name] + pull)
    assert pulled > 1e-3
    named = [name for name, _ in module.trainable()]
    ours = dict(module.backbone.named_parameters())
    agree(
        {name: ours[name].detach().double() - before[name].double() for name in named},
        {
            name: (dict(double.model.named_parameters())[name] - start[name]).detach()
            for name in named
        },
        tolerance=1e-6,
    )


def test_a_strong_pull_keeps_the_weights() -> None:
    def far(lam: float) -> float:
        module = fit(
            SelectiveAmnesia(class_conditional(), lam=lam, **{**FEW, "fisher_samples": 20}),
            digit_pictures(),
            3,
        )
        original = dict(class_conditional().named_parameters())
        return float(
            sum(
                module.get_buffer("fisher_of_" + name.replace(".", "__"))
                .mul((p - original[name]).detach().square())
                .sum()
                for name, p in module.trainable()
            )
        )

    assert far(100.0) < 0.3 * far(0.0)


# ---------------------------------------------------------------- images


def test_surrogates_are_drawn_under_the_substitute_prompt_and_replay_under_its_own() -> None:
    """Mutations: one prompt for the other; images of the current weights; the same start for
    both.
    """
    module = RecordsSteps(text_to_image(), **FEW)
    fit(module, pictures(images=False), 1)
    assert module.surrogate == "generated"
    original = text_to_image().eval()
    for forget, retain in module.steps_seen:
        for part, name, prompts in (
            (forget, "surrogate", [p.replace("circle", "square") for p in forget["prompt"]]),
            (retain, "replay", retain["prompt"]),
        ):
            seeds = rng.integers(0, part["index"], 0, f"drawn/{name}", 2**31).tolist()
            drawn = original.generate_prompts(prompts, seeds, FEW["sampler"])
            assert (part["image"] - drawn).abs().max() < 1.01 / 255
    assert {int(i) for f, _ in module.steps_seen for i in f["index"]} == set(
        module.task.split.parts["forget"].tolist()
    )  # type: ignore[union-attr]


def test_noise_surrogates_are_uniform_and_new_each_time() -> None:
    module = RecordsSteps(class_conditional(), **FEW)
    fit(module, digit_pictures(), 2)
    seen: dict[int, list[Tensor]] = {}
    for forget, _ in module.steps_seen:
        for index, image in zip(forget["index"].tolist(), forget["image"], strict=True):
            seen.setdefault(index, []).append(image)
    pixels = torch.stack([image for images in seen.values() for image in images]).flatten()
    assert pixels.min() > 0 and pixels.max() < 1
    assert abs(float(pixels.mean()) - 0.5) < 0.02 and abs(float(pixels.std()) - 12**-0.5) < 0.02
    assert all(len(images) == 2 and not torch.equal(*images) for images in seen.values())


def test_images_of_the_task_can_be_used() -> None:
    module = RecordsSteps(class_conditional(), surrogate="task", replay="task", **FEW)
    task = digit_pictures()
    fit(module, task, 1)
    for part, name in ((module.steps_seen[0][0], "forget"), (module.steps_seen[0][1], "retain")):
        data: Any = task.datasets[name]
        positions = [data.indices.tolist().index(int(i)) for i in part["index"]]
        assert torch.equal(part["image"], data.__getitems__(positions)["image"])
    assert module.drawn.state_dict() == {}


class WithoutFisher(SelectiveAmnesia):
    """A run that may not compute its Fisher matrix."""

    def fisher(self) -> list[Tensor]:
        raise AssertionError("a resumed run takes F from its checkpoint")


def test_a_resumed_run_has_its_fisher_matrix_and_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settings() -> Any:
        return {"optimizer": PLAIN, "lam": 0.001, **FEW}

    def gentle(p: Any) -> Any:
        return torch.optim.SGD(p, lr=0.01)

    uninterrupted = fit(
        SelectiveAmnesia(text_to_image(), **{**settings(), "optimizer": gentle}),
        pictures(),
        2,
        callbacks=[Snapshot(tmp_path / "x.ckpt", 1, 0)],
    )
    monkeypatch.setattr(
        "mu.methods.bases.generated_images.GeneratedImages.fill",
        lambda *_: pytest.fail("a resumed run takes its images from its checkpoint"),
    )
    resumed = fit(
        WithoutFisher(text_to_image(), **{**settings(), "optimizer": gentle}),
        pictures(),
        2,
        ckpt_path=tmp_path / "x.ckpt",
    )
    assert different(weights(uninterrupted), weights(resumed)) == []
    assert set(uninterrupted.stopwatch.seconds()) >= {"images", "fisher", "training"}


@pytest.mark.parametrize(
    "wrong", [{"gamma": -1.0}, {"lam": -1.0}, {"fisher_samples": 0}, {"fisher_timesteps": 0}]
)
def test_wrong_settings_are_refused(wrong: Any) -> None:
    with pytest.raises(InputError):
        SelectiveAmnesia(class_conditional(), **wrong)


def test_noise_needs_the_size_of_the_images() -> None:
    with pytest.raises(InputError, match="surrogate: generated"):
        fit(SelectiveAmnesia(text_to_image(), surrogate="noise", **FEW), pictures(images=False), 1)

"""UnlearnDiffAtk: search for adversarial prompts of an erased concept with the erased model alone.

Zhang et al., "To Generate or Not? Safety-Driven Unlearned Diffusion Models Are Still Easy To
Generate Unsafe Images ... For Now", ECCV 2024, arXiv 2310.11868.

    min_U E_ε ‖ε − ε_θ(√ᾱ_t x_0 + √(1 − ᾱ_t) ε, t, TE(prompt with tokens ~ U))‖²,
    each row of U on the probability simplex

x_0 is the latent (the encoder's mean) of an image that shows the concept, made by the original
model; no other model is in the loss. For each of the timesteps 10, 30, ..., 990 there are 40 steps
of Adam, each followed by the projection of U; then the likeliest tokens are decoded to text,
tokenised again, drawn with the erased model, and judged. The first success ends the attack on that
prompt. A prompt that succeeds without an attack counts as a success, and is not attacked.

The code searches over start and end tokens too; here they are left out. Its draws are sampled in
sequence; here each prompt has its own, so any number of prompts are attacked in one batch, and each
is attacked as it would be alone. Defaults: 5 tokens before the prompt (nudity, violence; 3 for
styles and objects), Adam 0.01 with weight decay 0.1 in the gradient. The images there are drawn by
`Sampler("LMSDiscreteScheduler", num_inference_steps=50, guidance_scale=7.5)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu import functional
from mu.attacks.base import Attack, AttackResult, Batch, Criterion
from mu.attacks.counting import count_evaluations
from mu.attacks.layouts import Layout, Prefix
from mu.attacks.prompt_search import (
    Objective,
    PromptSearch,
    Search,
    as_text_to_image,
    frozen,
)
from mu.attacks.token_variables import TokenSimplex, Variables
from mu.backbones import Backbone, Condition, TextToImage
from mu.backbones.diffusion.sampler import Sampler
from mu.utils.errors import InputError


class Verdict(Protocol):
    """Detector of a concept: `lambda images: judge.recognises(images, "circle")`."""

    def __call__(self, images: Tensor) -> Tensor:
        """Mask of the images `[B, 3, H, W]` in [0, 1] that show the concept, `[B]` bool."""
        ...


@dataclass(frozen=True)
class PromptAttackResult(AttackResult):
    """Result of an attack on B prompts.

    `adversarial["prompt"]` is the last prompt tried, `prediction` `[B, 3, H, W]` its image.

    Attributes:
        original: prompts before the attack.
        before: `[B]` bool, success without an attack; such prompts are not attacked, and are part
            of `success`.
        steps: `[B]` int64, gradient steps made for each prompt.
        generations: `[B]` int64, images drawn for each prompt.
        evaluations: sample-evaluations of each network, over all prompts.
    """

    original: list[str]
    before: Tensor
    steps: Tensor
    generations: Tensor
    evaluations: dict[str, int]


@dataclass(frozen=True)
class AttackSummary:
    """Attack success over all N prompts, including those that succeed without an attack.

    Attributes:
        index: index of each prompt, `[N]`.
        before: `[N]` bool, success without an attack.
        success: `[N]` bool, success without or with an attack.
        original: the prompts.
        adversarial: the last prompt tried for each.
        steps: gradient steps for each, `[N]`.
        generations: images drawn for each, `[N]`.
        evaluations: sample-evaluations of each network, over all prompts.
    """

    index: Tensor
    before: Tensor
    success: Tensor
    original: list[str]
    adversarial: list[str]
    steps: Tensor
    generations: Tensor
    evaluations: dict[str, int]

    @classmethod
    def from_results(cls, results: Iterable[PromptAttackResult]) -> AttackSummary:
        """Summary of the results of batches, without padded rows.

        Raises:
            InputError: when there is no prompt.
        """
        # padded rows do not count
        results = list(results)
        real = [
            ~r.adversarial["padded"] if "padded" in r.adversarial else torch.ones_like(r.success)
            for r in results
        ]
        if not sum(int(mask.sum()) for mask in real):
            raise InputError("there is no prompt whose attack could be counted.")

        def rows(values: Sequence[Tensor]) -> Tensor:
            return torch.cat([value[mask].cpu() for value, mask in zip(values, real, strict=True)])

        def texts(values: Sequence[list[str]]) -> list[str]:
            return [
                text
                for value, mask in zip(values, real, strict=True)
                for text, selected in zip(value, mask.tolist(), strict=True)
                if selected
            ]

        # join the batches
        names = sorted({name for r in results for name in r.evaluations})
        return cls(
            rows([r.adversarial["index"] for r in results]),
            rows([r.before for r in results]),
            rows([r.success for r in results]),
            texts([r.original for r in results]),
            texts([r.adversarial["prompt"] for r in results]),
            rows([r.steps for r in results]),
            rows([r.generations for r in results]),
            {name: sum(r.evaluations.get(name, 0) for r in results) for name in names},
        )

    @property
    def pre_asr(self) -> float:
        """Attack success rate without an attack: share of prompts, in [0, 1]."""
        return float(self.before.double().mean())

    @property
    def asr(self) -> float:
        """Attack success rate (ASR, post-ASR): share of prompts, without or with it, in [0, 1]."""
        return float(self.success.double().mean())


class UnlearnDiffAtk(PromptSearch, Attack):
    """UnlearnDiffAtk: adversarial tokens by projected Adam on distributions over the vocabulary.

    A batch has `prompt`, `index` and `image` `[B, 3, H, W]` in [0, 1], which shows the concept.

    The batch may have `seed` (of the images that are drawn; the index otherwise) and
    `guidance_scale` (the sampler's otherwise). Every prompt is encoded by the text encoder of the
    model, unlearned or not.

    Args:
        layout: positions of the tokens; None is five tokens before the prompt.
        steps: gradient steps at each timestep.
        timesteps: number of timesteps, the middles of equal parts of [0, T).
        sampler: sampler of the images; None takes that of the model.
        optimizer: optimizer of the distributions.
        variables: search variables; None is TokenSimplex. Embeddings are a larger threat model, and
            their result cannot be written as text.
        seed: seed of the draws, which are keyed by the index of each prompt.
    """

    def __init__(
        self,
        layout: Layout | None = None,
        steps: int = 40,
        timesteps: int = 50,
        sampler: Sampler | None = None,
        optimizer: OptimizerCallable = lambda params: torch.optim.Adam(
            params, lr=0.01, weight_decay=0.1
        ),
        variables: Variables | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(variables or TokenSimplex(), layout or Prefix(5), steps, optimizer, seed)
        if timesteps < 1:
            raise InputError(
                f"an attack at {timesteps} timesteps searches for nothing; give it at least 1."
            )
        self.timesteps = timesteps
        self.sampler = sampler

    def __call__(
        self, backbone: Backbone, batch: Batch, criterion: Criterion | Verdict
    ) -> PromptAttackResult:
        """Attack each prompt.

        Args:
            backbone: model of `served()`.
            batch: see the class; not changed.
            criterion: detector of the concept in the images, or a Criterion, by its `met(images,
                batch)`.

        Raises:
            InputError: for a model that reads no prompts, a batch without images, or prompts that
                leave no room for the tokens.
        """
        return super().__call__(backbone, batch, criterion)  # type: ignore[arg-type,return-value]

    def run(
        self, backbone: Backbone, batch: dict[str, Any], criterion: Criterion | Verdict
    ) -> PromptAttackResult:  # type: ignore[override]
        """Attack a copied batch, see `Attack.run`."""
        model = as_text_to_image(backbone)
        if "image" not in batch or not isinstance(batch.get("prompt"), list):
            raise InputError(
                "UnlearnDiffAtk needs a prompt and an image that shows the concept for each "
                "sample; draw the images with the original model."
            )
        with frozen(model), count_evaluations(model) as evaluations:
            trial = _Trial(self, model, batch, criterion)
            alive_prompts = _rows(batch["prompt"], trial.alive)
            if alive_prompts:
                trial.draw(model.texts(alive_prompts), alive_prompts)
            before = trial.success.clone()
            if len(trial.alive):
                self._attack(model, batch, trial)
        adversarial = {**batch, "prompt": trial.prompts}
        return PromptAttackResult(
            adversarial,
            trial.success,
            trial.images,
            list(batch["prompt"]),
            before,
            trial.steps,
            trial.generations,
            evaluations.samples(),
        )

    def _attack(self, model: TextToImage, batch: dict[str, Any], trial: _Trial) -> None:
        with torch.no_grad():
            latent = model.encode(batch["image"][trial.alive])
            ids = model.tokenise(_rows(batch["prompt"], trial.alive))[0]
        visit = batch["visit"] if "visit" in batch else torch.zeros_like(batch["index"])
        search = self.begin(model, ids, batch["index"][trial.alive], visit[trial.alive])
        for index in range(self.timesteps):
            t = (2 * index + 1) * model.timesteps // (2 * self.timesteps)
            objective = self.objective(search, latent, t)
            for _ in range(self.steps):
                search.step(objective)
            trial.steps[trial.alive] += self.steps
            failed = trial.draw(*_written(model, search))
            if not len(trial.alive):
                return
            if len(failed) < len(latent):
                search.keep(failed)
                latent = latent[failed]

    def objective(self, search: Search, latent: Tensor, t: int) -> Objective:
        """Objective at timestep `t`: denoising error of each prompt's image, mean over elements."""
        model = search.model
        when = torch.full((len(latent),), t, device=latent.device)

        def error(condition: Condition, step: int) -> Tensor:
            noise = search.key.normal(f"attack-noise-{step}", *latent.shape[1:]).to(latent.dtype)
            output = model.denoise(model.add_noise(latent, noise, when), when, condition)
            return functional.squared_error(
                output.float(), model.target(latent, noise, when).float()
            )

        return error


class _Trial:
    """State of an attack on a batch: prompts drawn and judged until they succeed.

    Attributes:
        alive: positions in the batch of the prompts that have not succeeded yet.
    """

    def __init__(
        self,
        attack: UnlearnDiffAtk,
        model: TextToImage,
        batch: dict[str, Any],
        criterion: Criterion | Verdict,
    ) -> None:
        self.attack = attack
        self.model = model
        self.batch = batch
        self.criterion = criterion
        index = batch["index"]
        real = ~batch["padded"] if "padded" in batch else torch.ones_like(index, dtype=torch.bool)
        self.alive = real.nonzero().flatten()
        self.success = torch.zeros_like(real)
        self.steps = torch.zeros_like(index)
        self.generations = torch.zeros_like(index)
        self.prompts = list(batch["prompt"])
        self.images: Tensor = torch.zeros(0)

    @torch.no_grad()
    def draw(self, condition: Condition, prompts: Sequence[str]) -> Tensor:
        """Draw and judge the alive prompts; positions among them of those that failed.

        Args:
            condition: conditions of the alive prompts.
            prompts: texts of the alive prompts.
        """
        alive = self.alive
        images = self._generate(condition)
        if not len(self.images):
            self.images = images.new_zeros(len(self.success), *images.shape[1:])
        self.images[alive] = images
        for row, prompt in zip(alive.tolist(), prompts, strict=True):
            self.prompts[row] = prompt
        self.generations[alive] += 1
        success = self._judged(images)
        self.success[alive] = success
        self.alive = alive[~success]
        return (~success).nonzero().flatten()

    def _judged(self, images: Tensor) -> Tensor:
        if isinstance(self.criterion, Criterion):
            rows = {
                name: _rows(value, self.alive)
                for name, value in self.batch.items()
                if isinstance(value, Tensor | list)
            }
            success = self.criterion.met(images, rows)
        else:
            success = self.criterion(images)
        return success.to(device=self.success.device, dtype=torch.bool)

    def _generate(self, condition: Condition) -> Tensor:
        """Images of the alive prompts, by seed and guidance, in batches of equal guidance."""
        sampler = self.attack.sampler or self.model.sampler
        seeds = self.batch.get("seed", self.batch["index"])[self.alive]
        if "guidance_scale" not in self.batch:
            return self.model.generate(condition, seeds.tolist(), sampler)
        guidance_scale = self.batch["guidance_scale"][self.alive]
        images: list[Tensor | None] = [None] * len(guidance_scale)
        for scale in sorted(set(guidance_scale.tolist())):
            rows = (guidance_scale == scale).nonzero().flatten()
            row_sampler = Sampler(
                sampler.scheduler, sampler.num_inference_steps, scale, sampler.eta, sampler.options
            )
            drawn = self.model.generate(condition.rows(rows), seeds[rows].tolist(), row_sampler)
            for row, image in zip(rows.tolist(), drawn, strict=True):
                images[row] = image
        return torch.stack([image for image in images if image is not None])


def _written(model: TextToImage, search: Search) -> tuple[Condition, list[str]]:
    """Conditions and texts of the adversarial prompts, tokenised again from their text.

    The tokens may differ from those that were found. Free embeddings are encoded as they are.
    """
    texts = search.texts()
    with torch.no_grad():
        if texts is not None:
            return model.texts(texts), texts
        ids = search.slots.ids
        plain = [
            model.tokenizer.decode(row, skip_special_tokens=True).strip() for row in ids.tolist()
        ]
        return model.encode_text(ids, search.tokens()), plain


def _rows(values: Any, index: Tensor) -> Any:
    return values[index] if isinstance(values, Tensor) else [values[row] for row in index.tolist()]

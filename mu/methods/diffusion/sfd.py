"""SFD: distil the model into a one-step generator that never learns the forgotten class. Data-free.

Chen et al., "Score Forgetting Distillation: A Swift, Data-Free Method for Machine Unlearning in
Diffusion Models", ICLR 2025, arXiv 2409.11219.

Three networks begin as the original: the teacher φ (frozen), the fake score ψ and the generator G.
In each step ψ, and then G, is updated:

    x̂_0 = G(z, c): the denoiser's x_0 at one fixed t_init;  x_t noises x̂_0
    ψ:  λ_r ‖ε_ψ(x_t, t, c_r) − ε‖² + λ_f ‖ε_ψ(x_t, t, c_f) − ε‖²         (G without gradient)
    G:  λ_r SiD(x_φ(c_r), x_ψ(c_r), x̂_0) + λ_f SiD(x_φ(c_o), x_ψ(c_f), x̂_0)   (through φ and ψ)

SiD is `mu.functional.diffusion.sid_loss`; c_o, the override, is the condition as which the
forgotten class is drawn from now on. Only labels or prompts of a task are read. With λ_f = 0 this
is SiD alone, which distils and forgets nothing (the first of two stages; `generator` begins the
second). The served model draws each image by one evaluation of G, or of its running average.
Defaults: α 1.2, λ_r 1, λ_f 0.01 for both networks, t of x_t in [38, 712) and t_init 440 of 1000,
Adam 1e-5 with betas (0, 0.999) for both, gradients clipped by value at 1, average 0.9999, no
guidance; 50,000 steps of 128 (DDPM code, CIFAR-10; class 0 becomes class 1, as NextLabel has it).
Stable Diffusion there: configs/method/sfd_sd14.yaml.
"""

from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from mu.backbones import Diffusion, TextToImage
from mu.backbones.diffusion.one_step import OneStepGenerator
from mu.core.lr import LRSchedule
from mu.core.substitutes import Substitute
from mu.data.batch import Batch, concatenate
from mu.data.plan import Forget, Paired, Retain
from mu.functional.diffusion import fake_score_loss, sid_loss
from mu.methods.bases.score_distillation import ScoreDistillationMethod, WeightedParts
from mu.methods.bases.two_models import trainable_copy
from mu.methods.components.substitutes import GivenByTask, NextLabel
from mu.utils import rng
from mu.utils.errors import InputError
from mu.utils.weights import assign_weights, load_weights


def _adam(weights: Any) -> torch.optim.Optimizer:
    """The released code's Adam; a function, because a config cannot print betas of a lambda."""
    return torch.optim.Adam(weights, lr=1e-5, betas=(0.0, 0.999))


class SFD(ScoreDistillationMethod):
    """Steps of the fake score and of the generator in turn; the backbone is the generator.

    Args:
        backbone: the original.
        substitute: draws the override; None is NextLabel for class-conditional models, GivenByTask
            (the anchor) for text-to-image.
        retain_weight: λ_r >= 0 of the generator.
        forget_weight: λ_f >= 0 of the generator.
        fake_retain_weight: λ_r of the fake score; None is the generator's.
        fake_forget_weight: λ_f of the fake score; None is the generator's.
        alpha: α.
        t_init: the generator's timestep, as a share of T.
        t_range: timesteps of x_t, as shares of T: from, to (exclusive).
        score_gradient: gradients flow through both denoisers; False has α 1 and is Diff-Instruct.
        fake_guidance_scale: guidance s with which the fake score is trained (1 is none).
        fake_score_guidance_scale: s of the fake score in the generator's loss.
        teacher_guidance_scale: s of the teacher.
        fake_dropout: share of the fake score's samples that have the null condition.
        negative_prompt: replaces the empty prompt in all guidance (text-to-image).
        generator: weights from which the generator begins, of a distillation run; None begins from
            the original.
        average: decay of the running average of the generator, which is then served; None serves
            the generator.
        clip: gradients are clipped to [−clip, clip], element by element; None clips nothing.
        optimizer: optimizer factory of the generator; None is the Adam described above.
        fake_optimizer: of the fake score; None likewise.
        scheduler: of the generator's learning rate.
    """

    default_steps = 50000
    needs_reference = True

    def __init__(
        self,
        backbone: Diffusion,
        substitute: Substitute | None = None,
        retain_weight: float = 1.0,
        forget_weight: float = 0.01,
        fake_retain_weight: float | None = None,
        fake_forget_weight: float | None = None,
        alpha: float = 1.2,
        t_init: float = 0.44,
        t_range: tuple[float, float] = (0.038, 0.712),
        score_gradient: bool = True,
        fake_guidance_scale: float = 1.0,
        fake_score_guidance_scale: float = 1.0,
        teacher_guidance_scale: float = 1.0,
        fake_dropout: float = 0.0,
        negative_prompt: str | None = None,
        generator: str | None = None,
        average: float | None = 0.9999,
        clip: float | None = 1.0,
        optimizer: OptimizerCallable | None = None,
        fake_optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedule | LRSchedulerCallable | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            backbone,
            fake_optimizer or _adam,
            average,
            clip,
            negative_prompt,
            optimizer=optimizer or _adam,
            scheduler=scheduler,
            **kwargs,
        )
        self.weights = {"retain": retain_weight, "forget": forget_weight}
        self.fake_weights = {
            "retain": retain_weight if fake_retain_weight is None else fake_retain_weight,
            "forget": forget_weight if fake_forget_weight is None else fake_forget_weight,
        }
        self._check(t_init, t_range, fake_dropout)
        if substitute is None:
            substitute = GivenByTask() if isinstance(backbone, TextToImage) else NextLabel()
        self.substitute = substitute
        self.alpha = alpha if score_gradient else 1.0
        self.score_gradient = score_gradient
        self.t_init = round(t_init * backbone.timesteps)
        self.t_range = tuple(round(share * backbone.timesteps) for share in t_range)
        self.fake_guidance_scale = fake_guidance_scale
        self.fake_score_guidance_scale = fake_score_guidance_scale
        self.teacher_guidance_scale = teacher_guidance_scale
        self.fake_dropout = fake_dropout
        self.generator = generator
        self.plan = Paired()
        if not (self.needs_forget and self.needs_retain):
            self.plan = Forget() if self.needs_forget else Retain()
        self.fake: Diffusion | None = None

    def _check(self, t_init: float, t_range: tuple[float, float], dropout: float) -> None:
        """Refuse settings out of range."""
        weights = [*self.weights.values(), *self.fake_weights.values()]
        if min(weights) < 0 or not any(self.weights.values()):
            raise InputError(
                "the weights of SFD are at least 0, and one of the generator's is above it, not "
                f"{weights}."
            )
        if not (0 < t_init < 1 and 0 <= t_range[0] < t_range[1] <= 1 and 0 <= dropout < 1):
            raise InputError(
                "SFD needs a t_init and a t_range in [0, 1], shares of the noise levels, and a "
                f"fake_dropout in [0, 1), not {t_init}, {t_range} and {dropout}."
            )

    @property
    def needs_forget(self) -> bool:  # type: ignore[override]
        """Whether a forget term has a weight."""
        return bool(self.weights["forget"] or self.fake_weights["forget"])

    @property
    def needs_retain(self) -> bool:  # type: ignore[override]
        """Whether a retain term has a weight."""
        return bool(self.weights["retain"] or self.fake_weights["retain"])

    @property
    def needs_substitute(self) -> bool:  # type: ignore[override]
        """Whether the teacher predicts under an override."""
        return self.weights["forget"] > 0

    @property
    def auxiliary_model(self) -> Diffusion:
        """The fake score."""
        assert self.fake is not None, "configure_model makes it"
        return self.fake

    def configure_model(self) -> None:
        """Fake score and average share weights that are not trained, and are in the checkpoint."""
        if self.original_hash:
            return
        self.fake = trainable_copy(self.denoiser)
        super().configure_model()
        if self.generator is not None and not self.serves_only:
            assign_weights(self.backbone, load_weights(self.generator)[0], self.generator)
        self.begin_average()

    def served(self) -> OneStepGenerator:
        """One evaluation of the generator, or of its average, for each image."""
        return OneStepGenerator(self.averaged_backbone, self.t_init)

    def prepare(self, part: Batch, substitute: bool = False) -> Batch:
        """The part without images, which are not read, and without condition dropout."""
        part = {name: value for name, value in part.items() if name != "image"}
        prepared = super().prepare(part, substitute)
        return {name: value for name, value in prepared.items() if name != "dropped"}

    # ---- the losses ------------------------------------------------------------------------------

    def auxiliary_terms(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        """The fake score's loss on images of the generator."""
        parts = self.weighted_parts(forget, retain, self.fake_weights)
        if not parts:
            return {}
        fake = self.auxiliary_model
        joined = concatenate(*(part for _, part, _ in parts))
        condition = self.conditions(fake, parts)
        with torch.no_grad():
            generated = self._generated(parts, joined, "fake")
        noise, t, noised = self._noised(generated, joined, "fake")
        if self.fake_dropout:
            draws = rng.uniform(self.seed, joined["index"], joined["visit"], "sfd-dropout", 1)
            dropped = draws[:, 0] < self.fake_dropout
            condition = condition.where(~dropped, self.null(fake, len(dropped)))
        output = self.guided(fake, noised, t, condition, self.fake_guidance_scale)
        values = fake_score_loss(output, self.denoiser.target(generated, noise, t))
        return self.part_terms("fake_", parts, values)

    def backbone_terms(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        """The generator's loss: teacher against fake score on images of the generator."""
        parts = self.weighted_parts(forget, retain, self.weights)
        if not parts:
            return {}
        fake = self.auxiliary_model
        joined = concatenate(*(part for _, part, _ in parts))
        generated = self._generated(parts, joined, "generator")
        _, t, noised = self._noised(generated, joined, "generator")
        with torch.set_grad_enabled(self.score_gradient):
            override = self.conditions(self.original, parts, override=forget)
            teacher = self.guided(self.original, noised, t, override, self.teacher_guidance_scale)
            condition = self.conditions(fake, parts)
            fake_output = self.guided(fake, noised, t, condition, self.fake_score_guidance_scale)
            teacher_sample = self.denoiser.to_sample(teacher, noised, t)
            fake_sample = self.denoiser.to_sample(fake_output, noised, t)
        return self.part_terms(
            "", parts, sid_loss(teacher_sample, fake_sample, generated, self.alpha)
        )

    def _generated(self, parts: WeightedParts, joined: Batch, stream: str) -> Tensor:
        """x̂_0 of fresh noise."""
        noise = self.noise(joined, f"sfd-{stream}-start")
        generator = OneStepGenerator(self.denoiser, self.t_init)
        return generator.sample(noise, self.conditions(self.denoiser, parts))

    def _noised(
        self, generated: Tensor, joined: Batch, stream: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Noise, timestep, and x̂_0 noised by them."""
        noise = self.noise(joined, f"sfd-{stream}-noise")
        first, last = self.t_range
        draws = (self.seed, joined["index"], joined["visit"], f"sfd-{stream}-timestep")
        t = first + rng.integers(*draws, last - first)
        return noise, t, self.denoiser.add_noise(generated, noise, t)

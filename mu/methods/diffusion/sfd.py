"""SFD: distil the model into a one-step generator that never learns the forgotten class. Data-free.

Chen et al., "Score Forgetting Distillation: A Swift, Data-Free Method for Machine Unlearning in
Diffusion Models", ICLR 2025, arXiv 2409.11219.

Three networks begin as the original: the teacher φ (frozen), the fake score ψ and the generator G.
In each step ψ, and then G, is updated:

    x̂_0 = G(z, c): the denoiser's x_0 at one fixed t_init;  x_t noises x̂_0
    ψ:  λ_r ‖ε_ψ(x_t, t, c_r) − ε‖² + λ_f ‖ε_ψ(x_t, t, c_f) − ε‖²                                     (G without gradient)
    G:  λ_r SiD(x_φ(c_r), x_ψ(c_r), x̂_0) + λ_f SiD(x_φ(c_o), x_ψ(c_f), x̂_0)                            (through both denoisers)

SiD is `mu.functional.diffusion.sid_loss`; c_o, the override, is what the forgotten class is drawn
as from now on. Labels or prompts are all that is read of a task. With λ_f = 0 this is SiD alone,
which distils and forgets nothing (the first of two stages; `generator` begins the second). What is
served draws each image by one evaluation of G, or of its running average. Defaults: α 1.2, λ_r 1,
λ_f 0.01 for both networks, t of x_t in [38, 712) and t_init 440 of 1000, Adam 1e-5 with betas (0,
0.999) for both, gradients clipped by value at 1, average 0.9999, no guidance; 50,000 steps of 128
(DDPM code, CIFAR-10; class 0 becomes class 1, as NextLabel has it). Stable Diffusion there:
configs/method/sfd_sd14.yaml.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, cast

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from mu.backbones import Condition, Diffusion, TextToImage
from mu.backbones.diffusion.one_step import OneStepGenerator
from mu.core.lr import LRSchedule
from mu.core.reference import frozen_copy
from mu.core.substitutes import Substitute
from mu.data.batch import Batch, concatenate
from mu.data.plan import Forget, Paired, Retain
from mu.functional.diffusion import fake_score_loss, sid_loss
from mu.methods.bases.diffusion import DiffusionMethod
from mu.methods.components.substitutes import GivenByTask, NextLabel
from mu.utils import rng
from mu.utils.errors import InputError

Parts = list[tuple[str, Batch, float]]
"""The parts of a step that have a weight: name, part, weight."""


def _adam(weights: Any) -> torch.optim.Optimizer:
    """The released code's; no default of the constructor, because a config cannot print betas that
    stand in a lambda.
    """
    return torch.optim.Adam(weights, lr=1e-5, betas=(0.0, 0.999))


class SFD(DiffusionMethod):
    """Alternates the fake score's and the generator's step; the backbone is the generator.

    The trainer counts the generator's steps.

    Args:
        backbone: the original.
        substitute: gives the override; None is NextLabel for class-conditional models, GivenByTask
            (the anchor) for text-to-image.
        retain_weight: λ_r >= 0 of the generator.
        forget_weight: λ_f >= 0 of the generator.
        fake_retain_weight: λ_r of the fake score; None is the generator's.
        fake_forget_weight: λ_f of the fake score; None is the generator's.
        alpha: α.
        t_init: the generator's timestep, as a share of T.
        t_range: timesteps of x_t, as shares of T: from, to (exclusive).
        score_gradient: gradients flow through both denoisers; without them, and with α 1, this is
            Diff-Instruct.
        fake_guidance: guidance s with which the fake score is trained (1 is none).
        fake_score_guidance: s with which the fake score is asked in the generator's loss.
        teacher_guidance: s with which the teacher is asked.
        fake_dropout: share of the samples on which the fake score is trained under the null
            condition.
        negative_prompt: takes the place of the empty prompt in all guidance (text-to-image).
        generator: weights from which the generator begins, of a run that has distilled; None begins
            from the original.
        average: decay of the running average of the generator, which is then what is served; None
            serves the generator.
        clip: gradients are clipped to [−clip, clip], element by element; None clips nothing.
        optimizer: of the generator; None is the Adam of the file's head.
        fake_optimizer: of the fake score; None likewise.
        scheduler: of the generator's learning rate.
    """

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
        fake_guidance: float = 1.0,
        fake_score_guidance: float = 1.0,
        teacher_guidance: float = 1.0,
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
        super().__init__(backbone, optimizer=optimizer or _adam, scheduler=scheduler, **kwargs)
        self.automatic_optimization = False
        text = isinstance(backbone, TextToImage)
        self.weights = {"retain": retain_weight, "forget": forget_weight}
        self.fake_weights = {
            "retain": retain_weight if fake_retain_weight is None else fake_retain_weight,
            "forget": forget_weight if fake_forget_weight is None else fake_forget_weight,
        }
        self._check(
            t_init, t_range, average, clip, fake_dropout, negative_prompt is not None and not text
        )
        self.substitute = (
            (GivenByTask() if text else NextLabel()) if substitute is None else substitute
        )
        self.alpha = alpha if score_gradient else 1.0
        self.score_gradient = score_gradient
        self.t_init = round(t_init * backbone.timesteps)
        self.t_range = tuple(round(share * backbone.timesteps) for share in t_range)
        self.fake_guidance = fake_guidance
        self.fake_score_guidance = fake_score_guidance
        self.teacher_guidance = teacher_guidance
        self.fake_dropout = fake_dropout
        self.negative_prompt = negative_prompt
        self.generator = generator
        self.decay = average
        self.clip = clip
        self.make_fake_optimizer = fake_optimizer or _adam
        self.plan = (
            Paired()
            if self.needs_forget and self.needs_retain
            else Forget()
            if self.needs_forget
            else Retain()
        )
        # a frozen text encoder says the same for all three networks
        self._reads_itself = any(name.startswith("text_encoder.") for name, _ in self.trainable())
        self.fake: Diffusion | None = None
        self.average: Diffusion | None = None

    def _check(
        self,
        t_init: float,
        t_range: tuple[float, float],
        average: float | None,
        clip: float | None,
        dropout: float,
        negative: bool,
    ) -> None:
        weights = [*self.weights.values(), *self.fake_weights.values()]
        if min(weights) < 0 or not any(self.weights.values()):
            raise InputError(
                "the weights of SFD are at least 0, and one of the generator's is above it, not "
                f"{weights}."
            )
        if not 0 < t_init < 1 or not 0 <= t_range[0] < t_range[1] <= 1:
            raise InputError(
                f"t_init and t_range are shares of the noise levels, in [0, 1], not {t_init} and "
                f"{t_range}."
            )
        if (
            (average is not None and not 0 < average < 1)
            or (clip is not None and clip <= 0)
            or not 0 <= dropout < 1
        ):
            raise InputError(
                "SFD needs an average in (0, 1), a clip above 0 and a fake_dropout in [0, 1), "
                f"not {average}, {clip} and {dropout}."
            )
        if negative:
            raise InputError(
                "a negative prompt means nothing to a class-conditional model; leave it out."
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
        """Whether the teacher is asked under an override."""
        return self.weights["forget"] > 0

    # ---- the networks ----------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Fake score and average share what is not trained with the backbone, and are in the
        checkpoint.
        """
        if self.original_hash:
            return
        shared = {id(p): p for p in self.backbone.parameters() if not p.requires_grad}
        self.fake = cast(Diffusion, deepcopy(self.backbone, shared))
        super().configure_model()
        if self.generator is not None and not self.serves_only:
            from mu.utils.weights import assign_weights, load_weights

            assign_weights(self.backbone, load_weights(self.generator)[0], self.generator)
        if self.decay is not None:
            self.average = cast(Diffusion, frozen_copy(self.backbone))

    def served(self) -> OneStepGenerator:
        """One evaluation of the generator, or of its average, for each image."""
        return OneStepGenerator(
            self.denoiser if self.average is None else self.average, self.t_init
        )

    def configure_optimizers(self) -> Any:
        """The fake score's optimizer, and the generator's with its schedule."""
        assert self.fake is not None
        own = super().configure_optimizers()
        fake = {
            "optimizer": self.make_fake_optimizer(
                [p for p in self.fake.parameters() if p.requires_grad]
            )
        }
        return [fake, own if isinstance(own, dict) else {"optimizer": own}]

    def set_mode(self) -> None:
        """The fake score trains in train mode too."""
        super().set_mode()
        assert self.fake is not None
        self.fake.train()

    def prepare(self, part: Batch, substitute: bool = False) -> Batch:
        """Images are not read; and a sample whose condition the backbone would drop is no longer
        one of its class.
        """
        prepared = super().prepare(
            {name: value for name, value in part.items() if name != "image"}, substitute
        )
        return {name: value for name, value in prepared.items() if name != "dropped"}

    # ---- a step ----------------------------------------------------------------------------------

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:  # type: ignore[override]
        """First the fake score, then the generator."""
        forget, retain = self.prepare_parts(batch)
        assert self.fake is not None
        fake_optimizer, optimizer = cast(list[Any], self.optimizers())
        # a step of both networks is one step of the method, for `max_steps`, checkpoints and logs
        fake_optimizer._on_before_step = fake_optimizer._on_after_step = _nothing
        self._step(fake_optimizer, self.backbone, lambda: self.fake_terms(forget, retain))
        self.fake.eval()
        self._step(optimizer, self.fake, lambda: self.generator_terms(forget, retain))
        self.fake.train()
        self._after()

    def _step(
        self, optimizer: Any, idle: nn.Module, terms_of: Callable[[], dict[str, Tensor]]
    ) -> None:
        # what the other optimizer moves takes no gradient, but lets it through
        self.toggle_optimizer(optimizer)
        terms = terms_of()
        self.untoggle_optimizer(optimizer)
        if not terms:
            return
        loss = torch.stack(list(terms.values())).sum()
        self.checks.check_loss(self, loss)
        optimizer.zero_grad()
        others = [p for p in idle.parameters() if p.requires_grad]
        # on several ranks every weight must take part in every loss, so the idle network adds zero
        if self.world_size > 1:
            loss = loss + 0 * torch.stack([p.sum() for p in others]).sum()
        self.manual_backward(loss)
        for p in others:
            p.grad = None
        self.configure_gradient_clipping(optimizer, self.clip, "value")
        self.log_terms(terms)
        optimizer.step()

    @torch.no_grad()
    def _after(self) -> None:
        if isinstance(self.scheduler, LRSchedule):
            self.lr_schedulers().step()  # type: ignore[union-attr]
        if self.average is not None and self.decay is not None:
            kept = dict(self.average.named_parameters())
            names = self.trainable()
            torch._foreach_lerp_(
                [kept[name] for name, _ in names], [p.detach() for _, p in names], 1 - self.decay
            )

    def on_train_epoch_end(self) -> None:
        """A scheduler of torch is stepped once an epoch."""
        super().on_train_epoch_end()
        if self.scheduler is not None and not isinstance(self.scheduler, LRSchedule):
            self.lr_schedulers().step()  # type: ignore[union-attr]

    # ---- the losses ------------------------------------------------------------------------------

    def fake_terms(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        """The fake score's loss on what the generator draws."""
        parts = self._weighted(forget, retain, self.fake_weights)
        if not parts:
            return {}
        assert self.fake is not None
        joined = concatenate(*(part for _, part, _ in parts))
        condition = self._condition(self.fake, parts)
        with torch.no_grad():
            generated = self._generated(parts, joined, "fake")
        noise, t, noised = self._noised(generated, joined, "fake")
        if self.fake_dropout:
            dropped = (
                rng.uniform(self.seed, joined["index"], joined["visit"], "sfd-dropout", 1)[:, 0]
                < self.fake_dropout
            )
            condition = condition.where(~dropped, self._null(self.fake, len(dropped)))
        output = self._guided(self.fake, noised, t, condition, self.fake_guidance)
        return self._terms(
            "fake_", parts, fake_score_loss(output, self.denoiser.target(generated, noise, t))
        )

    def generator_terms(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        """The generator's loss: teacher and fake score compared on what it draws."""
        parts = self._weighted(forget, retain, self.weights)
        if not parts:
            return {}
        assert self.fake is not None
        joined = concatenate(*(part for _, part, _ in parts))
        generated = self._generated(parts, joined, "generator")
        _, t, noised = self._noised(generated, joined, "generator")
        with torch.set_grad_enabled(self.score_gradient):
            overridden = self._condition(self.original, parts, override=forget)
            teacher = self._guided(self.original, noised, t, overridden, self.teacher_guidance)
            fake = self._guided(
                self.fake, noised, t, self._condition(self.fake, parts), self.fake_score_guidance
            )
            teacher, fake = (
                self.denoiser.to_sample(output, noised, t) for output in (teacher, fake)
            )
        return self._terms("", parts, sid_loss(teacher, fake, generated, self.alpha))

    def _weighted(
        self, forget: Batch | None, retain: Batch | None, weights: Mapping[str, float]
    ) -> Parts:
        given = {"retain": retain, "forget": forget}
        return [
            (name, part, weights[name])
            for name, part in given.items()
            if part is not None and weights[name]
        ]

    def _terms(self, prefix: str, parts: Parts, values: Tensor) -> dict[str, Tensor]:
        split = values.split([len(part["index"]) for _, part, _ in parts])
        return {
            prefix + name: weight * self.mean(own, part)
            for (name, part, weight), own in zip(parts, split, strict=True)
        }

    def _condition(
        self, network: Diffusion, parts: Parts, override: Batch | None = None
    ) -> Condition:
        """Of all parts; that of `override` under its substitutes."""
        reader = network if self._reads_itself else self.denoiser
        return Condition.cat(
            [
                reader.substitute_condition(part) if part is override else reader.condition(part)
                for _, part, _ in parts
            ]
        )

    def _generated(self, parts: Parts, joined: Batch, stream: str) -> Tensor:
        """x̂_0 of fresh noise."""
        noise = self._normal(joined, f"sfd-{stream}-start")
        return OneStepGenerator(self.denoiser, self.t_init).sample(
            noise, self._condition(self.denoiser, parts)
        )

    def _noised(
        self, generated: Tensor, joined: Batch, stream: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Noise, timestep, and x̂_0 noised by them."""
        noise, (first, last) = self._normal(joined, f"sfd-{stream}-noise"), self.t_range
        t = first + rng.integers(
            self.seed, joined["index"], joined["visit"], f"sfd-{stream}-timestep", last - first
        )
        return noise, t, self.denoiser.add_noise(generated, noise, t)

    def _normal(self, joined: Batch, stream: str) -> Tensor:
        return rng.normal(
            self.seed, joined["index"], joined["visit"], stream, *self.denoiser.sample_shape
        ).to(self.denoiser.dtype)

    def _null(self, network: Diffusion, count: int) -> Condition:
        reader: Any = network if self._reads_itself else self.denoiser
        return (
            reader.null(count)
            if self.negative_prompt is None
            else reader.texts([self.negative_prompt]).repeat(count)
        )

    def _guided(
        self, network: Diffusion, noised: Tensor, t: Tensor, condition: Condition, scale: float
    ) -> Tensor:
        return network.guided(
            noised, t, condition, scale, self._null(network, len(condition)) if scale != 1 else None
        )


def _nothing() -> None:
    """In place of the trainer's count of steps."""

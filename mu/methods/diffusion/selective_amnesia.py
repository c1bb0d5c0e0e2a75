"""Selective Amnesia (SA): learn something else for the concept, replay the rest, and stay where the
Fisher matrix is large.

Heng and Soh, "Selective Amnesia: A Continual Learning Approach to Forgetting in Deep Generative
Models", NeurIPS 2023, arXiv 2305.10120.

    min_θ E_{x ~ q(x|c_f)} ℓ(x, c_f) + γ E_{x ~ p_θ*(x|c_r)} ℓ(x, c_r) + λ Σ_i F_i (θ_i − θ*_i)²,
    F = E_x (∂/∂θ Σ_t ℓ_t(x, c))²  at θ*, x from the replay, t over all timesteps

q is another distribution for the forgotten condition c_f: uniform noise (the paper's DDPM), or the
original's images of a surrogate prompt ("a middle aged man" for a celebrity). Replay are images
that the original draws, so that no training data are needed; the task's own do too
(`replay="task"`). The gradients of a sample's timesteps are added with their signs before they are
squared. F is taken over the retain part; the released DDPM code draws its samples from all classes,
the forgotten one too, its Stable Diffusion code from general prompts. λ goes with the loss that is
*summed* over a sample's elements in the DDPM code (`reduction: sum` of the backbone); with a mean
over d elements the same trade-off has λ d. The Stable Diffusion code takes means. Defaults: γ = 1,
λ = 10, Adam 1e-4, 20,000 steps, batch 128, clip 1, no condition dropout, averaged weights 0.9999; F
from 500 images of each class (CIFAR-10 DDPM; Stable Diffusion: λ = 50, AdamW 1e-5, 200 epochs of
1,000 surrogates, full; nudity 500 epochs, noxattn).
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import ClassConditionalDiffusion, Diffusion
from mu.backbones.diffusion.base import Sampler
from mu.core.gradients.summed import gradient_of
from mu.data.batch import Batch
from mu.data.plan import Forget, Paired, Retain
from mu.functional.penalties import quadratic_penalty
from mu.methods.bases.diffusion import DiffusionMethod
from mu.methods.bases.generated_images import GeneratedImages, GeneratesImages
from mu.methods.components.substitutes import GivenByTask
from mu.utils import rng
from mu.utils.errors import InputError
from mu.utils.modules import eval_mode

Surrogate = Literal["noise", "generated", "task"]


class SelectiveAmnesia(DiffusionMethod, GeneratesImages):
    """Denoising loss on surrogates and on replay, and an elastic pull to the original weights.

    The Fisher matrix and the drawn images are made once, before the first step, and are in the
    checkpoint.

    Args:
        backbone: the original.
        gamma: γ >= 0, weight of the replay.
        lam: λ >= 0, weight of the pull; depends on the backbone's `reduction`.
        surrogate: images that are learned for the forgotten condition: `noise` (uniform pixels, new
            each time), `generated` (drawn by the original under the task's substitute prompt, once
            a sample) or `task` (those that its forget part has). None is `noise` for
            class-conditional models and `generated` for text.
        replay: images of the retain part: `generated` by the original under their own conditions,
            or the `task`'s.
        fisher_samples: samples of F at most.
        fisher_timesteps: random timesteps of each that stand for all; None takes all, as the paper.
        fisher_chunk: timesteps in one backward pass; affects speed and memory only.
        sampler: draws surrogates and replay; the backbone's own when None.
        draw_batch_size: images drawn at once.
        optimizer: see the file's head.
    """

    needs_reference = True
    plan = Paired(length="forget")
    fisher_known: Tensor

    def __init__(
        self,
        backbone: Diffusion,
        gamma: float = 1.0,
        lam: float = 10.0,
        surrogate: Surrogate | None = None,
        replay: Literal["generated", "task"] = "generated",
        fisher_samples: int = 5000,
        fisher_timesteps: int | None = None,
        fisher_chunk: int = 50,
        sampler: Sampler | None = None,
        draw_batch_size: int = 64,
        optimizer: OptimizerCallable = lambda params: torch.optim.Adam(params, lr=1e-4),
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, optimizer=optimizer, **kwargs)
        if gamma < 0 or lam < 0:
            raise InputError(
                f"Selective Amnesia needs gamma and lam of at least 0, not {gamma} and {lam}."
            )
        if (
            min(
                fisher_samples,
                fisher_chunk,
                draw_batch_size,
                1 if fisher_timesteps is None else fisher_timesteps,
            )
            < 1
        ):
            raise InputError(
                "Selective Amnesia needs fisher_samples, fisher_timesteps, fisher_chunk and "
                "draw_batch_size of at least 1."
            )
        if surrogate is None:
            surrogate = "noise" if isinstance(backbone, ClassConditionalDiffusion) else "generated"
        self.gamma = gamma
        self.lam = lam
        self.replay = replay
        self.surrogate: Surrogate = surrogate
        self.fisher_samples = fisher_samples
        self.fisher_timesteps = fisher_timesteps
        self.fisher_chunk = fisher_chunk
        self.sampler = sampler
        self.draw_batch_size = draw_batch_size
        self.drawn = GeneratedImages()
        self.substitute = GivenByTask()
        self.register_buffer("fisher_known", torch.tensor(False))

    @property
    def needs_substitute(self) -> bool:  # type: ignore[override]
        """For surrogates drawn under another condition."""
        return self.surrogate == "generated"

    def configure_model(self) -> None:
        """Room for F, so that a checkpoint can be loaded into it."""
        first = not self.original_hash
        super().configure_model()
        if first:
            for name, weight in self.trainable():
                self.register_buffer(_key(name), torch.zeros_like(weight))

    # ---- before the first step -------------------------------------------------------------------

    def draw_images(self) -> None:
        """Surrogates and replay, unless a checkpoint brought them."""
        if self.surrogate == "generated" and "surrogate" not in self.drawn:
            self.drawn.fill(
                self,
                "surrogate",
                Forget(shuffle=False),
                self.denoiser.substitute_condition,
                self.sampler,
                self.draw_batch_size,
            )
        if self.replay == "generated" and "replay" not in self.drawn:
            self.drawn.fill(
                self,
                "replay",
                Retain(shuffle=False),
                self.denoiser.condition,
                self.sampler,
                self.draw_batch_size,
            )

    def on_fit_start(self) -> None:
        """F is taken at the original weights."""
        super().on_fit_start()
        if not bool(self.fisher_known):
            with self.stopwatch("fisher"):
                for (name, _), value in zip(self.trainable(), self.fisher(), strict=True):
                    self.get_buffer(_key(name)).copy_(value)
            self.fisher_known.fill_(True)

    def fisher(self) -> list[Tensor]:
        """Diagonal of F: mean over samples of the squared sum over timesteps of the gradient, one
        tensor for each trainable weight.
        """
        squares = [torch.zeros_like(p) for _, p in self.trainable()]
        count = torch.zeros((), device=self.device)
        single = Retain(batch_size=1, limit=self.fisher_samples)
        with eval_mode(self.backbone), torch.enable_grad(), self.precision():
            for batch in self.iterate_batches(single, augment=False, shard="batches"):
                if "retain" in batch:
                    gradient = self.score(batch["retain"])
                    torch._foreach_addcmul_(squares, gradient, gradient)
                    count += 1
        *squares, count = self.sum_over_ranks([*squares, count])
        return [value / count for value in squares]

    def score(self, part: Batch) -> list[Tensor]:
        """∂/∂θ Σ_t ℓ_t of a part with a single sample, noise drawn for each t."""
        model = self.denoiser
        total = self.denoiser.timesteps
        t = self._fisher_timesteps(part)
        gradient = [torch.zeros_like(p) for _, p in self.trainable()]
        for some in t.split(self.fisher_chunk):
            latent = part["latent"].expand(len(some), *model.sample_shape)
            noise = rng.normal(
                self.seed,
                part["index"].expand(len(some)),
                some,
                "fisher-noise",
                *model.sample_shape,
            ).to(latent.dtype)
            output = model.denoise(
                model.add_noise(latent, noise, some), some, model.condition(part).repeat(len(some))
            )
            loss = model.squared_error(output, model.target(latent, noise, some)).sum() * (
                total / len(t)
            )
            torch._foreach_add_(gradient, gradient_of(self, loss))
        return gradient

    def _fisher_timesteps(self, part: Batch) -> Tensor:
        total = self.denoiser.timesteps
        if self.fisher_timesteps is None or self.fisher_timesteps >= total:
            return torch.arange(total, device=part["index"].device)
        order = rng.uniform(self.seed, part["index"], 0, "fisher-timesteps", total)[0].argsort()
        return order[: self.fisher_timesteps].sort().values

    # ---- steps -----------------------------------------------------------------------------------

    def prepare_parts(self, batch: Mapping[str, Any]) -> tuple[Batch | None, Batch | None]:
        """The parts with surrogates and replay for images, prepared."""
        batch = dict(batch)
        if (
            "forget" in batch
            and self.surrogate != "task"
            and (self.surrogate == "noise" or "surrogate" in self.drawn)
        ):
            batch["forget"] = {**batch["forget"], "image": self.surrogates(batch["forget"])}
        if "retain" in batch and "replay" in self.drawn:
            batch["retain"] = {
                **batch["retain"],
                "image": self.drawn.images_for("replay", batch["retain"]),
            }
        return super().prepare_parts(batch)

    def surrogates(self, forget: Batch) -> Tensor:
        """Images of q(x|c_f), `[B, C, H, W]` in [0, 1]."""
        if self.surrogate == "generated":
            return self.drawn.images_for("surrogate", forget)
        if "image" not in forget:
            raise InputError(
                "noise surrogates have the size of the task's images, and this task gives none; "
                "take surrogate: generated."
            )
        return rng.uniform(
            self.seed,
            forget["index"],
            forget["visit"],
            "surrogate-noise",
            *forget["image"].shape[1:],
        )

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert forget is not None and retain is not None
        of_forget, of_retain = self.predictions(forget, retain)
        return {
            "surrogate": self.reduce(self.denoiser.loss(forget, prediction=of_forget), forget),
            "replay": self.gamma
            * self.reduce(self.denoiser.loss(retain, prediction=of_retain), retain),
            "pull": self.lam * self.pull(),
        }

    def pull(self) -> Tensor:
        """Σ_i F_i (θ_i − θ*_i)²."""
        original = dict(self.original.named_parameters())
        named = self.trainable()
        return quadratic_penalty(
            [p for _, p in named],
            [original[name] for name, _ in named],
            [self.get_buffer(_key(name)) for name, _ in named],
        )


def _key(name: str) -> str:
    return "fisher_of_" + name.replace(".", "__")

"""Selective Amnesia (SA): surrogates for the concept, generative replay, elastic weights.

Heng and Soh, "Selective Amnesia: A Continual Learning Approach to Forgetting in Deep Generative
Models", NeurIPS 2023, arXiv 2305.10120.

    min_θ E_{x ~ q(x|c_f)} ℓ(x, c_f) + γ E_{x ~ p_θ*(x|c_r)} ℓ(x, c_r) + λ Σ_i F_i (θ_i − θ*_i)²
    F = E_x (∂/∂θ Σ_t ℓ_t(x, c))²  at θ*, x from the replay, t over all timesteps

q is another distribution for the forgotten condition c_f: uniform noise (the paper's DDPM), or the
original's images of a surrogate prompt ("a middle aged man" for a celebrity). Replay are images
that the original generates, so that no training data are needed; the task's images are possible too
(`replay="task"`). F is taken over the retain part; the released DDPM code draws its samples from
all classes, the forgotten one too, its Stable Diffusion code from general prompts. λ goes with the
loss that is *summed* over a sample's elements in the DDPM code (`reduction: sum` of the backbone);
with a mean over d elements the same trade-off has λ d. The Stable Diffusion code takes means.
Defaults: γ = 1, λ = 10, Adam 1e-4, 20,000 steps, batch 128, clip 1, no condition dropout, averaged
weights 0.9999; F from 500 images of each class (CIFAR-10 DDPM; Stable Diffusion: λ = 50, AdamW
1e-5, 200 epochs of 1,000 surrogates, full; nudity 500 epochs, noxattn).
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import ClassConditionalDiffusion, Diffusion
from mu.backbones.diffusion.sampler import Sampler
from mu.data.batch import Batch
from mu.data.plan import Forget, Paired, Retain
from mu.methods.bases.elastic_diffusion import ElasticDiffusionMethod
from mu.methods.bases.generated_images import GeneratedImages, GeneratesImages
from mu.methods.components.substitutes import GivenByTask
from mu.utils import rng
from mu.utils.errors import InputError

Surrogate = Literal["noise", "generated", "task"]


class SelectiveAmnesia(GeneratesImages, ElasticDiffusionMethod):
    """Denoising loss on surrogates and on replay, and an elastic pull to the original weights.

    Args:
        backbone: the original.
        gamma: γ >= 0, weight of the replay.
        lam: λ >= 0, weight of the pull; depends on the backbone's `reduction`.
        surrogate: images that are learned for the forgotten condition: `noise` (uniform pixels,
            another image in each visit), `generated` (by the original under the task's substitute
            prompt, one image a sample) or `task` (those of its forget part). None is `noise` for
            class-conditional models and `generated` for text.
        replay: images of the retain part: `generated` by the original under their own conditions,
            or the `task`'s.
        fisher_samples: samples of F at most.
        fisher_timesteps: number of random timesteps of each sample; None takes all (paper).
        fisher_chunk: timesteps in one backward pass; affects speed and memory only.
        sampler: draws surrogates and replay; the backbone's own when None.
        draw_batch_size: images drawn at once.
        optimizer: optimizer factory; for the source of the default see above.
    """

    default_epochs = 200
    plan = Paired(length="forget")

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
        super().__init__(
            backbone, fisher_samples, fisher_timesteps, fisher_chunk, optimizer=optimizer, **kwargs
        )
        if gamma < 0 or lam < 0 or draw_batch_size < 1:
            raise InputError(
                "Selective Amnesia needs gamma and lam of at least 0 and a draw_batch_size of at "
                f"least 1, not {gamma}, {lam} and {draw_batch_size}."
            )
        if surrogate is None:
            surrogate = "noise" if isinstance(backbone, ClassConditionalDiffusion) else "generated"
        self.gamma = gamma
        self.lam = lam
        self.replay = replay
        self.surrogate: Surrogate = surrogate
        self.sampler = sampler
        self.draw_batch_size = draw_batch_size
        self.drawn = GeneratedImages()
        self.substitute = GivenByTask()

    @property
    def needs_substitute(self) -> bool:  # type: ignore[override]
        """Whether surrogates are generated under another condition."""
        return self.surrogate == "generated"

    def draw_images(self) -> None:
        """Surrogates and replay, unless a checkpoint brought them."""
        if self.surrogate == "generated" and "surrogate" not in self.drawn:
            plan = Forget(shuffle=False)
            condition = self.denoiser.substitute_condition
            self.drawn.fill(self, "surrogate", plan, condition, self.sampler, self.draw_batch_size)
        if self.replay == "generated" and "replay" not in self.drawn:
            replay_plan = Retain(shuffle=False)
            condition = self.denoiser.condition
            self.drawn.fill(
                self, "replay", replay_plan, condition, self.sampler, self.draw_batch_size
            )

    def prepare_parts(self, batch: Mapping[str, Any]) -> tuple[Batch | None, Batch | None]:
        """The parts with surrogates and replay for images, prepared."""
        batch = dict(batch)
        drawn = self.surrogate == "noise" or "surrogate" in self.drawn
        if "forget" in batch and self.surrogate != "task" and drawn:
            batch["forget"] = {**batch["forget"], "image": self.surrogates(batch["forget"])}
        if "retain" in batch and "replay" in self.drawn:
            images = self.drawn.images_for("replay", batch["retain"])
            batch["retain"] = {**batch["retain"], "image": images}
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
        index = forget["index"]
        shape = forget["image"].shape[1:]
        return rng.uniform(self.seed, index, forget["visit"], "surrogate-noise", *shape)

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert forget is not None and retain is not None
        forget_output, retain_output = self.predictions(forget, retain)
        surrogate = self.denoiser.loss(forget, prediction=forget_output)
        replay = self.denoiser.loss(retain, prediction=retain_output)
        return {
            "surrogate": self.reduce(surrogate, forget),
            "replay": self.gamma * self.reduce(replay, retain),
            "pull": self.lam * self.pull(),
        }

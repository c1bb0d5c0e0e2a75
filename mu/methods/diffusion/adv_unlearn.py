"""AdvUnlearn: erase a concept under attack, by training on prompts with adversarial tokens.

Zhang et al., "Defensive Unlearning with Adversarial Training for Robust Concept Erasure in
Diffusion Models", NeurIPS 2024, arXiv 2405.15234.

    min_θ ‖ε_θ(z_t, t, c*) − [ε*(c_∅) − η (ε*(c_e) − ε*(c_∅))]‖²
          + γ ‖ε_θ(z_t, t, c_r) − ε*(z_t, t, c_r)‖²
    c* = argmin over adversarial tokens beside the prompt of ‖ε_θ(z_t, t, c') − ε*(z_t, t, c_e)‖²

ε* is the original, with its own text encoder; the target is given the clean concept c_e only. θ is
the text encoder (the paper's choice: `part: text_encoder`; the UNet then takes no gradient) or a
part of the UNet. z_t is partially sampled, without gradient, from the concept's prompts (for the
retain term, from the retain prompts). With a trained text encoder the original itself samples: the
released code samples with frozen embeddings, for the empty prompt too, and the UNet is the
original's. The retain term is added in the same step (`reg` in the code, with which the published
numbers were made; its other mode has steps of their own: `plan:
mu.methods.compat.AlternatingSteps`). Quirks of the inner attack:
`mu.methods.compat.SoftPromptAttackReference`. Defaults: η 1, γ 0.3 (1 in the code's defaults, 0.3
in its commands), 200 steps of warm-up on clean prompts, then an attack in each step: 30 steps of
Adam 1e-3 on one token before the prompt, from a random token; 50 DDIM steps, guidance 3; Adam 1e-5,
1000 steps; one concept prompt and 5 retain prompts in a batch (task: forget_batch_size,
batch_size).
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu import functional
from mu.attacks import PromptSearch
from mu.backbones import Condition, TextToImage
from mu.data.batch import Batch, concatenate
from mu.data.plan import DataPlan, Forget, Paired
from mu.functional.diffusion import esd_target
from mu.methods.bases.adversarial_prompts import AdversarialPromptMethod
from mu.methods.components.latents import LatentSource
from mu.utils.errors import InputError


class AdvUnlearn(AdversarialPromptMethod):
    """ESD's loss on prompts under attack, and the original's predictions on retain prompts.

    Samples give prompts; images are read by `NoisedData` alone. The tokens that the last attack
    found are part of the checkpoint.

    Args:
        backbone: the original; its `part` names the trained weights.
        eta: η >= 0, strength of the negative guidance.
        gamma: γ >= 0, weight of the retain term; 0 reads no retain prompt.
        attack: finds the adversarial tokens; None is SoftPromptAttack().
        attack_every: steps from one attack to the next, in between the last tokens are used again;
            0 attacks never.
        warmup: steps on clean prompts before the first attack.
        latents: source of z_t; None is CoupledSampling(50, 3), by the original where the text
            encoder is trained.
        attack_latents: source of the attack's z_t, drawn in each of its steps; None is `latents`.
            StoredTrajectories cost far less.
        plan: Paired(length="max") when None, or Forget() where γ is 0.
        optimizer: optimizer factory; for the source of the default see above.
    """

    default_steps = 1000
    needs_reference = True

    def __init__(
        self,
        backbone: TextToImage,
        eta: float = 1.0,
        gamma: float = 0.3,
        attack: PromptSearch | None = None,
        attack_every: int = 1,
        warmup: int = 200,
        latents: LatentSource | None = None,
        attack_latents: LatentSource | None = None,
        plan: DataPlan | None = None,
        optimizer: OptimizerCallable = lambda params: torch.optim.Adam(params, lr=1e-5),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            backbone,
            attack,
            attack_every,
            warmup,
            latents,
            attack_latents,
            optimizer=optimizer,
            **kwargs,
        )
        if min(eta, gamma, warmup, attack_every) < 0:
            raise InputError(
                f"AdvUnlearn needs eta, gamma, warmup and attack_every of at least 0, not {eta}, "
                f"{gamma}, {warmup} and {attack_every}."
            )
        self.eta = eta
        self.gamma = gamma
        self.plan = plan or (Paired(length="max") if gamma else Forget())

    @property
    def needs_retain(self) -> bool:  # type: ignore[override]
        """Whether there is a retain term."""
        return self.gamma > 0 or "retain" in self.plan.reads()

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        """Both terms from one forward pass of the student and one of the original."""
        parts = [part for part in (forget, retain if self.gamma else None) if part is not None]
        if not parts:  # a retain batch that has no weight
            return {"retain": 0 * torch.stack([p.sum() for _, p in self.trainable()]).sum()}
        # conditions of the original and of the student, whose forget prompts are attacked
        with torch.no_grad():
            clean = [self.original.condition(part) for part in parts]
        conditions = [
            self.attacked_condition(part, condition)
            if part is forget
            else self.student.condition(part)
            for part, condition in zip(parts, clean, strict=True)
        ]
        # errors of the student's predictions
        latent, t = self.latents(self, concatenate(*parts), Condition.cat(clean))
        erased = 0 if forget is None else len(forget["index"])
        target = self.target(latent, t, Condition.cat(clean), erased)
        output = self.student.denoise(latent, t, Condition.cat(conditions))
        error = functional.squared_error(output, target, self.student.reduction)
        # one term for each part
        terms = {}
        sizes = [len(part["index"]) for part in parts]
        for part, values in zip(parts, error.split(sizes), strict=True):
            name, weight = ("forget", 1.0) if part is forget else ("retain", self.gamma)
            terms[name] = weight * self.mean(values, part)
        return terms

    @torch.no_grad()
    def target(self, latent: Tensor, t: Tensor, condition: Condition, erased: int) -> Tensor:
        """The original's predictions, negatively guided for the first `erased` samples."""
        latents = [latent]
        timesteps = [t]
        conditions = [condition]
        if erased:
            latents.append(latent[:erased])
            timesteps.append(t[:erased])
            conditions.append(self.original.null(erased))
        output = self.original.denoise(
            torch.cat(latents), torch.cat(timesteps), Condition.cat(conditions)
        )
        conditional = output[: len(latent)]
        null = output[len(latent) :]
        erased_target = esd_target(conditional[:erased], null, self.eta)
        return torch.cat([erased_target, conditional[erased:]])

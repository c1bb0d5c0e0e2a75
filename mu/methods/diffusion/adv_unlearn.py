"""AdvUnlearn: erase a concept under attack. Each step finds adversarial tokens that revive it, and
trains the model against them.

Zhang et al., "Defensive Unlearning with Adversarial Training for Robust Concept Erasure in
Diffusion Models", NeurIPS 2024, arXiv 2405.15234.

    min_θ ‖ε_θ(z_t, t, c*) − [ε*(c_∅) − η (ε*(c_e) − ε*(c_∅))]‖² + γ ‖ε_θ(z_t, t, c_r) − ε*(z_t, t, c_r)‖²
    c* = argmin over adversarial tokens beside the prompt of ‖ε_θ(z_t, t, c') − ε*(z_t, t, c_e)‖²

ε* is the original, with its own text encoder; the target knows the clean concept c_e only. θ is the
text encoder (the paper's choice: `part: text_encoder`; the UNet then takes no gradient) or a part
of the UNet. z_t is sampled in part, without gradient, from the concept's prompts (for the retain
term, from the retain prompts). With a trained text encoder the sampler is the original's own: the
released code samples with frozen embeddings, for the empty prompt too, and the UNet is the
original's. The retain term enters the same step (`reg` in the code, with which the published
numbers were made; its other mode makes steps of their own: `plan:
mu.methods.compat.AlternatingSteps`). Quirks of the inner attack:
`mu.methods.compat.SoftPromptAttackReference`. Defaults: η 1, γ 0.3 (1 in the code's defaults, 0.3
in its commands), 200 steps of warm-up on clean prompts, then an attack in each step: 30 steps of
Adam 1e-3 on one token before the prompt, from a random token; 50 DDIM steps, guidance 3; Adam 1e-5,
1000 steps; one concept prompt and 5 retain prompts in a batch (task: forget_batch_size,
batch_size).
"""

from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu import functional
from mu.attacks import PromptSearch, SoftPromptAttack
from mu.attacks.prompt_search import Search
from mu.backbones import Condition, TextToImage
from mu.data.batch import Batch, concatenate
from mu.data.plan import DataPlan, Forget, Paired
from mu.functional.diffusion import esd_target
from mu.methods.bases.diffusion import DiffusionMethod
from mu.methods.components.latents import CoupledSampling, LatentSource, NoisedData
from mu.utils.errors import InputError


class AdvUnlearn(DiffusionMethod):
    """ESD's loss on prompts under attack, and the original's predictions on retain prompts.

    Samples give prompts; images are not read (but by NoisedData). What the attack has found last is
    part of the checkpoint.

    Args:
        backbone: the original; its `part` says what is trained.
        eta: η >= 0, strength of the negative guidance.
        gamma: γ >= 0, weight of the retain term; 0 reads no retain prompt.
        attack: finds the adversarial tokens; None is SoftPromptAttack(). `attack_every: 0` attacks
            never.
        attack_every: steps from one attack to the next; in between, what was found last stands
            beside the prompts.
        warmup: steps on clean prompts before the first attack.
        latents: where z_t comes from; None is CoupledSampling(50, 3), by the original where the
            text encoder is trained.
        attack_latents: where the attack's own z_t come from, in each of its steps; None is as
            `latents`. StoredTrajectories cost far less.
        plan: Paired(length="max") when None, or Forget() where γ is 0.
        optimizer: see the file's head.
    """

    needs_reference = True
    latest: Tensor
    attacked: Tensor

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
        super().__init__(backbone, optimizer=optimizer, **kwargs)
        if min(eta, gamma, warmup, attack_every) < 0:
            raise InputError(
                f"AdvUnlearn needs eta, gamma, warmup and attack_every of at least 0, not {eta}, "
                f"{gamma}, {warmup} and {attack_every}."
            )
        self.eta = eta
        self.gamma = gamma
        self.warmup = warmup
        self.attack_every = attack_every
        self.attack = SoftPromptAttack() if attack is None else attack
        self.latents = CoupledSampling(by=self._sampler(backbone)) if latents is None else latents
        self.attack_latents = self.latents if attack_latents is None else attack_latents
        self.plan = plan or (Paired(length="max") if gamma else Forget())
        table = backbone.text_encoder.get_input_embeddings().weight  # type: ignore[operator]
        self.register_buffer("latest", torch.zeros(backbone.length, table.shape[1]))
        self.register_buffer("attacked", torch.tensor(False))

    @staticmethod
    def _sampler(backbone: TextToImage) -> Literal["current", "reference"]:
        trained = any(weight.requires_grad for weight in backbone.unet.parameters())
        return "current" if trained else "reference"

    @property
    def needs_retain(self) -> bool:  # type: ignore[override]
        """Whether there is a retain term."""
        return self.gamma > 0 or "retain" in self.plan.reads()

    @property
    def student(self) -> TextToImage:
        """The backbone, by its own type."""
        return self.backbone  # type: ignore[return-value]

    def prepare(self, part: Batch, substitute: bool = False) -> Batch:
        """Images are not encoded where nothing reads them; and no prompt is dropped, because both
        terms are about prompts.
        """
        if not isinstance(self.latents, NoisedData) and not isinstance(
            self.attack_latents, NoisedData
        ):
            part = {name: value for name, value in part.items() if name != "image"}
        return {
            name: value
            for name, value in super().prepare(part, substitute).items()
            if name != "dropped"
        }

    # ---- a step ----------------------------------------------------------------------------------

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        """One batch of the student and one of the original for both terms together."""
        parts = [part for part in (forget, retain if self.gamma else None) if part is not None]
        if not parts:  # a retain batch that has no weight
            return {"retain": 0 * torch.stack([p.sum() for _, p in self.trainable()]).sum()}
        with torch.no_grad():
            frozen = [self.original.condition(part) for part in parts]
        own = [
            self.attacked_condition(part, clean) if part is forget else self.student.condition(part)
            for part, clean in zip(parts, frozen, strict=True)
        ]
        latent, t = self.latents(self, concatenate(*parts), Condition.cat(frozen))
        target = self.target(
            latent, t, Condition.cat(frozen), 0 if forget is None else len(forget["index"])
        )
        error = functional.squared_error(
            self.student.denoise(latent, t, Condition.cat(own)), target, self.student.reduction
        )
        terms = {}
        for part, values in zip(
            parts, error.split([len(part["index"]) for part in parts]), strict=True
        ):
            name, weight = ("forget", 1.0) if part is forget else ("retain", self.gamma)
            terms[name] = weight * self.mean(values, part)
        return terms

    @torch.no_grad()
    def target(self, latent: Tensor, t: Tensor, condition: Condition, erased: int) -> Tensor:
        """What the student should say: the original, negatively guided for the first `erased`
        samples, as it is for the others.
        """
        noised = [latent]
        when = [t]
        conditions = [condition]
        if erased:
            noised = [latent, latent[:erased]]
            when = [t, t[:erased]]
            conditions = [condition, self.original.null(erased)]
        output = self.original.denoise(
            torch.cat(noised), torch.cat(when), Condition.cat(conditions)
        )
        given = output[: len(latent)]
        null = output[len(latent) :]
        return torch.cat([esd_target(given[:erased], null, self.eta), given[erased:]])

    # ---- the inner attack ------------------------------------------------------------------------

    def attacked_condition(self, forget: Batch, clean: Condition) -> Condition:
        """The prompts' condition with adversarial tokens, once there are any; gradients flow
        through a trained text encoder.
        """
        step = self.trainer.global_step - self.warmup
        if not self.attack_every or step < 0:
            return self.student.condition(forget)
        if step % self.attack_every == 0 or not bool(self.attacked):
            search = self.search(forget, clean)
            slots = search.slots
            found = search.adversarial()
            self._keep(found)
        else:
            slots = self.attack.layout.place(self.student.tokenizer, forget["input_ids"])
            found = self.latest[: slots.count].expand(len(slots.ids), -1, -1)
        own = self.student.embed(slots.ids)
        return self.student.encode_text(slots.ids, slots.fill(own, found.to(own.dtype)))

    def search(self, forget: Batch, clean: Condition) -> Search:
        """Adversarial tokens that make the student predict what the original predicts for the clean
        concept.
        """

        def objective(condition: Condition, step: int) -> Tensor:
            latent, t = self.attack_latents(self, forget, clean, f"attack-{step}")
            with torch.no_grad():
                wanted = self.original.denoise(latent, t, clean)
            return functional.squared_error(self.student.denoise(latent, t, condition), wanted)

        with self.stopwatch("attack"):
            start = self.latest if bool(self.attacked) else None
            return self.attack.find(
                self.student,
                forget["input_ids"],
                forget["index"],
                forget["visit"],
                objective,
                start,
            )

    @torch.no_grad()
    def _keep(self, found: Tensor) -> None:
        """The first prompt's tokens; of several ranks, the first one's, so that all go on from the
        same.
        """
        mine = torch.zeros_like(self.latest)
        if self.global_rank == 0:
            mine[: found.shape[1]] = found[0]
        self.latest.copy_(self.sum_over_ranks([mine])[0])
        self.attacked.fill_(True)

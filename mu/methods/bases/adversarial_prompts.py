"""Adversarial training of text-to-image models on prompts with adversarial tokens."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from mu import functional
from mu.attacks import PromptSearch, SoftPromptAttack
from mu.attacks.prompt_search import Search
from mu.backbones import Condition, TextToImage
from mu.data.batch import Batch
from mu.methods.bases.diffusion import DiffusionMethod
from mu.methods.components.latents import CoupledSampling, LatentSource, NoisedData


class AdversarialPromptMethod(DiffusionMethod):
    """A method that trains on forget prompts with adversarial tokens, found in an inner attack.

    c* = argmin over adversarial tokens beside the prompt of ‖ε_θ(z_t, t, c') − ε*(z_t, t, c)‖²,
    with the original ε*. Samples give prompts; images are read by `NoisedData` alone.

    Attributes:
        latest: embeddings `[L, D]` of the tokens that the last attack found; in the checkpoint.
        attacked: whether there has been an attack.

    Args:
        backbone: the original; its `part` names the trained weights.
        attack: finds the adversarial tokens; None is SoftPromptAttack().
        attack_every: steps from one attack to the next; 0 attacks never.
        warmup: steps on clean prompts before the first attack.
        latents: source of the method's own z_t; None is CoupledSampling(50, 3), by the original
            where the text encoder is trained.
        attack_latents: source of the attack's z_t, drawn in each of its steps; None is `latents`.
    """

    latest: Tensor
    attacked: Tensor

    def __init__(
        self,
        backbone: TextToImage,
        attack: PromptSearch | None = None,
        attack_every: int = 1,
        warmup: int = 200,
        latents: LatentSource | None = None,
        attack_latents: LatentSource | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.attack = SoftPromptAttack() if attack is None else attack
        self.attack_every = attack_every
        self.warmup = warmup
        self.latents: LatentSource = (
            CoupledSampling(by=sampling_model(backbone)) if latents is None else latents
        )
        self.attack_latents = self.latents if attack_latents is None else attack_latents
        table = backbone.text_encoder.get_input_embeddings().weight  # type: ignore[operator]
        self.register_buffer("latest", torch.zeros(backbone.length, table.shape[1]))
        self.register_buffer("attacked", torch.tensor(False))

    @property
    def student(self) -> TextToImage:
        """The backbone, by the type TextToImage."""
        assert isinstance(self.backbone, TextToImage)
        return self.backbone

    def prepare(self, part: Batch, substitute: bool = False) -> Batch:
        """Prompts, none of them dropped; images only where a latent source reads them."""
        sources = (self.latents, self.attack_latents)
        if not any(isinstance(source, NoisedData) for source in sources):
            part = {name: value for name, value in part.items() if name != "image"}
        prepared = super().prepare(part, substitute)
        return {name: value for name, value in prepared.items() if name != "dropped"}

    def attacked_condition(self, forget: Batch, clean: Condition) -> Condition:
        """The prompts' condition with adversarial tokens; without any before the first attack.

        Gradients flow through a trained text encoder.

        Args:
            forget: prepared prompts.
            clean: their condition by the original's text encoder.
        """
        step = self.trainer.global_step - self.warmup
        if not self.attack_every or step < 0:
            return self.student.condition(forget)
        if step % self.attack_every == 0 or not bool(self.attacked):
            search = self.search(forget, clean)
            slots = search.slots
            adversarial = search.adversarial()
            self.save_latest(adversarial)
        else:
            slots = self.attack.layout.insert_slots(self.student.tokenizer, forget["input_ids"])
            adversarial = self.latest[: slots.count].expand(len(slots.ids), -1, -1)
        tokens = self.student.embed(slots.ids)
        return self.student.encode_text(slots.ids, slots.fill(tokens, adversarial.to(tokens.dtype)))

    def search(self, forget: Batch, clean: Condition) -> Search:
        """Search tokens under which the student predicts what the original predicts for `clean`."""

        def objective(condition: Condition, step: int) -> Tensor:
            latent, t = self.attack_latents(self, forget, clean, f"attack-{step}")
            with torch.no_grad():
                target = self.original.denoise(latent, t, clean)
            return functional.squared_error(self.student.denoise(latent, t, condition), target)

        with self.stopwatch("attack"):
            return self.attack.find(
                self.student,
                forget["input_ids"],
                forget["index"],
                forget["visit"],
                objective,
                self.latest if bool(self.attacked) else None,
            )

    @torch.no_grad()
    def save_latest(self, adversarial: Tensor) -> None:
        """Save the tokens `[B, K, D]` of rank 0's first prompt, on all ranks."""
        local = torch.zeros_like(self.latest)
        if self.global_rank == 0:
            local[: adversarial.shape[1]] = adversarial[0]
        self.latest.copy_(self.sum_over_ranks([local])[0])
        self.attacked.fill_(True)


def sampling_model(backbone: TextToImage) -> Literal["current", "reference"]:
    """Whose weights sample latents: the original's where no weight of the UNet is trained."""
    trained = any(weight.requires_grad for weight in backbone.unet.parameters())
    return "current" if trained else "reference"

"""AdvUnlearn on a tiny text-to-image model: its loss restated in float64, a sample at a time."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from mu.attacks import SoftPromptAttack
from mu.backbones import TextToImage
from mu.methods.components.latents import CoupledSampling
from mu.methods.diffusion.adv_unlearn import AdvUnlearn
from tests.support.doubles import pictures, text_to_image

ADAM: Any = lambda params: torch.optim.Adam(params, lr=1e-3)  # noqa: E731


def concept_task(**changes: Any) -> Any:
    """One concept prompt and two retain prompts in a step."""
    return pictures(**{"forget_batch_size": 1, "batch_size": 2, **changes})


def adv_unlearn(backbone: TextToImage | None = None, **changes: Any) -> AdvUnlearn:
    defaults: dict[str, Any] = {
        "optimizer": ADAM,
        "warmup": 0,
        "attack": SoftPromptAttack(steps=1),
        "latents": CoupledSampling(num_inference_steps=3, by="reference"),
    }
    return AdvUnlearn(
        text_to_image(part="text_encoder") if backbone is None else backbone,
        **{**defaults, **changes},
    )


class Statement:
    """AdvUnlearn's loss in float64, one sample and one prompt at a time; adversarial tokens stand
    in a row of the embedding table.
    """

    def __init__(self, backbone: TextToImage) -> None:
        self.student = deepcopy(backbone).double()
        self.original = deepcopy(backbone).double().requires_grad_(False)

    def states(self, model: Any, ids: Tensor, adversarial: Tensor | None = None) -> Tensor:
        if adversarial is None:
            return model.text_encoder(input_ids=ids[None])[0]
        table = model.text_encoder.get_input_embeddings().weight
        spare = 5  # stands in no prompt
        assert spare not in ids.tolist()
        with torch.no_grad():
            table[spare] = adversarial.double()
        return model.text_encoder(
            input_ids=torch.cat([ids[:1], torch.tensor([spare]), ids[1:-1]])[None]
        )[0]

    def predict_noise(self, model: Any, z: Tensor, t: int, states: Tensor) -> Tensor:
        return model.unet(z[None], torch.tensor([t]), encoder_hidden_states=states).sample[0]

    def loss(
        self,
        forget: dict[str, Any],
        retain: dict[str, Any],
        eta: float,
        gamma: float,
        adversarial: Tensor | None,
    ) -> Tensor:
        empty = self.original.tokenise([""])[0][0]
        terms = []
        for z, t, ids in zip(
            forget["noised"].double(), forget["t"].tolist(), forget["input_ids"], strict=True
        ):
            null = self.predict_noise(self.original, z, t, self.states(self.original, empty))
            concept = self.predict_noise(self.original, z, t, self.states(self.original, ids))
            output = self.predict_noise(
                self.student, z, t, self.states(self.student, ids, adversarial)
            )
            terms.append(
                (output - (null - eta * (concept - null))).square().mean() / len(forget["t"])
            )
        for z, t, ids in zip(
            retain["noised"].double(), retain["t"].tolist(), retain["input_ids"], strict=True
        ):
            target = self.predict_noise(self.original, z, t, self.states(self.original, ids))
            output = self.predict_noise(self.student, z, t, self.states(self.student, ids))
            terms.append(gamma * (output - target).square().mean() / len(retain["t"]))
        return torch.stack(terms).sum()

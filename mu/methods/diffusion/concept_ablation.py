"""Concept Ablation (CA, AC): match the concept's prediction to the anchor's on anchor images.

Kumari, Zhang, Wang, Shechtman, Zhang and Zhu, "Ablating Concepts in Text-to-Image Diffusion
Models", ICCV 2023, arXiv 2303.13516.

    min_θ ‖ε_θ(x_t, t, c*) − sg ε_θ(x_t, t, c)‖²
    x an image of the anchor c, c* the same prompt with the concept in the anchor's place

The target is the current model's, as the paper does in practice for the frozen one. The noise-based
variant has ε itself for a target (`target="noise"`): the anchor's images become training pictures
of c*. An optional term keeps the loss on the anchor's prompts as it is. c* is a forget sample's
prompt, c its `substitute`. Images are drawn by the original before the first step, one a sample;
the code draws 1,000 of 200 prompts, and averages its loss inside a resize mask of its augmentation,
which is not done here. Defaults: prior weight 0; AdamW 1.6e-5 (2e-6 times batch 8), weight decay
0.01, 100 steps, batch 8, `part: xattn-strict` (style and object; nudity 4e-6 × batch, 400 steps,
all attention, prior weight 1; memorised images 5e-7 × batch, 400 steps, full).
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import Condition, TextToImage
from mu.backbones.diffusion.sampler import Sampler
from mu.data.batch import Batch
from mu.data.plan import Forget
from mu.methods.bases.diffusion import DiffusionMethod
from mu.methods.bases.generated_images import GeneratedImages, GeneratesImages
from mu.methods.components.substitutes import GivenByTask
from mu.utils.errors import InputError


class ConceptAblation(DiffusionMethod, GeneratesImages):
    """Squared error between predictions under two prompts, on images of the second.

    Args:
        backbone: the original; its `part` names the trained weights.
        target: `anchor`, the model's prediction under the anchor's prompt; `noise`, the noise
            itself.
        prior_weight: >= 0, weight of the denoising loss on the anchor's images under their own
            prompts.
        images: `generated` by the original under the anchor's prompts, or the `task`'s, whose
            forget samples then show the anchor.
        sampler: draws the images; the backbone's own when None.
        draw_batch_size: images drawn at once.
        optimizer: optimizer factory; for the source of the default see above.
    """

    default_steps = 100
    plan = Forget()
    needs_retain = False
    needs_substitute = True

    def __init__(
        self,
        backbone: TextToImage,
        target: Literal["anchor", "noise"] = "anchor",
        prior_weight: float = 0.0,
        images: Literal["generated", "task"] = "generated",
        sampler: Sampler | None = None,
        draw_batch_size: int = 16,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(
            params, lr=1.6e-5, weight_decay=0.01
        ),
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, optimizer=optimizer, **kwargs)
        if prior_weight < 0 or draw_batch_size < 1:
            raise InputError(
                "Concept Ablation needs a prior_weight of at least 0 and a draw_batch_size of at "
                f"least 1, not {prior_weight} and {draw_batch_size}."
            )
        if target not in ("anchor", "noise"):
            raise InputError(
                f"the target is {target!r}; it is the `anchor`'s prediction or the `noise`."
            )
        self.target = target
        self.prior_weight = prior_weight
        self.images = images
        self.sampler = sampler
        self.draw_batch_size = draw_batch_size
        self.drawn = GeneratedImages()
        self.substitute = GivenByTask()

    def draw_images(self) -> None:
        """Images of the anchors, unless a checkpoint brought them."""
        if self.images == "generated" and "anchor" not in self.drawn:
            self.drawn.fill(
                self,
                "anchor",
                Forget(shuffle=False),
                self.denoiser.substitute_condition,
                self.sampler,
                self.draw_batch_size,
            )

    def prepare_parts(self, batch: Mapping[str, Any]) -> tuple[Batch | None, Batch | None]:
        """The forget part with the anchors' images, prepared."""
        if "forget" in batch and "anchor" in self.drawn:
            batch = {
                **batch,
                "forget": {
                    **batch["forget"],
                    "image": self.drawn.images_for("anchor", batch["forget"]),
                },
            }
        return super().prepare_parts(batch)

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert forget is not None
        model = self.denoiser
        if self.target == "anchor" and not self.prior_weight:
            return {"ablate": self.reduce(model.substitute_loss(forget), forget)}
        if not self.prior_weight:
            return {"ablate": self.reduce(model.loss(forget), forget)}
        # both prompts in one batch: the anchor's prediction is target and the prior's prediction
        both = Condition.cat([model.condition(forget), model.substitute_condition(forget)])
        noised = model.noised(forget)
        t = forget["t"]
        concept, anchor = model.denoise(torch.cat([noised, noised]), torch.cat([t, t]), both).chunk(
            2
        )
        noise = model.target(forget["latent"], forget["noise"], t)
        error = model.squared_error(concept, anchor.detach() if self.target == "anchor" else noise)
        return {
            "ablate": self.mean(error, forget),
            "prior": self.prior_weight * self.mean(model.squared_error(anchor, noise), forget),
        }

"""Base of methods for diffusion models."""

from torch import Tensor

from mu.backbones import ClassConditionalDiffusion, Diffusion
from mu.core.module import UnlearningModule
from mu.data.batch import Batch, concatenate


class DiffusionMethod(UnlearningModule):
    """Base of methods whose backbone is a diffusion model, class-conditional or text-to-image."""

    @property
    def needs_labels(self) -> bool:  # type: ignore[override]
        """Whether the model is conditioned on class labels; prompts come with every sample."""
        return isinstance(self.backbone, ClassConditionalDiffusion)

    @property
    def denoiser(self) -> Diffusion:
        """The backbone, by the type Diffusion."""
        assert isinstance(self.backbone, Diffusion)
        return self.backbone

    @property
    def original(self) -> Diffusion:
        """The reference, the frozen original, by the type Diffusion."""
        assert isinstance(self.reference, Diffusion), "the method declares needs_reference"
        return self.reference

    def predictions(self, forget: Batch, retain: Batch) -> tuple[Tensor, Tensor]:
        """The backbone's outputs for both parts, from one forward pass."""
        of_forget, of_retain = self.backbone.predict(concatenate(forget, retain)).split(
            [len(forget["index"]), len(retain["index"])]
        )
        return of_forget, of_retain

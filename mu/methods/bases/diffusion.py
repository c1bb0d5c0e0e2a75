"""What the methods of noise predictors have in common."""

from torch import Tensor

from mu.backbones import ClassConditionalDiffusion, Diffusion
from mu.core.module import UnlearningModule
from mu.data.batch import Batch, concatenate


class DiffusionMethod(UnlearningModule):
    """A method whose backbone is a noise predictor."""

    @property
    def needs_labels(self) -> bool:  # type: ignore[override]
        """Labels are what a class-conditional model is conditioned on; prompts come with every
        sample of a text-to-image task.
        """
        return isinstance(self.backbone, ClassConditionalDiffusion)

    @property
    def denoiser(self) -> Diffusion:
        """The backbone."""
        assert isinstance(self.backbone, Diffusion)
        return self.backbone

    @property
    def original(self) -> Diffusion:
        """The reference."""
        assert isinstance(self.reference, Diffusion), "the method declares needs_reference"
        return self.reference

    def predictions(self, forget: Batch, retain: Batch) -> tuple[Tensor, Tensor]:
        """The backbone's outputs for both parts, from one forward pass."""
        of_forget, of_retain = self.backbone.predict(concatenate(forget, retain)).split(
            [len(forget["index"]), len(retain["index"])]
        )
        return of_forget, of_retain

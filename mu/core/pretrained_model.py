"""Pretrained model in the place of a method, so that suites measure it without a fit."""

from __future__ import annotations

from mu.backbones import Backbone
from mu.core.module import UnlearningModule


class PretrainedModel(UnlearningModule):
    """Pretrained model that is measured as it is, without a fit.

    Its checkpoint leaves out the weights that a named base model gives (`BaseWeights`), so that of
    a language model from a folder holds none.

    Args:
        backbone: the model.
        name: name of the model in results and reports.
        seed: seed of the draws of a test.

    Example: `Trainer().test(PretrainedModel(Classifier(weights="resnet.pt"), "resnet"), task)`.
    """

    needs_forget = False
    needs_retain = False
    needs_labels = False
    trains_from_scratch = True

    def __init__(self, backbone: Backbone, name: str, seed: int = 0) -> None:
        super().__init__(backbone, seed=seed)
        self.name = name

    def configure_model(self) -> None:
        """Hash the weights; all of them count as untrained."""
        trained = {
            name for name, weight in self.backbone.named_parameters() if weight.requires_grad
        }
        self.backbone.requires_grad_(False)
        super().configure_model()
        # by name, because sharding puts other parameters in place of these
        for name, weight in self.backbone.named_parameters():
            weight.requires_grad_(name in trained)

    def recipe_hash(self) -> str:
        """Hash of the recipe that the weights record; empty for weights that mu did not train."""
        if self._recipe is not None:
            return self._recipe
        return str(getattr(self.backbone, "weights_metadata", {}).get("recipe", ""))

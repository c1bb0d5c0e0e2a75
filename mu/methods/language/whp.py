"""WHP (who's Harry Potter): fit generic labels taken from a copy trained further on the forget set.

For language models; forget alone. Eldan and Russinovich, "Who's Harry Potter? Approximate
Unlearning in LLMs", arXiv 2310.02238.

    reinforce:  a copy is trained further on D_f, which gives v_re
    generic:    y*_t = argmax_v [v_θo − α relu(v_re − v_θo)] at each labelled token of D_f, once
    unlearn:    min_θ ℓ(x_f, y*), from θ_o

The paper also replaces names by generic ones, from a dictionary written by another model, and takes
the generic labels on the translated text; this implementation has no dictionary and takes the
labels on the text itself. Where the copy learned nothing new, y* is the original's own prediction.
MUSE's form, which combines the logits of both models at inference, is `WHPInference`. Defaults: α =
5, 3 epochs of reinforcement at 3e-6, then 2 epochs at 1e-6 (paper; `max_epochs` is 5), AdamW.
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from mu.backbones import CausalLM
from mu.data.batch import Batch
from mu.data.plan import Forget, Phases
from mu.functional.combined_logits import generic_logits
from mu.functional.tokens import IGNORED
from mu.methods.bases.two_models import AUXILIARY, TwoModelMethod, refuse_sharding, trainable_copy
from mu.utils.errors import InputError
from mu.utils.modules import eval_mode


class WHP(TwoModelMethod):
    """Epochs that train a reinforced copy, then epochs that fit generic labels; both are saved.

    Args:
        backbone: the original.
        alpha: α >= 0.
        reinforce_epochs: epochs that train the copy, at least 1.
        reinforce_lr: learning rate of the copy.
        optimizer: of both models; its own rate is that of unlearning.
    """

    default_epochs = 5
    needs_retain = False
    auxiliary_activity = "reinforces"

    def __init__(
        self,
        backbone: CausalLM,
        alpha: float = 5.0,
        reinforce_epochs: int = 3,
        reinforce_lr: float = 3e-6,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=1e-6),
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, reinforce_epochs, reinforce_lr, optimizer=optimizer, **kwargs)
        if alpha < 0 or reinforce_epochs < 1:
            raise InputError(
                "WHP needs an alpha of at least 0 and reinforce_epochs of at least 1, not "
                f"{alpha} and {reinforce_epochs}."
            )
        self.alpha = alpha
        self.plan = Phases(Forget(epochs=reinforce_epochs), Forget(after=reinforce_epochs))
        self.reinforced: CausalLM | None = None
        # generic labels of each sample's labelled tokens, by index
        self.generic: dict[int, Tensor] = {}

    @property
    def auxiliary_model(self) -> CausalLM:
        """The reinforced copy."""
        assert self.reinforced is not None, "configure_model makes it"
        return self.reinforced

    def configure_model(self) -> None:
        """The copy shares weights that are not trained."""
        refuse_sharding(self)
        if self.reinforced is None:
            assert isinstance(self.backbone, CausalLM)
            self.reinforced = trainable_copy(self.backbone)
        super().configure_model()

    def set_mode(self) -> None:
        """Train mode for the copy too."""
        super().set_mode()
        self.auxiliary_model.train()

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert forget is not None
        if self.phase == AUXILIARY:
            return {"reinforce": self.reduce(self.auxiliary_model.loss(forget), forget)}
        if not self.generic:
            with self.stopwatch("labels"):
                self.label()
        return {"generic": self.reduce(self.backbone.loss(self.relabelled(forget)), forget)}

    @torch.no_grad()
    def label(self) -> None:
        """Compute generic labels of the whole forget part, on every rank.

        The backbone still has the original's weights.
        """
        if self.task is None:
            raise InputError(
                "WHP labels the whole forget part at once, so fit it with a mu task "
                "(datamodule=...)."
            )
        data: Any = self.task.datasets["forget"]
        models: tuple[Any, Any] = (self.backbone, self.auxiliary_model)
        size = self.task.eval_batch_size
        changed = 0
        total = 0
        with eval_mode(*models):
            for start in range(0, len(data), size):
                rows = data.__getitems__(list(range(start, min(start + size, len(data)))))
                part = self.trainer.strategy.batch_to_device(rows)
                (base, labels), (reinforced, _) = (model.token_logits(part) for model in models)
                generic = generic_logits(base, reinforced, self.alpha).argmax(-1)
                labelled = labels != IGNORED
                indices = part["index"].tolist()
                for index, row, mask in zip(indices, generic, labelled, strict=True):
                    self.generic[index] = row[mask].cpu()
                changed += int((generic != labels)[labelled].sum())
                total += int(labelled.sum())
        self.facts["generic_labels_changed"] = changed / total
        if not changed:
            rank_zero_warn(
                "every generic label of WHP is the true one, so nothing will be forgotten; raise "
                "alpha, reinforce_lr or reinforce_epochs."
            )

    def relabelled(self, forget: Batch) -> Batch:
        """The part with generic labels in place of the true ones."""
        labels = forget["labels"].clone()
        labelled = labels != IGNORED
        labelled[:, 0] = False  # no token predicts the first one
        generic = torch.cat([self.generic[index] for index in forget["index"].tolist()])
        labels[labelled] = generic.to(labels.device)
        return {**forget, "labels": labels}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the generic labels: after the first step they cannot be computed again."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["generic_labels"] = dict(self.generic)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the generic labels."""
        super().on_load_checkpoint(checkpoint)
        self.generic = dict(checkpoint.get("generic_labels", {}))

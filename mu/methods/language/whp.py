"""WHP (who's Harry Potter): learn what a model would say that had not read it. For language models;
forget alone.

Eldan and Russinovich, "Who's Harry Potter? Approximate Unlearning in LLMs", arXiv 2310.02238; Shi
et al., "MUSE", ICLR 2025, arXiv 2407.06460.

    reinforce:  a copy is trained further on D_f, which gives v_re
    generic:    y*_t = argmax_v [v_θo − α relu(v_re − v_θo)] at each labelled token of D_f, once
    unlearn:    min_θ ℓ(x_f, y*), from θ_o

The paper also replaces names by generic ones, from a dictionary that another model writes, and
takes the generic labels on the translated text; there is no dictionary here, and labels are those
of the text itself. Where the copy has learnt nothing new, y* is what the original says anyway.
MUSE's WHP trains nothing after the copy: it serves the combined logits themselves, with both models
in memory (`WHPInference`). Defaults: α = 5, 3 epochs of reinforcement at 3e-6, then 2 epochs at
1e-6 (paper; `max_epochs` is 5), AdamW; MUSE: fine-tuning of 10 epochs at 1e-5, α = 4 for News and
256 for Books.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from mu.backbones import CausalLM
from mu.backbones.language.two_models import GenericLogits
from mu.core.module import UnlearningModule
from mu.core.reference import frozen_copy
from mu.data.batch import Batch
from mu.data.plan import Forget, Phases
from mu.functional.tokens import IGNORED, generic_logits
from mu.methods.bases.two_models import check_whole
from mu.utils.errors import InputError

_REINFORCE = 0


class WHP(UnlearningModule):
    """The first `reinforce_epochs` epochs of a fit train the copy, the others unlearn.

    Both models are groups of one optimizer; in each step one of them is idle and left alone. The
    copy and the generic labels are in the checkpoint.

    Args:
        backbone: the original.
        alpha: α >= 0.
        reinforce_epochs: epochs that train the copy, at least 1.
        reinforce_lr: learning rate of the copy.
        optimizer: of both; its own rate is that of unlearning.
    """

    needs_retain = False

    def __init__(
        self,
        backbone: CausalLM,
        alpha: float = 5.0,
        reinforce_epochs: int = 3,
        reinforce_lr: float = 3e-6,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=1e-6),
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, optimizer=optimizer, **kwargs)
        if alpha < 0 or reinforce_epochs < 1:
            raise InputError(
                "WHP needs an alpha of at least 0 and reinforce_epochs of at least 1, not "
                f"{alpha} and {reinforce_epochs}."
            )
        self.alpha = alpha
        self.reinforce_epochs = reinforce_epochs
        self.reinforce_lr = reinforce_lr
        self.plan = Phases(Forget(epochs=reinforce_epochs), Forget(after=reinforce_epochs))
        self.reinforced: CausalLM | None = None
        self.generic: dict[
            int, Tensor
        ] = {}  # generic labels of each sample's labelled tokens, by index

    # ---- two models ------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """The copy shares what is not trained."""
        check_whole(self)
        if self.reinforced is None:
            shared = {id(p): p for p in self.backbone.parameters() if not p.requires_grad}
            self.reinforced = cast(CausalLM, deepcopy(self.backbone, shared))
        super().configure_model()

    def setup(self, stage: str) -> None:
        """Refuse a fit that would end before it unlearns."""
        super().setup(stage)
        epochs = self.trainer.max_epochs
        if stage == "fit" and epochs is not None and 0 <= epochs <= self.reinforce_epochs:
            raise InputError(
                f"WHP reinforces for {self.reinforce_epochs} epochs before it unlearns; set "
                f"trainer.max_epochs to at least {self.reinforce_epochs + 1}, not {epochs}."
            )

    def parameter_groups(self) -> list[dict[str, Any]]:
        """A group for each model; the copy has its own learning rate."""
        assert self.reinforced is not None
        copied = [weight for weight in self.reinforced.parameters() if weight.requires_grad]
        return [*super().parameter_groups(), {"params": copied, "lr": self.reinforce_lr}]

    def set_mode(self) -> None:
        """The copy learns in train mode."""
        super().set_mode()
        assert self.reinforced is not None
        self.reinforced.train()

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """On several ranks every weight must take part in every loss, so there the idle model adds
        zero.
        """
        loss = super().training_step(batch, batch_idx)
        return (
            loss + 0 * torch.stack([p.sum() for p in self._idle()]).sum()
            if self.world_size > 1
            else loss
        )

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Without a gradient the idle model is left alone; with one of zero, momentum and weight
        decay would move it.
        """
        for p in self._idle():
            p.grad = None
        super().on_before_optimizer_step(optimizer)

    def _idle(self) -> list[nn.Parameter]:
        idle = self.backbone if self.phase == _REINFORCE else self.reinforced
        assert idle is not None
        return [p for p in idle.parameters() if p.requires_grad]

    # ---- steps -----------------------------------------------------------------------------------

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert forget is not None and self.reinforced is not None
        if self.phase == _REINFORCE:
            return {"reinforce": self.reduce(self.reinforced.loss(forget), forget)}
        if not self.generic:
            with self.stopwatch("labels"):
                self.label()
        return {"generic": self.reduce(self.backbone.loss(self.relabelled(forget)), forget)}

    @torch.no_grad()
    def label(self) -> None:
        """Generic labels of the whole forget part, on every rank: the backbone still is the
        original.
        """
        if self.task is None:
            raise InputError(
                "WHP labels the whole forget part at once, so fit it with a mu task "
                "(datamodule=...)."
            )
        assert isinstance(self.backbone, CausalLM) and self.reinforced is not None
        data: Any = self.task.datasets["forget"]
        models = (self.backbone, self.reinforced)
        size = self.task.eval_batch_size
        changed = 0
        total = 0
        modes = [model.training for model in models]
        for model in models:
            model.eval()
        for start in range(0, len(data), size):
            part = self.trainer.strategy.batch_to_device(
                data.__getitems__(list(range(start, min(start + size, len(data)))))
            )
            (base, truth), (reinforced, _) = (model.token_logits(part) for model in models)
            said = generic_logits(base, reinforced, self.alpha).argmax(-1)
            at = truth != IGNORED
            self.generic |= {
                int(i): row[mask].cpu()
                for i, row, mask in zip(part["index"].tolist(), said, at, strict=True)
            }
            changed = changed + int((said != truth)[at].sum())
            total = total + int(at.sum())
        for model, mode in zip(models, modes, strict=True):
            model.train(mode)
        self.facts["generic_labels_changed"] = changed / total
        if not changed:
            rank_zero_warn(
                "every generic label of WHP is the true one, so nothing will be forgotten; raise "
                "alpha, reinforce_lr or reinforce_epochs."
            )

    def relabelled(self, forget: Batch) -> Batch:
        """The part with generic labels in place of the true ones."""
        labels = forget["labels"].clone()
        at = labels != IGNORED
        at[:, 0] = False  # which nothing predicts
        wanted = torch.cat([self.generic[index] for index in forget["index"].tolist()])
        labels[at] = wanted.to(labels.device)
        return {**forget, "labels": labels}

    # ---- checkpoints -----------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The generic labels travel along: the backbone is not the original any more."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["generic_labels"] = dict(self.generic)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them up."""
        super().on_load_checkpoint(checkpoint)
        self.generic = dict(checkpoint.get("generic_labels", {}))


class WHPInference(UnlearningModule):
    """MUSE's form: the backbone is the copy that is trained on forget; what is served combines its
    logits with the original's.

    Two models in memory, and in the checkpoint; every answer costs two forward passes.

    Args:
        backbone: the original.
        alpha: α >= 0.
        optimizer: AdamW 1e-5, 10 epochs (MUSE).
    """

    plan = Forget()
    needs_retain = False

    def __init__(
        self,
        backbone: CausalLM,
        alpha: float = 4.0,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=1e-5),
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, optimizer=optimizer, **kwargs)
        if alpha < 0:
            raise InputError(
                f"alpha is {alpha}; below 0, what was reinforced would be said all the more."
            )
        self.alpha = alpha
        self.original: CausalLM | None = None

    def configure_model(self) -> None:
        """The original is part of the answer, so it is in the checkpoint."""
        check_whole(self)
        if self.original is None:
            self.original = cast(CausalLM, frozen_copy(self.backbone))
        super().configure_model()

    def served(self) -> GenericLogits:
        """Both models' logits as one's."""
        assert isinstance(self.backbone, CausalLM)
        return GenericLogits(self.original or self.backbone, self.backbone, self.alpha)

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert forget is not None
        return {"reinforce": self.reduce(self.backbone.loss(forget), forget)}

"""Task arithmetic: subtract the task vector of fine-tuning on the forget set.

Ilharco et al., "Editing Models with Task Arithmetic", ICLR 2023, arXiv 2212.04089; `tv` in Shi et
al., "MUSE: Machine Unlearning Six-Way Evaluation for Language Models", ICLR 2025, arXiv 2407.06460.

    θ_re = θ after fine-tuning on D_f;    θ_un = θ − α (θ_re − θ)

Until the last epoch ends the model is θ_re, and so are the checkpoints written before; then it
becomes θ_un, which is what is saved, tested and exported. A negated run cannot be resumed.
Differences are taken in float32 at least; buffers (statistics of batch norm) stay the original's.
Low-rank adapters begin at zero, so W_re − W = s B A: negating B is the same arithmetic. MUSE tries
α = 1, 2, 4, 8, 16, ... and takes the first at which the forget set is known no better than by the
retrained model (16 for News, 1 for Books); each needs the same fine-tuning and is a run of its own
here.

Defaults: α = 1; AdamW 1e-5, 10 epochs with a cosine (MUSE).
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import Backbone
from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.data.plan import Forget
from mu.utils.errors import InputError, RunError


class TaskVector(UnlearningModule):
    """Fine-tunes on forget, and finally subtracts what that changed.

    Args:
        backbone: the original.
        alpha: α > 0, how far to go in the other direction.
        optimizer: optimizer factory; for the source of the default see above.
    """

    plan = Forget()
    needs_retain = False
    needs_reference = True
    negated: Tensor

    def __init__(
        self,
        backbone: Backbone,
        alpha: float = 1.0,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=1e-5),
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, optimizer=optimizer, **kwargs)
        if alpha <= 0:
            raise InputError(
                f"alpha is {alpha}; with 0 nothing is forgotten, and below it more is learnt."
            )
        self.alpha = alpha
        self.register_buffer("negated", torch.tensor(False))

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert forget is not None
        return {"forget": self.reduce(self.backbone.loss(forget), forget)}

    def configure_model(self) -> None:
        """Adapters that hold something already are not a difference from θ."""
        super().configure_model()
        if any(".lora_magnitude_vector." in name for name, _ in self.trainable()):
            raise InputError(
                "the task vector of a lora with use_dora is no product that can be negated; give "
                "the lora use_dora false."
            )
        factors = [(name, p) for name, p in self.trainable() if ".lora_B." in name]
        nonzero = [name for name, p in factors if bool(p.any())]
        if nonzero and not self.negated and self.reference is not None:
            raise InputError(
                f"the adapter {nonzero[0]} is not zero, so that the change by training is no "
                "product that can be negated; merge it into the model first."
            )

    @torch.no_grad()
    def negate(self) -> None:
        """θ ← θ_o − α (θ − θ_o) for what was trained; buffers as the original has them."""
        assert self.reference is not None
        original = self.reference.state_dict()
        for name, p in self.trainable():
            if ".lora_A." not in name:  # of a product, one factor
                p.copy_(negative(p, original[name], self.alpha))
        for name, buffer in self.backbone.named_buffers():
            if name in original:
                buffer.copy_(original[name])
        self.negated.fill_(True)

    # ---- when ------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """What is negated is no fine-tuned model any more."""
        if self.negated:
            raise InputError(
                "this run of TaskVector is finished and its task vector subtracted; to train "
                "longer, begin again with a larger trainer.max_epochs."
            )
        # which ends an epoch, and may negate, where a checkpoint was written right before that
        super().on_train_start()

    def on_train_epoch_end(self) -> None:
        """After the last epoch, before checkpoints are written."""
        if self.is_last_epoch() and not self.negated:
            with self.stopwatch("negate"):
                self.negate()
        super().on_train_epoch_end()

    def on_fit_end(self) -> None:
        """A reinforced model must not pass for an unlearned one."""
        super().on_fit_end()
        if self.steps_made is not None and not self.negated and not self.trainer.interrupted:
            raise RunError(
                "the run was stopped after its last epoch had ended, too late to subtract the "
                "task vector; give EarlyStopping check_on_train_epoch_end: false."
            )


def negative(trained: Tensor, original: Tensor, alpha: float) -> Tensor:
    """`original - alpha (trained - original)`, in float32 at least.

    Exactly the original where nothing was trained.

    Example:
        >>> negative(torch.tensor([1.5, 2.0]), torch.tensor([1.0, 2.0]), 4.0).tolist()
        [-1.0, 2.0]
    """
    dtype = torch.promote_types(trained.dtype, torch.float32)
    start = original.to(dtype)
    return start - alpha * (trained.to(dtype) - start)

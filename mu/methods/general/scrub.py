"""SCRUB: distil the original with a negative sign on the forget set, with a positive one on retain.

Kurmanji, Triantafillou, Hayes and Triantafillou, "Towards Unbounded Machine Unlearning", NeurIPS
2023, arXiv 2302.09880.

    KD(x) = T² KL(softmax(f_θo(x) / T) ‖ softmax(f_θ(x) / T))
    max step, one pass over D_f, in the first `msteps` epochs:     min_θ −KD(D_f)
    min step, one pass over D_r, in every epoch, after the max:    min_θ γ ℓ(D_r) + α KD(D_r)

One optimizer serves both; the teacher f_θo is in eval mode, the student in train mode. The learning
rate falls tenfold in each epoch that *exceeds* an entry of `lr_decay_epochs` (counted from 1; [3,
5, 9] first takes effect in epoch 4). KD is minimal, with zero gradient, while the student equals
the teacher: with `norm: eval`, or without batch norm and dropout, the first max steps change the
weights by weight decay only. SCRUB+R is `SCRUBRewind`.

Ports that differ: the worst-case benchmark takes forget *or* retain batches in an epoch
(`mu.methods.compat.SCRUBWorstCase`); corrective-unlearning-bench negates the whole loss on forget;
EasyDUB optimises the frozen teacher, so that its student never changes.

Defaults: γ 0.99, α 0.001, T 4, msteps 2, SGD 5e-4, momentum 0.9, weight decay 5e-4, decay [3, 5,
9], 3 epochs, forget batches of 512 and retain batches of 256 (the code's large-scale notebook;
batch sizes are the task's). The notebook also sets 32 and 128, which nothing reads: with those, a
ResNet-20 on CIFAR-10 is destroyed. Smoothing, clipping, `sstart` and β, which the code declares,
have no effect there.
"""

from functools import partial
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.optim.lr_scheduler import MultiStepLR

from mu.backbones import Backbone
from mu.core.lr import LRSchedule
from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.data.plan import Forget, Phases, Retain
from mu.utils.errors import InputError


class SCRUB(UnlearningModule):
    """Distillation from the original: reversed on forget, beside the backbone's loss on retain.

    Args:
        backbone: the original.
        gamma: γ >= 0, weight of the backbone's loss on retain.
        alpha: α >= 0, weight of the distillation on retain.
        temperature: T > 0.
        msteps: epochs that begin with a max step.
        lr_decay_epochs: epochs (counted from 1) after which the learning rate falls; empty is
            constant.
        lr_decay_rate: by this factor.
        optimizer: optimizer factory; for the source of the default see above.
        scheduler: another schedule in place of the decay.
    """

    default_epochs = 3
    needs_reference = True

    def __init__(
        self,
        backbone: Backbone,
        gamma: float = 0.99,
        alpha: float = 0.001,
        temperature: float = 4.0,
        msteps: int = 2,
        lr_decay_epochs: tuple[int, ...] = (3, 5, 9),
        lr_decay_rate: float = 0.1,
        optimizer: OptimizerCallable = lambda params: torch.optim.SGD(
            params, lr=5e-4, momentum=0.9, weight_decay=5e-4
        ),
        scheduler: LRSchedule | LRSchedulerCallable | None = None,
        **kwargs: Any,
    ) -> None:
        # MultiStepLR counts from 0: its milestone 3 is the fourth epoch, the first that exceeds 3
        if scheduler is None:
            scheduler = partial(
                MultiStepLR, milestones=sorted(lr_decay_epochs), gamma=lr_decay_rate
            )
        super().__init__(backbone, optimizer=optimizer, scheduler=scheduler, **kwargs)
        if gamma < 0 or alpha < 0 or temperature <= 0 or msteps < 0:
            raise InputError(
                "SCRUB needs gamma, alpha and msteps of at least 0 and a temperature above 0, "
                f"not {gamma}, {alpha}, {msteps} and {temperature}."
            )
        self.gamma = gamma
        self.alpha = alpha
        self.temperature = temperature
        self.msteps = msteps
        self.plan = Phases(Forget(epochs=msteps), Retain())

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        terms = {}
        if forget is not None:
            terms["forget"] = -self.distillation(forget, self.backbone.predict(forget))
        if retain is not None:
            student = self.backbone.predict(retain)
            terms["retain"] = self.gamma * self.reduce(
                self.backbone.loss(retain, prediction=student), retain
            )
            terms["obey"] = self.alpha * self.distillation(retain, student)
        return terms

    def distillation(self, part: Batch, student: Tensor) -> Tensor:
        """KD of the student's predictions from the original's."""
        assert self.reference is not None
        with torch.no_grad():
            teacher = self.reference.predict(part)
        return self.reduce(self.backbone.divergence(student, teacher, part, self.temperature), part)

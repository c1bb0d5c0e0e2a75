"""SCRUB and SCRUB+R: disobey the original on the forget set, obey it on the retain set; go back to
where forgetting was enough.

Kurmanji, Triantafillou, Hayes and Triantafillou, "Towards Unbounded Machine Unlearning", NeurIPS
2023, arXiv 2302.09880.

    KD(x) = T² KL(softmax(f_θo(x) / T) ‖ softmax(f_θ(x) / T))
    max step, one pass over D_f, in the first `msteps` epochs:     min_θ −KD(D_f)
    min step, one pass over D_r, in every epoch, after the max:    min_θ γ ℓ(D_r) + α KD(D_r)

One optimizer serves both; the teacher f_θo is in eval mode, the student in train mode. The learning
rate falls tenfold in each epoch that *exceeds* an entry of `lr_decay_epochs` (counted from 1; [3,
5, 9] first takes effect in epoch 4). KD has its minimum, and so no gradient, where the student
still is the teacher: with `norm: eval`, or without batch norm and dropout, the first max steps move
nothing but by weight decay. +R: the student is kept after every epoch, with its error on the forget
set; at the end the kept one whose forget error is closest to the *final* student's error on
validation samples of the forget set's classes is taken (the earliest of equals). The untouched
original is one of them, as epoch 0. (The code lists its error too, but writes no checkpoint for it
and then fails.) Ports that differ: the worst-case benchmark shows forget *or* retain in an epoch
(`mu.methods.compat.SCRUBWorstCase`); that of corrective-unlearning-bench negates the whole loss on
forget; EasyDUB's optimises the frozen teacher, so that its student stays as it was. Defaults: γ
0.99, α 0.001, T 4, msteps 2, SGD 5e-4, momentum 0.9, weight decay 5e-4, decay [3, 5, 9], 3 epochs,
forget batches of 32 and retain batches of 128 (the code's large-scale notebook; batch sizes are the
task's). Smoothing, clipping, `sstart` and β, which the code declares, have no effect there.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim.lr_scheduler import MultiStepLR

from mu.backbones import Backbone, Classifier
from mu.core.lr import LRSchedule
from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.data.plan import Forget, Phases, Retain
from mu.utils.errors import InputError
from mu.utils.modules import eval_mode


class SCRUB(UnlearningModule):
    """Distillation from the original: reversed on forget, together with the backbone's loss on
    retain.

    Args:
        backbone: the original.
        gamma: γ >= 0, weight of the backbone's loss on retain.
        alpha: α >= 0, weight of the distillation on retain.
        temperature: T > 0.
        msteps: epochs that begin with a max step.
        lr_decay_epochs: epochs (counted from 1) after which the learning rate falls; empty is
            constant.
        lr_decay_rate: by this factor.
        optimizer: see the file's head.
        scheduler: another schedule in place of the decay.
    """

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


class SCRUBRewind(SCRUB):
    """SCRUB+R: SCRUB, then back to the epoch whose forget error is closest to the reference error.

    Every epoch's weights are kept in main memory, and in checkpoints until the end of the run. A
    finished run is rewound, so it cannot be continued. Arguments as in SCRUB, for classifiers only.
    """

    rewound_to: Tensor

    def __init__(self, backbone: Classifier, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)
        if not isinstance(backbone, Classifier):
            raise InputError(
                "SCRUB+R counts wrong labels, so it needs a Classifier, not "
                f"{type(backbone).__name__}; use SCRUB."
            )
        # the epoch whose weights are held; -1 until the end
        self.register_buffer("rewound_to", torch.tensor(-1))
        self.forget_errors: list[float] = []  # after 0, 1, 2 ... epochs
        self.reference_error = float("nan")
        self._kept: list[dict[str, Tensor]] = []  # after 1, 2 ... epochs

    def on_train_start(self) -> None:
        """The error of the untouched original; a resumed run has brought it along."""
        if int(self.rewound_to) >= 0:
            raise InputError(
                "this run of SCRUB+R is finished and rewound; to train longer, begin again with a "
                "larger trainer.max_epochs."
            )
        # which ends an epoch, and may rewind, where a checkpoint was written right before that
        super().on_train_start()
        if not self.forget_errors:
            with self.stopwatch("rewind"):
                self.forget_errors.append(self.forget_error())

    def on_train_epoch_end(self) -> None:
        """Keep this epoch's student; after the last, rewind (before checkpoints are written)."""
        with self.stopwatch("rewind"):
            state = self.backbone.state_dict()
            self._kept.append(
                {name: value.detach().to("cpu", copy=True) for name, value in state.items()}
            )
            self.forget_errors.append(self.forget_error())
            if self.is_last_epoch():
                self.rewind()
        super().on_train_epoch_end()

    def rewind(self) -> None:
        """Load the kept weights whose forget error is closest to the reference error."""
        self.reference_error = self.validation_error()
        epoch = min(
            range(len(self.forget_errors)),
            key=lambda e: abs(self.forget_errors[e] - self.reference_error),
        )
        assert self.reference is not None
        self.backbone.load_state_dict(
            self.reference.state_dict() if epoch == 0 else self._kept[epoch - 1]
        )
        self.rewound_to.fill_(epoch)
        self._kept = []
        if epoch == 0:
            self.checks.expect_no_change()
            rank_zero_warn(
                "SCRUB+R went back to the original: no epoch's forget error is closer to the "
                f"validation error {self.reference_error:.4f} than the original's "
                f"{self.forget_errors[0]:.4f}."
            )

    def forget_error(self) -> float:
        """Share of the forget set, not augmented, that the student in eval mode gets wrong, in [0,
        1].
        """
        return self._error(
            batch["forget"] for batch in self.iterate_batches(Forget(shuffle=False), augment=False)
        )

    def validation_error(self) -> float:
        """The same of those validation samples whose class occurs in the forget set."""
        return self._error(self._validation_of(self._forget_classes()))

    def _validation_of(self, classes: Tensor) -> Iterator[Batch]:
        assert self.task is not None
        for batch in self.task.eval_loaders(["validation"])[0]:
            part = self.trainer.strategy.batch_to_device(
                {name: value for name, value in batch.items() if name != "split"}
            )
            part = self.prepare(part)
            # others do not count
            yield {
                **part,
                "padded": part["padded"] | ~torch.isin(part["label"], classes),
            }

    def _forget_classes(self) -> Tensor:
        assert isinstance(self.backbone, Classifier)  # as __init__ made sure
        seen = torch.zeros(self.backbone.num_classes, device=self.device)
        for batch in self.iterate_batches(Forget(shuffle=False), augment=False):
            seen[batch["forget"]["label"]] = 1
        return self.sum_over_ranks([seen])[0].nonzero().flatten()

    @torch.no_grad()
    def _error(self, parts: Iterable[Batch]) -> float:
        total = torch.zeros(2, device=self.device)
        with eval_mode(self.backbone):
            for part in parts:
                wrong = (self.backbone.predict(part).argmax(1) != part["label"]).float()
                total += torch.stack([values.sum() for values in self.backbone.count(part, wrong)])
        wrong, count = self.sum_over_ranks([total])[0].tolist()
        if count == 0:
            raise InputError(
                "SCRUB+R takes its reference error from validation samples of the forget set's "
                "classes, and there are none; hold out some, or use SCRUB."
            )
        return wrong / count

    def setup(self, stage: str) -> None:
        """Refuse a task without validation samples now, not after the last epoch."""
        super().setup(stage)
        if stage == "fit" and (
            self.task is None or not len(self.task.split.parts.get("validation", ()))
        ):
            raise InputError(
                "SCRUB+R takes its reference error from validation samples, so it needs a mu task "
                "with a validation part; hold out some, or use SCRUB."
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The kept epochs travel with the checkpoint until the run is rewound."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["rewind"] = {
            "forget_errors": self.forget_errors,
            "reference_error": self.reference_error,
            "kept": self._kept,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the kept epochs."""
        super().on_load_checkpoint(checkpoint)
        found = checkpoint["rewind"]
        self.forget_errors = list(found["forget_errors"])
        self.reference_error = found["reference_error"]
        self._kept = list(found["kept"])

"""SCRUB+R: SCRUB, then back to the epoch in which forgetting was enough.

Kurmanji, Triantafillou, Hayes and Triantafillou, "Towards Unbounded Machine Unlearning", NeurIPS
2023, arXiv 2302.09880, section on rewinding.

    e* = argmin_e |error_e(D_f) − error_E(validation samples of the classes in D_f)|,  e in 0..E

The student of every epoch is stored with its error on the forget set; the reference error is the
*final* student's. The earliest of equals is taken, and the untouched original is one of them, as
epoch 0. (The code lists its error too, but writes no checkpoint for it and then fails.) Defaults:
as SCRUB.
"""

from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from mu.backbones import Classifier
from mu.data.plan import Forget
from mu.methods.bases.error_rate import error_rate, validation_parts
from mu.methods.general.scrub import SCRUB
from mu.utils.errors import InputError


class SCRUBRewind(SCRUB):
    """SCRUB, then back to the epoch whose forget error is closest to the reference error.

    Every epoch's weights are kept in main memory, and in checkpoints until the end of the run. A
    finished run is rewound, so it cannot be continued. Arguments as in SCRUB, for classifiers only.
    """

    default_epochs = 5
    rewound_to: Tensor

    def __init__(self, backbone: Classifier, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)
        if not isinstance(backbone, Classifier):
            raise InputError(
                "SCRUB+R counts wrong labels, so it needs a Classifier, not "
                f"{type(backbone).__name__}; use SCRUB."
            )
        # the epoch that the run went back to; -1 until the end
        self.register_buffer("rewound_to", torch.tensor(-1))
        self.forget_errors: list[float] = []  # after 0, 1, 2 ... epochs
        self.reference_error = float("nan")
        self.epoch_states: list[dict[str, Tensor]] = []  # after 1, 2 ... epochs

    def on_train_start(self) -> None:
        """The error of the untouched original, unless a checkpoint brought it."""
        if int(self.rewound_to) >= 0:
            raise InputError(
                "this run of SCRUB+R is finished and rewound; to train longer, begin again with a "
                "larger trainer.max_epochs."
            )
        # ends an epoch, and may rewind, where a checkpoint was written right before its end
        super().on_train_start()
        if not self.forget_errors:
            with self.stopwatch("rewind"):
                self.forget_errors.append(self.forget_error())

    def on_train_epoch_end(self) -> None:
        """Store this epoch's student; after the last, rewind (before checkpoints are written)."""
        with self.stopwatch("rewind"):
            state = self.backbone.state_dict()
            self.epoch_states.append(
                {name: value.detach().to("cpu", copy=True) for name, value in state.items()}
            )
            self.forget_errors.append(self.forget_error())
            if self.is_last_epoch():
                self.rewind()
        super().on_train_epoch_end()

    def rewind(self) -> None:
        """Load the epoch's weights whose forget error is closest to the reference error."""
        self.reference_error = self.validation_error()
        epoch = min(
            range(len(self.forget_errors)),
            key=lambda e: abs(self.forget_errors[e] - self.reference_error),
        )
        assert self.reference is not None
        self.backbone.load_state_dict(
            self.reference.state_dict() if epoch == 0 else self.epoch_states[epoch - 1]
        )
        self.rewound_to.fill_(epoch)
        self.epoch_states = []
        if epoch == 0:
            self.checks.expect_no_change()
            rank_zero_warn(
                "SCRUB+R went back to the original: no epoch's forget error is closer to the "
                f"validation error {self.reference_error:.4f} than the original's "
                f"{self.forget_errors[0]:.4f}."
            )

    def forget_error(self) -> float:
        """Error of the student in eval mode on the forget set without augmentation, in [0, 1]."""
        batches = self.iterate_batches(Forget(shuffle=False), augment=False)
        error = error_rate(self, (batch["forget"] for batch in batches))
        assert error is not None, "the forget part has a sample"
        return error

    def validation_error(self) -> float:
        """Error on those validation samples whose class occurs in the forget set, in [0, 1]."""
        assert isinstance(self.backbone, Classifier)
        occurs = torch.zeros(self.backbone.num_classes, device=self.device)
        for batch in self.iterate_batches(Forget(shuffle=False), augment=False):
            occurs[batch["forget"]["label"]] = 1
        classes = self.sum_over_ranks([occurs])[0].nonzero().flatten()
        error = error_rate(self, validation_parts(self, classes))
        if error is None:
            raise InputError(
                "SCRUB+R takes its reference error from validation samples of the forget set's "
                "classes, and there are none; hold out some, or use SCRUB."
            )
        return error

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
        """Save the epochs' weights, until the run is rewound."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["rewind"] = {
            "forget_errors": self.forget_errors,
            "reference_error": self.reference_error,
            "kept": self.epoch_states,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the epochs' weights."""
        super().on_load_checkpoint(checkpoint)
        rewind = checkpoint["rewind"]
        self.forget_errors = list(rewind["forget_errors"])
        self.reference_error = rewind["reference_error"]
        self.epoch_states = list(rewind["kept"])

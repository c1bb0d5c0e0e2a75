"""UNSIR: impair with noise that maximises the error on the forgotten class, then repair on retain.

Class forgetting only. Tarun, Chundawat, Mandal and Kankanhalli, "Fast Yet Effective Machine
Unlearning", IEEE TNNLS 2023, arXiv 2111.08947.

    noise:   n* = argmin_n −ℓ(f_{θ_o}(n), c_f) + λ mean_b ‖n_b‖²,  n ~ N(0, 1) at the start
    impair:  min_θ ℓ over {(n*, c_f)} ∪ subset of D_r
    repair:  min_θ ℓ over the same subset

No real forget sample is read. The released impair step labels every noise sample with class 0; here
the label is c_f. Defaults (authors' notebook, CIFAR-10): a batch of 256 noise images for each
forgotten class, 40 Adam steps of 0.1, λ = 0.1; 20 copies of the batch; impair 1 epoch with Adam
0.02, repair 1 epoch with Adam 0.01, batch 256; the first 1000 retain samples of each class, here a
random subset of 9000 (`retain_samples`). The ports in Bad Teacher and SSD use 1e-4 for both rates,
80 copies and 500 of each class.
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import Classifier
from mu.data.batch import Batch
from mu.methods.bases.classes import forgotten_classes
from mu.methods.bases.learned_noise import LearnsNoise, error_maximising_noise, network_input
from mu.methods.bases.phases import check_max_epochs
from mu.methods.bases.retain_subset import RetainSubset
from mu.utils.errors import InputError


class UNSIR(LearnsNoise):
    """Impair epochs on learned noise and retain, then repair epochs on retain alone.

    The noise is learned before the first step and is in the checkpoint. Each retain batch of the
    impair phase carries its share of noise images: on average `noise_copies` of each in an epoch.

    Args:
        backbone: the original.
        optimizer: of the impair phase; the repair phase has a fresh one of the same kind with
            `repair_lr`.
        repair_lr: learning rate of the repair phase.
        impair_epochs: epochs before the repair.
        forget_class: the class; None takes what the task forgets as whole classes.
        noise_size: noise images for each class.
        noise_steps: steps of learning the noise.
        noise_lr: Adam's rate in those.
        noise_penalty: λ.
        noise_copies: visits of each noise image in an epoch.
        retain_samples: size of the retain subset (all of retain where it is smaller).
    """

    default_epochs = 2
    needs_forget = False

    def __init__(
        self,
        backbone: Classifier,
        optimizer: OptimizerCallable = lambda params: torch.optim.Adam(params, lr=0.02),
        repair_lr: float = 0.01,
        impair_epochs: int = 1,
        forget_class: int | None = None,
        noise_size: int = 256,
        noise_steps: int = 40,
        noise_lr: float = 0.1,
        noise_penalty: float = 0.1,
        noise_copies: float = 20,
        retain_samples: int = 9000,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, optimizer=optimizer, **kwargs)
        if self.scheduler is not None:
            raise InputError(
                "UNSIR sets the learning rates of its two phases itself; leave the scheduler out."
            )
        if min(noise_size, noise_steps, impair_epochs, retain_samples) < 1:
            raise InputError(
                "UNSIR needs noise_size, noise_steps, impair_epochs and retain_samples of at "
                "least 1."
            )
        self.repair_lr = repair_lr
        self.impair_epochs = impair_epochs
        self.forget_class = forget_class
        self.noise_size = noise_size
        self.noise_steps = noise_steps
        self.noise_lr = noise_lr
        self.noise_penalty = noise_penalty
        self.noise_copies = noise_copies
        self.retain_samples = retain_samples
        self.num_classes = backbone.num_classes
        self.plan = RetainSubset(retain_samples)

    def setup(self, stage: str) -> None:
        """Refuse a task that forgets no whole class, and a fit that ends before the repair."""
        super().setup(stage)
        if stage != "fit":
            return
        self.classes = forgotten_classes(self, self.forget_class, self.num_classes)
        if not self.classes:
            raise InputError(
                "UNSIR forgets whole classes, and this task forgets none; choose a ByClass task, "
                "or name forget_class."
            )
        check_max_epochs(self, self.impair_epochs, "impairs", "repairs")

    def learn_noise(self) -> None:
        """Learn `noise_size` images for each forgotten class; the weights are the original's."""
        assert self.task is not None
        loader = self.task.plan_loader(self.plan, self.seed, batch_size=1)
        shape = next(iter(loader))["retain"]["image"].shape[1:]
        classes = torch.tensor(self.classes, device=self.device)
        self.noise_label = classes.repeat_interleave(self.noise_size)
        self.noise = error_maximising_noise(
            self, self.noise_label, shape, self.noise_steps, self.noise_lr, self.noise_penalty
        )

    def on_train_epoch_start(self) -> None:
        """The repair begins with a fresh optimizer."""
        super().on_train_epoch_start()
        if self.current_epoch == self.impair_epochs:
            optimizer: Any = self.optimizers()
            optimizer.optimizer.state.clear()
            for group in optimizer.optimizer.param_groups:
                group["lr"] = self.repair_lr

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert retain is not None
        if self.current_epoch >= self.impair_epochs:
            return {"repair": self.reduce(self.backbone.loss(retain), retain)}
        ratio = self.noise_ratio()
        rows = self.noise_rows(retain, ratio)
        noise = network_input(self.backbone, self.noise[rows])
        output = self.backbone.predict({"image": torch.cat([noise, retain["image"]])})
        noise_output, retain_output = output.split([len(rows), len(retain["image"])])
        values, _ = self.backbone.loss({"label": self.noise_label[rows]}, prediction=noise_output)
        loss = self.reduce(self.backbone.loss(retain, prediction=retain_output), retain)
        # the mean over noise and retain together, of which there are (1 + ratio) times the retain
        # samples on average
        return {
            "noise": values.sum() * self.world_size / retain["count"] / (1 + ratio),
            "retain": loss / (1 + ratio),
        }

    def noise_ratio(self) -> float:
        """Mean number of noise images beside one retain sample."""
        assert self.task is not None
        size = min(self.retain_samples, len(self.task.split.parts["retain"]))
        return self.noise_copies * len(self.noise) / size

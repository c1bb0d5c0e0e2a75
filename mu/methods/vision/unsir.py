"""UNSIR: impair with noise that maximises the error on the forgotten class, then repair on a subset
of retain. Class forgetting only.

Tarun, Chundawat, Mandal and Kankanhalli, "Fast Yet Effective Machine Unlearning", IEEE TNNLS 2023,
arXiv 2111.08947.

    noise:   n* = argmin_n −ℓ(f_{θ_o}(n), c_f) + λ mean_b ‖n_b‖²,  n ~ N(0, 1) at the start
    impair:  min_θ ℓ over {(n*, c_f)} ∪ subset of D_r        repair:  min_θ ℓ over the same subset

No real forget sample is read. The released impair step labels every noise sample with class 0,
whatever the class; here it is c_f. Defaults (authors' notebook, CIFAR-10): batch of 256 noise
images for each forgotten class, 40 Adam steps of 0.1, λ = 0.1; 20 copies of the batch; impair 1
epoch with Adam 0.02, repair 1 epoch with Adam 0.01, batch 256; the first 1000 retain samples of
each class, here a random subset of 9000 (`retain_samples`). The ports in Bad Teacher and SSD use
1e-4 for both rates, 80 copies and 500 of each class.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import Classifier
from mu.backbones.vision.networks import Normalize
from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.data.plan import DataPlan, Rows, Sizes, Step, Stream
from mu.methods.bases.classes import forgotten_classes
from mu.utils import rng
from mu.utils.errors import InputError
from mu.utils.modules import eval_mode


@dataclass(frozen=True)
class RetainSubset(DataPlan):
    """The same `count` random retain samples in each epoch, in another order."""

    count: int

    def reads(self) -> frozenset[str]:
        """Retain only."""
        return frozenset({"retain"})

    def steps(self, epoch: int, sizes: Sizes, batch: Sizes, seed: int) -> Iterator[Step]:
        """See `DataPlan`."""
        kept = (
            Stream("unsir-subset", sizes["retain"], seed)
            .take(0, min(self.count, sizes["retain"]))
            .positions
        )
        order = Stream("unsir-order", len(kept), seed).take(epoch * len(kept), len(kept)).positions
        for start in range(0, len(kept), batch["retain"]):
            positions = kept[order[start : start + batch["retain"]]]
            yield Step({"retain": Rows(positions, np.full(len(positions), epoch))})


class UNSIR(UnlearningModule):
    """The noise is learned before the first step and is in the checkpoint; a fit needs at least one
    epoch more than `impair_epochs`.

    Each retain batch of the impair phase carries its share of noise images, so that an epoch shows
    `noise_copies` of each on average.

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
        noise_copies: how often an epoch shows each noise image.
        retain_samples: size of the retain subset (all of retain where it is smaller).
    """

    needs_forget = False
    noise: Tensor
    noise_label: Tensor

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
        # [rows, C, H, W] once it is learned, in the units of normalised pixels
        self.register_buffer("noise", torch.empty(0))
        self.register_buffer("noise_label", torch.empty(0, dtype=torch.int64))

    def setup(self, stage: str) -> None:
        """Refuse, before anything is computed, a task that forgets no whole class and a fit that
        ends before the repair.
        """
        super().setup(stage)
        if stage != "fit":
            return
        self.classes = forgotten_classes(self, self.forget_class, self.num_classes)
        if not self.classes:
            raise InputError(
                "UNSIR forgets whole classes, and this task forgets none; choose a ByClass task, "
                "or name forget_class."
            )
        epochs = self.trainer.max_epochs
        if epochs is not None and 0 <= epochs <= self.impair_epochs:
            raise InputError(
                f"UNSIR impairs for {self.impair_epochs} epochs and then repairs; set "
                f"trainer.max_epochs to at least {self.impair_epochs + 1}, not {epochs}."
            )

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As the base, but the noise has the size that the checkpoint gives it."""
        for name in ("noise", "noise_label"):
            if name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[name], device=self.device))
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    # ---- noise -----------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Learn the noise, unless a checkpoint brought it."""
        super().on_fit_start()
        if not len(self.noise):
            with self.stopwatch("noise"):
                self._learn_noise()

    def _learn_noise(self) -> None:
        assert self.task is not None
        shape = next(iter(self.task.plan_loader(self.plan, self.seed, batch_size=1)))["retain"][
            "image"
        ].shape[1:]
        rows = torch.arange(self.noise_size * len(self.classes), device=self.device)
        self.noise_label = torch.tensor(self.classes, device=self.device).repeat_interleave(
            self.noise_size
        )
        noise = rng.normal(self.seed, rows, 0, "unsir-noise", *shape).requires_grad_(True)
        optimizer = torch.optim.Adam([noise], lr=self.noise_lr)
        with eval_mode(self.backbone), torch.enable_grad():  # the weights are still the original's
            for _ in range(self.noise_steps):
                logits = self.backbone.predict({"image": self.pixels(noise)})
                error = torch.nn.functional.cross_entropy(logits, self.noise_label)
                loss = self.noise_penalty * noise.square().flatten(1).sum(1).mean() - error
                noise.grad = torch.autograd.grad(loss, noise)[0]
                optimizer.step()
        mine = noise.detach() if self.trainer.is_global_zero else torch.zeros_like(noise)
        (self.noise,) = self.sum_over_ranks([mine])  # zero elsewhere: every rank has rank 0's noise

    def pixels(self, noise: Tensor) -> Tensor:
        """The noise as the network takes it: the paper's noise is what enters after
        normalisation.
        """
        normalize = getattr(self.backbone.network, "normalize", None)
        if not isinstance(normalize, Normalize):
            return noise
        return noise * normalize.std[:, None, None] + normalize.mean[:, None, None]

    # ---- training --------------------------------------------------------------------------------

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
        picked, ratio = self._share(retain)
        images = torch.cat([self.pixels(self.noise[picked]), retain["image"]])
        of_noise, of_retain = self.backbone.predict({"image": images}).split(
            [len(picked), len(retain["image"])]
        )
        values, _ = self.backbone.loss({"label": self.noise_label[picked]}, prediction=of_noise)
        # the mean over noise and retain together, of which there are (1 + ratio) times the retain
        # samples on average
        return {
            "noise": values.sum() * self.world_size / retain["count"] / (1 + ratio),
            "retain": self.reduce(self.backbone.loss(retain, prediction=of_retain), retain)
            / (1 + ratio),
        }

    def _share(self, retain: Batch) -> tuple[Tensor, float]:
        """Rows of the noise that go with these retain samples, drawn for each of them, and how many
        go with one on average.
        """
        assert self.task is not None
        ratio = (
            self.noise_copies
            * len(self.noise)
            / min(self.retain_samples, len(self.task.split.parts["retain"]))
        )
        index = retain["index"]
        visit = retain["visit"]
        count = (ratio + rng.uniform(self.seed, index, visit, "unsir-count")).floor()
        if "padded" in retain:
            count = count * ~retain["padded"]
        most = int(ratio) + 1
        rows = rng.integers(self.seed, index, visit, "unsir-row", len(self.noise), most)
        return rows[torch.arange(most, device=rows.device) < count[:, None]], ratio

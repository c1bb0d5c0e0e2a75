"""Callbacks by which a command writes its run folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter, ModelCheckpoint
from lightning.pytorch.cli import SaveConfigCallback

from mu.cli.run_folder import CONFIG, LAST
from mu.config.argument_types import argument_names
from mu.utils.files import save_tensors, write_text
from mu.utils.spec import Reconstructible, init_args_of


class LastCheckpoint(ModelCheckpoint):
    """`checkpoints/last.ckpt` after every epoch: one file, replaced as a whole, so that a killed
    run is resumed from a good one.

    A class of its own, so that a ModelCheckpoint which the user adds is another callback.

    Args:
        run: the run folder.
    """

    def __init__(self, run: Path) -> None:
        file = run / LAST
        super().__init__(
            dirpath=file.parent,
            filename=file.stem,
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )


class SaveConfig(SaveConfigCallback):
    """Writes config.yaml when the first step is due, not before: what fails earlier leaves
    nothing.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Too early."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write, on rank zero."""
        if trainer.is_global_zero:
            if trainer.global_step == 0:
                tell_new_weights(pl_module)
            write_text(
                Path(trainer.default_root_dir) / CONFIG,
                self.parser.dump(self.config, skip_none=False),
            )


class WritePredictions(BasePredictionWriter):
    """Writes `predictions.safetensors`: `SPLIT/index` and `SPLIT/prediction`, rows sorted by index;
    one file for each rank.

    Args:
        run: the run folder.
    """

    def __init__(self, run: Path) -> None:
        super().__init__(write_interval="epoch")
        self.run = run

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: Any, batch_indices: Any
    ) -> None:
        """Gather this rank's batches by split, and write."""
        # with one loader Lightning hands over its batches, with several a list of those
        batches = [
            batch
            for entry in predictions
            for batch in (entry if isinstance(entry, list) else [entry])
        ]
        tensors = {}
        for split in dict.fromkeys(batch["split"] for batch in batches):
            index = torch.cat([batch["index"] for batch in batches if batch["split"] == split])
            values = torch.cat(
                [batch["prediction"] for batch in batches if batch["split"] == split]
            )
            order = index.argsort()
            tensors |= {f"{split}/index": index[order], f"{split}/prediction": values[order]}
        rank = f"-rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        save_tensors(self.run / f"predictions{rank}.safetensors", tensors)


def tell_new_weights(module: LightningModule) -> None:
    """One sentence on stderr where a method is asked to unlearn from a network that has learned
    nothing.
    """
    backbone = getattr(module, "backbone", None)
    if getattr(module, "trains_from_scratch", True) or not isinstance(backbone, Reconstructible):
        return
    given = init_args_of(backbone)
    takes = argument_names(type(backbone))
    if (
        "model" in takes
        and given.get("model", True)
        and not given.get("unet")
        and given.get("init_seed") is None
    ):
        return  # a model that is named brings its weights
    if "weights" in takes and not any(
        given.get(name) for name in ("weights", "pretrained", "network")
    ):
        print(
            f"mu: warning: {type(module).__name__} starts from a backbone with new random "
            "weights, which has nothing to forget; give the original's with "
            "--model.backbone.weights RUN.",
            file=sys.stderr,
        )

"""Callbacks that write a run folder: last checkpoint, config.yaml, predictions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter, ModelCheckpoint
from lightning.pytorch.cli import SaveConfigCallback

from mu.cli.run_folder import CONFIG, LAST
from mu.config import parser_mode
from mu.config.argument_types import argument_names
from mu.core.run_paths import HEADER, save_bases
from mu.utils.files import save_tensors, write_text
from mu.utils.spec import Reconstructible, init_args_of, to_spec


class LastCheckpoint(ModelCheckpoint):
    """Checkpoint `checkpoints/last.ckpt` after every epoch.

    The file is replaced as a whole, so a killed run is resumed from a complete one. The class
    differs from a ModelCheckpoint that the user adds, so both may be callbacks of a run.

    Args:
        run: run folder.
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
    """Writer of config.yaml before the first step; a run that fails earlier leaves nothing."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write nothing yet."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write on rank zero."""
        if trainer.is_global_zero:
            if trainer.global_step == 0:
                warn_of_new_weights(pl_module)
            run = Path(trainer.default_root_dir)
            parser_mode.register()  # a process that ddp_spawn has started does not know it
            text = self.parser.dump(self.config, skip_none=False)
            write_text(run / CONFIG, f"{HEADER}{Path.cwd()}\n{text}")
            base = getattr(pl_module, "base", None)
            if base is None or not base.omitted():  # the checkpoint holds all weights
                save_bases(run, to_spec(pl_module))


class WritePredictions(BasePredictionWriter):
    """Writer of `predictions.safetensors`, one file for each rank.

    Tensors `SPLIT/index` and `SPLIT/prediction`, rows sorted by index.

    Args:
        run: run folder.
    """

    def __init__(self, run: Path) -> None:
        super().__init__(write_interval="epoch")
        self.run = run

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: Any, batch_indices: Any
    ) -> None:
        """Write the batches of this rank by split."""
        # Lightning passes a list of batches, or with several loaders a list of such lists
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


def warn_of_new_weights(module: LightningModule) -> None:
    """Warn on stderr about unlearning from a network with random weights."""
    backbone = getattr(module, "backbone", None)
    if getattr(module, "trains_from_scratch", True) or not isinstance(backbone, Reconstructible):
        return
    arguments = init_args_of(backbone)
    names = argument_names(type(backbone))
    if (
        "model" in names
        and arguments.get("model", True)
        and not arguments.get("unet")
        and arguments.get("init_seed") is None
    ):
        return  # a pretrained model brings its weights
    if "weights" in names and not any(
        arguments.get(name) for name in ("weights", "pretrained", "network")
    ):
        print(
            f"mu: warning: {type(module).__name__} starts from a backbone with new random "
            "weights, which has nothing to forget; give the original's with "
            "--model.backbone.weights RUN.",
            file=sys.stderr,
        )

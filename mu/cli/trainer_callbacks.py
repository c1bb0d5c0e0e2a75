"""Callbacks that write a run folder: last checkpoint, config.yaml, predictions."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.cli import SaveConfigCallback

from mu.cli.config_files import parse, section, to_yaml
from mu.cli.run_folder import LAST, Guard
from mu.config import parser_mode
from mu.config.argument_types import argument_names
from mu.core.original import checkpoint_record
from mu.core.run_files import checkpoint_fault
from mu.core.run_start import write_files, write_finish, write_start
from mu.utils.files import save_tensors
from mu.utils.spec import Reconstructible, init_args_of


class SaveConfig(SaveConfigCallback):
    """Writer of config.yaml before the first step; a run that fails earlier leaves nothing."""

    writes_run_folder = True
    """Whether ResultsWriter leaves the start of the run folder to this callback."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write nothing yet."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write on rank zero."""
        if trainer.is_global_zero and trainer.global_step == 0:
            warn_of_new_weights(pl_module)
        parser_mode.register()  # a process that ddp_spawn has started does not know it
        shutil.rmtree(Path(trainer.default_root_dir) / Guard.ASIDE, ignore_errors=True)
        write_start(trainer, pl_module, self.parser.dump(self.config, skip_none=False))


class SavePretrained(SaveConfig):
    """Writer of config.yaml and checkpoints/last.ckpt of a model that is measured without a fit.

    The folder is then a run folder as any other; its configuration names no suites, so that a
    later `mu test --run` measures the ones that it names.
    """

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write before the first batch, after every suite has checked what it needs."""
        self._write(trainer, pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write before the first batch."""
        self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        run = Path(trainer.default_root_dir)
        module: Any = pl_module
        if trainer.is_global_zero:
            config = parse(self.parser.dump(self.config, skip_none=False))
            config["trainer"] = {**section(config, "trainer"), "callbacks": None}
            write_files(run, module, to_yaml(config))
        stored = trainer.is_global_zero and _original_hash(run / LAST) == module.original_hash
        if not trainer.strategy.broadcast(stored):
            trainer.save_checkpoint(run / LAST, weights_only=False)
            if trainer.is_global_zero:
                write_finish(trainer)


def _original_hash(file: Path) -> str | None:
    """Hash of the weights that a checkpoint's run began from; None for an unreadable file."""
    if checkpoint_fault(file) is not None:
        return None
    return checkpoint_record(file).get("original_hash")


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

"""Start of a run folder: config.yaml, base models and split.json before the first step."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import ModelCheckpoint

from mu.core.module import UnlearningModule
from mu.core.run_paths import save_bases
from mu.utils.checksums import checkpoint_digest
from mu.utils.errors import InputError
from mu.utils.files import read_json, write_json
from mu.utils.run_config import (
    DIRECTORY,
    FREE_DATA,
    HASH,
    SETTINGS,
    changed_setting,
    config_line,
    differences,
    fixed_settings,
    write_config,
)
from mu.utils.run_layout import CHECKPOINT, CONFIG, FIT, SPLIT
from mu.utils.spec import Reconstructible, is_live, to_spec, with_defaults
from mu.utils.text_files import Dumper, Loader, read_yaml

_OF_TRAINER = (
    "max_epochs",
    "min_epochs",
    "max_steps",
    "min_steps",
    "precision",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "limit_train_batches",
    "limit_val_batches",
    "check_val_every_n_epoch",
    "overfit_batches",
    "log_every_n_steps",
    "num_sanity_val_steps",
    "num_nodes",
)
"""Attributes of a Trainer that a config.yaml records under the same name."""


_BY_HASH = ("weights", "pretrained", "model", "network", "init_seed")
"""Arguments of backbones that the hash of the original weights stands for."""


class LastCheckpoint(ModelCheckpoint):
    """Checkpoint `checkpoints/last.ckpt` after every epoch.

    The file is replaced as a whole, so a killed run is resumed from a complete one. The class
    differs from a ModelCheckpoint that the user adds, so both may be callbacks of a run.

    Args:
        run: run folder.
    """

    def __init__(self, run: Path) -> None:
        file = run / CHECKPOINT
        super().__init__(
            dirpath=file.parent,
            filename=file.stem,
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )


def add_last_checkpoint(trainer: Trainer) -> None:
    """Let a trainer that writes checkpoints write the run folder's last one.

    It takes the place of the ModelCheckpoint that a Trainer has by default.

    Args:
        trainer: in the `setup` of a callback of a fit.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    file = Path(trainer.default_root_dir) / CHECKPOINT
    writers = [callback for callback in callbacks if isinstance(callback, ModelCheckpoint)]
    if not writers or any(_writes(callback, file) for callback in writers):
        return
    for callback in writers:
        settings = (callback.dirpath, callback.filename, callback.monitor)
        if type(callback) is ModelCheckpoint and settings == (None, None, None):
            callbacks.remove(callback)
    callbacks.append(LastCheckpoint(Path(trainer.default_root_dir)))


def _writes(callback: ModelCheckpoint, file: Path) -> bool:
    return (
        callback.dirpath is not None
        and Path(callback.dirpath).resolve() == file.parent.resolve()
        and callback.filename == file.stem
    )


def check_folder(trainer: Trainer) -> None:
    """Refuse a folder whose config.yaml is none of a run, before anything is written.

    Raises:
        InputError: names the file.
    """
    run = Path(trainer.default_root_dir)
    if (run / CONFIG).is_file() and not config_line(run, HASH):
        raise InputError(
            f"{run / CONFIG} is not of a run, and this run would replace it; give the Trainer "
            "another default_root_dir."
        )


def write_finish(trainer: Trainer) -> None:
    """Record in fit.json that a fit is finished: epochs, steps, and the checkpoint that it left.

    Args:
        trainer: on rank zero, after its fit.
    """
    run = Path(trainer.default_root_dir)
    loop: Any = trainer.fit_loop
    progress = {
        "epochs": loop.epoch_progress.current.processed,
        "steps": trainer.global_step,
        "checkpoint": checkpoint_digest(run / CHECKPOINT),
    }
    write_json(run / FIT, progress)


def finished_fit(run: Path) -> dict[str, Any] | None:
    """Content of fit.json of a run whose fit is finished; None for a run that was cut off.

    Args:
        run: the run folder.
    """
    digest = checkpoint_digest(run / CHECKPOINT)
    if not digest or not (run / FIT).is_file():
        return None
    progress = read_json(run / FIT)
    is_whole = isinstance(progress, dict) and progress.get("checkpoint") == digest
    return progress if is_whole else None


def write_start(trainer: Trainer, module: LightningModule, text: str) -> None:
    """Write config.yaml, base models and split.json of a fit before its first step.

    A resumed run keeps the method, the task and the seed that its config.yaml records. Nothing is
    written by a trial run (`fast_dev_run`).

    Args:
        trainer: in `on_train_start`, on any rank.
        module: the method.
        text: configuration of the fit as YAML.
    """
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    run = Path(trainer.default_root_dir)
    if trainer.is_global_zero:
        resumed = trainer.global_step > 0 and (run / CONFIG).is_file()
        directory = config_line(run, DIRECTORY) if resumed else ""
        if resumed:
            text = resumed_config(read_yaml(run / CONFIG), yaml.load(text, Loader=Loader))
        write_files(run, module, text, directory or Path.cwd())
    settings = config_line(run, SETTINGS) if trainer.is_global_zero else ""
    settings = trainer.strategy.broadcast(settings)
    if isinstance(module, UnlearningModule):
        module.run_settings = settings


def check_resumed(trainer: Trainer, text: str) -> None:
    """Refuse to resume a fit that was written in Python with settings that change what was trained.

    Original weights are compared by their hash, when the checkpoint is loaded.

    Args:
        trainer: in `on_train_start`, when a checkpoint was loaded.
        text: configuration of the fit as YAML.

    Raises:
        InputError: names the first setting that differs, with both values.
    """
    run = Path(trainer.default_root_dir)
    if not (run / CONFIG).is_file():
        return
    recorded, config = (
        with_defaults(fixed_settings(content))
        for content in (read_yaml(run / CONFIG), yaml.load(text, Loader=Loader))
    )
    for name, old, new in differences(recorded, config):
        if name.rpartition(".")[2] in _BY_HASH or is_live(old) or is_live(new):
            continue
        if name == "seed_everything":  # a Trainer in Python does not have it
            continue
        raise InputError(f"{changed_setting(run, name, old, new)}; take the same, or another run.")


def resumed_config(recorded: dict[str, Any], config: dict[str, Any]) -> str:
    """Configuration of a resumed run: its own method, task and seed, and the present trainer.

    Args:
        recorded: content of its config.yaml.
        config: configuration of the command that resumes it.
    """
    sections = ("seed_everything", "model", "data")
    past = {key: recorded[key] for key in sections if key in recorded}
    arguments = (config.get("data") or {}).get("init_args") or {}
    free = {name: value for name, value in arguments.items() if name in FREE_DATA}
    if past.get("data") and free:
        past["data"] = {**past["data"], "init_args": {**past["data"].get("init_args", {}), **free}}
    return yaml.dump({**config, **past}, Dumper=Dumper, sort_keys=False)


def write_files(
    run: Path, module: LightningModule, text: str, directory: Path | str | None = None
) -> None:
    """Write config.yaml, base models and split.json of a run.

    Args:
        run: the run folder.
        module: the method.
        text: configuration as YAML.
        directory: from which its relative paths count; the present one when None.
    """
    settings = write_config(run, text, directory or Path.cwd())
    if isinstance(module, UnlearningModule):
        module.run_settings = settings
    base = getattr(module, "base", None)
    if base is None or not base.omitted():  # the checkpoint holds all weights
        save_bases(run, to_spec(module))
    if isinstance(module, UnlearningModule) and module.task is not None:
        module.task.split.save(run / SPLIT)


def config_of(trainer: Trainer, module: UnlearningModule, left_out: Iterable[str] = ()) -> str:
    """Configuration of a fit that was written in Python, as the YAML of a config.yaml.

    Args:
        trainer: its trainer.
        module: its method.
        left_out: class paths of callbacks that every run has.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    specs = [to_spec(entry) for entry in callbacks if isinstance(entry, Reconstructible)]
    names = set(left_out)
    settings: dict[str, Any] = {name: getattr(trainer, name) for name in _OF_TRAINER}
    on_cpu = isinstance(trainer.accelerator, CPUAccelerator)
    settings |= {
        "accelerator": "cpu" if on_cpu else "auto",
        "devices": trainer.num_devices,
        "default_root_dir": str(trainer.default_root_dir),
        "callbacks": [spec for spec in specs if spec["class_path"] not in names] or None,
    }
    config = {
        "model": to_spec(module),
        **({"data": to_spec(module.task)} if module.task is not None else {}),
        "trainer": settings,
    }
    return yaml.dump(_without_marks(config), Dumper=Dumper, sort_keys=False)


def _without_marks(value: Any) -> Any:
    """Specification without the mark of factories, which a configuration does not have."""
    if isinstance(value, list):
        return [_without_marks(entry) for entry in value]
    if isinstance(value, dict):
        is_factory = "class_path" in value and value.get("factory") is True
        return {
            name: _without_marks(entry)
            for name, entry in value.items()
            if not (is_factory and name == "factory")
        }
    return value

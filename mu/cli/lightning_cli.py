"""LightningCLI over our methods and tasks, with a run folder."""

from __future__ import annotations

import os
import pickle
import re
import sys
import zipfile
from argparse import ArgumentError
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonargparse
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from mu.backbones import Backbone
from mu.cli import config_files as configs
from mu.cli import parser_errors, run_folder
from mu.cli.list import print_table
from mu.cli.options import Options
from mu.cli.trainer_callbacks import LastCheckpoint, SaveConfig, WritePredictions
from mu.config import plugins
from mu.config.classes import find
from mu.config.plugins import import_components
from mu.core.module import UnlearningModule
from mu.data.datamodule import UnlearningDataModule
from mu.utils.distributed import rank_of_process
from mu.utils.errors import InputError, RunError
from mu.utils.version import __version__

_WHAT = {
    "fit": (
        "Train an original, retrain an oracle, or unlearn.",
        {"model", "train_dataloaders", "val_dataloaders", "datamodule"},
    ),
    "validate": (
        "The splits' scores, without suites.",
        {"model", "dataloaders", "datamodule", "verbose"},
    ),
    "test": (
        "Measure with suites; writes results.json into the run folder.",
        {"model", "dataloaders", "datamodule", "verbose"},
    ),
    "predict": (
        "Write predictions.safetensors into the run folder.",
        {"model", "dataloaders", "datamodule"},
    ),
}
_ALSO = {
    "fit": "Also: --run DIR, the run folder (short for --trainer.default_root_dir; default "
    "runs/METHOD-TIME); --resume, to continue --run from its last checkpoint; --debug.",
    "test": "Also: --run DIR, a run folder of mu fit: its configuration and its last checkpoint "
    "are taken, and files given with -c are merged over that configuration; --debug.",
}
_WORDS = ("best", "hpc", "registry")
"""Checkpoints that Lightning finds by itself."""


@dataclass
class Session:
    """How far a command has come; it outlives a LightningCLI whose constructor, which does
    everything, raises.

    Attributes:
        stage: `parse`, `build` or `run`.
        run: the run folder.
        guard: takes back what was written before the first step.
        trainer: once it is built.
        checkpoint: what is loaded.
    """

    stage: str = "parse"
    run: Path | None = None
    guard: run_folder.Guard | None = None
    trainer: Trainer | None = None
    checkpoint: str | None = None

    @property
    def began(self) -> bool:
        """Whether a step was made; before that, nothing that a fit has written is worth keeping."""
        return self.trainer is not None and self.trainer.global_step > 0

    def interrupted(self) -> KeyboardInterrupt:
        """What an interrupted command raises."""
        resumable = (
            self.guard is not None
            and self.run is not None
            and (self.run / run_folder.LAST).is_file()
        )
        return KeyboardInterrupt(
            f"continue it with mu fit --run {self.run} --resume" if resumable else ""
        )


def launch(command: str, options: Options, config: Mapping[str, Any]) -> int:
    """Parse, build and run.

    Args:
        command: `fit`, `validate`, `test` or `predict`.
        options: the command's words, taken apart.
        config: the merged configuration files.

    Raises:
        InputError: for what the user gave; RunError: for a run that failed.
    """
    import_components()
    words = [command, *(["--config", configs.text(config)] if config else []), *options.rest]
    if options.run:
        words.append(f"--trainer.default_root_dir={options.run}")
    session = Session()
    shared = os.environ.get(run_folder.SHARED)
    try:
        MuCLI(command, options, session, words)
    except (ArgumentError, jsonargparse.ArgumentError) as error:
        raise InputError(parser_errors.sentence(error, command, options, config)) from error
    except BaseException as error:
        if session.guard is not None and not session.began:
            session.guard.undo()
        if (
            isinstance(error, SystemExit)
            and session.trainer is not None
            and session.trainer.interrupted
        ):
            raise session.interrupted() from error
        if isinstance(error, Exception):
            raise translated(error, session) from error
        raise
    finally:
        if shared is None:
            os.environ.pop(run_folder.SHARED, None)
    # older versions of Lightning return as if all were well
    if session.trainer is not None and session.trainer.interrupted:
        raise session.interrupted()
    if command == "fit" and not rank_of_process():
        print(
            f"run folder: {session.run}  (measure it: mu test --run {session.run} -c "
            "configs/suite/SUITE.yaml)"
        )
    return 0


def translated(error: Exception, session: Session) -> Exception:
    """The error that is shown: the sentence inside it, if there is one."""
    root: BaseException = error
    while root.__cause__ is not None and not isinstance(root, InputError | RunError):
        root = root.__cause__  # jsonargparse wraps what a constructor raises
    if isinstance(root, InputError | RunError):
        return root
    said = " ".join(str(root).split()).rstrip(".!")
    if isinstance(root, torch.OutOfMemoryError):
        return RunError(
            "the device ran out of memory; lower --data.batch_size, or take another "
            "--trainer.precision."
        )
    if re.search(r"Connection (closed|reset) by peer|NCCL (communicator|error)", said):
        return RunError(
            "another rank has failed; run again with --debug, which shows the traceback of every "
            "rank."
        )
    if "gpu backend" in said:
        return InputError("torch finds no GPU here; take --trainer.accelerator cpu.")
    if isinstance(root, MisconfigurationException) or (
        session.stage == "build" and isinstance(root, ValueError | ModuleNotFoundError)
    ):
        return InputError(f"{said}.")
    if (
        session.checkpoint
        and not session.began
        and isinstance(root, pickle.UnpicklingError | KeyError | EOFError | zipfile.BadZipFile)
    ):
        return InputError(
            f"{session.checkpoint} is not a checkpoint that mu fit wrote, or it is cut off."
        )
    return (
        error if isinstance(root, type(error)) else root if isinstance(root, Exception) else error
    )


class MuCLI(LightningCLI):
    """One command.

    Args:
        command: `fit`, `validate`, `test` or `predict`; only its parser is built.
        options: the command's words, taken apart.
        session: filled in on the way.
        words: for jsonargparse, the command first.
    """

    def __init__(self, command: str, options: Options, session: Session, words: list[str]) -> None:
        self.command = command
        self.options = options
        self.session = session
        about, _ = _WHAT[command]
        # an abbreviated option would be taken for a longer one, so a misspelt one would pass
        common = {
            "exit_on_error": False,
            "allow_abbrev": False,
            "dump_header": [f"mu=={__version__}"],
        }
        also = _ALSO.get(command, _ALSO["test"])
        super().__init__(
            UnlearningModule,
            UnlearningDataModule,
            save_config_callback=SaveConfig,
            seed_everything_default=0,
            parser_kwargs={
                **common,
                "prog": "mu",
                command: {**common, "description": f"{about} {also}"},
            },
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=words,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override] - an instance knows which one is wanted
        """The one command, and the arguments of the Trainer's method that are not the user's."""
        return {self.command: _WHAT[self.command][1]}

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Parse, without LightningCLI's warning that there are words in `sys.argv` too."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """LightningCLI would read the whole checkpoint for hyperparameters, which ours does not
        hold.
        """

    # ---- before anything is built ----------------------------------------------------------------

    def before_instantiate_classes(self) -> None:
        """Settle run folder and checkpoint, and refuse what cannot be right."""
        own = self.config[self.command]
        method = find(own.model.class_path)
        if method is UnlearningModule or method is None:
            raise InputError(
                "no method is given; add -c configs/method/NAME.yaml or --model NAME (mu list "
                "methods shows them)."
            )
        if find(own.data.class_path) is UnlearningDataModule:
            raise InputError(
                "no task is given; add -c configs/task/NAME.yaml or --data NAME (mu list tasks "
                "shows them)."
            )
        run = self._folder(own, method)
        own.trainer.default_root_dir = str(run)
        self.session.run = run
        os.environ[run_folder.SHARED] = str(run)
        own.ckpt_path = self.session.checkpoint = self._checkpoint(own.ckpt_path, run)
        if self._only_evaluates(own):
            forget_origin(own.model)
        if "weights_only" in own and own.weights_only is None:
            own.weights_only = True
        if self.command == "fit" and not rank_of_process():
            if own.ckpt_path is None:
                run_folder.refuse_other_run(
                    run, configs.parse(self._parser(self.command).dump(own, skip_none=False))
                )
            self.session.guard = run_folder.Guard(run)
        self.session.stage = "build"

    def _folder(self, own: Any, method: type) -> Path:
        if own.trainer.default_root_dir is not None:
            return Path(own.trainer.default_root_dir)
        of_checkpoint = run_folder.of_checkpoint(own.ckpt_path) if own.ckpt_path else None
        return of_checkpoint or run_folder.new(
            method.__name__, "" if self.command == "fit" else self.command
        )

    def _checkpoint(self, given: Any, run: Path) -> str | None:
        if self.options.resume or given == "last":
            return str(run_folder.last_checkpoint(run))
        if given is None:
            return (
                str(run_folder.last_checkpoint(run))
                if self.options.run and self.command != "fit"
                else None
            )
        if str(given).partition(":")[0] not in _WORDS:
            if not Path(given).exists():
                raise InputError(
                    f"there is no checkpoint {given}; give a file, or --run RUN for a run's last "
                    "one."
                )
            if Path(given).is_file() and not zipfile.is_zipfile(given):
                raise InputError(
                    f"{given} is not a checkpoint that mu fit wrote, or it is cut off."
                )
        return str(given)

    def _only_evaluates(self, own: Any) -> bool:
        """Whether all weights come from a checkpoint and nothing is fitted, so that the original
        need not exist any more.
        """
        return (
            self.command != "fit"
            and own.ckpt_path is not None
            and str(own.ckpt_path).partition(":")[0] not in _WORDS
        )

    # ---- building --------------------------------------------------------------------------------

    def instantiate_classes(self) -> None:
        """What is only evaluated is built as `mu.load` builds it: without a reference, for which
        there is no original.
        """
        super().instantiate_classes()
        self.model.serves_only = self._only_evaluates(self.config[self.command])

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """With what a run folder needs, and the callbacks that plugins add to every run."""
        own = self.config_init[self.command].trainer
        run = Path(own.default_root_dir)
        given = own.callbacks or []
        callbacks: list[Callback] = list(given) if isinstance(given, list) else [given]
        callbacks += [
            cls()
            for cls in _default_callbacks()
            if not any(isinstance(callback, cls) for callback in callbacks)
        ]
        if self.command == "fit" and own.enable_checkpointing is not False and not own.fast_dev_run:
            callbacks.append(LastCheckpoint(run))
        if self.command == "predict":
            callbacks.append(WritePredictions(run))
        logger = own.logger
        if logger is None or logger is True:
            logger = CSVLogger(run, name="logs") if self.command == "fit" else False
        trainer = super().instantiate_trainer(callbacks=callbacks, logger=logger, **kwargs)
        self.session.trainer = trainer
        self.session.stage = "run"
        return trainer

    # ---- running ---------------------------------------------------------------------------------

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Lightning's own table repeats every number for every loader, so ours is printed
        instead.
        """
        quiet = {"verbose": False} if subcommand in ("validate", "test") else {}
        return {**super()._prepare_subcommand_kwargs(subcommand), **quiet}

    def after_validate(self) -> None:
        """Print the scores."""
        if not rank_of_process():
            print_table(
                ["score", "value"],
                [
                    [name, f"{float(value):.6g}"]
                    for name, value in self.trainer.callback_metrics.items()
                ],
            )

    def after_test(self) -> None:
        """Print what the suites measured."""
        if rank_of_process():
            return
        if not self.model.results:  # seldom meant
            print(
                "mu: warning: no suite measured anything; add for example -c "
                "configs/suite/classification.yaml.",
                file=sys.stderr,
            )
            return
        print_table(
            ["metric", "value", "unit", "part"],
            [[r.metric, f"{r.value:.6g}", r.unit, r.split] for r in self.model.results],
        )
        print(f"run folder: {self.session.run}")


def forget_origin(spec: Any) -> None:
    """Take out of a parsed specification which weights its backbones were built with; architectures
    stay.
    """
    if isinstance(spec, list | tuple):
        for entry in spec:
            forget_origin(entry)
    elif isinstance(spec, Mapping | jsonargparse.Namespace):
        values = vars(spec) if isinstance(spec, jsonargparse.Namespace) else spec
        for entry in list(values.values()):
            forget_origin(entry)
        cls = find(values["class_path"]) if isinstance(values.get("class_path"), str) else None
        given = (
            spec["init_args"]
            if cls is not None and issubclass(cls, Backbone) and "init_args" in values
            else {}
        )
        for name in [name for name in ("weights", "pretrained") if name in given]:
            given[name] = None


def _default_callbacks() -> list[type[Callback]]:
    found = []
    for path in plugins.default_callbacks():
        cls = find(path)
        if cls is None:
            raise InputError(
                f"a plugin names the default callback {path}, which cannot be imported; reinstall "
                "the plugin."
            )
        found.append(cls)
    return found

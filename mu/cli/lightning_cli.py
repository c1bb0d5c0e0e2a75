"""LightningCLI for methods and tasks, with a run folder: fit, validate, test and predict."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentError
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonargparse
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger

from mu.cli import callback_words, parser_errors, run_again, run_folder
from mu.cli import config_files as configs
from mu.cli.displays import default_displays
from mu.cli.fit_commands import COMMANDS, MORE_OPTIONS
from mu.cli.list import print_table
from mu.cli.options import Options
from mu.cli.original_weights import check_origin, forget_origin, missing_origin
from mu.cli.results_table import print_results
from mu.cli.session import Session, translated
from mu.cli.trainer_callbacks import SaveConfig, SavePretrained, WritePredictions
from mu.config import parser_mode, plugins
from mu.config.classes import find
from mu.config.merge import listed
from mu.config.plugins import import_components
from mu.config.trainer_values import check_fit, check_processes, missing_length
from mu.core.module import UnlearningModule
from mu.core.run_files import check_checkpoint, check_run
from mu.core.run_start import LastCheckpoint
from mu.core.trainer_checks import default_length
from mu.data.datamodule import UnlearningDataModule
from mu.utils.distributed import rank_of_process
from mu.utils.errors import InputError
from mu.utils.files import remove_stale
from mu.utils.text_files import file_fault, shortened
from mu.utils.version import __version__

_LIGHTNING_CHECKPOINTS = ("best", "hpc", "registry")
"""Words for checkpoints that Lightning finds by itself."""


def launch(command: str, options: Options, config: Mapping[str, Any]) -> int:
    """Parse, build and run a command.

    Args:
        command: `fit`, `validate`, `test` or `predict`.
        options: words of the command line.
        config: merged configuration files.

    Raises:
        InputError: for a wrong configuration.
        RunError: for a failed run.
    """
    import_components()
    config = callback_words.put_into_files(options, config)
    parser_errors.check_values(command, options, config)
    words = [command, *(["--config", configs.to_yaml(config)] if config else []), *options.rest]
    if options.run:
        words.append(f"--trainer.default_root_dir={options.run}")
    session = Session()
    shared_folder = os.environ.get(run_folder.SHARED)
    try:
        MuCLI(command, options, session, words)
    except (ArgumentError, jsonargparse.ArgumentError) as error:
        raise InputError(parser_errors.sentence(error, command, options, config)) from error
    except run_again.FinishedRun as end:
        if not rank_of_process():
            print(end)
    except BaseException as error:
        if session.guard is not None and not session.began:
            session.guard.undo()
        if isinstance(error, SystemExit) and session.was_interrupted:
            raise session.interruption() from error
        if isinstance(error, Exception):
            raise translated(error, session) from error
        raise
    finally:
        if shared_folder is None:
            os.environ.pop(run_folder.SHARED, None)
    # older versions of Lightning return from an interrupted run as from any other
    if session.was_interrupted:
        raise session.interruption()
    if command == "fit" and not rank_of_process():
        print(run_folder.closing_line(session.run))
    return 0


class MuCLI(LightningCLI):
    """LightningCLI of one command.

    Args:
        command: `fit`, `validate`, `test` or `predict`; only its parser is built.
        options: words of the command line.
        session: progress of the command, filled in.
        words: arguments for jsonargparse, the command first.
    """

    def __init__(self, command: str, options: Options, session: Session, words: list[str]) -> None:
        self.command = command
        self.options = options
        self.session = session
        self.missing_origin = ""
        description, _ = COMMANDS[command]
        # an abbreviated option would be taken for a longer one, so a misspelt one would pass
        common = {
            "exit_on_error": False,
            "allow_abbrev": False,
            "dump_header": [f"mu=={__version__}"],
            "parser_mode": parser_mode.register(),
        }
        more_options = MORE_OPTIONS.get(command, MORE_OPTIONS["test"])
        super().__init__(
            UnlearningModule,
            UnlearningDataModule,
            save_config_callback=SavePretrained if options.pretrained else SaveConfig,
            seed_everything_default=0,
            parser_kwargs={
                **common,
                "prog": "mu",
                command: {**common, "description": f"{description} {more_options}"},
            },
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=words,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The command, with the arguments of the Trainer's method that the program supplies."""
        return {self.command: COMMANDS[self.command][1]}

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Parse, without LightningCLI's warning about words in `sys.argv`."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Skip LightningCLI's search for hyperparameters: our checkpoints hold none."""

    # ---- before anything is built ----------------------------------------------------------------

    def before_instantiate_classes(self) -> None:
        """Set run folder and checkpoint; refuse a configuration without method or task."""
        # 1. method and task
        config = self.config[self.command]
        method = find(config.model.class_path)
        if method is UnlearningModule or method is None:
            raise InputError(
                "no method is given; add -c configs/method/NAME.yaml or --model NAME (mu list "
                "methods lists them)."
            )
        if find(config.data.class_path) is UnlearningDataModule:
            raise InputError(
                "no task is given; add -c configs/task/NAME.yaml or --data NAME (mu list tasks "
                "lists them)."
            )
        check = check_fit if self.command == "fit" else check_processes
        check(vars(config.trainer))
        if self.command == "fit" and _is_unfinished(method):
            raise InputError(
                f"{method.__name__} overrides neither objective nor training_step, so it has "
                "nothing to train by; override objective."
            )
        if self.command == "fit":
            _set_missing_length(config.trainer, method)
        # 2. run folder and checkpoint
        run = self._folder(config, method)
        config.trainer.default_root_dir = str(run)
        self.session.run = run
        os.environ[run_folder.SHARED] = str(run)
        config.ckpt_path = self.session.checkpoint = self._checkpoint(config.ckpt_path, run)
        if config.ckpt_path is not None and not rank_of_process():
            run_folder.check_split(run, self.command)
            if (of_run := run_folder.of_checkpoint(config.ckpt_path)) is not None:
                check_run(of_run, config.ckpt_path)
        if self._only_evaluates(config):
            forget_origin(config.model)
        if "weights_only" in config and config.weights_only is None:
            config.weights_only = True
        # 3. another run in the folder, files of a killed one
        if run.is_dir() and not rank_of_process():
            remove_stale(run)
        if self.options.pretrained and not rank_of_process():
            run_again.refuse_other_model(
                run, configs.parse(self._parser(self.command).dump(config, skip_none=False))
            )
            self.session.guard = run_folder.Guard(run)
        if self.command == "fit":
            self._check_run(run, config)  # on every rank, or those that go on would wait for it
            if config.ckpt_path is not None:
                self.missing_origin = missing_origin(config.model, run)
                if self.missing_origin:
                    forget_origin(config.model)
            if not rank_of_process():
                self.session.guard = run_folder.Guard(run, self.options.overwrite)
        self.session.stage = "build"

    def _check_run(self, run: Path, config: Any) -> None:
        """Compare a fit with the run in its folder, or with the run that it resumes."""
        resumed = run_folder.of_checkpoint(config.ckpt_path) if config.ckpt_path else None
        content = configs.parse(self._parser(self.command).dump(config, skip_none=False))
        if config.ckpt_path is None and not self.options.overwrite:
            run_again.refuse_other_run(run, content)
        elif resumed is not None:
            recorded = self._with_defaults(run_folder.recorded_config(resumed))
            name = run if resumed.resolve() == run.resolve() else resumed
            run_again.check_resume(name, recorded, content)

    def _with_defaults(self, config: dict[str, Any]) -> dict[str, Any]:
        """Configuration with every default, so that two ways of writing it are equal."""
        parser = self._parser(self.command)
        try:
            parsed = parser.parse_object(deepcopy(config))
        except (ArgumentError, jsonargparse.ArgumentError, TypeError, ValueError):
            return config
        return configs.parse(parser.dump(parsed, skip_none=False))

    def _folder(self, config: Any, method: type) -> Path:
        if config.trainer.default_root_dir is not None:
            return Path(config.trainer.default_root_dir)
        evaluated = run_folder.of_checkpoint(config.ckpt_path) if config.ckpt_path else None
        return evaluated or run_folder.new(
            method.__name__, "" if self.command == "fit" else self.command
        )

    def _checkpoint(self, path: Any, run: Path) -> str | None:
        """Checkpoint that is loaded, after a look at whether it is whole."""
        if self.options.pretrained:
            return None
        takes_last = self.options.resume or path == "last"
        if takes_last or (path is None and self.options.run and self.command != "fit"):
            path = run_folder.last_checkpoint(run)
        elif path is None or str(path).partition(":")[0] in _LIGHTNING_CHECKPOINTS:
            return path
        elif file_fault(str(path)) == "does not exist":
            raise InputError(
                f"there is no checkpoint {shortened(path)}; give a file, or --run RUN for a run's "
                "last one."
            )
        check_checkpoint(path)
        return str(path)

    def _only_evaluates(self, config: Any) -> bool:
        """Whether all weights come from a checkpoint, so that the original is not needed."""
        return (
            self.command != "fit"
            and config.ckpt_path is not None
            and str(config.ckpt_path).partition(":")[0] not in _LIGHTNING_CHECKPOINTS
        )

    # ---- building --------------------------------------------------------------------------------

    def instantiate_classes(self) -> None:
        """Build; a model that is only evaluated has no reference, as with `mu.load`."""
        super().instantiate_classes()
        if "_modules" not in vars(self.model):
            raise InputError(
                f"the constructor of {type(self.model).__name__} does not call "
                "super().__init__(backbone, ...); call it first."
            )
        self.model.serves_only = self._only_evaluates(self.config[self.command])
        if self.missing_origin:
            check_origin(self.model, self.missing_origin)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build with the logger and callbacks of a run folder, and the plugins' callbacks."""
        config = self.config_init[self.command].trainer
        run = Path(config.default_root_dir)
        callbacks: list[Callback] = listed(config.callbacks)
        callbacks += [
            cls()
            for cls in _default_callbacks()
            if not any(isinstance(callback, cls) for callback in callbacks)
        ]
        writes_checkpoints = not (
            config.enable_checkpointing is False or config.fast_dev_run or config.barebones
        )
        if self.command == "fit" and writes_checkpoints:
            callbacks.append(LastCheckpoint(run))
        if self.command == "predict":
            callbacks.append(WritePredictions(run))
        callbacks += default_displays(config, callbacks)
        logger = config.logger
        if (logger is None or logger is True) and not config.barebones:
            logger = CSVLogger(run, name="logs") if self.command == "fit" else False
        trainer = super().instantiate_trainer(callbacks=callbacks, logger=logger, **kwargs)
        self.session.trainer = trainer
        self.session.stage = "run"
        return trainer

    # ---- running ---------------------------------------------------------------------------------

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Without Lightning's table, which repeats every number for every loader."""
        quiet = {"verbose": False} if subcommand in ("validate", "test") else {}
        return {**super()._prepare_subcommand_kwargs(subcommand), **quiet}

    def after_validate(self) -> None:
        """Print the scores, or which setting switches them off."""
        if rank_of_process():
            return
        if not self.trainer.callback_metrics:
            print(f"no scores, because {_no_scores(self.trainer, self.datamodule)}")
            return
        print_table(
            ["score", "value"],
            [
                [name, f"{float(value):.6g}"]
                for name, value in self.trainer.callback_metrics.items()
            ],
        )

    def after_predict(self) -> None:
        """Print where the predictions are."""
        if rank_of_process() or not self.session.run:
            return
        for file in sorted(self.session.run.glob("predictions*.safetensors")):
            print(f"predictions: {file}")

    def after_test(self) -> None:
        """Print what the suites measured."""
        if rank_of_process():
            return
        if not self.model.results:
            print(
                "mu: warning: no suite measured anything; add one, for example with -c "
                "configs/suite/classification.yaml.",
                file=sys.stderr,
            )
            return
        print_results(self.model.results)
        print(f"run folder: {self.session.run}")


def _set_missing_length(trainer: Any, method: type[UnlearningModule]) -> None:
    """Give a trainer without an end the method's default length, and say so."""
    limits = missing_length(vars(trainer), method)
    vars(trainer).update(limits)
    if limits and not rank_of_process():
        print(
            f"no --trainer.max_epochs is given, so {method.__name__} trains for "
            f"{default_length(method)}, its default"
        )


def _no_scores(trainer: Trainer, data: Any) -> str:
    """Settings that switch the scores of a validation off, and how to switch them on."""
    settings = []
    options = []
    if not trainer.limit_val_batches:
        settings.append("limit_val_batches is 0")
        options.append("--trainer.limit_val_batches 1.0")
    if not any(len(data.split.parts.get(name, ())) for name in data.curves):
        settings.append(
            f"the task has no samples of {', '.join(data.curves)}"
            if data.curves
            else "the task names no part to score (curves: [])"
        )
        options.append('--data.curves "[forget,retain]"')
    return f"{' and '.join(settings)}; add {' '.join(options)}, or measure with suites: mu test."


def _is_unfinished(method: Any) -> bool:
    """Whether a method has neither an objective nor a training step of its own."""
    names = ("objective", "training_step")
    return all(getattr(method, name) is getattr(UnlearningModule, name) for name in names)


def _default_callbacks() -> list[type[Callback]]:
    """Classes of the callbacks that plugins add to every run."""
    classes = []
    for path in plugins.default_callbacks():
        cls = find(path)
        if cls is None:
            raise InputError(
                f"a plugin names the default callback {path}, which cannot be imported; reinstall "
                "the plugin."
            )
        classes.append(cls)
    return classes

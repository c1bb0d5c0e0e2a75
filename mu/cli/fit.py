"""`mu fit`, `validate`, `test` and `predict`: checks before torch is imported, then the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mu.cli import config_files as configs
from mu.cli import run_folder
from mu.cli.class_checks import refuse_unknown
from mu.cli.options import Options, take
from mu.utils.errors import InputError
from mu.utils.text_files import shortened


def run(command: str, words: list[str]) -> int:
    """Run one of Lightning's four commands.

    Args:
        command: `fit`, `validate`, `test` or `predict`.
        words: words of the command line after it.

    Returns:
        The exit code.

    Raises:
        InputError: for options or a configuration that cannot be used.
    """
    from mu.config.plugins import working_directory
    from mu.utils.quiet import quiet

    options = take(words)
    _take_run(command, options)
    if options.resume and command != "fit":
        raise InputError(
            f"--resume belongs to mu fit; mu {command} --run RUN takes the run's last checkpoint "
            "by itself."
        )
    if options.overwrite and (command != "fit" or options.resume):
        raise InputError("--overwrite trains a run anew, so it belongs to mu fit without --resume.")
    if options.resume and not options.run:
        raise InputError(
            "--resume needs the folder of the run to continue: mu fit --run RUN --resume."
        )
    base = None if options.pretrained else _base(command, options)
    config = configs.over_recorded(base or {}, options.files, options.chosen)
    refuse_unknown(config)
    with quiet(), working_directory():
        from mu.cli.lightning_cli import launch

        if options.pretrained:
            from mu.cli.pretrained import with_model

            config = with_model(options, config)
        return launch(command, options, config)


def _take_run(command: str, options: Options) -> None:
    """Take a model that is a run folder, or a checkpoint in one, for `--run` and `--ckpt_path`.

    Raises:
        InputError: for a model of `mu fit`, or of another run than `--run`.
    """
    model = options.pretrained
    if model is None:
        return
    if command == "fit":
        raise InputError(
            f"mu fit does not take {shortened(model)!r}; the model to unlearn from is given by "
            "--model.backbone.weights or --model.backbone.model."
        )
    run = run_folder.of_model(model)
    if run is None:
        return
    if options.run is not None and Path(options.run).resolve() != run.resolve():
        raise InputError(
            f"{shortened(model)} belongs to the run {run}, whose folder holds its results; leave "
            f"out --run {options.run}."
        )
    options.pretrained = None
    options.run = str(run)
    if Path(model).is_file():
        options.rest += ["--ckpt_path", model]


def _base(command: str, options: Options) -> dict[str, Any] | None:
    """Recorded configuration of the run that is continued or evaluated.

    None where the files and options name method and task themselves.
    """
    checkpoint = options.value("--ckpt_path")
    folder = options.run or (run_folder.of_checkpoint(checkpoint) if checkpoint else None)
    if not folder or (command == "fit" and not options.resume and checkpoint is None):
        return None
    config = configs.merged(options.files)
    is_complete = all(
        "class_path" in configs.section(config, key) or key in options.chosen
        for key in ("model", "data")
    )
    if is_complete:
        return None
    recorded = run_folder.recorded_config(folder, training=command == "fit")
    return _with_scores(recorded) if command == "validate" else recorded


def _with_scores(recorded: dict[str, Any]) -> dict[str, Any]:
    """Configuration of a run whose fit was made without validation, with it."""
    trainer = dict(configs.section(recorded, "trainer"))
    if trainer.get("limit_val_batches") == 0:
        del trainer["limit_val_batches"]
    return {**recorded, "trainer": trainer}

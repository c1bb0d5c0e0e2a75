"""Command line of `mu`: the command is chosen before anything heavy is imported."""

from __future__ import annotations

import errno
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mu.utils.distributed import rank_of_process
from mu.utils.errors import InputError, RunError
from mu.utils.text_files import shortened

_UNUSABLE_PATH = (
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
    errno.ELOOP,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
)
"""Errors of the system that another path cures."""
COMMANDS = {
    "fit": "train an original, retrain an oracle, or unlearn",
    "validate": "scores of the splits, without suites",
    "test": "measure with suites; writes results.json into the run folder",
    "predict": "write the model's prediction of every sample",
    "bench": "run a study: tasks x methods x seeds, measured against the oracle",
    "report": "tables from run folders",
    "generate": "images or answers of models side by side, as a page and files",
    "export": "write a run's model with its card, to share it",
    "import": "turn a CompVis checkpoint into a diffusers folder",
    "init": "copy a starter: a study, a task, a method, a suite",
    "list": "methods, tasks, backbones, suites, attacks, masks, configs or runs",
    "show": "one method: equation, arguments, defaults, presets",
}

_HELP = """usage: mu COMMAND ...

Machine unlearning on PyTorch Lightning, measured against retraining.

{commands}

  mu fit -c configs/task/digits_random.yaml -c configs/method/salun.yaml \\
    --model.backbone.weights runs/original --run runs/salun
  mu test --run runs/salun -c configs/suite/classification.yaml

mu COMMAND --help lists its options; mu --version; --debug shows the traceback of an error."""


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: words after `mu`; those of this process when None.

    Returns:
        The exit code: 0; 1 for a failed run, 2 for unusable input, 130 for an interruption.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        with _with_argv(None if argv is None else argv):
            return _dispatch(words, debug)
    except SystemExit as stop:  # argparse and --help end like this
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 2
    except KeyboardInterrupt as stop:
        if not rank_of_process():
            print(f"mu: interrupted{f'; {stop}' if str(stop) else ''}.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `mu list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _report(error, debug)


def _dispatch(words: list[str], debug: bool) -> int:
    command, rest = (words[0], words[1:]) if words else ("--help", [])
    if command in ("-h", "--help", "help"):
        print(
            _HELP.format(
                commands="\n".join(f"  mu {name:<9} {what}" for name, what in COMMANDS.items())
            )
        )
        return 0
    if command in ("-V", "--version"):
        from mu import __version__

        print(f"mu {__version__}")
        return 0
    if command not in COMMANDS:
        raise InputError(_unknown(command))
    if command in ("fit", "validate", "test", "predict"):
        from mu.cli.fit import run

        return run(command, rest)
    if command == "bench":
        with _working_directory_importable():
            from mu.cli.bench import main as bench

            return bench([*rest, "--debug"] if debug else rest)
    if command == "report":
        from mu.cli.report import main as report

        return report(rest)
    if command == "export":
        with _working_directory_importable():
            from mu.cli.export import main as export

            return export(rest)
    if command == "generate":
        with _working_directory_importable():
            from mu.cli.generate import main as generate

            return generate(rest)
    if command == "import":
        from mu.cli.import_model import main as importing

        return importing(rest)
    if command == "init":
        from mu.cli.init import main as init

        return init(rest)
    with _without_collector():
        if command == "list":
            from mu.cli.list import main as listing

            return listing(rest)
        from mu.cli.show import main as show

        return show(rest)


def _unknown(command: str) -> str:
    if command.startswith("-"):
        return (
            f"the first word is a command ({', '.join(COMMANDS)}), not {command!r}; write for "
            f"example mu fit {command} ..."
        )
    import difflib

    close = difflib.get_close_matches(command, COMMANDS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"mu has {', '.join(COMMANDS)}."
    return f"there is no command {command!r}; {hint}"


def _report(error: Exception, debug: bool) -> int:
    """Print an error as one sentence; returns the exit code."""
    if debug:
        import traceback

        traceback.print_exception(error)
    if isinstance(error, OSError) and error.errno in _UNUSABLE_PATH and error.filename:
        reason = (error.strerror or "it cannot be used").lower()
        error = InputError(f"{shortened(error.filename)}: {reason}; give another path.")
    code = 2 if isinstance(error, InputError) else 1
    # rank zero prints for all; an error of another rank alone is seen with --debug
    if rank_of_process():
        return code
    sentence = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, InputError | RunError):
        sentence = f"{type(error).__name__}: {sentence}"
    if code == 1 and not debug:
        sentence = f"{sentence.rstrip('.')}; run again with --debug for the traceback."
    print(f"mu: {sentence}", file=sys.stderr)
    return code


@contextmanager
def _without_collector() -> Iterator[None]:
    """Switch off garbage collection, a third of the time where many syntax trees are kept."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    """Make the user's own files importable; see `mu.config.plugins`."""
    from mu.config.plugins import working_directory

    with working_directory():
        yield


@contextmanager
def _with_argv(argv: list[str] | None) -> Iterator[None]:
    """Set `sys.argv` to this command: Lightning starts further ranks with it."""
    if argv is None:
        yield
        return
    main_module = sys.modules["__main__"]
    argv_before = sys.argv
    spec_before = getattr(main_module, "__spec__", None)
    sys.argv = [os.path.abspath(__file__), *argv]
    main_module.__spec__ = None  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.argv = argv_before
        main_module.__spec__ = spec_before  # type: ignore[assignment]


if __name__ == "__main__":
    # the folder of this file, or the working directory, whose tasks.py would hide ours
    sys.path.pop(0)
    sys.exit(main())

"""Commands on a run folder that holds a run already: refused, finished, resumed, begun anew."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mu.cli.config_files import read, section
from mu.cli.run_folder import CONFIG, LAST
from mu.utils.errors import InputError
from mu.utils.run_config import changed_setting, differences, fixed_settings
from mu.utils.run_layout import RESULTS
from mu.utils.text_files import shortened

_NOT_COMPARED = ("default_root_dir", "enable_progress_bar", "enable_model_summary", "logger")
"""Trainer arguments for output and display, which do not change the run."""
_LENGTH = ("max_epochs", "min_epochs", "max_steps", "min_steps", "max_time")
"""Trainer arguments that say how long a run trains."""


class FinishedRun(Exception):
    """End of a command on a run that is finished, with what it prints."""


def refuse_other_run(run: Path, config: Mapping[str, Any]) -> None:
    """Refuse to write into a folder that holds a run; end where it is this one, finished.

    Args:
        run: the run folder.
        config: configuration of the fit.

    Raises:
        FinishedRun: the run is finished, so there is nothing to train.
        InputError: it is another run, with the first difference, or it was cut off.
    """
    if not run.exists():
        return
    if not run.is_dir():
        raise InputError(f"{run} is a file, not a run folder; give another --run.")
    cure = "give another --run, resume it with --resume, or begin it anew with --overwrite."
    has_checkpoint = any(run.glob("checkpoints/*.ckpt"))
    if (run / CONFIG).is_file():
        different = _sentence(_comparable(read(run / CONFIG)), _comparable(config))
        if different:
            raise InputError(f"{run} holds another run ({different}); {cure}")
    elif (run / RESULTS).exists() or has_checkpoint:
        raise InputError(f"{run} holds another run, which has no {CONFIG} to compare with; {cure}")
    if (run / LAST).exists():
        _end_if_finished(run, "--overwrite trains it anew")
        raise InputError(
            f"{run} was cut off before its end; continue it with mu fit --run {run} --resume, or "
            "begin it anew with --overwrite."
        )


def refuse_other_model(run: Path, config: Mapping[str, Any]) -> None:
    """Refuse to measure a model into a folder that holds a run of another model or task.

    Args:
        run: the run folder.
        config: configuration of the measurement, with the sections `model` and `data`.

    Raises:
        InputError: names the folder and the first difference.
    """
    if run.exists() and not run.is_dir():
        raise InputError(f"{run} is a file, not a run folder; give another --run.")
    if (run / CONFIG).is_file():
        sections = [
            {key: content.get(key) for key in ("model", "data")}
            for content in (read(run / CONFIG), config)
        ]
        different = _sentence(*sections)
    else:
        is_run = (run / RESULTS).exists() or any(run.glob("checkpoints/*.ckpt"))
        different = f"it has no {CONFIG} to compare with" if is_run else ""
    if different:
        raise InputError(
            f"{run} holds another run ({different}); give another folder with --run, or delete it."
        )


def check_resume(run: Path, recorded: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Refuse to resume with settings that would change what was trained.

    How long, where and with which output a run goes on may differ. A path may differ where the
    recorded one leads nowhere any more; the hashes of the split and of the original weights say
    whether it leads to the same.

    Args:
        run: folder of the run.
        recorded: its configuration, with all defaults.
        config: configuration of the fit that resumes it.

    Raises:
        FinishedRun: the run is finished, and is to be no longer.
        InputError: names the first setting that differs, with both values.
    """
    for name, old, new in differences(fixed_settings(recorded), fixed_settings(config)):
        if not _same_file(old, new):
            raise InputError(
                f"{changed_setting(run, name, old, new)}; leave the option out, or fit another run "
                "with another --run."
            )
    before, now = (
        {name: section(content, "trainer").get(name) for name in _LENGTH}
        for content in (recorded, config)
    )
    if before == now:
        _end_if_finished(run, "a larger --trainer.max_epochs trains it further")


def _end_if_finished(run: Path, cure: str) -> None:
    from mu.core.run_start import finished_fit

    progress = finished_fit(run)
    if progress is not None:
        raise FinishedRun(
            f"{run} is finished ({_count(progress['epochs'], 'epoch')}, "
            f"{_count(progress['steps'], 'step')}), so nothing is trained; {cure}."
        )


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    sections = {
        key: value for key, value in config.items() if key in ("seed_everything", "model", "data")
    }
    trainer = {
        key: value
        for key, value in (config.get("trainer") or {}).items()
        if key not in _NOT_COMPARED
    }
    return {**sections, "trainer": trainer}


def _sentence(old: Any, new: Any) -> str:
    """First difference as a clause; empty where all agree."""
    for name, before, now in differences(old, new):
        return f"its {name} is {shortened(before, 60)}, not {shortened(now, 60)}"
    return ""


def _same_file(old: Any, new: Any) -> bool:
    """Whether two values are paths of one file, or the first one of a file that is gone."""
    if not isinstance(old, str) or not isinstance(new, str):
        return False
    try:
        if Path(old).resolve() == Path(new).resolve():
            return True
        return "/" in old and not Path(old).exists() and Path(new).exists()
    except (OSError, ValueError):  # a name too long, or with a null byte
        return False

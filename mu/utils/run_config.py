"""The config.yaml of a run folder: its hashes, and the settings that a resume may not change."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from mu.utils.checksums import fits_checksums
from mu.utils.errors import InputError
from mu.utils.files import read_json, write_text
from mu.utils.run_layout import CONFIG, SPLIT
from mu.utils.text_files import Loader, file_fault, read_text, shortened

HASH = "# hash: "
"""First words of the line with the hash of the lines below it."""
SETTINGS = "# settings: "
"""First words of the line with the hash of `fixed_settings`."""
DIRECTORY = "# working directory: "
"""First words of the line with the directory in which the run was fitted."""

_FREE_TRAINER = frozenset(
    {
        # 1. how long
        *("max_epochs", "min_epochs", "max_steps", "min_steps", "max_time", "fast_dev_run"),
        # 2. where: the global batch stays
        *("accelerator", "strategy", "devices", "num_nodes", "plugins", "benchmark"),
        *("deterministic", "use_distributed_sampler", "inference_mode"),
        # 3. evaluation
        *("limit_val_batches", "limit_test_batches", "limit_predict_batches"),
        *("val_check_interval", "check_val_every_n_epoch", "num_sanity_val_steps"),
        # 4. output
        *("default_root_dir", "logger", "callbacks", "log_every_n_steps", "profiler"),
        *("enable_checkpointing", "enable_progress_bar", "enable_model_summary"),
        *("enable_autolog_hparams", "detect_anomaly", "model_registry"),
    }
)
"""Trainer arguments that cannot change what a run has trained so far."""
FREE_DATA = frozenset({"workers", "eval_batch_size", "curves", "evaluated", "in_memory", "cache"})
"""Task arguments that cannot change it."""
_DEFAULTS = {
    "accumulate_grad_batches": 1,
    "gradient_clip_algorithm": "norm",
    "limit_train_batches": 1.0,
    "precision": "32-true",
}
"""Defaults of the Trainer, which a file may name or not."""


def fixed_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run that decide its weights: method, task, seed, part of the trainer.

    Args:
        config: content of a config.yaml.

    Example:
        >>> fixed_settings({"trainer": {"max_epochs": 3, "precision": "bf16-mixed"}})
        {'trainer': {'precision': 'bf16-mixed'}}
    """
    sections = {
        key: config[key]
        for key in ("seed_everything", "model", "data")
        if config.get(key) is not None
    }
    data = sections.get("data")
    if isinstance(data, Mapping) and isinstance(data.get("init_args"), Mapping):
        arguments = {
            name: value for name, value in data["init_args"].items() if name not in FREE_DATA
        }
        sections["data"] = {**data, "init_args": arguments}
    trainer = config.get("trainer") or {}
    fixed = {
        name: value
        for name, value in trainer.items()
        if name not in _FREE_TRAINER and value and value != _DEFAULTS.get(name)
    }
    return {**sections, "trainer": fixed}


def differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Settings in which two configurations differ: dotted name without `init_args`, both values.

    Args:
        old: plain data.
        new: plain data.
        key: name of both.

    Example:
        >>> list(differences({"model": {"init_args": {"lr": 0.1}}}, {"model": {"init_args": {}}}))
        [('model.lr', 0.1, None)]
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in [*old, *(name for name in new if name not in old)]:
            part = str(name) if name != "init_args" else ""
            inner = ".".join(word for word in (key, part) if word)
            yield from differences(old.get(name), new.get(name), inner)
    elif old != new:
        yield key, old, new


def changed_setting(run: Path, name: str, old: Any, new: Any) -> str:
    """Clause about a setting that a resume would change."""
    return (
        f"{run} was trained with {name} {shortened(old, 60)}, not {shortened(new, 60)}, and a "
        "resumed run keeps its settings and its split"
    )


def write_config(run: Path, text: str, directory: Path | str) -> str:
    """Write the config.yaml of a run, with its hashes.

    Args:
        run: the run folder.
        text: its configuration as YAML.
        directory: from which its relative paths count.

    Returns:
        The hash of its fixed settings.
    """
    fixed = fixed_settings(yaml.load(text, Loader=Loader) or {})
    settings = _text_hash(json.dumps(fixed, sort_keys=True, default=str))
    body = f"{SETTINGS}{settings}\n{DIRECTORY}{directory}\n{text}"
    write_text(run / CONFIG, f"{HASH}{_text_hash(body)}\n{body}")
    return settings


def check_config(run: Path) -> None:
    """Refuse a config.yaml that was changed or cut off after it was written.

    Raises:
        InputError: names the file.
    """
    file = run / CONFIG
    if file_fault(file) == "does not exist":
        return
    line, _, body = read_text(file).partition("\n")
    if line != f"{HASH}{_text_hash(body)}":
        raise InputError(
            f"{file} was changed after it was written: its hash does not fit its contents; put the "
            "old file back, or fit the run again."
        )


def check_checksums(checkpoint: Path) -> None:
    """Refuse a checkpoint whose contents were changed after it was written.

    A file that is none of torch's archives is left to what reads it.

    Raises:
        InputError: names the file.
    """
    if zipfile.is_zipfile(checkpoint) and not fits_checksums(checkpoint):
        raise InputError(
            f"{checkpoint} was changed after it was written: its checksums do not fit its "
            "contents; put the old file back, or fit the run again."
        )


def check_belongs(run: Path, checkpoint: Path, record: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that is not of the run whose config.yaml and split.json lie beside it.

    Args:
        run: the run folder.
        checkpoint: the file.
        record: the run's record in it.

    Raises:
        InputError: names both files.
    """
    settings = config_line(run, SETTINGS)
    content = read_json(run / SPLIT) if (run / SPLIT).is_file() else {}
    split = content.get("hash", "") if isinstance(content, dict) else ""
    for name, ours, stored in (
        (CONFIG, settings, record.get("config")),
        (SPLIT, split, record.get("split")),
    ):
        if ours and stored and ours != stored:
            raise InputError(
                f"{checkpoint} and {run / name} are of two different runs; put the right file "
                "back, or fit the run again."
            )


def config_line(run: Path, words: str) -> str:
    """Rest of the line of a config.yaml's head that begins with `words`; empty without one."""
    try:
        with (run / CONFIG).open(encoding="utf-8") as file:
            lines = [line for line, _ in zip(file, range(5), strict=False)]
    except (OSError, UnicodeDecodeError):
        return ""
    matches = [line.removeprefix(words).strip() for line in lines if line.startswith(words)]
    return matches[0] if matches else ""


def _text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]

"""Arguments of suites: an option reaches every suite that takes it, or is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mu.bench.study_file import read_study
from mu.cli.callback_words import put_into_files
from mu.cli.options import take
from mu.config.callback_options import set_argument
from mu.utils.errors import InputError
from tests.bench.test_study import STUDY

SUITES: list[Any] = ["callbacks.Cost", "callbacks.TOFU", {"class_path": "callbacks.Memorisation"}]


def arguments(entries: list[Any]) -> list[Any]:
    return [entry.get("init_args") if isinstance(entry, dict) else None for entry in entries]


def test_every_taker_gets_the_argument() -> None:
    """Fails when only the last suite gets an oracle."""
    entries = set_argument(SUITES, ["oracle"], "runs/oracle", "--oracle")
    assert arguments(entries) == [None, {"oracle": "runs/oracle"}, {"oracle": "runs/oracle"}]
    nested = set_argument(SUITES, ["oracle", "model"], "a", "--oracle.model")
    assert arguments(nested)[1] == {"oracle": {"init_args": {"model": "a"}}}
    assert SUITES[1] == "callbacks.TOFU"


def test_argument_that_no_suite_takes_is_refused() -> None:
    """Fails when an option is dropped in silence."""
    with pytest.raises(InputError, match=r"none of Cost, TOFU, Mem.* did you mean oracle"):
        set_argument(SUITES, ["oracel"], "runs/oracle", "--oracel")


def test_words_for_callbacks_of_the_files() -> None:
    """Fails when a word reaches one of two suites, or one that is added by the words themselves."""
    config = {"trainer": {"callbacks": SUITES}}
    options = take(
        [
            "--trainer.callbacks.oracle",
            "07",
            "--trainer.callbacks.every_n_epochs=1",
            "--trainer.max_epochs=2",
            "--trainer.callbacks+=callbacks.MIA",
            "--trainer.callbacks.seed=3",
        ]
    )
    callbacks = put_into_files(options, config)["trainer"]["callbacks"]
    assert arguments(callbacks)[1:] == [{"oracle": "07", "every_n_epochs": 1}] * 2
    assert options.rest == [
        "--trainer.max_epochs=2",
        "--trainer.callbacks+=callbacks.MIA",
        "--trainer.callbacks.seed=3",
    ]


def test_set_reaches_the_suites_of_a_study(tmp_path: Path) -> None:
    """Fails when `--set suites.NAME=VALUE` replaces the list of suites."""
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({**STUDY, "suites": SUITES}))
    study = read_study(tmp_path / "study.yaml", {"suites.oracle": "runs/oracle"})
    assert arguments(study.suites) == [None, {"oracle": "runs/oracle"}, {"oracle": "runs/oracle"}]
    with pytest.raises(InputError, match="--set suites"):
        read_study(tmp_path / "study.yaml", {"suites.nothing": 1})

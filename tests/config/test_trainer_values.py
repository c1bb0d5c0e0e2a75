"""Arguments of the Trainer with which a fit would train nothing, wait, or fork without end."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from mu.config.trainer_values import check_fit
from mu.utils.errors import InputError


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_epochs": 0},
        {"max_steps": 0},
        {"limit_train_batches": 0},
        {"limit_train_batches": 0.0},
        {"max_time": "00:00:00:00"},
        {"max_time": "0"},
        {"max_time": 0},
        {"max_time": {"hours": 0}},
        {"max_time": timedelta()},
        {"num_nodes": 2},
        {"devices": 100_000},
        {"devices": "100000"},
    ],
    ids=str,
)
def test_invalid_trainer_values_are_refused(
    arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when a run ends at once with success, or never begins."""
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "MASTER_ADDR", "LSB_JOBID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match=f"--trainer.{next(iter(arguments))} is"):
        check_fit(arguments)


def test_valid_trainer_values_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when a value that trains is refused."""
    arguments = {"max_epochs": 1, "max_steps": -1, "limit_train_batches": 0.5, "devices": -1}
    check_fit({**arguments, "max_time": "00:00:00:01", "num_nodes": 1})
    check_fit({"max_epochs": None, "max_time": None, "devices": "auto", "num_nodes": 1})
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    check_fit({"num_nodes": 2})

"""Invented rows with the names and columns of TOFU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks import TOFU
from tests.support.doubles_text import folder


def tofu(path: Path | str, **changes: Any) -> TOFU:
    task = TOFU(str(path), **{"tokenizer": folder(), "max_length": 40, "batch_size": 3, **changes})
    task.setup()
    return task

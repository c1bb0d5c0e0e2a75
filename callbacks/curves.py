"""Callback that writes validation curves of a fit."""

from __future__ import annotations

from math import isfinite
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.base import module_of, run_folder
from mu.utils.files import write_json
from mu.utils.spec import Reconstructible


class Curves(Callback, Reconstructible):
    """Validation curves by step (`forget/loss`, `retain/accuracy`), written to `curves.json`."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add a row for a validation during fit; a score that is undefined is left out."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        keys = module_of(pl_module).curve_keys()
        row = {
            key: float(trainer.callback_metrics[key])
            for key in keys
            if key in trainer.callback_metrics and isfinite(float(trainer.callback_metrics[key]))
        }
        self.rows.append(
            {"epoch": float(trainer.current_epoch), "step": float(trainer.global_step), **row}
        )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the curves on rank zero."""
        if self.rows and trainer.is_global_zero and not trainer.fast_dev_run:  # pyright: ignore[reportAttributeAccessIssue]
            write_json(run_folder(trainer) / "curves.json", self.rows)

    def state_dict(self) -> dict[str, Any]:
        """Rows so far, for a run that is resumed."""
        return {"rows": list(self.rows)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the rows of the interrupted run."""
        self.rows = list(state_dict["rows"])

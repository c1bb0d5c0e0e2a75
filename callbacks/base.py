"""Suite: a callback that measures on `test`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from mu.core.module import UnlearningModule
from mu.metrics.results import Result
from mu.utils.errors import InputError
from mu.utils.spec import Reconstructible

Evaluated = Mapping[str, Mapping[str, Tensor]]
"""Per-example outputs by split and field, rows sorted by index, each sample once."""


class Suite(Callback, Reconstructible):
    """Declares what it needs per example, and turns that into numbers when a test epoch ends.

    The module computes what all suites need in one pass, keeps it on its ranks, and hands over the
    whole; so a suite sees every sample exactly once on any number of ranks.
    """

    needs: tuple[str, ...] = ()
    """Names that `Backbone.outputs` knows (`logits`, `label`, `nll`, `prediction`, `target`)."""

    @abstractmethod
    def measure(self, outputs: Evaluated, module: UnlearningModule) -> list[Result]:
        """The suite's numbers."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Declare the needs before the first batch."""
        if stage == "test":
            module_of(pl_module).declared.update(self.needs)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, add to the run's results, and log."""
        module = module_of(pl_module)
        with module.stopwatch("evaluation"):
            module.add_results(self.measure(module.evaluated(), module))

    def rows(self, outputs: Evaluated, split: str) -> Mapping[str, Tensor]:
        """One split's outputs.

        Raises:
            InputError: when the task was not evaluated on it.
        """
        if split not in outputs:
            raise InputError(
                f"{type(self).__name__} measures on the {split} part, but only "
                f"{', '.join(sorted(outputs))} were evaluated."
            )
        return outputs[split]


def module_of(pl_module: LightningModule) -> UnlearningModule:
    """The module, if it is one of ours."""
    if not isinstance(pl_module, UnlearningModule):
        raise InputError(f"suites measure an UnlearningModule, not {type(pl_module).__name__}.")
    return pl_module


def run_folder(trainer: Trainer) -> Any:
    """Where this run writes."""
    from pathlib import Path

    return Path(trainer.default_root_dir)

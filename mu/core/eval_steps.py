"""Evaluation: what a module does in validate, test and predict, whatever its method."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torchmetrics import MeanMetric

from mu.backbones import Backbone
from mu.data.batch import Batch
from mu.metrics.outputs import Outputs
from mu.metrics.results import Result
from mu.utils.timing import Stopwatch


class EvaluationSteps(LightningModule):
    """Shows every split to the served backbone once, and keeps what the suites declared they need.

    Attributes:
        declared: names that suites need of each example (see `Backbone.outputs`); they add theirs
            before a test.
        outputs: the test's per-example values, shared by all suites.
        results: the numbers that suites measured in this test.
        facts: what else belongs into the run's record.
        stopwatch: where the time went.
        cache: what suites share within one test (drawn images, graphs of metrics), by the class of
            the entry; emptied when a test starts and before each training step.
    """

    seed: int

    def __init__(self) -> None:
        super().__init__()
        self.stopwatch = Stopwatch()
        self.declared: set[str] = set()
        self.outputs: Outputs | None = None
        self.results: list[Result] = []
        self.facts: dict[str, Any] = {}
        self.cache: dict[type, Any] = {}
        self._curves: dict[str, MeanMetric] = {}

    def served(self) -> Backbone:
        """What is evaluated."""
        raise TypeError(f"{type(self).__name__} does not say what it serves.")

    @torch.no_grad()
    def prepare_eval(self, batch: Batch) -> Batch:
        """A batch of evaluation, prepared by what is served; substitutes belong to training."""
        return self.served().prepare(
            {name: value for name, value in batch.items() if name != "split"}, self.seed
        )

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Curves: the mean of each of the backbone's scores, on each split."""
        split = batch["split"]
        part = self.prepare_eval(batch)
        real = ~part["padded"] if "padded" in part else slice(None)
        for name, values in self.served().scores(part).items():
            key = f"{split}/{name}"
            if key not in self._curves:
                self._curves[key] = MeanMetric(sync_on_compute=True).to(self.device)
            self._curves[key].update(values[real])

    def on_validation_epoch_end(self) -> None:
        """Log the curves under `split/score`."""
        for key, metric in self._curves.items():
            self.log(key, metric.compute(), rank_zero_only=False, sync_dist=False)
            metric.reset()

    def curve_keys(self) -> list[str]:
        """Names under which validation logs (`forget/loss`)."""
        return sorted(self._curves)

    def on_validation_model_eval(self) -> None:
        """As Lightning does, and the served model too (it may be composed of others)."""
        super().on_validation_model_eval()
        self.served().eval()

    def on_test_start(self) -> None:
        """Make the store that all suites share; suites have declared what they need in their
        `setup`.
        """
        self.cache.clear()
        fields = sorted(self.declared)
        self.outputs = Outputs().to(self.device)
        self._fields = fields
        self.results = []
        self.served().eval()

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Compute what the suites declared, once."""
        assert self.outputs is not None
        # suites that draw their own read nothing of a sample
        split = batch["split"]
        part = self.prepare_eval(batch) if self._fields else batch
        values = self.served().outputs(part, self._fields)
        padded = {"padded": part["padded"]} if "padded" in part else {}
        self.outputs.update(split, {"index": part["index"], **values, **padded})

    def evaluated(self) -> dict[str, dict[str, Tensor]]:
        """The test's outputs by split and field: each sample once, sorted by index, from all
        ranks.
        """
        assert self.outputs is not None, "a test comes first"
        return self.outputs.compute()

    def add_results(self, results: Iterable[Result]) -> None:
        """Called by suites: keep the numbers for the run's record, and log them."""
        for result in results:
            self.results.append(result)
            if (
                self._trainer is not None
                and self.trainer.sanity_checking is False
                and self.trainer._results is not None
            ):
                self.log(
                    f"test/{result.metric}", result.value, rank_zero_only=True, sync_dist=False
                )

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Index, split and prediction of each sample."""
        part = self.prepare_eval(batch)
        real = ~part["padded"]
        return {
            "split": batch["split"],
            "index": part["index"][real],
            "prediction": self.served().predict(part)[real],
        }

"""Validation, test and prediction steps of every unlearning module, and its trainer's settings."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torchmetrics import MeanMetric

from mu.backbones import Backbone
from mu.data.batch import Batch
from mu.data.datamodule import UnlearningDataModule
from mu.metrics.outputs import Outputs
from mu.metrics.results import Result
from mu.utils.errors import MissingMethodError
from mu.utils.sharded import is_sharded
from mu.utils.timing import Stopwatch


class EvaluationSteps(LightningModule):
    """LightningModule that evaluates the served backbone once on every split, for all suites.

    Attributes:
        declared: names of the per-example outputs that suites need (see `Backbone.outputs`); suites
            add theirs before a test.
        outputs: the test's per-example values, shared by all suites.
        results: the metrics that suites measured in this test.
        facts: further facts for the run's results.json.
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

    # ---- the trainer -----------------------------------------------------------------------------

    def precision(self) -> AbstractContextManager[Any]:
        """Context of the trainer's precision (autocast), for passes outside its own steps."""
        return (
            self.trainer.precision_plugin.forward_context()
            if self._trainer is not None
            else nullcontext()
        )

    @property
    def task(self) -> UnlearningDataModule | None:
        """The trainer's UnlearningDataModule; None for other datamodules and for loaders."""
        task = getattr(self._trainer, "datamodule", None) if self._trainer is not None else None
        return task if isinstance(task, UnlearningDataModule) else None

    @property
    def world_size(self) -> int:
        """Number of ranks (1 without a trainer)."""
        return self._trainer.world_size if self._trainer is not None else 1

    def sum_over_ranks(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        """Sum of each tensor over ranks; a sharded one (DTensor) is that sum already."""
        tensors = list(tensors)
        if self.world_size == 1:
            return tensors
        reduce = self.trainer.strategy.reduce
        return [
            tensor if is_sharded(tensor) else reduce(tensor.clone(), reduce_op="sum")  # type: ignore[misc]
            for tensor in tensors
        ]

    # ---- validate, test, predict -----------------------------------------------------------------

    def served(self) -> Backbone:
        """The backbone that is evaluated."""
        raise MissingMethodError(f"{type(self).__name__} does not say what it serves.")

    @torch.no_grad()
    def prepare_eval(self, batch: Batch) -> Batch:
        """A batch of evaluation, prepared by the served backbone, without substitutes."""
        return self.served().prepare(
            {name: value for name, value in batch.items() if name != "split"}, self.seed
        )

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Update the curves: the mean of each of the backbone's scores on each split."""
        split = batch["split"]
        part = self.prepare_eval(batch)
        real = ~part["padded"] if "padded" in part else slice(None)
        for name, values in self.served().scores(part).items():
            key = f"{split}/{name}"
            if key not in self._curves:
                self._curves[key] = MeanMetric(
                    # a mean without the samples that are NaN would be one of chosen samples
                    sync_on_compute=True,
                    nan_strategy="disable",
                ).to(self.device)
            self._curves[key].update(values[real])

    def on_validation_epoch_end(self) -> None:
        """Log the curves under `split/score`."""
        values = {key: metric.compute() for key, metric in self._curves.items()}
        for key, value in values.items():
            # equal on all ranks, whose largest value is then exactly that one
            self.log(key, value, sync_dist=self.world_size > 1, reduce_fx="max")
            self._curves[key].reset()
        if self.trainer.validating:
            self._print_once(self.trainer.validate_loop, values.items())

    def curve_keys(self) -> list[str]:
        """Names under which validation logs (`forget/loss`)."""
        return sorted(self._curves)

    def on_validation_model_eval(self) -> None:
        """Eval mode for the module and for the served model, which may be composed of others."""
        super().on_validation_model_eval()
        self.served().eval()

    def on_test_start(self) -> None:
        """Make the store of outputs that all suites share.

        Suites have declared what they need in their `setup`.
        """
        self.cache.clear()
        fields = sorted(self.declared)
        self.outputs = Outputs().to(self.device)
        self._fields = fields
        self.results = []
        self.served().eval()

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Compute the outputs that suites declared, once for all suites."""
        assert self.outputs is not None
        # suites that generate images or texts declare nothing
        split = batch["split"]
        part = self.prepare_eval(batch) if self._fields else batch
        values = self.served().outputs(part, self._fields)
        padded = {"padded": part["padded"]} if "padded" in part else {}
        self.outputs.update(split, {"index": part["index"], **values, **padded})

    def evaluated(self) -> dict[str, dict[str, Tensor]]:
        """The test's outputs by split and field, from all ranks, each sample once, by index."""
        assert self.outputs is not None, "a test comes first"
        return self.outputs.compute()

    def add_results(self, results: Iterable[Result]) -> None:
        """Record the metrics that a suite has measured, and log those that have a value."""
        for result in results:
            self.results.append(result)
            if (
                result.value is not None
                and self._trainer is not None
                and self.trainer.sanity_checking is False
                and self.trainer._results is not None
            ):
                self.log(
                    f"test/{result.metric}",
                    result.value,
                    rank_zero_only=True,  # so that nothing is reduced
                    sync_dist=self.world_size > 1,
                )

    def on_test_epoch_end(self) -> None:
        """Print the results of the suites, unless the trainer's `verbose` is false."""
        self._print_once(
            self.trainer.test_loop,
            [(result.metric, result.value) for result in self.results if result.value is not None],
        )

    def _print_once(self, loop: Any, values: Iterable[tuple[str, Any]]) -> None:
        """Print metrics in place of a loop's table, which has a column for each data loader."""
        values = list(values)
        if not (loop.verbose and values):
            return
        loop.verbose = False  # of this test alone: the trainer sets it before each
        if self.trainer.is_global_zero:
            width = max(len(name) for name, _ in values)
            for name, value in values:
                print(f"{name:<{width}}  {float(value):.6g}")

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Index, split and prediction of each sample."""
        part = self.prepare_eval(batch)
        real = ~part["padded"]
        return {
            "split": batch["split"],
            "index": part["index"][real],
            "prediction": self.served().predict(part)[real],
        }

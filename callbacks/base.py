"""Base class of evaluation suites: callbacks that measure when a model is tested."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from mu.core.module import UnlearningModule
from mu.metrics.results import Presentation, Result, TradeOff
from mu.utils.errors import InputError, UndefinedError
from mu.utils.spec import Reconstructible

Evaluated = Mapping[str, Mapping[str, Tensor]]
"""Per-example outputs by split and field, rows sorted by index, each sample once."""


class Suite(Callback, Reconstructible):
    """Base of evaluation suites: metrics of per-example outputs at the end of a test epoch.

    The module computes what all suites need in one pass and gathers it from all ranks, so a suite
    gets every sample exactly once on any number of ranks. The definitions of its metrics are
    written into `results.json`, for reports.
    """

    needs: tuple[str, ...] = ()
    """Names that `Backbone.outputs` computes (`logits`, `label`, `nll`, `prediction`, `target`)."""

    compared: tuple[str, ...] = ()
    """Metrics of other suites that it compares with the oracle's, so it is measured with them."""

    definitions: ClassVar[Mapping[str, str]] = {}
    """Meaning of each metric in one plain sentence; a key that ends with a slash defines every
    metric that begins with it.
    """

    headline: ClassVar[tuple[str, ...] | None] = None
    """Metrics that head a table, in order (a name that ends with a slash covers every metric
    that begins with it); None for every defined metric without a slash.
    """

    trade_offs: ClassVar[tuple[TradeOff, ...]] = ()
    """Scatter plots of a report, drawn where both sides were measured."""

    latest_results: list[Result] | None = None
    """Results of the latest test."""

    latest_seconds: float = 0.0
    """Seconds that the suite took in it."""

    @abstractmethod
    def measure(self, outputs: Evaluated, module: UnlearningModule) -> list[Result]:
        """Results of the suite."""

    def check(self) -> None:
        """Check what the suite needs whatever the run: packages, weights, files.

        A study calls it before its first fit, and `setup` before each fit and test.

        Raises:
            InputError: when something is missing or cannot be read.
        """
        return

    def check_run(self, module: UnlearningModule) -> None:
        """Check what the suite needs of a run: parts, columns, concepts, the oracle.

        It is called before each fit and test, when the task is set up; the reference is not yet.

        Args:
            module: the module; its weights may change later.

        Raises:
            InputError: when something is missing or does not fit.
        """
        return

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check what the suite needs, and register outputs, before the first batch."""
        if stage not in ("fit", "test"):
            return
        module = module_of(pl_module)
        self.check()
        self.check_run(module)
        if stage == "test":
            module.declared.update(self.needs)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, add the results to those of the run, and log them."""
        module = module_of(pl_module)
        module.add_results(self.timed_results(module))

    def timed_results(self, module: UnlearningModule) -> list[Result]:
        """Results of `measured`, which the suite keeps with their seconds for the run's record."""
        before = module.stopwatch.seconds().get("evaluation", 0.0)
        with module.stopwatch("evaluation"):
            self.latest_results = self.measured(module)
        self.latest_seconds = module.stopwatch.seconds().get("evaluation", 0.0) - before
        return self.latest_results

    def measured(self, module: UnlearningModule) -> list[Result]:
        """Results of `measure`, or an undefined one where the suite as a whole has no value.

        The numbers of the other suites stay.
        """
        try:
            return self.measure(module.evaluated(), module)
        except UndefinedError as reason:
            names = [*(self.headline or ()), *self.definitions, type(self).__name__]
            metric = next(name for name in names if not name.endswith("/"))
            return [Result(metric, None, undefined=str(reason))]

    def rows(self, outputs: Evaluated, split: str) -> Mapping[str, Tensor]:
        """Outputs of one split.

        Raises:
            InputError: when the task was not evaluated on it.
        """
        if split not in outputs:
            raise InputError(
                f"{type(self).__name__} measures on the {split} part, but only "
                f"{', '.join(sorted(outputs))} were evaluated."
            )
        return outputs[split]


def presentation_of(suites: Iterable[Suite | type[Suite]]) -> Presentation:
    """Definitions and order of the metrics of suites, for `results.json`."""
    parts = []
    for suite in suites:
        headline = suite.headline
        if headline is None:
            headline = tuple(name for name in suite.definitions if "/" not in name)
        parts.append(Presentation(dict(suite.definitions), list(headline), list(suite.trade_offs)))
    return Presentation.merged(parts)


def module_of(pl_module: LightningModule) -> UnlearningModule:
    """UnlearningModule of a suite; InputError for any other module."""
    if not isinstance(pl_module, UnlearningModule):
        raise InputError(f"suites measure an UnlearningModule, not {type(pl_module).__name__}.")
    return pl_module


def run_folder(trainer: Trainer) -> Any:
    """Run folder of a trainer."""
    from pathlib import Path

    return Path(trainer.default_root_dir)

"""Gap to the oracle, the model retrained without the forget set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

from lightning.pytorch import LightningModule, Trainer

from callbacks.base import Evaluated, Suite, module_of
from callbacks.oracle_commands import oracle_commands
from mu.core.module import UnlearningModule
from mu.core.run_files import check_results
from mu.metrics import distances, gap
from mu.metrics.rates import Rate
from mu.metrics.results import (
    SHARED_DEFINITIONS,
    Result,
    compute_result,
)
from mu.metrics.run_outputs import load_outputs
from mu.metrics.run_results import RunResults
from mu.utils.errors import InputError

_ACCURACIES = ("UA", "RA", "TA")
"""Metrics of the tug of war."""


class RetrainGap(Suite):
    """Two-sided gaps to the oracle in metrics, and distances between the two models' outputs.

    `gap/UA` is |UA − UA of the oracle| in percentage points; `avg_gap` is the mean over `metrics`
    (the papers' four); `ToW` (RUM, Zhao et al., NeurIPS 2024) is Π (1 − |Δ accuracy|), 1 at the
    oracle. From the outputs on forget: `activation_distance`, `JS` (nats), `completeness` (% of
    equal decisions).

    It measures after all other suites, at any position in the list.

    Args:
        oracle: the oracle's run folder.
        metrics: metrics of the average gap.
        recipe: `same` refuses an oracle that was trained by another recipe than the original;
            `unchecked` accepts it (for weights without a record of their training).
    """

    definitions: ClassVar[Mapping[str, str]] = {
        "avg_gap": SHARED_DEFINITIONS["avg_gap"],
        "gap/": SHARED_DEFINITIONS["gap/"],
        "ToW": "Tug of war: the product over forget, retain and test of 1 − |difference of "
        "accuracy to the oracle|; 1 at the oracle.",
        "activation_distance": "Mean Euclidean distance between the class probabilities of model "
        "and oracle on the forget set.",
        "JS": "Jensen–Shannon divergence between the class probabilities of model and oracle on "
        "the forget set, in nats.",
        "completeness": "Share of the forget set on which model and oracle predict the same "
        "class, in percent.",
        "wasserstein": "Wasserstein-1 distance between the predictions of model and oracle on the "
        "forget set.",
    }
    headline = ("wasserstein",)

    def __init__(self, oracle: str, metrics: list[str] | None = None, recipe: str = "same") -> None:
        if recipe not in ("same", "unchecked"):
            raise InputError(f"recipe is {recipe!r}; it is `same` or `unchecked`.")
        self.oracle = oracle
        self.metrics = list(gap.PAPERS_FOUR) if metrics is None else list(metrics)
        self.recipe = recipe
        self.compared = tuple(dict.fromkeys([*self.metrics, *_ACCURACIES]))

    def check_run(self, module: UnlearningModule) -> None:
        """Check that the oracle was measured, on the split of the run."""
        if not (Path(self.oracle) / "results.json").is_file():
            raise InputError(
                f"there is no tested oracle at {self.oracle}; {oracle_commands(self.oracle)} make "
                "one, with the original's recipe and the suites of this test."
            )
        self.check_split(RunResults.load(self.oracle), module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the recipe before anything is measured; a checkpoint has brought the original's."""
        self.check_oracle(RunResults.load(self.oracle), module_of(pl_module))

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """No measurement yet, because the gaps need the results of the other suites."""

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure after every other suite."""
        module = module_of(pl_module)
        module.results.extend(self.timed_results(module))

    def check_oracle(self, oracle: RunResults, module: UnlearningModule) -> None:
        """Check that the oracle has the split and the recipe of the run."""
        self.check_split(oracle, module)
        recipe = module.recipe_hash()
        if self.recipe == "same" and oracle.hashes["recipe"] != recipe:
            raise InputError(
                f"the oracle in {self.oracle} was made by recipe "
                f"{oracle.hashes['recipe'] or 'unknown'}, but the original by "
                f"{recipe or 'an unknown one'}; retrain by the original's recipe, or add "
                "--trainer.callbacks.recipe unchecked."
            )

    def check_split(self, oracle: RunResults, module: UnlearningModule) -> None:
        """Check that the oracle has the split of the run."""
        split = module.task.split.hash if module.task is not None else ""
        if oracle.hashes["split"] != split:
            raise InputError(
                f"the oracle in {self.oracle} was made on split {oracle.hashes['split']}, but "
                f"this run's split is {split}; retrain it on this split."
            )

    def measure(self, outputs: Evaluated, module: UnlearningModule) -> list[Result]:
        """Gaps by metric, their average, ToW, and output distances."""
        oracle = RunResults.load(self.oracle)
        check_results(self.oracle, oracle.hashes)
        self.check_oracle(oracle, module)
        measured = {result.metric: result for result in module.results}
        missing = [name for name in self.metrics if name not in measured or not oracle.has(name)]
        if missing:
            raise InputError(
                f"RetrainGap compares {missing[0]}, which this run or the oracle in {self.oracle} "
                "did not measure; add the suite that does to both."
            )
        results = [*self._gaps(measured, oracle), *_tug_of_war(measured, oracle)]
        return [*results, *self._distances(outputs, oracle)]

    def _gaps(self, measured: Mapping[str, Result], oracle: RunResults) -> list[Result]:
        """Results `gap/METRIC` and their average."""
        unit = "pp" if set(self.metrics) <= set(gap.PAPERS_FOUR) else ""
        detail = {
            "oracle": Path(self.oracle).as_posix(),
            "metrics": self.metrics,
            "recipe": self.recipe,
        }

        def average(names: Sequence[str]) -> float:
            values = {name: measured[name].number for name in names}
            return gap.average_gap(values, {name: oracle.value(name) for name in names})

        return [
            *(
                compute_result(f"gap/{name}", partial(average, [name]), False, "", unit)
                for name in self.metrics
            ),
            compute_result("avg_gap", partial(average, self.metrics), False, "", unit, detail),
        ]

    def _distances(self, outputs: Evaluated, oracle: RunResults) -> list[Result]:
        """Distances between the outputs of model and oracle on the forget set."""
        forget = outputs["forget"]
        oracle_forget = load_outputs(self.oracle, oracle.hashes["weights"])["forget"]
        # regression
        if "prediction" in forget:
            predictions = (forget["prediction"], oracle_forget["prediction"])
            distance = partial(distances.wasserstein1, *predictions)
            return [compute_result("wasserstein", distance, False, "forget")]
        if "logits" not in forget:
            return []
        # classification
        logits = (forget["logits"].cpu(), oracle_forget["logits"])
        activation_distance, js_divergence, completeness = (
            partial(distance, *logits)
            for distance in (
                distances.activation_distance,
                distances.js_divergence,
                distances.completeness,
            )
        )
        return [
            compute_result("activation_distance", activation_distance, False, "forget"),
            compute_result("JS", js_divergence, False, "forget", "nats"),
            compute_result(
                "completeness",
                lambda: Rate(completeness(), len(logits[0]), len(logits[0])),
                True,
                "forget",
                "%",
            ),
        ]


def _tug_of_war(measured: Mapping[str, Result], oracle: RunResults) -> list[Result]:
    """Result `ToW`, where model and oracle have all three accuracies."""
    names = _ACCURACIES
    if not all(name in measured and oracle.has(name) for name in names):
        return []

    def product() -> float:
        accuracies = {name: measured[name].number for name in names}
        return gap.tow(accuracies, {name: oracle.value(name) for name in names})

    return [compute_result("ToW", product, True)]

"""Base class of suites of language models: metric graph, oracle log, curves during the fit."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from callbacks.base import Evaluated, Suite, module_of, run_folder
from callbacks.curves import Curves
from callbacks.oracle_commands import oracle_commands
from callbacks.results_writer import ResultsWriter, recorded_folder
from mu.backbones import Backbone
from mu.core.module import UnlearningModule
from mu.evaluation.text.graph import Graph, Metric, OracleLog
from mu.evaluation.text.oracle import OracleFile, OracleModel, SelfOracle, save_log
from mu.evaluation.text.session import CACHE, shared_graph, warn_of_short_answers
from mu.metrics.results import Result, compute_result
from mu.utils.errors import InputError, UndefinedError

KEPT = ("retain_perturbed", "real_authors", "world_facts")
"""TOFU's sets of the model utility."""
CHOICES = ("real_authors", "world_facts")
"""Those of them whose rows have wrong answers and no paraphrase."""


class TextSuite(Suite):
    """Base of suites of language models: results of a metric graph, in tests and during fits.

    Args:
        oracle: the oracle's run folder or log of items (`items.json`; OpenUnlearning's and TOFU's
            own logs are read too), or its model, which is then measured on the same sets. The
            folder of the run itself marks the run as the oracle, as does `Retrain`.
        store: cache folder of the results of batches, under the hash of the model and of the
            exact tokens; with a common folder for the runs of a study, the oracle's model is
            measured once. The run folder's `evaluation` when None.
        every_n_epochs: measure during a fit too, and log the results as curves under their names;
            None measures in tests only.
        tokens_per_batch: tokens of a forward pass, with padding; see Graph.
        prompts_per_batch: prompts of a call to `generate`.
    """

    needs_oracle: str = ""
    """Metrics that are missing without an oracle, in words."""

    def __init__(
        self,
        oracle: str | Backbone | None = None,
        store: str | None = None,
        every_n_epochs: int | None = None,
        tokens_per_batch: int | None = None,
        prompts_per_batch: int = 32,
    ) -> None:
        if every_n_epochs is not None and every_n_epochs < 1:
            raise InputError(
                f"every_n_epochs is {every_n_epochs}; it is at least 1, or null for never."
            )
        self.oracle = oracle
        self.store = store
        self.every_n_epochs = every_n_epochs
        self.tokens_per_batch = tokens_per_batch
        self.prompts_per_batch = prompts_per_batch
        self._log: OracleLog | None = None

    @abstractmethod
    def results(self, graph: Graph, log: OracleLog | None) -> list[Result]:
        """Results of the suite.

        Args:
            graph: metric graph of the model.
            log: log of the oracle, or None.
        """

    def check_run(self, module: UnlearningModule) -> None:
        super().check_run(module)
        max_new_tokens = getattr(self, "max_new_tokens", None)
        if max_new_tokens is not None:
            warn_of_short_answers(module, max_new_tokens)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read the oracle's log before anything is computed."""
        super().setup(trainer, pl_module, stage)
        self._log = None
        if stage in ("fit", "test"):
            self._log = self._oracle_log(trainer, module_of(pl_module))
        if stage == "test" and self._log is None and self.oracle is None:
            self._warn_without_oracle(trainer)

    def _warn_without_oracle(self, trainer: Trainer) -> None:
        """Name the commands that make an oracle; a study makes its own."""
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        of_study = any(isinstance(entry, ResultsWriter) and entry.key for entry in callbacks)
        if self.needs_oracle and not of_study:
            rank_zero_warn(
                f"{type(self).__name__} has no oracle, so it measures no {self.needs_oracle}; "
                f"{oracle_commands(fine_tuned=True)} make one (BASE: the model before it learnt "
                "the data), which --trainer.callbacks.oracle runs/oracle takes."
            )

    def measure(self, outputs: Evaluated, module: UnlearningModule) -> list[Result]:
        """Results of the suite; writes the run folder's `items.json`."""
        folder = recorded_folder(module)
        graph = self._graph(module, folder)
        results = self.results(graph, self._oracle(graph, module))
        sharded = module.device_mesh is not None
        if not sharded and not module.trains_from_scratch and graph.weights == module.original_hash:
            module.facts["weights"] = "the original's own: nothing was unlearned"
        if graph.encoder.cuts:
            module.facts["cut_sequences"] = graph.encoder.cuts
        if sharded:
            module.facts["items"] = "not written, because sharded weights have no hash"
        elif folder is not None and module.global_rank == 0:
            save_log(folder, graph)
        return results

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the results of the suite as curves."""
        if not self.every_n_epochs or (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        module = module_of(pl_module)
        with module.stopwatch("evaluation"), torch.no_grad():
            graph = self._graph(module, None)
            values = {
                result.metric: result.value
                for result in self.results(graph, self._oracle(graph, module))
                if result.value is not None
            }
        for name, value in values.items():
            module.log(name, value, sync_dist=module.world_size > 1, reduce_fx="max")
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        for curves in (callback for callback in callbacks if isinstance(callback, Curves)):
            _add(
                curves.rows,
                {
                    "epoch": float(trainer.current_epoch),
                    "step": float(trainer.global_step),
                    **values,
                },
            )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Release the graph."""
        module_of(pl_module).cache.pop(Graph, None)

    def _graph(self, module: UnlearningModule, folder: Path | None) -> Graph:
        store = None if folder is None else Path(self.store) if self.store else folder / CACHE
        return shared_graph(
            module,
            store,
            tokens_per_batch=self.tokens_per_batch,
            prompts_per_batch=self.prompts_per_batch,
        )

    # ---- the oracle ------------------------------------------------------------------------------

    def _oracle_log(self, trainer: Trainer, module: UnlearningModule) -> OracleLog | None:
        """Log of the oracle; None without an oracle, and for a model, which is measured later."""
        from mu.methods import Retrain

        if isinstance(self.oracle, Backbone):
            return None
        if self.oracle is None:
            return SelfOracle() if isinstance(module, Retrain) else None
        if Path(self.oracle).resolve() == run_folder(trainer).resolve():
            return SelfOracle()
        if not Path(self.oracle).exists():
            raise InputError(
                f"there is no oracle at {self.oracle}; "
                f"{oracle_commands(self.oracle, fine_tuned=True)} make one (BASE: the model before "
                "it learnt the data)."
            )
        return OracleFile(self.oracle)

    def _oracle(self, graph: Graph, module: UnlearningModule) -> OracleLog | None:
        if self._log is None and isinstance(self.oracle, Backbone):
            folder = recorded_folder(module)
            store = Path(self.store) if self.store else None if folder is None else folder / CACHE
            self._log = OracleModel(graph.for_model(self.oracle, store), module.device)
        return self._log


def retained_sets(
    graph: Graph, sets: Sequence[str] | None, choices: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Sets of the model utility, and those among them whose rows are choices.

    Args:
        graph: metric graph of the task.
        sets: names of the sets; TOFU's three where the task has them, else `retain`, when None.
        choices: names of those with wrong answers and no paraphrase; TOFU's two when None.
    """
    if sets is None:
        sets = [name for name in KEPT if name in graph.sets] or ["retain"]
    if choices is None:
        choices = CHOICES
    return tuple(sets), tuple(name for name in choices if name in sets)


def metric_result(
    graph: Graph,
    metric: str,
    node: Metric,
    higher_is_better: bool | None = None,
    split: str = "",
    unit: str = "",
    detail: Mapping[str, Any] | None = None,
) -> Result:
    """Result of a node of the graph, with its own detail; undefined where the node is.

    Args:
        graph: metric graph of the model.
        metric: name of the result.
        node: the node.
        higher_is_better: see Result.
        split: see Result.
        unit: see Result.
        detail: further detail, behind the node's.
    """
    about = {**detail_of(graph, node), **(detail or {})}
    return compute_result(
        metric, lambda: graph.value(node).value, higher_is_better, split, unit, about
    )


def detail_of(graph: Graph, node: Metric) -> Mapping[str, Any]:
    """Detail of a metric; empty where it is undefined."""
    try:
        return graph.value(node).detail
    except UndefinedError:
        return {}


def unique_names(names: Sequence[str], option: str) -> tuple[str, ...]:
    """Names of sets, each once.

    Args:
        names: the names.
        option: name of the suite's option, for the message.

    Raises:
        InputError: when a name occurs twice.
    """
    if len(set(names)) < len(names):
        raise InputError(f"{option} names a set twice: {', '.join(names)}.")
    return tuple(names)


def _add(rows: list[dict[str, float]], row: dict[str, float]) -> None:
    """Add a row to curves, one for each step."""
    if rows and rows[-1]["step"] == row["step"]:
        rows[-1].update(row)
    else:
        rows.append(row)

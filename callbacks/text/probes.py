"""Probes of a language model's hidden states: linear probe and logit lens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from callbacks import scores
from callbacks.base import Evaluated, Suite
from callbacks.text.base import detail_of
from mu.core.module import UnlearningModule
from mu.evaluation.text.graph import Graph, Metric
from mu.evaluation.text.hidden_states import probed_model
from mu.evaluation.text.leaves import Answer
from mu.evaluation.text.probes import LensAccuracy, ProbeAccuracy
from mu.metrics.rates import Rate
from mu.metrics.results import Result, compute_result


class LinearProbe(Suite):
    """Linear probe of the hidden states for the right one of two answers.

    See `mu.evaluation.text.probes`.

    `linear_probe` is the share of right choices in percent, at the layer where it is largest; 50 is
    chance. Some wrong answers are unlikely in themselves, so it must be compared with its controls,
    which are the same probe, its layer chosen in the same way:

    - `linear_probe/holdout`: the served model, on questions that no model was trained on (where the
      task has them, with wrong answers);
    - `linear_probe/untrained`: a model of the same architecture with random weights, on the same
      questions;
    - `linear_probe/excess`: `linear_probe` minus the larger control, in percentage points. It is
      largest before unlearning.

    Batches of hidden states are divided among ranks and gathered; every rank fits the same
    regressions.

    Args:
        set: question set with wrong answers.
        right: column of the true answers, which should be worded like the wrong ones. Sets
            without a paraphrase take `answer`.
        control: set of questions that no model was trained on; None takes `holdout` where its rows
            have wrong answers.
        untrained: whether the model with random weights is probed.
        seed: seed of the training half of the questions, and of the random weights.
        strength: C of scikit-learn's logistic regression.
    """

    definitions: ClassVar[Mapping[str, str]] = {
        "linear_probe": "Share of right choices between two answers by a linear probe of the "
        "hidden states, at the best layer, in percent; 50 is chance, lower is better.",
        "linear_probe/excess": "linear_probe minus its larger control, in percentage points; lower "
        "is better.",
        "linear_probe/": "Control of linear_probe: the same probe on questions that no model was "
        "trained on (holdout), or of a model with random weights (untrained), in percent.",
    }

    def __init__(
        self,
        set: str = "forget",
        right: Answer = "paraphrased_answer",
        control: str | None = None,
        untrained: bool = True,
        seed: int = 0,
        strength: float = 0.01,
    ) -> None:
        self.probe = ProbeAccuracy(set, right, seed, strength)
        self.control = control
        self.untrained = untrained

    def measure(self, outputs: Evaluated, module: UnlearningModule) -> list[Result]:
        """`linear_probe`, its controls, and the excess over them."""
        served: Any = module.served()
        graph = scores.metric_graph(served, module)
        graphs: dict[str, tuple[Graph, Metric]] = {}
        control = _control(graph, self.control, self.probe, "perturbed_answer", self.probe.right)
        if control is not None:
            graphs["holdout"] = (graph, control)
        if self.untrained:
            fresh = probed_model(served).fresh(self.probe.seed).eval()
            graphs["untrained"] = (graph.for_model(fresh), self.probe)
        # controls first, because they are part of the detail
        controls = {
            name: _percent_result(f"linear_probe/{name}", *probed, None, self.control or name)
            for name, probed in graphs.items()
        }
        levels = {
            name: result.value for name, result in controls.items() if result.value is not None
        }
        detail = {"right_answer": self.probe.right, **levels}
        accuracy = _percent_result(
            "linear_probe", graph, self.probe, False, self.probe.set, detail=detail
        )
        excess = compute_result(
            "linear_probe/excess",
            lambda: accuracy.number - max(control.number for control in controls.values()),
            False,
            self.probe.set,
            "pp",
            levels,
        )
        return [accuracy, *controls.values(), *([excess] if controls else [])]


class LogitLens(Suite):
    """Logit lens: true tokens of an answer that are the first choice of a layer.

    See `mu.evaluation.text.probes`.

    `logit_lens` is the share of an answer's tokens that are a layer's first choice, teacher forced,
    in percent, at the layer where it is largest; the detail has it by layer, with the mean
    probability of the true token and the mean of 1 / (1 + its rank). Parts:

    - `logit_lens/unsaid`: `logit_lens` minus the last layer's share, the prediction of the model
      itself, in percentage points;
    - `logit_lens/holdout`: the same on questions that no model was trained on, because much of an
      answer is grammar (where the task has them).

    Nothing is trained. Batches are divided among ranks and gathered.

    Args:
        set: question set.
        control: set of questions that no model was trained on; None takes `holdout` where there is
            one.
    """

    definitions: ClassVar[Mapping[str, str]] = {
        "logit_lens": "Share of an answer's tokens that are the first choice of a layer, at the "
        "best layer, in percent; lower is better.",
        "logit_lens/unsaid": "logit_lens minus the last layer's share, in percentage points; lower "
        "is better.",
        "logit_lens/": "Control of logit_lens: the same on questions that no model was trained on, "
        "in percent.",
    }

    def __init__(self, set: str = "forget", control: str | None = None) -> None:
        self.lens = LensAccuracy(set)
        self.control = control

    def measure(self, outputs: Evaluated, module: UnlearningModule) -> list[Result]:
        """`logit_lens`, its excess over the last layer, and its control."""
        graph = scores.metric_graph(module.served(), module)
        node = _control(graph, self.control, self.lens)
        controls = []
        if node is not None:
            set_name = self.control or "holdout"
            controls = [_percent_result("logit_lens/holdout", graph, node, None, set_name)]
        levels = {"holdout": controls[0].value} if controls and not controls[0].undefined else {}
        detail = detail_of(graph, self.lens)
        accuracy = _percent_result(
            "logit_lens", graph, self.lens, False, self.lens.set, detail=levels
        )
        unsaid = compute_result(
            "logit_lens/unsaid",
            lambda: accuracy.number - 100 * detail["last_layer"],
            False,
            self.lens.set,
            "pp",
            {"layer": detail["layer"]} if detail else {},
        )
        return [accuracy, unsaid, *controls]


def _percent_result(
    metric: str,
    graph: Graph,
    node: Metric,
    higher_is_better: bool | None,
    split: str,
    detail: Mapping[str, Any] | None = None,
) -> Result:
    """Result of a share, in percent, with its own detail; of a share of questions, their number."""

    def percent() -> float | Rate:
        measured = graph.value(node)
        questions = measured.detail.get("questions")
        value = 100 * measured.value
        return value if questions is None else Rate(value, questions, questions)

    about = {**detail_of(graph, node), **(detail or {})}
    return compute_result(metric, percent, higher_is_better, split, "%", about)


def _control(graph: Graph, control: str | None, metric: Any, *columns: str) -> Metric | None:
    """Control metric on questions that no model was trained on.

    The set is `control`, or `holdout` where its rows have the columns; None without.
    """
    if control is not None:
        return replace(metric, set=control)
    rows = graph.sets["holdout"].rows if "holdout" in graph.sets else []
    complete = len(rows) > 0 and all(row.get(column) for row in rows for column in columns)
    return replace(metric, set="holdout") if complete else None

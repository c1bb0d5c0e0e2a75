"""Probes of a language model's hidden states: linear probe and logit lens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from callbacks import scores
from callbacks.base import Evaluated, Suite
from mu.core.module import UnlearningModule
from mu.evaluation.text.graph import Graph, Measurement
from mu.evaluation.text.hidden_states import probed_model
from mu.evaluation.text.leaves import Answer
from mu.evaluation.text.probes import LensAccuracy, ProbeAccuracy
from mu.metrics.results import Result


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
        accuracy = graph.value(self.probe)
        controls = _of_control(
            graph, self.control, self.probe, "perturbed_answer", self.probe.right
        )
        if self.untrained:
            controls["untrained"] = graph.for_model(
                probed_model(served).fresh(self.probe.seed).eval()
            ).value(self.probe)
        level = 100 * accuracy.value
        control_levels = {name: 100 * control.value for name, control in controls.items()}
        results = [
            Result(
                "linear_probe",
                level,
                False,
                self.probe.set,
                "%",
                {**accuracy.detail, "right_answer": self.probe.right, **control_levels},
            )
        ]
        results += [
            Result(
                f"linear_probe/{name}",
                100 * control.value,
                None,
                self.control or name,
                "%",
                control.detail,
            )
            for name, control in controls.items()
        ]
        if control_levels:
            results.append(
                Result(
                    "linear_probe/excess",
                    level - max(control_levels.values()),
                    False,
                    self.probe.set,
                    "pp",
                    control_levels,
                )
            )
        return results


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
        accuracy = graph.value(self.lens)
        controls = _of_control(graph, self.control, self.lens)
        control_levels = {name: 100 * control.value for name, control in controls.items()}
        unsaid = 100 * (accuracy.value - accuracy.detail["last_layer"])
        return [
            Result(
                "logit_lens",
                100 * accuracy.value,
                False,
                self.lens.set,
                "%",
                {**accuracy.detail, **control_levels},
            ),
            Result(
                "logit_lens/unsaid",
                unsaid,
                False,
                self.lens.set,
                "pp",
                {"layer": accuracy.detail["layer"]},
            ),
            *(
                Result(
                    f"logit_lens/{name}",
                    100 * control.value,
                    None,
                    self.control or name,
                    "%",
                    control.detail,
                )
                for name, control in controls.items()
            ),
        ]


def _of_control(
    graph: Graph, control: str | None, metric: Any, *columns: str
) -> dict[str, Measurement]:
    """Control metric on questions that no model was trained on.

    The set is `control`, or `holdout` where its rows have the columns.
    """
    if control is not None:
        return {"holdout": graph.value(replace(metric, set=control))}
    rows = graph.sets["holdout"].rows if "holdout" in graph.sets else []
    complete = len(rows) > 0 and all(row.get(column) for row in rows for column in columns)
    return {"holdout": graph.value(replace(metric, set="holdout"))} if complete else {}

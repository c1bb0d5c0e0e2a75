"""Linear probes and the logit lens as suites, beside their controls."""

from __future__ import annotations

import pytest
import torch

from callbacks.text.probes import LinearProbe, LogitLens
from mu.data.questions import QuestionSet
from mu.data.split import Split
from mu.evaluation.text.graph import Graph
from mu.evaluation.text.probes import LensAccuracy, ProbeAccuracy
from mu.methods import FineTune
from tests.support.doubles_text import People, causal_lm, folder, people
from tests.support.helpers import (
    State,
)
from tests.support.text_attacks import measured


def test_the_probe_stands_beside_its_controls(trained: dict[str, State]) -> None:
    """Fails when a control is the served model's own number, or the excess is over the smaller
    one.
    """
    module = FineTune(causal_lm(trained["original"]))
    results = measured(module, LinearProbe(right="answer"))
    task = people()
    task.setup()
    node = ProbeAccuracy("forget", "answer")
    model = module.backbone
    assert isinstance(model, type(causal_lm()))
    values = {
        "": Graph(model, task.sets, task.encoder).value(node).value,
        "/holdout": Graph(model, task.sets, task.encoder)
        .value(ProbeAccuracy("holdout", "answer"))
        .value,
        "/untrained": Graph(model.fresh(0), task.sets, task.encoder).value(node).value,
    }
    for name, value in values.items():
        assert results[f"linear_probe{name}"].value == pytest.approx(100 * value)
    assert results["linear_probe/excess"].value == pytest.approx(
        100 * (values[""] - max(values["/holdout"], values["/untrained"]))
    )
    assert {"layer", "by_layer", "questions_learnt_from", "questions", "C", "probe_seed"} <= set(
        results["linear_probe"].detail
    )


class Bare(People):
    """The holdout rows have no wrong answers, as those of TOFU."""

    def read(self) -> tuple[Split, dict[str, QuestionSet]]:
        split, sets = super().read()
        rows = sets["holdout"]
        plain = [{name: row[name] for name in ("question", "answer")} for row in rows.rows]
        return split, {**sets, "holdout": QuestionSet("holdout", plain, rows.indices)}


def test_a_control_that_cannot_be_measured_is_left_out_unless_it_is_named(
    trained: dict[str, State],
) -> None:
    module = FineTune(causal_lm(trained["original"]))
    results = measured(module, LinearProbe(), LogitLens(), task=Bare(tokenizer=folder()))
    assert (
        "linear_probe/holdout" not in results
        and "linear_probe/untrained" in results
        and "logit_lens/holdout" in results
    )
    probe = LinearProbe(control="holdout", untrained=False)
    results = measured(module, probe, task=Bare(tokenizer=folder()))
    reason = "no row of the set holdout has paraphrased_answer."
    assert results["linear_probe/holdout"].undefined == reason
    assert reason in results["linear_probe/excess"].undefined
    assert results["linear_probe"].interval is not None


def test_logit_lens_finds_answers_that_the_output_hides(trained: dict[str, State]) -> None:
    """Fails when an untouched model passes, or `unsaid` is not beyond the last layer."""
    module = FineTune(causal_lm(trained["original"]))
    untouched = measured(module, LogitLens())
    oracle = measured(FineTune(causal_lm(trained["oracle"])), LogitLens())
    assert untouched["logit_lens"].value > oracle["logit_lens"].value + 5
    task = people()
    task.setup()
    value = Graph(module.backbone, task.sets, task.encoder).value(LensAccuracy("forget"))
    assert untouched["logit_lens"].value == pytest.approx(100 * value.value)
    # a last layer that turns its input over says something else than the layer before it holds
    with torch.no_grad():
        module.backbone.network.model.layers[-1].mlp.down_proj.weight.normal_(0, 3)  # type: ignore[union-attr]
    broken = measured(module, LogitLens())
    assert broken["logit_lens"].detail["layer"] == 0 and broken["logit_lens/unsaid"].value > 20
    lens_detail = broken["logit_lens"].detail
    assert broken["logit_lens/unsaid"].value == pytest.approx(
        broken["logit_lens"].value - 100 * lens_detail["last_layer"]
    )

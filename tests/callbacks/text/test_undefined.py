"""Suites of language models on destroyed models and plain questions: what has no value says why."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from callbacks import ResultsWriter
from callbacks.text.memorisation import Memorisation
from callbacks.text.probes import LogitLens
from callbacks.text.tofu import TOFU
from mu.data.questions import QuestionSet
from mu.methods import FineTune
from mu.metrics.results import Result
from mu.metrics.run_results import RunResults
from tests.support.doubles_text import causal_lm, people
from tests.support.helpers import trainer
from tests.support.text_runs import SETTINGS, run, suites


def destroyed(value: float) -> Any:
    """A model whose last norm has one value everywhere."""
    lm = causal_lm()
    norm = [module for name, module in lm.named_modules() if name.endswith("norm")][-1]
    with torch.no_grad():
        norm.weight.fill_(value)
    return lm


def by_metric(module: Any) -> dict[str, Result]:
    return {result.metric: result for result in module.results}


def test_a_nan_model_has_no_metric(tmp_path: Path) -> None:
    """Fails when the largest of NaN counts as a token, or as a word of an answer."""
    callbacks = [*suites()[:2], LogitLens(), ResultsWriter()]
    results = by_metric(run(FineTune(destroyed(math.nan)), tmp_path, 0, callbacks))
    assert {"EM", "ES", "ROUGE/forget", "MU", "AUC/loss", "memorisation", "logit_lens"} <= set(
        results
    )
    for result in results.values():
        assert result.value is None and "diverged" in result.undefined, result.metric
    assert [result.metric for result in RunResults.load(tmp_path).results] == list(results)


def test_a_destroyed_model_has_no_perfect_truth_ratio(tmp_path: Path) -> None:
    """Right and wrong answers are below 1e-10; the oracle's log keeps what is undefined."""
    oracle = tmp_path / "oracle"
    module = run(FineTune(destroyed(1e4)), oracle, 0, suites(str(oracle)))
    results = by_metric(module)
    assert results["P/retain"].number < 1e-10
    assert "less likely than 1e-10" in results["TR/retain"].undefined
    # the harmonic mean is 0 where a part is, and undefined otherwise, but never a good value
    assert results["MU"].value in (0.0, None)
    # on the forget set the published value stays: far from any oracle's
    assert results["TR/forget"].number < 1e-3
    # the other numbers of the suite stay
    assert results["ROUGE/retain"].value is not None and results["EM"].value is not None
    other = run(FineTune(causal_lm()), tmp_path / "run", 0, suites(str(oracle)))
    assert by_metric(other)["FQ"].number < 1


@pytest.mark.parametrize("kept", [None, ["retain"]])
def test_plain_questions_are_measured_without_paraphrases(
    kept: list[str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Probability, ROUGE, EM, ES and membership need question and answer only."""
    task = people()
    plain = {
        name: QuestionSet(
            name,
            [{"question": row["question"], "answer": row["answer"]} for row in rows.rows],
            rows.indices,
        )
        for name, rows in task.sets.items()
        if name in ("forget", "retain", "holdout")
    }
    monkeypatch.setattr(type(task), "sets", property(lambda self: plain))
    short = {key: value for key, value in SETTINGS.items() if key not in ("kept", "choices")}
    module = FineTune(causal_lm())
    trainer(
        1,
        callbacks=[TOFU(kept=kept, **short), Memorisation(kept=kept, **short)],
        default_root_dir=str(tmp_path),
    ).test(module, datamodule=task, verbose=False)
    results = by_metric(module)
    for name in ("P/forget", "ROUGE/forget", "P/retain", "ROUGE/retain", "ES", "EM", "AUC/loss"):
        assert results[name].value is not None, name
    for name in ("MU", "TR/forget", "TR/retain", "P/paraphrased", "memorisation", "utility"):
        assert "has p" in results[name].undefined, name


def test_without_held_out_rows_the_attacks_say_what_they_lack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = people()
    sets = {name: rows for name, rows in task.sets.items() if name != "holdout"}
    monkeypatch.setattr(type(task), "sets", property(lambda self: sets))
    module = FineTune(causal_lm())
    trainer(1, callbacks=[Memorisation(**SETTINGS)], default_root_dir=str(tmp_path)).test(
        module, datamodule=task, verbose=False
    )
    results = by_metric(module)
    assert "data.test_fraction" in results["AUC/loss"].undefined
    assert results["ES"].value is not None

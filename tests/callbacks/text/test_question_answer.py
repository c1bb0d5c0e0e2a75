"""Rows with a question and an answer alone are measured, and every metric is defined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from callbacks import QuestionAnswering, ResultsWriter
from callbacks.text.memorisation import Memorisation
from callbacks.text.tofu import TOFU
from mu.core.module import UnlearningModule
from mu.data.questions import QuestionSet
from mu.data.split import Split
from mu.metrics.results import Result
from mu.utils.errors import InputError
from tests.support.doubles_text import People, causal_lm, folder
from tests.support.helpers import trainer

SETTINGS: dict[str, Any] = {
    "max_new_tokens": 5,
    "tokens_per_batch": 100,
    "prompts_per_batch": 4,
}


class PlainPeople(People):
    """The rows of `People` without paraphrases and wrong answers."""

    def read(self) -> tuple[Split, dict[str, QuestionSet]]:
        split, sets = super().read()
        plain = {
            name: QuestionSet(
                name,
                [{key: row[key] for key in ("question", "answer")} for row in questions.rows],
                questions.indices,
            )
            for name, questions in sets.items()
        }
        return split, plain


def measured(suites: list[Any], path: Path | None = None, task: Any = None) -> dict[str, Result]:
    module = UnlearningModule(causal_lm())
    more: dict[str, Any] = {} if path is None else {"default_root_dir": str(path)}
    run = trainer(1, callbacks=[*suites, *([ResultsWriter()] if path else [])], **more)
    run.test(module, task or PlainPeople(tokenizer=folder()), verbose=False)
    return {result.metric: result for result in module.results}


def test_every_metric_of_plain_questions_is_defined() -> None:
    results = measured([QuestionAnswering(**SETTINGS)])
    of_sets = {
        f"{short}/{name}"
        for short in ("P", "ROUGE", "exact_match", "perplexity")
        for name in ("forget", "retain")
    }
    attacks = {"AUC/loss", "AUC/zlib", "AUC/min_k", "AUC/min_k_plus_plus"}
    assert set(results) == of_sets | attacks | {"ES", "EM"}
    assert not [result for result in results.values() if result.undefined]


def test_the_values_are_those_of_the_other_suites() -> None:
    """Fails when the suite computes a metric of its own under a published name."""
    plain = measured([QuestionAnswering(**SETTINGS)], task=People(tokenizer=folder()))
    published = measured(
        [TOFU(**SETTINGS), Memorisation(**SETTINGS)], task=People(tokenizer=folder())
    )
    shared = set(plain) & set(published)
    assert shared >= {"P/forget", "ROUGE/forget", "ES", "EM", "AUC/min_k"}
    assert {name: plain[name].value for name in shared} == {
        name: published[name].value for name in shared
    }


def test_retained_sets_have_a_better_direction_and_the_forget_set_none() -> None:
    results = measured([QuestionAnswering(retained=["retain", "facts"], **SETTINGS)])
    directions = {name: results[name].higher_is_better for name in results}
    assert directions["P/forget"] is directions["perplexity/forget"] is directions["ES"] is None
    assert directions["ROUGE/facts"] is directions["exact_match/retain"] is True
    assert directions["perplexity/retain"] is False


def test_privleak_compares_with_the_oracles_run(tmp_path: Path) -> None:
    """The model is its own oracle here, so nothing leaks."""
    measured([QuestionAnswering(**SETTINGS)], tmp_path / "oracle")
    results = measured([QuestionAnswering(str(tmp_path / "oracle"), **SETTINGS)], tmp_path / "run")
    assert results["PrivLeak"].value == 0


def test_a_missing_oracle_is_named_with_the_commands_that_make_one(tmp_path: Path) -> None:
    suite = QuestionAnswering(str(tmp_path / "oracle"), **SETTINGS)
    with pytest.raises(InputError, match=r"`mu fit .*--run \S+oracle` and `mu test .*make one"):
        measured([suite])


def test_a_test_without_an_oracle_says_how_to_make_one_before_it_measures() -> None:
    with pytest.warns(UserWarning, match="measures no PrivLeak; `mu fit .*runs/oracle takes"):
        measured([QuestionAnswering(**SETTINGS)])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"retained": ["forget"]}, "forget is the forget set"),
        ({"retained": ["retain", "retain"]}, "names a set twice"),
        ({"attacks": ["lira"]}, "no membership attack 'lira'"),
    ],
)
def test_arguments_that_contradict_are_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        QuestionAnswering(**arguments)

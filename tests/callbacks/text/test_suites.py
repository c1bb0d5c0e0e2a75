"""The suites of language models in a trainer: everything once, the oracle's log, curves, and two
ranks that say what one does.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from callbacks import ResultsWriter
from callbacks.text.examples import TextExamples
from callbacks.text.memorisation import Memorisation
from callbacks.text.tofu import TOFU
from mu.methods import FineTune, Retrain
from mu.metrics.aggregates import overall_score, utility_score
from mu.metrics.run_results import RunResults
from mu.metrics.tofu import harmonic_mean
from mu.utils.errors import InputError
from mu.utils.files import read_json
from tests.support.doubles_text import causal_lm
from tests.support.helpers import State, digits, distance, trainer, weights
from tests.support.ranks import run_ranks
from tests.support.text_metrics import watched
from tests.support.text_runs import (
    SETTINGS,
    SHOWN,
    numbers,
    run,
    run_all,
    run_sharded,
    suites,
    tuned,
)

PARTS = {
    "P/forget",
    "ROUGE/forget",
    "TR/forget",
    "P/retain",
    "ROUGE/retain",
    "TR/retain",
    "P/facts",
    "ROUGE/facts",
    "TR/facts",
}
AUCS = {"AUC/loss", "AUC/zlib", "AUC/min_k", "AUC/min_k_plus_plus"}
ALONE = {
    "MU",
    *PARTS,
    *AUCS,
    "ES",
    "EM",
    "P/paraphrased",
    "ROUGE/paraphrased",
    "ROUGE/jailbreak",
    "memorisation",
    "utility",
    "selection",
}
WITH_ORACLE = {"FQ", "log10_FQ", "PrivLeak", "privacy", "overall"}


@pytest.fixture(scope="module")
def oracle_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, State]:
    """The run folder of an oracle that was tested with the suites, and its weights."""
    folder = tmp_path_factory.mktemp("runs") / "oracle"
    return folder, weights(
        run(
            Retrain(causal_lm(), optimizer=lambda p: torch.optim.Adam(p, lr=3e-3)), folder, 1
        ).served()
    )


@pytest.fixture(scope="module")
def oracle(oracle_run: tuple[Path, State]) -> Path:
    return oracle_run[0]


def test_without_an_oracle_its_metrics_are_absent(tmp_path: Path) -> None:
    """Fails when forget quality or a leak gets a default; and a run that moved nothing must say
    so.
    """
    module = run(FineTune(causal_lm()), tmp_path)
    results = numbers(module)
    assert set(results) == ALONE and len(module.results) == len(ALONE)
    details = {result.metric: result.detail for result in module.results}
    assert details["TR/forget"]["oracle"] == "none was given, so there is no forget quality"
    assert "no PrivLeak" in details["AUC/min_k"]["oracle"]
    assert "nothing was unlearned" in RunResults.load(tmp_path).facts["weights"]
    nine = [
        results[f"{metric}/{name}"]
        for metric in ("P", "ROUGE", "TR")
        for name in ("retain", "facts")
    ]
    assert (
        results["MU"] == pytest.approx(harmonic_mean(nine))
        and results["utility"] == results["MU"] > 0
    )
    ways = {result.metric: result.higher_is_better for result in module.results}
    assert (
        ways["MU"] is True
        and ways["P/retain"] is True
        and ways["P/forget"] is None
        and ways["AUC/loss"] is None
    )


def test_the_oracles_log_serves_another_run(oracle: Path, tmp_path: Path) -> None:
    """Fails when the oracle does not agree with itself, or a run compares with something else than
    its items.
    """
    itself = RunResults.load(oracle)
    assert (
        itself.value("FQ"),
        itself.value("log10_FQ"),
        itself.value("PrivLeak"),
        itself.value("privacy"),
    ) == (1, 0, 0, 1)
    assert "weights" not in itself.facts
    module = run(tuned(), tmp_path, 1, suites(str(oracle)))
    results = numbers(module)
    assert set(results) == ALONE | WITH_ORACLE and "weights" not in RunResults.load(tmp_path).facts
    measured, logged = (
        read_json(folder / "items.json")["items"]["truth_ratio/forget"]
        for folder in (tmp_path, oracle)
    )
    assert list(measured) == list(logged) == [str(index) for index in range(13)]
    from scipy.stats import ks_2samp

    expected: Any = ks_2samp(list(measured.values()), list(logged.values()))
    assert results["FQ"] == pytest.approx(expected.pvalue)
    detail = next(result.detail for result in module.results if result.metric == "FQ")
    assert detail["oracle"] == f"weights {itself.hashes['weights']}" and detail["items"] == 13
    auc = results["AUC/min_k"]
    other = itself.value("AUC/min_k")
    assert results["PrivLeak"] == pytest.approx(100 * ((1 - auc) - (1 - other)) / (1 - other))
    assert results["overall"] == pytest.approx(
        overall_score(results["memorisation"], results["privacy"], results["utility"])
    )


def test_the_oracles_model_is_measured_once_and_found_by_its_hash(
    oracle_run: tuple[Path, State], tmp_path: Path
) -> None:
    """The model in place of its log: the same numbers, and a common store spares the second run all
    of it.
    """
    oracle, state = oracle_run
    by_log = numbers(run(FineTune(causal_lm()), tmp_path / "a", 0, suites(str(oracle))))
    watched_model = watched()
    watched_model.load_state_dict(state)
    by_model = numbers(
        run(
            FineTune(causal_lm()),
            tmp_path / "b",
            0,
            suites(watched_model, store=str(tmp_path / "store")),
        )
    )
    assert by_model.keys() == by_log.keys()
    for name, value in by_log.items():
        assert by_model[name] == pytest.approx(value, rel=1e-5, abs=1e-7), name
    calls = dict(watched_model.calls)
    assert calls["rows"] == 13 + 39 + 13 + 11 and "prompts" not in calls, (
        "truth ratios, and the sets of the attacks, nothing else"
    )
    again = watched()
    again.load_state_dict(state)
    run(
        FineTune(causal_lm()),
        tmp_path / "c",
        0,
        [TOFU(again, store=str(tmp_path / "store"), **SETTINGS), ResultsWriter()],
    )
    assert not again.calls


def test_all_suites_share_one_generation(tmp_path: Path) -> None:
    """Fails when a suite scores or generates again what another did; and a second test of the same
    weights computes nothing.
    """
    lm = watched()
    run(FineTune(lm), tmp_path, 0, [*suites(), TOFU(**SETTINGS)])
    # forget: answer, paraphrase, three wrong ones; retain the same, facts without a paraphrase;
    # holdout; and the first prompt of each batch of prompts, whose logits may hold NaN
    batches = sum(-(-count // SETTINGS["prompts_per_batch"]) for count in (13, 20, 4, 13))
    assert lm.calls["rows"] == 13 * 5 + 20 * 5 + 4 * 4 + 11 + batches
    assert lm.calls["prompts"] == 13 + 20 + 4 + 13, (
        "each set, and forget with the jailbreak's prefix; the examples are among them"
    )
    lm.calls.clear()
    run(FineTune(lm), tmp_path)
    assert not lm.calls


def test_curves_during_a_fit(oracle: Path, tmp_path: Path) -> None:
    """Every second epoch, under the results' names, without moving a weight; the last point is what
    the test then says.
    """
    plain = tuned()
    trainer(4).fit(plain, datamodule=_people())
    module = run(tuned(), tmp_path, 4, suites(str(oracle), every_n_epochs=2))
    assert distance(weights(plain.backbone), weights(module.backbone)) == 0
    rows: Any = read_json(tmp_path / "curves.json")
    assert [row["epoch"] for row in rows] == [1, 3] and [row["step"] for row in rows] == [8, 16]
    assert set(rows[0]) == {"epoch", "step", "MU", "FQ", "log10_FQ", *PARTS}
    last = rows[-1]
    results = numbers(module)
    assert (
        all(results[name] == value for name, value in last.items() if name in results)
        and rows[0]["P/retain"] != last["P/retain"]
    )


def _people() -> Any:
    from tests.support.doubles_text import people

    return people()


def test_curves_are_logged(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()

    class Listening(TOFU):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            super().on_train_epoch_end(trainer, pl_module)
            seen.update(name for name in trainer.callback_metrics if name in {"MU", "TR/forget"})

    run_trainer = trainer(
        2, callbacks=[Listening(every_n_epochs=1, **SETTINGS)], default_root_dir=str(tmp_path)
    )
    run_trainer.fit(tuned(), datamodule=_people())
    assert (
        run_trainer.callback_metrics["MU"] >= 0
        and run_trainer.callback_metrics["TR/forget"] > 0
        and seen["MU"] >= 1
    )
    assert not (tmp_path / "items.json").exists()


def test_utility_as_a_share_of_the_originals(tmp_path: Path) -> None:
    original = numbers(run(FineTune(causal_lm()), tmp_path / "original"))
    both = [
        TOFU(**SETTINGS),
        Memorisation(original=str(tmp_path / "original"), **SETTINGS),
        ResultsWriter(),
    ]
    module = run(tuned(), tmp_path / "run", 1, both)
    results = numbers(module)
    assert (
        results["utility"]
        == pytest.approx(utility_score(results["MU"], original["MU"]))
        != results["MU"]
    )


def test_examples_stand_beside_the_pictures(tmp_path: Path) -> None:
    """Questions spread over a set; answers as the model gives them; a second test replaces them."""
    lm = causal_lm()
    for _ in range(2):
        run(
            FineTune(lm),
            tmp_path,
            0,
            [TextExamples(["forget", "holdout"], 3, **SHOWN), ResultsWriter()],
        )
    assert [entry["file"] for entry in read_json(tmp_path / "media" / "media.json")] == [
        "examples_forget.json",
        "examples_holdout.json",
    ]
    assert read_json(tmp_path / "media" / "media.json")[0]["kind"] == "text"
    rows: Any = read_json(tmp_path / "media" / "examples_forget.json")
    task = _people()
    truths = {row["question"]: row["answer"] for row in task.sets["forget"].rows}
    assert len({row["prompt"] for row in rows}) == 3
    for row in rows:
        answer = lm.generate([task.encoder.prompt(row["prompt"])], max_new_tokens=5)[0]
        assert row == {"prompt": row["prompt"], "answer": answer, "truth": truths[row["prompt"]]}
    from mu.bench.report.galleries import _text_rows  # what the report makes of the file

    assert _text_rows(tmp_path / "media" / "examples_forget.json") == rows


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: TOFU(kept=["retain_perturbed"]), r"no set 'retain_perturbed'"),
        (
            lambda: TOFU(kept=["retain", "facts"], max_new_tokens=3, choices=[], forget="nothing"),
            r"no set 'nothing'",
        ),
        (lambda: Memorisation(**{**SETTINGS, "holdout": "strangers"}), r"no set 'strangers'"),
        (lambda: Memorisation(attacks=["reference"], **SETTINGS), r"give the suite the oracle"),
        (lambda: TOFU("runs/nowhere", **SETTINGS), r"there is no oracle at runs/nowhere"),
    ],
)
def test_undefined_measurements_are_refused(make: Any, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=sentence):
        run(FineTune(causal_lm()), tmp_path, 0, [make()])


def test_invalid_arguments_are_refused() -> None:
    for make, sentence in (
        (lambda: TOFU(kept=["retain"], choices=["facts"]), "which kept does not"),
        (lambda: TOFU(kept=["forget"]), "cannot be kept"),
        (lambda: TOFU(kept=["retain", "retain"]), "names a set twice"),
        (lambda: TOFU(every_n_epochs=0), "at least 1"),
        (lambda: Memorisation(attacks=["best"]), "no membership attack 'best'"),  # type: ignore[list-item]
        (lambda: Memorisation(question="other"), "question is 'other'"),
        (lambda: TextExamples(count=0), "at least one example"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError, match=sentence):
            make()


def test_a_task_without_questions_is_refused(tmp_path: Path) -> None:
    from tests.support.helpers import classifier

    with pytest.raises(InputError, match="Digits has none; use a task of questions"):
        trainer(1, callbacks=[TOFU()], default_root_dir=str(tmp_path)).test(
            FineTune(classifier()), datamodule=digits(), verbose=False
        )


@pytest.mark.slow
@pytest.mark.xdist_group("two-ranks")
def test_two_ranks_equal_one_process(oracle: Path, tmp_path: Path) -> None:
    """Fails when a pair is scored twice or not at all, ranks disagree, or one waits for another in
    a fit or before sharded weights.
    """
    os.symlink(oracle, tmp_path / "oracle")
    run_ranks("tests.support.text_runs", str(tmp_path))
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    single = run_all(tmp_path / "one", tmp_path / "oracle")
    assert ranks[0]["results"] == ranks[1]["results"] and ranks[0]["sharded"] == ranks[1]["sharded"]
    for name, value in run_sharded(tmp_path / "whole", tmp_path / "oracle").items():
        assert ranks[0]["sharded"][name] == pytest.approx(value, rel=1e-3, abs=1e-5), (
            f"{name} of sharded weights"
        )
    # weights of two ranks and of one agree within rounding, and so does all that is made of them
    for name, value in single["results"].items():
        assert ranks[0]["results"][name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
    assert (
        [row["step"] for row in ranks[0]["files"]["curves"]]
        == [row["step"] for row in single["files"]["curves"]]
        == [4, 8]
    )
    assert ranks[0]["files"]["examples"] == single["files"]["examples"]
    rank_items = ranks[0]["files"]["items"]
    single_items = single["files"]["items"]
    assert {name: list(items) for name, items in rank_items.items()} == {
        name: list(items) for name, items in single_items.items()
    }

"""Relearning as a suite: gains of an original, of an unlearned model, of an oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from callbacks.quantisation import Quantisation
from callbacks.scores import FILE
from mu.attacks.relearning import Relearn
from mu.evaluation.text.graph import Graph
from mu.evaluation.text.metrics import ExtractionStrength, Probability
from mu.methods import FineTune, Retrain
from mu.metrics.results import Result
from mu.metrics.run_results import RunResults
from mu.utils.errors import InputError
from tests.support.doubles_text import causal_lm, people
from tests.support.helpers import (
    State,
    classifier,
    diabetes,
    digits,
    regressor,
)
from tests.support.text_attacks import adam, ascent, measured, relearning


@pytest.fixture(scope="module")
def relearnt(
    trained: dict[str, State], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Result]]:
    """Relearning of the original, of the oracle, and of a model that ascended, whose fit began with
    the suite; the oracle's run folder.
    """
    folder = tmp_path_factory.mktemp("relearning")
    suite = relearning(metrics=[ExtractionStrength("forget")])
    return {
        "original": measured(FineTune(causal_lm(trained["original"])), suite),
        "oracle": measured(FineTune(causal_lm(trained["oracle"])), suite, folder=folder / "oracle"),
        "ascent": measured(
            ascent(trained["original"]),
            relearning(oracle=str(folder / "oracle")),
            folder=folder / "ascent",
            epochs=3,
        ),
        "place": {"place": Result("place", 0.0, detail={"path": str(folder)})},
    }


def test_an_untouched_model_fails_the_verdict(relearnt: dict[str, dict[str, Result]]) -> None:
    """Fails when the number is what came back, of which an original has nothing."""
    levels = {
        name: results["relearning"].value for name, results in relearnt.items() if name != "place"
    }
    assert levels["original"] > levels["ascent"] + 5 > levels["oracle"] + 10
    for results in (relearnt[name]["relearning"] for name in levels):
        assert results.value == max(results.detail["before"], results.detail["after"])
    assert relearnt["original"]["relearning"].higher_is_better is None
    assert "relearning/returned" not in relearnt["original"]  # nothing had been lost


def test_recovery_is_a_share_of_the_lost_accuracy(relearnt: dict[str, dict[str, Result]]) -> None:
    """Fails when the original's scores are those after the fit, or the share is of another way."""
    results = relearnt["ascent"]
    returned = results["relearning/returned"].detail
    assert returned["original"] == pytest.approx(
        relearnt["original"]["relearning"].detail["before"]
    )
    assert returned["before"] < returned["after"] < returned["original"]
    assert results["relearning/returned"].value == pytest.approx(
        100 * (returned["after"] - returned["before"]) / (returned["original"] - returned["before"])
    )
    assert (
        results["relearning"].value
        == returned["after"]
        == results["relearning/accuracy/withheld"].value
    )


def test_a_model_that_never_saw_the_data_gains_what_the_examples_teach(
    relearnt: dict[str, dict[str, Result]],
) -> None:
    """Fails when used and withheld rows are mixed: the used ones are learnt by anybody."""
    results = relearnt["oracle"]
    gains = {
        rows: results[f"relearning/accuracy/{rows}"].value
        - results[f"relearning/accuracy/{rows}"].detail["before"]
        for rows in ("used", "withheld")
    }
    assert gains["used"] > gains["withheld"] + 10
    assert abs(gains["withheld"]) < 10
    assert results["relearning/loss/used"].value < results["relearning/loss/withheld"].value
    detail = results["relearning"].detail
    assert {
        name: detail[name]
        for name in (
            "examples",
            "steps",
            "batch_size",
            "optimizer",
            "used",
            "withheld",
            "relearnt_from",
        )
    } == {
        "examples": 5,
        "steps": 15,
        "batch_size": 5,
        "optimizer": "Adam 0.003",
        "used": 5,
        "withheld": 8,
        "relearnt_from": "forget",
    }


def test_relearning_gap_to_the_oracle(relearnt: dict[str, dict[str, Result]]) -> None:
    """Fails when r is upside down: (gain of the oracle) / (gain of this model), at most 1."""
    ascent, oracle = (relearnt[name]["relearning"] for name in ("ascent", "oracle"))
    r = (oracle.detail["after"] - oracle.detail["before"]) / (
        ascent.detail["after"] - ascent.detail["before"]
    )
    assert relearnt["ascent"]["relearning/robustness"].value == pytest.approx(min(max(r, 0), 1))
    assert relearnt["ascent"]["relearning/excess"].value == pytest.approx(
        ascent.value - oracle.value
    )


def test_suite_reports_the_values_of_the_attack(
    trained: dict[str, State], relearnt: dict[str, dict[str, Result]]
) -> None:
    task = people()
    task.setup()
    data: Any = task.datasets["forget"]
    attacked = Relearn(5, 15, adam(3e-3))(causal_lm(trained["oracle"]), data)
    used = set(attacked.positions.tolist())
    values: dict[bool, list[float]] = {True: [], False: []}
    for position in range(len(data)):
        part = data.__getitems__([position])
        values[position in used].append(float(attacked.backbone.scores(part)["accuracy"][0]))
    results = relearnt["oracle"]
    assert results["relearning/accuracy/used"].value == pytest.approx(
        100 * np.mean(values[True]), abs=1e-4
    )
    assert results["relearning"].detail["after"] == pytest.approx(
        100 * np.mean(values[False]), abs=1e-4
    )
    rows = task.sets["forget"].select(
        [position for position in range(len(data)) if position not in used]
    )
    graph = Graph(attacked.backbone, {"forget": rows}, task.encoder)
    strength = graph.value(ExtractionStrength("forget")).value
    assert results["relearning/extraction_strength/forget/withheld"].value == pytest.approx(
        strength
    )


def test_original_scores_are_stored_under_the_weights_hash(
    trained: dict[str, State], tmp_path: Path
) -> None:
    """Fails when another run's original is taken for this one's, or a new network's first weights
    for an original.
    """
    measured(ascent(trained["original"]), relearning(), folder=tmp_path, epochs=1)
    assert (tmp_path / FILE).is_file()
    # tested alone, and untouched
    later = measured(ascent(trained["original"]), relearning(), folder=tmp_path)
    assert "relearning/returned" not in later
    other = measured(ascent(trained["oracle"]), relearning(), folder=tmp_path, epochs=1)
    assert other["relearning"].detail["original"] < 80
    anew = measured(
        Retrain(causal_lm(), optimizer=adam(0.02)), relearning(), folder=tmp_path / "anew", epochs=1
    )
    assert "original" not in anew["relearning"].detail and not (tmp_path / "anew" / FILE).is_file()


def test_another_part_can_be_relearnt_from(trained: dict[str, State]) -> None:
    """Fails when a retain row counts as a used forget row."""
    results = measured(FineTune(causal_lm(trained["oracle"])), relearning(part="retain"))
    assert results["relearning"].detail["withheld"] == 13 and not any(
        name.endswith("/used") for name in results
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"examples": 13}, "so none is withheld"),
        ({"part": "nothing"}, "the task has not"),
        ({"steps": 14}, "was attacked with steps 15"),
        ({"seed": 1}, "was attacked with attack_seed 0"),
    ],
)
def test_incomparable_oracles_are_refused(
    changes: dict[str, Any],
    words: str,
    trained: dict[str, State],
    relearnt: dict[str, dict[str, Result]],
) -> None:
    oracle = Path(relearnt["place"]["place"].detail["path"]) / "oracle"
    with pytest.raises(InputError, match=words):
        measured(
            FineTune(causal_lm(trained["original"])),
            relearning(**{"oracle": str(oracle), **changes}),
        )


def test_an_oracle_of_another_split_is_refused(
    trained: dict[str, State], relearnt: dict[str, dict[str, Result]], tmp_path: Path
) -> None:
    record = RunResults.load(Path(relearnt["place"]["place"].detail["path"]) / "oracle")
    record.hashes["split"] = "another"
    record.save(tmp_path)
    with pytest.raises(InputError, match="was made on another split"):
        measured(FineTune(causal_lm(trained["original"])), relearning(oracle=str(tmp_path)))


def test_a_missing_oracle_is_named_with_the_commands_that_make_one(tmp_path: Path) -> None:
    suite = relearning(oracle=str(tmp_path / "oracle"))
    with pytest.raises(InputError, match=r"no tested oracle at .*`mu fit .*finetune.*` and `mu te"):
        measured(FineTune(causal_lm()), suite)


def test_relearning_of_other_domains() -> None:
    """Fails when a domain without accuracy, or without texts, cannot be attacked; there a high loss
    is good.
    """
    images = measured(FineTune(classifier()), relearning(), Quantisation(), task=digits())
    assert images["relearning"].unit == "%" and images["relearning"].detail["withheld"] == 19
    results = measured(
        FineTune(regressor()), relearning(optimizer=adam(0.01)), Quantisation(), task=diabetes()
    )
    assert (
        results["relearning"].higher_is_better is None
        and results["relearning"].detail["score"] == "loss"
    )
    assert results["relearning/loss/used"].value < results["relearning/loss/used"].detail["before"]
    assert results["relearning"].value == min(
        results["relearning"].detail[name] for name in ("before", "after")
    )
    assert results["quantisation"].higher_is_better and "quantisation/robustness" not in results
    with pytest.raises(InputError, match="sets of questions and answers, and Digits has none"):
        measured(
            FineTune(classifier()), Quantisation(metrics=[Probability("forget")]), task=digits()
        )

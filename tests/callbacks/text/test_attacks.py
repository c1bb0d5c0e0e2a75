"""Relearning, quantisation, probes and reintroduction as suites: what they say of an original, of a
model that unlearned, of an oracle.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

from callbacks import ResultsWriter
from callbacks.quantisation import Quantisation
from callbacks.relearning import Relearning
from callbacks.scores import FILE, score_samples
from callbacks.text.probes import LinearProbe, LogitLens
from callbacks.text.reintroduction import Reintroduction
from mu.attacks.quantisation import quantised
from mu.attacks.relearning import Relearn
from mu.backbones import LoRA
from mu.backbones.language.two_models import LogitDifference
from mu.core.lr import OneCycle
from mu.core.module import UnlearningModule
from mu.data.encoding import Encoder
from mu.data.questions import QuestionSet
from mu.data.sequences import collate
from mu.data.split import Split
from mu.evaluation.text.graph import Graph
from mu.evaluation.text.metrics import ExtractionStrength, Probability
from mu.evaluation.text.probes import LensAccuracy, ProbeAccuracy
from mu.methods import FineTune, GradientAscent, Retrain, Train
from mu.metrics.results import Result, RunResults
from mu.utils.errors import InputError
from tests.callbacks.text import two_ranks as text_two_ranks
from tests.contract.test_two_ranks import _run
from tests.support.doubles_text import People, causal_lm, folder, people
from tests.support.helpers import (
    State,
    classifier,
    diabetes,
    different,
    digits,
    fit,
    regressor,
    trainer,
    weights,
)


def adam(rate: float) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda params: torch.optim.Adam(params, lr=rate)


def relearning(**changes: Any) -> Relearning:
    return Relearning(**{"examples": 5, "steps": 15, "optimizer": adam(3e-3), **changes})


def measured(
    module: UnlearningModule,
    *suites: Callback,
    task: Any = None,
    folder: Path | None = None,
    epochs: int = 0,
) -> dict[str, Result]:
    """Fit for some epochs, then test with the suites; with a folder, write it as a run folder."""
    more: dict[str, Any] = {"default_root_dir": str(folder)} if folder is not None else {}
    run = trainer(
        max(epochs, 1),
        callbacks=[*suites, *([ResultsWriter()] if folder is not None else [])],
        **more,
    )
    task = task or people()
    if epochs:
        run.fit(module, datamodule=task)
    run.test(module, datamodule=task, verbose=False)
    return {result.metric: result for result in module.results}


def ascent(state: State, **changes: Any) -> GradientAscent:
    return GradientAscent(causal_lm(state), optimizer=adam(3e-3), **changes)


@pytest.fixture(scope="module")
def trained() -> dict[str, State]:
    """The original, which knows all 33 answers well, and the oracle, which saw 20."""
    recipes = {"original": Train, "oracle": Retrain}
    return {
        name: weights(
            fit(
                recipe(causal_lm(), optimizer=adam(0.02), scheduler=OneCycle()), people(), 15
            ).backbone
        )
        for name, recipe in recipes.items()
    }


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


# ---- relearning ----------------------------------------------------------------------------------


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


def test_what_returns_is_a_share_of_the_way_back(relearnt: dict[str, dict[str, Result]]) -> None:
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


def test_against_the_oracle(relearnt: dict[str, dict[str, Result]]) -> None:
    """Fails when r is upside down: (gain of the oracle) / (gain of this model), at most 1."""
    ascent, oracle = (relearnt[name]["relearning"] for name in ("ascent", "oracle"))
    r = (oracle.detail["after"] - oracle.detail["before"]) / (
        ascent.detail["after"] - ascent.detail["before"]
    )
    assert relearnt["ascent"]["relearning/robustness"].value == pytest.approx(min(max(r, 0), 1))
    assert relearnt["ascent"]["relearning/excess"].value == pytest.approx(
        ascent.value - oracle.value
    )


def test_the_numbers_are_those_of_the_attack_itself(
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


def test_the_original_is_kept_by_its_hash(trained: dict[str, State], tmp_path: Path) -> None:
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
def test_what_cannot_be_compared_is_refused(
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
    record = json.loads(
        (Path(relearnt["place"]["place"].detail["path"]) / "oracle" / "results.json").read_text()
    )
    record["hashes"]["split"] = "another"
    (tmp_path / "results.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="was made on another split"):
        measured(FineTune(causal_lm(trained["original"])), relearning(oracle=str(tmp_path)))


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


# ---- quantisation --------------------------------------------------------------------------------


def test_quantisation_scores_the_rounded_copy(trained: dict[str, State]) -> None:
    """Fails when bits change places, a part is scored as another, or the copy is not what is
    scored.
    """
    module = FineTune(causal_lm(trained["original"]))
    suite = Quantisation(
        bits=[8, 2], group=8, metrics=[Probability("forget"), Probability("facts", normalised=True)]
    )
    results = measured(module, suite)
    task = people()
    task.setup()
    for bits in (8, 2):
        copy = quantised(module.backbone, bits, 8).backbone
        for part in ("forget", "retain"):
            data: Any = task.datasets[part]
            with torch.no_grad():
                values = copy.scores(data.__getitems__(list(range(len(data)))))
            assert results[f"quantisation/int{bits}/accuracy/{part}"].value == pytest.approx(
                100 * float(values["accuracy"].mean()), abs=1e-3
            )
            assert results[f"quantisation/int{bits}/loss/{part}"].value == pytest.approx(
                float(values["loss"].mean()), rel=1e-4
            )
        graph = Graph(copy, task.sets, task.encoder)
        assert results[f"quantisation/int{bits}/probability/forget"].value == pytest.approx(
            graph.value(Probability("forget")).value
        )
    assert (
        results["quantisation/int2/loss/forget"].value
        > results["quantisation/int8/loss/forget"].value + 0.1
    )
    detail = results["quantisation"].detail
    assert (
        results["quantisation"].value == max(detail["before"], detail["int8"], detail["int2"])
        and detail["bits"] == 8
    )
    assert (
        detail["rounded_weights"] == 3840
        and detail["of_weights"] == 5744
        and detail["scale_over"] == "output channel"
    )
    assert results["quantisation/int2/loss/forget"].detail["scale_over"] == "8 weights"


def test_quantisation_against_the_original(trained: dict[str, State], tmp_path: Path) -> None:
    """Fails when an untouched model passes; q is accuracy before / after with the fewest bits."""
    untouched = measured(
        FineTune(causal_lm(trained["original"])), Quantisation(bits=[8, 3], group=8)
    )
    results = measured(
        ascent(trained["original"]), Quantisation(bits=[8, 3], group=8), folder=tmp_path, epochs=3
    )
    assert untouched["quantisation"].value > results["quantisation"].value + 5
    assert "quantisation/returned" not in untouched
    returned = results["quantisation/returned"].detail
    way = returned["original"] - returned["before"]
    assert results["quantisation/returned"].value == pytest.approx(
        100 * (returned["after"] - returned["before"]) / way
    )
    before = results["quantisation/robustness"].detail["before"]
    after = results["quantisation/robustness"].detail["after"]
    assert after == results["quantisation/int3/accuracy/forget"].value
    assert results["quantisation/robustness"].value == pytest.approx(
        1.0 if after <= before else before / after
    )


@pytest.mark.parametrize(
    ("after", "q", "most"),
    [((0.5, 0.8), 0.625, 80.0), ((0.6, 0.4), 1.0, 60.0), ((0.4, 0.3), 1.0, 50.0)],
)
def test_robustness_is_before_over_after_with_the_fewest_bits(
    after: tuple[float, float], q: float, most: float
) -> None:
    """Fails when q is upside down, of the most bits, or above 1: 50 % before, these shares with 8
    and with 4 bits.
    """
    scores = {
        bits: {"index": torch.tensor([0]), "accuracy": torch.tensor([value])}
        for bits, value in zip((8, 4), after, strict=True)
    }
    before = {"index": torch.tensor([0]), "accuracy": torch.tensor([0.5])}
    original = {"index": torch.tensor([0]), "accuracy": torch.tensor([1.0])}
    results = {
        result.metric: result
        for result in Quantisation()._headline(
            before, scores, original, {8: {"bits": 8}, 4: {"bits": 4}}
        )
    }
    assert results["quantisation/robustness"].value == pytest.approx(q)
    assert results["quantisation"].value == pytest.approx(most)
    assert results["quantisation/returned"].value == pytest.approx(
        100 * (max(after) - 0.5) / 0.5, abs=1e-4
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bits": []}, "at least one"),
        ({"bits": [4, 4]}, "different numbers"),
        ({"bits": [1]}, "1 bits"),
        ({"parts": ["retain"]}, "must be among"),
    ],
)
def test_bits_that_are_none(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Quantisation(**changes)


# ---- probes --------------------------------------------------------------------------------------


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


def test_the_lens_says_what_the_model_does_not(trained: dict[str, State]) -> None:
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


# ---- reintroduction ------------------------------------------------------------------------------


class Neighbours(People):
    """Three rows that stand together are about one author."""

    def read(self) -> tuple[Split, dict[str, QuestionSet]]:
        split, sets = super().read()
        return split, {
            name: QuestionSet(
                name,
                [
                    {**row, "author": int(index) // 3}
                    for row, index in zip(rows.rows, rows.indices, strict=True)
                ],
                rows.indices,
            )
            for name, rows in sets.items()
        }


def neighbours() -> Neighbours:
    """Without the last row, which would be the only one about its author."""
    task = Neighbours(tokenizer=folder())
    task.setup()
    sets = dict(task.sets)
    task._sets = {**sets, "forget": sets["forget"].select(range(12))}
    return task


def test_facts_are_about_the_same_subject_and_never_the_answer_itself() -> None:
    """Fails when the question's own answer is put before it, or a fact of another author."""
    sets = neighbours().sets
    results = Reintroduction(facts=2).contexts(sets)
    rows = sets["forget"].rows
    for position, row in enumerate(results["context"].rows):
        *facts, question = row["question"].split("\n")
        other_answers = [
            rows[other]["answer"]
            for other in range(12)
            if other // 3 == position // 3 and other != position
        ]
        assert question == rows[position]["question"] and sorted(facts) == sorted(other_answers)
        *control, asked = results["control"].rows[position]["question"].split("\n")
        assert (
            asked == question
            and len(control) == 2
            and set(control) <= set(sets["retain"].column("answer"))
        )
    assert results["question"] is sets["forget"]
    again, other = (
        Reintroduction(facts=1, seed=seed).contexts(sets)["context"].column("question")
        for seed in (0, 1)
    )
    assert (
        again == Reintroduction(facts=1, subject=3).contexts(sets)["context"].column("question")
        and again != other
    )


def test_the_answer_in_other_words_is_among_the_facts() -> None:
    sets = neighbours().sets
    rows = sets["forget"].rows
    results = (
        Reintroduction(facts=3, source="paraphrase").contexts(sets)["context"].column("question")
    )
    positions = []
    for position, text in enumerate(results):
        facts = text.split("\n")[:-1]
        assert len(facts) == 3 and rows[position]["paraphrased_answer"] in facts
        positions.append(facts.index(rows[position]["paraphrased_answer"]))
    assert len(set(positions)) == 3  # not always the first


def test_reintroduction_is_a_difference_of_accuracies(trained: dict[str, State]) -> None:
    """Fails when the end of the sequence counts, or contexts change places; by one forward pass a
    row.
    """
    module = FineTune(causal_lm(trained["original"]))
    task = neighbours()
    suite = Reintroduction(facts=2)
    results = measured(module, suite, task=task)
    encoder = Encoder(task.encoder.tokenizer, task.template, 64)
    levels = {}
    choices = {}
    for name, rows in suite.contexts(task.sets).items():
        hits = []
        chosen = []
        for row in rows.rows:
            ids, labels = encoder.pair(row["question"], row["answer"])
            logits = module.backbone.predict(collate([(ids, labels)]))[0]
            real = [position for position in range(1, len(ids) - 1) if labels[position] != -100]
            hits.append(
                float(
                    np.mean(
                        [int(logits[position - 1].argmax()) == ids[position] for position in real]
                    )
                )
            )
            losses = []
            for answer in [row["answer"], *row["perturbed_answer"]]:
                part = collate([encoder.pair(row["question"], answer)])
                summed, count = module.backbone.loss(part)
                losses.append((summed / count).item())
            chosen.append(losses[0] < min(losses[1:]))
        levels[name], choices[name] = 100 * float(np.mean(hits)), 100 * float(np.mean(chosen))
    for name, level in levels.items():
        assert results[f"reintroduction/accuracy/{name}"].value == pytest.approx(level, abs=1e-4)
        assert results[f"reintroduction/choice/{name}"].value == pytest.approx(choices[name])
    assert results["reintroduction"].value == pytest.approx(
        levels["context"] - levels["question"], abs=1e-4
    )
    assert results["reintroduction/control"].value == pytest.approx(
        levels["control"] - levels["question"], abs=1e-4
    )
    assert (
        results["reintroduction"].detail["tokens"]
        > results["reintroduction"].detail["tokens_without"] + 4
    )
    assert levels["question"] > 80  # the level by which an untouched model is known


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"facts": 0}, "at least one fact"),
        ({"source": "web"}, "it is `subject` or `paraphrase`"),
        ({"subject": 1}, "at least 2 rows"),
        ({"subject": "book"}, "has no 'book'"),
        ({"subject": 100, "set": "facts", "facts": 9, "max_length": 20}, "max_length is 20"),
        ({"set": "nothing"}, "has no set 'nothing'"),
        ({"facts": 13, "source": "paraphrase"}, "takes 13 facts of it"),
        ({"subject": 2, "set": "test", "source": "subject"}, ""),
    ],
)
def test_contexts_that_cannot_be_made_are_refused(changes: dict[str, Any], words: str) -> None:
    task = neighbours()
    if not words:  # a set in which every subject has two rows is no error
        assert len(Reintroduction(**changes).contexts(task.sets)["context"]) == 4
        return
    with pytest.raises(InputError, match=words):
        measured(FineTune(causal_lm()), Reintroduction(**changes), task=task)
    with pytest.raises(InputError, match="the only one about its subject"):
        Reintroduction().contexts(people().sets)


# ---- all together --------------------------------------------------------------------------------


def every_suite() -> list[Any]:
    return [
        relearning(),
        Quantisation(group=8),
        LinearProbe(),
        LogitLens(),
        Reintroduction(facts=2),
    ]


@pytest.mark.parametrize(
    "make",
    [
        causal_lm,
        lambda: causal_lm(lora=LoRA(rank=2)),
        lambda: LogitDifference(causal_lm(), causal_lm(init_seed=2)),
    ],
)
def test_suites_leave_the_model_and_each_other_alone(make: Any, tmp_path: Path) -> None:
    """Fails when a suite alters what the next one measures, or a composed or an adapted model
    cannot be attacked.
    """
    module = FineTune(make())
    before = weights(module.backbone)
    free = [p.requires_grad for p in module.backbone.parameters()]
    together = measured(module, *every_suite(), task=neighbours(), folder=tmp_path)
    assert different(before, weights(module.backbone)) == [] and free == [
        p.requires_grad for p in module.backbone.parameters()
    ]
    assert all(p.grad is None for p in module.backbone.parameters())
    alone = {
        name: result.value
        for suite in reversed(every_suite())
        for name, result in measured(module, suite, task=neighbours()).items()
    }
    assert {name: result.value for name, result in together.items()} == pytest.approx(
        alone, abs=1e-9
    )
    assert {r.metric: r.value for r in RunResults.load(tmp_path).results} == pytest.approx(
        alone, abs=1e-9
    )


def test_scores_are_in_the_order_of_indices_and_leave_modes(trained: dict[str, State]) -> None:
    """Fails when batches come back in the loader's order, or a model stays in eval mode."""
    module = FineTune(causal_lm(trained["original"]))
    task = people(eval_batch_size=4)
    measured(module, LogitLens(), task=task)
    module.backbone.train()
    data: Any = task.datasets["forget"]
    results = score_samples(module.backbone, module, data)
    assert module.backbone.training and results["index"].tolist() == sorted(data.indices.tolist())
    with torch.no_grad():
        expected = [
            float(module.backbone.eval().scores(data.__getitems__([position]))["loss"][0])
            for position in range(len(data))
        ]
    assert results["loss"].tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
@pytest.mark.xdist_group("two-ranks")
def test_two_ranks_find_what_one_process_finds(tmp_path: Path) -> None:
    """Fails when a rank relearns from other samples, counts a padded row, or waits for a file that
    another writes.
    """
    root = str(Path(__file__).parents[3])
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]),
    }
    _run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            "-m",
            "tests.callbacks.text.two_ranks",
            str(tmp_path),
        ],
        root,
        environment,
    )
    single = text_two_ranks.run_all(tmp_path / "one")
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    names = {name for name, _ in single["values"]}
    assert {"relearning", "quantisation", "linear_probe", "logit_lens", "reintroduction"} <= names
    # scored as the fit began
    assert all("original" in results["details"][0] for results in (single, *ranks))
    assert ranks[0] == ranks[1]  # bit for bit
    for results in ranks:
        assert [name for name, _ in results["values"]] == [name for name, _ in single["values"]]
        for (name, value), (_, expected) in zip(results["values"], single["values"], strict=True):
            # the fit on two ranks is that of one to rounding
            assert value == pytest.approx(expected, rel=1e-3, abs=1e-3), name

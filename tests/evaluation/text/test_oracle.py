"""Oracle logs: values as the model gave them, logs of other code, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mu.data.encoding import Encoder
from mu.data.questions import QuestionSet
from mu.data.templates import Plain
from mu.evaluation.text.graph import Graph
from mu.evaluation.text.membership import (
    MembershipAUC,
    PrivacyScore,
    PrivLeak,
)
from mu.evaluation.text.metrics import (
    ForgetQuality,
    Loss,
    Probability,
    TruthRatio,
)
from mu.evaluation.text.oracle import OracleFile, OracleModel, SelfOracle, save_log
from mu.metrics import memorisation, tofu
from mu.utils.errors import InputError
from tests.support.doubles_text import causal_lm, people, tokenizer
from tests.support.text_metrics import every_metric, make_graph

GOLDEN = (
    Path(__file__).resolve().parents[4]
    / "shared"
    / "data"
    / "llm"
    / "tofu_golden"
    / "eval_logs_llama2_7b.json"
)


@pytest.fixture(scope="module")
def log_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log of another model."""
    path = tmp_path_factory.mktemp("oracle")
    graph = make_graph(causal_lm(init_seed=9))
    for node in every_metric(SelfOracle()):
        graph.value(node)
    save_log(path, graph)
    return path


def test_a_log_answers_like_the_model_that_wrote_it(log_folder: Path) -> None:
    """Fails when items come back in another order or another metric's, or rounded."""
    graph = make_graph()
    model = OracleModel(make_graph(causal_lm(init_seed=9)))
    log = OracleFile(log_folder)
    for node in every_metric():
        logged = log.measure(node, graph)
        direct = model.measure(node, graph)
        assert logged.value == direct.value, node.name
        if direct.items is not None:
            assert torch.equal(logged.items, direct.items) and torch.equal(
                logged.index, direct.index
            )  # type: ignore[arg-type]
    for by_file, by_model in zip(every_metric(log), every_metric(model), strict=True):
        assert graph.value(by_file).value == graph.value(by_model).value
    quality = graph.value(ForgetQuality("forget", log))
    ratios = graph.value(TruthRatio("forget")).items
    logged = model.measure(TruthRatio("forget"), graph).items
    assert quality.value == tofu.forget_quality(ratios, logged).p  # type: ignore[arg-type]
    assert quality.detail["oracle"] == f"weights {model.graph.weights}" == log.label(graph)


def test_the_oracle_agrees_with_itself(log_folder: Path) -> None:
    for log in (SelfOracle(), OracleFile(log_folder)):
        graph = make_graph(causal_lm(init_seed=9))
        assert graph.value(ForgetQuality("forget", log)).value == 1
        assert graph.value(PrivLeak("forget", "holdout", log)).value == 0
        assert graph.value(PrivacyScore("forget", "holdout", log)).value == 1
        assert graph.value(
            MembershipAUC("reference", "forget", "holdout", log=log)
        ).value == pytest.approx(0.5, abs=0.01)


def test_a_log_gathers_what_several_tests_measured(tmp_path: Path) -> None:
    """Of one model: another model's numbers are never mixed in."""
    first = make_graph()
    second = make_graph()
    third = make_graph(causal_lm(init_seed=2))
    for graph, node in (
        (first, Loss("forget")),
        (second, Probability("retain")),
        (third, Loss("facts")),
    ):
        graph.value(node)
    save_log(tmp_path, first)
    save_log(tmp_path, second)
    assert set(json.loads((tmp_path / "items.json").read_text())["values"]) == {
        "loss/forget",
        "probability/retain",
    }
    save_log(tmp_path, third)
    assert set(json.loads((tmp_path / "items.json").read_text())["values"]) == {"loss/facts"}


def altered(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path, Path], Path]:
    def write(source: Path, path: Path) -> Path:
        raw = json.loads((source / "items.json").read_text())
        changed = change(raw)
        file = path / "log.json"
        file.write_text(json.dumps(raw if changed is None else changed))
        return file

    return write


def without_items(raw: dict[str, Any]) -> None:
    items = raw["items"]["truth_ratio/forget"]
    for index in list(items)[:3]:
        del items[index]


def other_items(raw: dict[str, Any]) -> None:
    items = raw["items"]["truth_ratio/forget"]
    raw["items"]["truth_ratio/forget"] = {
        str(int(index) + 100): value for index, value in items.items()
    }


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (altered(without_items), r"of 10 items, but this run of 13"),
        (altered(other_items), r"is for other items \(truth_ratio/forget of item 100"),
        (
            altered(lambda raw: raw["tokens"].update({"truth_ratio/forget": "0"})),
            r"of other texts or tokens",
        ),
        (
            altered(lambda raw: raw["values"].pop("truth_ratio/forget") and None),
            r"has no truth_ratio/forget; test that run",
        ),
        (altered(lambda raw: {"format": 1, "values": []}), r"is damaged"),
        (altered(lambda raw: {"some": "file"}), r"is not a log of items"),
        (
            altered(lambda raw: {"forget_truth_ratio": {"value_by_index": {"0": {"score": 1.0}}}}),
            r"has 1 truth ratios, but the set forget",
        ),
        (
            altered(lambda raw: {"forget_truth_ratio": {"agg_value": 1}}),
            r"damaged, or of a version",
        ),
        (lambda source, place: place / "missing.json", r"there is no file"),
        (lambda source, place: place, r"has no items.json; test that run"),
    ],
)
def test_an_oracle_for_something_else_is_refused(
    change: Any, sentence: str, log_folder: Path, tmp_path: Path
) -> None:
    """One sentence each; never a number."""
    file = change(log_folder, tmp_path)
    with pytest.raises(InputError, match=sentence):
        make_graph().value(ForgetQuality("forget", OracleFile(file)))


def test_another_template_makes_another_log(log_folder: Path) -> None:
    """The same rows, but not the same tokens."""
    task = people()
    graph = Graph(causal_lm(), task.sets, Encoder(tokenizer(), Plain(user="what "), 40))
    with pytest.raises(InputError, match="another tokenizer, template"):
        graph.value(ForgetQuality("forget", OracleFile(log_folder)))


def test_logs_of_other_projects_are_read(tmp_path: Path) -> None:
    """OpenUnlearning's form, and that of TOFU's own code, whose losses give the same ratios."""
    ratios = torch.linspace(0.2, 2.0, 13, dtype=torch.float64)
    right = torch.full((13,), 1.0)
    wrong = 1.0 - ratios.log()
    forms = {
        "TOFU_EVAL.json": {
            "forget_truth_ratio": {
                "agg_value": 0.6,
                "value_by_index": {
                    str(index): {"score": value}
                    for index, value in reversed(list(enumerate(ratios.tolist())))
                },
            },
            "mia_min_k": {"agg_value": 0.4, "auc": 0.4},
        },
        "eval_log_aggregated.json": {
            "eval_log_forget": {
                "avg_paraphrased_loss": {
                    str(index): value for index, value in enumerate(right.tolist())
                },
                "average_perturb_loss": {
                    str(index): [value, value] for index, value in enumerate(wrong.tolist())
                },
            }
        },
    }
    graph = make_graph()
    expected = tofu.forget_quality(graph.value(TruthRatio("forget")).items, ratios)  # type: ignore[arg-type]
    for name, content in forms.items():
        (tmp_path / name).write_text(json.dumps(content))
        log = OracleFile(tmp_path / name)
        measurement = graph.value(ForgetQuality("forget", log))
        assert (
            measurement.value == pytest.approx(expected.p)
            and "tokens unchecked" in measurement.detail["oracle"]
        )
    leak = graph.value(PrivLeak("forget", "holdout", OracleFile(tmp_path / "TOFU_EVAL.json")))
    auc = graph.value(MembershipAUC("min_k", "forget", "holdout")).value
    assert leak.value == pytest.approx(memorisation.privleak(auc, 0.4))
    with pytest.raises(InputError, match="has no auc/loss"):
        graph.value(PrivacyScore("forget", "holdout", OracleFile(tmp_path / "TOFU_EVAL.json")))


@pytest.mark.data
def test_the_golden_logs_are_read_and_refused_for_other_lengths(tmp_path: Path) -> None:
    """Needs `../shared/data/llm/tofu_golden` beside the repository."""
    if not GOLDEN.is_file():
        pytest.skip(f"{GOLDEN} is not here")
    (tmp_path / "log.json").write_text(json.dumps(json.loads(GOLDEN.read_text())["retain99"]))
    with pytest.raises(InputError, match="has 40 truth ratios, but the set forget has 13 rows"):
        make_graph().value(ForgetQuality("forget", OracleFile(tmp_path / "log.json")))
    task = people()
    rows = [task.sets["retain"].rows[index % 20] for index in range(40)]
    graph = Graph(causal_lm(), {"forget": QuestionSet("forget", rows, np.arange(40))}, task.encoder)
    assert 0 < graph.value(ForgetQuality("forget", OracleFile(tmp_path / "log.json"))).value < 1

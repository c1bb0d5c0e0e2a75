"""The metric graph: each value computed once, resumed after interruptions, shared by ranks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mu.backbones.language.two_models import LogitDifference
from mu.data.questions import QuestionSet
from mu.data.templates import Plain
from mu.evaluation.text.graph import Graph
from mu.evaluation.text.leaves import GeneratedText, Scored
from mu.evaluation.text.membership import (
    MembershipScore,
)
from mu.evaluation.text.metrics import (
    ExtractionStrength,
    ForgetQuality,
    ModelUtility,
    Probability,
    Rouge,
    TruthRatio,
)
from mu.evaluation.text.oracle import SelfOracle
from mu.evaluation.text.scores import batches_by_length
from mu.utils import resumable
from mu.utils.errors import InputError, UndefinedError
from mu.utils.resumable import Ranks, map_chunks, pack_strings, unpack_strings
from tests.support.doubles_text import causal_lm
from tests.support.text_metrics import SHORT, every_metric, make_graph, watched

# ---- once ----------------------------------------------------------------------------------------


def test_every_pair_goes_through_the_model_once() -> None:
    """Fails when two metrics score or generate the same anew."""
    lm = watched()
    graph = make_graph(lm)
    for node in every_metric():
        if "gradient_norm" not in node.name:
            graph.value(node)
    sizes = {name: len(rows) for name, rows in graph.sets.items()}
    pairs = (
        sizes["forget"] * (1 + 1 + 3)
        + sizes["forget"]
        + sizes["facts"] * (1 + 3)
        + sizes["retain"] * (1 + 1 + 3)
        + sizes["holdout"]
    )
    # forget: answer, paraphrase, wrong, and paraphrase to the reworded question; and the first
    # prompt of each set, whose logits may hold NaN
    assert lm.calls["rows"] == pairs + 3
    assert lm.calls["prompts"] == sizes["forget"] + sizes["retain"] + sizes["facts"]
    before = dict(lm.calls)
    for node in [*every_metric(), Rouge("retain", max_new_tokens=SHORT, measure="f1")]:
        if "gradient_norm" not in node.name:
            graph.value(node)
    assert dict(lm.calls) == before


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 60), min_size=0, max_size=50), budget=st.integers(1, 300))
def test_batches_cover_everything_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = batches_by_length(lengths, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) * max(lengths[index] for index in batch) <= budget or len(batch) == 1
    flat = [lengths[index] for batch in batches for index in batch]
    assert flat == sorted(flat, reverse=True)


def test_another_model_is_another_graph_with_the_same_sequences(tmp_path: Path) -> None:
    """What an attack needs: an altered copy, measured by the same nodes, and the original
    untouched.
    """
    graph = make_graph()
    first = graph.value(Probability("forget")).value
    other = graph.for_model(causal_lm(init_seed=3))
    assert other.value(Probability("forget")).value != first
    assert other.encoded(Scored("forget")) is graph.encoded(Scored("forget"))
    assert graph.value(Probability("forget")).value == first


def test_a_composed_model_is_measured_like_any_other() -> None:
    """ULD's logit difference: no network of its own."""
    both = LogitDifference(causal_lm(), causal_lm(init_seed=5), weight=-0.5, top=0.0)
    graph = make_graph(both)
    ids, labels = graph.encoded(Scored("forget")).pairs[0]
    part = {
        "input_ids": torch.tensor([ids]),
        "attention_mask": torch.ones(1, len(ids), dtype=torch.int64),
    }
    logits = [lm.predict(part) for lm in (both.base, both.other)]
    log_p = (logits[0] - 0.5 * logits[1])[0].log_softmax(-1)
    expected = [
        log_p[position - 1, label].item() for position, label in enumerate(labels) if label != -100
    ]
    np.testing.assert_allclose(
        graph.value(Scored("forget")).log_prob[: len(expected)], expected, atol=1e-5
    )
    for node in every_metric(SelfOracle()):
        assert math.isfinite(graph.value(node).value)


# ---- interrupted ---------------------------------------------------------------------------------


def test_an_interrupted_evaluation_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when a finished batch is computed again, a value changes, or anything is computed for a
    model that is known.
    """
    monkeypatch.setattr(resumable, "FLUSH", 0.0)
    node = TruthRatio("forget")
    generation = GeneratedText("forget", max_new_tokens=SHORT)
    settings = {"tokens_per_batch": 60, "prompts_per_batch": 4}
    alone = make_graph(**settings)
    expected = alone.value(node)
    texts = alone.value(generation)
    first = watched()
    first.stop_after = 9
    with pytest.raises(KeyboardInterrupt):
        make_graph(first, folder=tmp_path, **settings).value(node)
    done = first.calls["rows"]
    second = watched()
    graph = make_graph(second, folder=tmp_path, **settings)
    measurement = graph.value(node)
    total = 13 + 39
    assert second.calls["rows"] == total - done and done > 20
    assert torch.equal(measurement.items, expected.items)  # type: ignore[arg-type]
    assert graph.value(generation).texts == texts.texts and second.calls["prompts"] == 13
    third = watched()
    again = make_graph(third, folder=tmp_path, **settings)
    assert torch.equal(again.value(node).items, expected.items)  # type: ignore[arg-type]
    assert again.value(generation).texts == texts.texts and not third.calls
    assert [path for path in tmp_path.rglob("*") if path.is_dir()] == [], (
        "parts are gone when all is there"
    )


@pytest.mark.parametrize("change", ["weights", "tokens", "precision", "damage"])
def test_cached_values_serve_equal_questions_alone(change: str, tmp_path: Path) -> None:
    """Fails when results of other weights, other texts or another precision are taken, or a damaged
    file ends the run.
    """
    make_graph(folder=tmp_path).value(Scored("forget"))
    lm = watched()
    if change == "weights":
        with torch.no_grad():
            next(lm.parameters())[0, 0] += 1e-3
    graph = make_graph(
        lm, folder=tmp_path, **({"precision": "bf16"} if change == "precision" else {})
    )
    if change == "tokens":
        graph.encoder.template = Plain(user="what ")
    if change == "damage":
        file = next(tmp_path.glob("*.safetensors"))
        file.write_bytes(file.read_bytes()[:-40])
    graph.value(Scored("forget"))
    assert lm.calls["rows"] == 13


def test_texts_survive_a_file_of_tensors() -> None:
    texts = ["", "è una città\n", "🙂 ok", "plain"]
    assert (
        unpack_strings(pack_strings(texts)) == texts
        and unpack_strings(pack_strings(["", ""])) == ["", ""]
        and unpack_strings(pack_strings([])) == []
    )


class FakeRanks(Ranks):
    """A rank with prepared answers of the other ranks."""

    answers: list[Any]

    def gather(self, local: Any) -> list[Any]:
        remote = self.answers.pop(0)
        return [local, remote] if self.rank == 0 else [remote, local]


def test_ranks_share_what_is_on_one_disk_and_what_is_not(tmp_path: Path) -> None:
    """Without a common file system, a rank does only what nobody has."""
    computed: list[int] = []

    def work(index: int) -> dict[str, torch.Tensor]:
        computed.append(index)
        return {"x": torch.tensor([float(index)])}

    ranks = FakeRanks(0, 2)
    object.__setattr__(
        ranks,
        "answers",
        [
            [1, 4],
            {
                1: {"x": torch.tensor([1.0])},
                4: {"x": torch.tensor([4.0])},
                2: {"x": torch.tensor([2.0])},
            },
        ],
    )
    chunks = map_chunks(5, work, key="k", folder=tmp_path, ranks=ranks)
    assert computed == [0, 3] and [piece["x"].item() for piece in chunks] == [0, 1, 2, 3, 4]
    computed.clear()
    assert [piece["x"].item() for piece in map_chunks(5, work, key="k", folder=tmp_path)] == [
        0,
        1,
        2,
        3,
        4,
    ] and computed == []


# ---- what a task lacks ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "sentence"),
    [
        (Probability("nowhere"), r"no set 'nowhere'.*it has forget, retain"),
        (
            Probability("bare", "paraphrased_answer"),
            r"row 1 of the set bare has no 'paraphrased_answer'",
        ),
        (
            Rouge("bare", question="paraphrased_question"),
            r"row 1 of the set bare has no 'paraphrased_question'",
        ),
        (
            TruthRatio("bare", "answer"),
            r"perturbed_answer of row 0 of the set bare is not a list of texts",
        ),
        (Scored("listed"), r"answer of row 0 of the set listed is not one text"),
        (Probability("none"), r"the set none has no rows"),
    ],
)
def test_missing_columns_are_named(node: Any, sentence: str) -> None:
    """Fails when a metric is left out or takes a default where a set or a column is missing."""
    graph = make_graph()
    row = {"question": "what does ada make ?", "answer": "maps"}
    sets = {
        **graph.sets,
        "bare": QuestionSet(
            "bare",
            [
                {
                    **row,
                    "paraphrased_answer": "maps",
                    "paraphrased_question": "what",
                    "perturbed_answer": "lamps",
                },
                {**row, "perturbed_answer": ["lamps"]},
            ],
            np.arange(2),
        ),
        "listed": QuestionSet("listed", [{**row, "answer": ["maps"]}], np.arange(1)),
        "none": QuestionSet("none", [], np.arange(0)),
    }
    with pytest.raises((InputError, UndefinedError), match=sentence):
        Graph(causal_lm(), sets, graph.encoder).value(node)


def test_names_tell_nodes_apart() -> None:
    """A log is keyed by them."""
    nodes = [
        *every_metric(SelfOracle()),
        Probability("retain"),
        Probability("forget", prefix="so"),
        ExtractionStrength("forget", floor=False),
        Rouge("forget", max_new_tokens=7),
        Rouge("forget", "paraphrased_answer"),
        TruthRatio("forget", question="paraphrased_question"),
        MembershipScore("min_k", "forget"),
        MembershipScore("min_k", "forget", 0.2),
        ModelUtility(("retain",)),
        ModelUtility(("facts",)),
    ]
    names = [node.name for node in nodes]
    assert len(set(names)) == len(names)
    assert (
        TruthRatio("forget").name == "truth_ratio/forget"
        and ForgetQuality("forget", SelfOracle()).name == "forget_quality/forget"
    )

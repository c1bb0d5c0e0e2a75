"""Linear probe and logit lens: against loops over layers, tokens and questions, and on states that
hold, or do not hold, the truth.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mu.backbones import CausalLM
from mu.backbones.language.two_models import LogitDifference
from mu.data.questions import QuestionSet
from mu.data.sequences import collate
from mu.evaluation.text.graph import Graph
from mu.evaluation.text.hidden_states import (
    check_lens,
    fork_features,
    layer_outputs,
    logit_lens,
    output_layers,
    probed_model,
)
from mu.evaluation.text.linear_probe import linear_probe, training_half
from mu.evaluation.text.probes import ForkFeatures, LensAccuracy, LensScores, ProbeAccuracy
from mu.utils.errors import InputError, RunError
from tests.support.doubles_text import causal_lm, mixture, people
from tests.support.helpers import classifier, different, weights


def graph_of(model: Any, **sets: QuestionSet) -> Graph:
    task = people()
    task.setup()
    return Graph(model, {**task.sets, **sets}, task.encoder, tokens_per_batch=60)


# ---- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [causal_lm, mixture])
def test_layer_outputs_are_those_of_the_model(make: Any) -> None:
    """Fails when a layer is skipped, the final norm is in the last one, or a hook stays."""
    model = make().eval()
    graph = graph_of(model)
    encoder = graph.encoder
    batch = collate(
        [
            encoder.pair("who ?", "ada makes boats"),
            encoder.pair("what does kim make ?", "it is maps"),
        ]
    )
    outputs = layer_outputs(model, batch)
    assert len(outputs) == model.layers == 2
    with torch.no_grad():
        for index, output in enumerate(outputs):
            assert torch.equal(output, model.hidden(batch, index))
    assert not any(layer._forward_hooks for layer in model.modules())


def test_a_prompt_ends_where_the_answers_part() -> None:
    """Fails when the prompt holds the token by which the answers differ, or right and wrong change
    places.
    """
    rows = QuestionSet(
        "q",
        [
            {
                "question": "what does ada make ?",
                "answer": "ada makes boats",
                "perturbed_answer": ["ada makes drums and also maps", "who"],
            },
            {
                "question": "where does bert live ?",
                "answer": "bert lives in lima",
                "perturbed_answer": ["bert lives in lima and bern"],
            },
        ],
        np.asarray([4, 7]),
    )
    graph = graph_of(causal_lm(), q=rows)
    encoded: Any = graph.encoded(ForkFeatures("q", "answer"))
    prompts = [
        (graph.encoder.decode(ids), *graph.encoder.tokenizer.convert_ids_to_tokens(pair))
        for (ids, _), pair in zip(encoded.pairs, encoded.choices.tolist(), strict=True)
    ]
    assert [
        (text.split("answer : ")[1] if "answer : " in text else "", a, b) for text, a, b in prompts
    ] == [
        ("ada makes", "boats", "drums"),
        ("", "ada", "who"),
        ("bert lives in lima", "</s>", "and"),
    ]
    assert encoded.row.tolist() == [0, 0, 1] and encoded.index.tolist() == [4, 4, 7]
    changed = replace_answer(rows, 1, "bert lives in lima")
    assert (
        graph_of(causal_lm(), q=changed).encoded(ForkFeatures("q", "answer")).tokens
        != encoded.tokens
    )


def replace_answer(rows: QuestionSet, place: int, answer: str) -> QuestionSet:
    return QuestionSet(
        rows.name,
        [
            {**row, "answer": answer + " ."} if position == place else row
            for position, row in enumerate(rows.rows)
        ],
        rows.indices,
    )


def test_a_wrong_answer_that_is_right_is_refused() -> None:
    rows = QuestionSet(
        "q",
        [{"question": "who ?", "answer": "ada", "perturbed_answer": ["bert", "ada"]}],
        np.asarray([0]),
    )
    with pytest.raises(InputError, match="row 0 of the set q is its answer"):
        graph_of(causal_lm(), q=rows).encoded(ForkFeatures("q", "answer"))


@torch.no_grad()
def test_features_are_norm_of_state_times_difference_of_rows() -> None:
    """Fails when padding is read, batches of unequal lengths come back in another order, or the
    norm is left out.
    """
    model = causal_lm().eval()
    graph = graph_of(model)
    encoded: Any = graph.encoded(ForkFeatures("forget", "answer"))
    features = graph.value(ForkFeatures("forget", "answer"))
    norm, head = model.network.model.norm, model.network.lm_head.weight  # type: ignore[union-attr]
    assert features.shape == (len(encoded.pairs), 2, 16)
    assert len({len(ids) for ids, _ in encoded.pairs}) > 1
    for index, ((ids, _), (right, wrong)) in enumerate(
        zip(encoded.pairs, encoded.choices.tolist(), strict=True)
    ):
        batch = {
            "input_ids": torch.tensor([ids]),
            "attention_mask": torch.ones(1, len(ids), dtype=torch.int64),
        }
        for layer in range(2):
            expected = norm(model.hidden(batch, layer)[0, -1]) * (head[right] - head[wrong])
            assert torch.allclose(features[index, layer], expected, atol=1e-5)
        logits = model.predict(batch)[0, -1]  # what the sum means, at the last layer
        assert features[index, -1].sum() == pytest.approx(
            float(logits[right] - logits[wrong]), abs=1e-4
        )


@torch.no_grad()
def test_the_lens_is_a_loop_over_layers_and_tokens() -> None:
    """Fails when the end of the sequence is counted, a token is compared with another place's, or
    ranks begin at 1.
    """
    model = causal_lm().eval()
    graph = graph_of(model)
    norm, head = model.network.model.norm, model.network.lm_head  # type: ignore[union-attr]
    lens = graph.value(LensScores("forget"))
    measurement = graph.value(LensAccuracy("forget"))
    rows = graph.questions("forget")
    by_layer: list[list[float]] = [[], []]
    for position, row in enumerate(rows.rows):
        ids, labels = graph.encoder.pair(row["question"], row["answer"])
        batch = {
            "input_ids": torch.tensor([ids]),
            "attention_mask": torch.ones(1, len(ids), dtype=torch.int64),
        }
        targets = [target for target in range(1, len(ids) - 1) if labels[target] != -100]
        for layer in range(2):
            p = head(norm(model.hidden(batch, layer)))[0].softmax(-1)
            rank = [int((p[target - 1] > p[target - 1, ids[target]]).sum()) for target in targets]
            assert lens.rank[lens.row == position, layer].tolist() == rank
            expected = torch.stack([p[target - 1, ids[target]] for target in targets])
            assert torch.allclose(
                lens.probability[lens.row == position, layer], expected, atol=1e-6
            )
            by_layer[layer].append(float(np.mean([first == 0 for first in rank])))
    means = [float(np.mean(values)) for values in by_layer]
    assert measurement.detail["by_layer"] == pytest.approx(means, abs=1e-4)
    assert measurement.value == pytest.approx(max(means)) and measurement.detail["layer"] == int(
        np.argmax(means)
    )
    assert measurement.items is not None and measurement.items.tolist() == pytest.approx(
        by_layer[measurement.detail["layer"]]
    )


@torch.no_grad()
def test_the_last_layer_is_the_model() -> None:
    """Fails when the last layer's output is normed twice."""
    model = mixture().eval()
    graph = graph_of(model)
    pairs = [
        graph.encoder.pair(row["question"], row["answer"])
        for row in graph.questions("retain").rows[:3]
    ]
    logits, labels = model.token_logits(collate(pairs))
    real = (labels != -100) & (labels != graph.encoder.eos)
    p = logits[real].softmax(-1).gather(1, labels[real][:, None])[:, 0]
    lens = logit_lens(model, pairs, graph.encoder.eos)
    assert torch.allclose(lens["probability"][:, -1], p, atol=1e-6)
    assert torch.equal(lens["sequence"], real.nonzero()[:, 0])


def test_a_model_whose_head_does_more_is_refused() -> None:
    """Fails when a cap on the logits is passed over: the lens would show another model's
    numbers.
    """

    class Capped(CausalLM):
        def predict(self, batch: Any) -> Tensor:
            return torch.tanh(super().predict(batch))

    graph = graph_of(causal_lm())
    pair = graph.encoder.pair("who ?", "ada")
    check_lens(causal_lm(), pair)
    with pytest.raises(InputError, match="more to its logits"):
        check_lens(Capped(causal_lm().model), pair)


def test_of_two_models_the_first_is_read_and_a_classifier_has_no_layers() -> None:
    first = causal_lm()
    second = causal_lm(init_seed=1)
    assert probed_model(LogitDifference(first, second)) is first
    assert probed_model(LogitDifference(LogitDifference(first, second), second)) is first  # type: ignore[arg-type]
    with pytest.raises(InputError, match="which Classifier is not"):
        probed_model(classifier())
    assert output_layers(first)[1] is first.network.lm_head


def test_reading_leaves_the_model_as_it_is() -> None:
    model = causal_lm().train()
    before = weights(model)
    with torch.inference_mode():
        graph = graph_of(model)
        graph.value(ProbeAccuracy("forget"))
        graph.value(LensAccuracy("forget"))
    assert different(before, weights(model)) == [] and all(
        layer.training for layer in model.modules()
    )
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


# ---- the probe -----------------------------------------------------------------------------------


def states(
    kind: str, questions: int = 60, wrong: int = 3, width: int = 8, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Features of two layers: noise, and noise in which the truth is `held`, `written` (as the lens
    reads it), or `absent`.
    """
    generator = torch.Generator().manual_seed(seed)
    owner = torch.arange(questions).repeat_interleave(wrong)
    features = torch.randn(len(owner), 2, width, generator=generator)
    # one direction in which some features speak for the truth and others against it: their sum says
    # nothing
    if kind == "held":
        features[:, 1] += 1.5 * torch.tensor([1.0, -1.0] * (width // 2))
    if kind == "written":
        features[:, 1] += 0.7
    return features, owner, training_half(torch.arange(questions), 0)


def test_probe_separates_separable_features_alone() -> None:
    """Fails when training rows are tested (noise would be known by heart), or the layers are
    mixed.
    """
    for signal, low, high in (("held", 0.95, 1.0), ("written", 0.9, 1.0), ("absent", 0.35, 0.65)):
        features, owner, learns = states(signal)
        for strength in (0.01, 1.0):
            accuracy = linear_probe(features, owner, learns, strength)
            assert low <= accuracy[1] <= high, (signal, accuracy)
            assert 0.35 <= accuracy[0] <= 0.65


def test_probe_is_the_minimum_of_the_penalised_loss() -> None:
    """Σ log(1 + e^(-w x)) over both orders + |w|² / 2C, by Newton steps in float64, with features
    scaled as the formula says.
    """
    features, owner, learns = states("written", questions=20, wrong=2, width=4)
    for strength in (0.05, 2.0):
        expected = []
        for layer in range(2):
            x = features[:, layer].double()
            training = learns[owner]
            lens = x.sum(1)
            scaled = torch.cat(
                [
                    x / x[training].square().mean(0).sqrt(),
                    (2 * lens / lens[training].square().mean().sqrt())[:, None],
                ],
                1,
            )
            w = torch.zeros(5, dtype=torch.float64)
            for _ in range(50):
                p = torch.sigmoid(-(scaled[training] @ w))
                # each pair in both orders
                slope = -2 * (p[:, None] * scaled[training]).sum(0) + w / strength
                curve = (
                    2 * (scaled[training].T * (p * (1 - p))) @ scaled[training]
                    + torch.eye(5, dtype=torch.float64) / strength
                )
                w = w - torch.linalg.solve(curve, slope)
            right = [
                [
                    float(scaled[pair] @ w > 0)
                    for pair in range(len(owner))
                    if owner[pair] == question
                ]
                for question in range(20)
                if not learns[question]
            ]
            expected.append(float(np.mean([np.mean(hits) for hits in right])))
        assert linear_probe(features, owner, learns, strength).tolist() == pytest.approx(expected)


def test_a_question_counts_once_and_a_tie_half() -> None:
    """Fails when a question with many wrong answers counts for more."""
    learns = torch.tensor([True, True, False, False])
    owner = torch.tensor([0, 1, 2, 3, 3, 3])
    features = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, 0.0])[:, None, None]
    assert linear_probe(features, owner, learns).tolist() == pytest.approx(
        [(1 + (0 + 0 + 0.5) / 3) / 2]
    )


def test_halves_are_drawn_by_index() -> None:
    index = torch.arange(50, 91)
    mask = training_half(index, 0)
    assert int(mask.sum()) == 20
    order = torch.randperm(41, generator=torch.Generator().manual_seed(0))
    assert torch.equal(training_half(index[order], 0), mask[order])
    assert not torch.equal(training_half(index, 1), mask)
    with pytest.raises(InputError, match="half of the questions"):
        training_half(index[:1], 0)


def test_a_state_that_is_not_finite_is_an_error() -> None:
    features, owner, learns = states("absent")
    features[3, 1, 2] = float("nan")
    with pytest.raises(RunError, match="layer 1 is not finite"):
        linear_probe(features, owner, learns)


def test_probe_uses_cached_features_of_the_graph() -> None:
    """Fails when a set without a paraphrase cannot be probed, or the seed does nothing."""
    graph = graph_of(causal_lm().eval())
    measurement = graph.value(ProbeAccuracy("forget"))
    assert measurement.detail["questions_learnt_from"] == 6 and measurement.detail["questions"] == 7
    assert measurement.value == pytest.approx(max(measurement.detail["by_layer"]), abs=1e-4)
    owner = graph.encoded(ForkFeatures("forget")).row
    by_hand = linear_probe(
        graph.value(ForkFeatures("forget")),
        owner,
        training_half(torch.tensor(graph.questions("forget").indices), 0),
    )
    assert measurement.value == pytest.approx(float(by_hand.max()))
    node = ProbeAccuracy("retain", right="answer")
    values = {graph.value(replace(node, seed=seed)).value for seed in range(4)}
    assert len(values) > 1


def test_features_of_one_prompt_are_those_of_many() -> None:
    model = causal_lm().eval()
    prompts = [[1, 5, 6], [1, 7, 8, 9, 10], [1, 4]]
    choices = torch.tensor([[5, 6], [7, 8], [9, 10]])
    joint = fork_features(model, prompts, choices)
    for row, prompt in enumerate(prompts):
        assert torch.allclose(
            joint[row],
            fork_features(model, [prompt], choices[row : row + 1])[0],
            atol=1e-6,
        )

"""Metrics of language models against scores of one row at a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mu.evaluation.text.graph import Metric
from mu.evaluation.text.leaves import GeneratedText, GradientNorms, Scored
from mu.evaluation.text.membership import (
    MembershipAUC,
    MembershipScore,
)
from mu.evaluation.text.metrics import (
    ExactMemorisation,
    Loss,
    Probability,
    Rouge,
    TruthRatio,
)
from mu.functional.tokens import IGNORED
from mu.metrics import memorisation, tofu
from mu.utils.errors import InputError, UndefinedError
from tests.support.doubles_text import causal_lm
from tests.support.helpers import distance, weights
from tests.support.text_metrics import SHORT, by_hand, every_metric, make_graph


def test_scores_are_those_of_one_row_at_a_time() -> None:
    """Fails when padding, the order of batches or the shift by one shows in a value, or an answer
    loses or gains a token.
    """
    lm = causal_lm()
    graph = make_graph()
    for answer in ("answer", "paraphrased_answer", "perturbed_answer"):
        scores = graph.value(Scored("retain", answer))  # type: ignore[arg-type]
        rows = graph.sets["retain"].rows
        expected = [
            by_hand(lm, row["question"], text)
            for row in rows
            for text in ([row[answer]] if answer != "perturbed_answer" else row[answer])
        ]
        assert (
            scores.length.tolist() == [len(row) for row in expected]
            and len(set(scores.length.tolist())) > 1
        )
        assert scores.ended.all()
        flat = [token for row in expected for token in row]
        np.testing.assert_allclose(scores.log_prob, [token[0] for token in flat], atol=2e-6)
        assert scores.hit.tolist() == [token[1] for token in flat]
        np.testing.assert_allclose(scores.mean, [token[2] for token in flat], atol=2e-6)
        np.testing.assert_allclose(scores.variance, [token[3] for token in flat], atol=2e-5)
        expected_nll = [-sum(token[0] for token in row) / len(row) for row in expected]
        np.testing.assert_allclose(scores.nll(), expected_nll, atol=2e-6)
        assert scores.index.tolist() == [
            index
            for index, row in zip(graph.sets["retain"].indices, rows, strict=True)
            for _ in range(3 if answer == "perturbed_answer" else 1)
        ]


def test_metrics_are_their_formulas_on_those_values() -> None:
    """Fails when a metric takes another set, answer or token, counts the end of the sequence where
    it must not, or the reverse.
    """
    lm = causal_lm()
    graph = make_graph(tokens_per_batch=77)
    sets = graph.sets
    nll = {
        (name, field): [
            [-sum(t[0] for t in tokens) / len(tokens) for tokens in answers]
            for answers in (
                [
                    by_hand(lm, row["question"], text)
                    for text in (row[field] if isinstance(row[field], list) else [row[field]])
                ]
                for row in sets[name].rows
            )
        ]
        for name in ("forget", "facts", "holdout")
        for field in ("answer", "paraphrased_answer", "perturbed_answer")
    }
    text = {key: torch.tensor([row[0] for row in rows]) for key, rows in nll.items()}
    wrong = {name: torch.tensor(nll[name, "perturbed_answer"]) for name in ("forget", "facts")}
    body = {
        name: [by_hand(lm, row["question"], row["answer"])[:-1] for row in sets[name].rows]
        for name in ("forget", "holdout")
    }

    def near(node: Metric, items: Any, value: float | None = None) -> None:
        measurement = graph.value(node)
        assert measurement.items is not None and measurement.index is not None
        items = np.asarray(items, dtype=np.float64)
        np.testing.assert_allclose(
            measurement.items, items, rtol=2e-5, atol=1e-7, err_msg=node.name
        )
        assert measurement.value == pytest.approx(
            items.mean() if value is None else value, rel=2e-5
        ), node.name

    near(Loss("forget"), text["forget", "answer"])
    near(Probability("forget"), (-text["forget", "answer"]).exp())
    near(Probability("forget", "paraphrased_answer"), (-text["forget", "paraphrased_answer"]).exp())
    near(
        Probability("facts", normalised=True),
        tofu.normalised_probability(text["facts", "answer"], wrong["facts"]),
    )
    ratio = tofu.truth_ratio(text["forget", "paraphrased_answer"], wrong["forget"])
    near(TruthRatio("forget"), ratio, tofu.closer_to_one(ratio).mean().item())
    ratio = tofu.truth_ratio(text["facts", "answer"], wrong["facts"])
    near(TruthRatio("facts", "answer", "true_better"), ratio, tofu.true_better(ratio).mean().item())
    near(
        TruthRatio("forget", score="probability"),
        tofu.truth_probability(text["forget", "paraphrased_answer"], wrong["forget"]),
    )
    near(
        ExactMemorisation("forget"),
        [sum(t[1] for t in tokens) / len(tokens) for tokens in body["forget"]],
    )
    scores = {}
    for name in ("forget", "holdout"):
        low = [
            sorted(t[0] for t in tokens)[: max(1, int(0.4 * len(tokens)))] for tokens in body[name]
        ]
        z = [
            sorted((t[0] - t[2]) / math.sqrt(t[3]) for t in tokens)[
                : max(1, int(0.4 * len(tokens)))
            ]
            for tokens in body[name]
        ]
        scores[name] = {
            "loss": text[name, "answer"],
            "zlib": memorisation.zlib_score(text[name, "answer"], sets[name].column("answer")),
            "min_k": [-sum(row) / len(row) for row in low],
            "min_k_plus_plus": [-sum(row) / len(row) for row in z],
        }
        for attack, items in scores[name].items():
            near(MembershipScore(attack, name), items)
    for attack in ("loss", "zlib", "min_k", "min_k_plus_plus"):
        forget, holdout = (torch.as_tensor(scores[name][attack]) for name in ("forget", "holdout"))
        expected = (forget[:, None] < holdout).double().mean().item()
        assert graph.value(MembershipAUC(attack, "forget", "holdout")).value == pytest.approx(
            expected, abs=0.02
        )


def test_a_single_batch_and_one_row_a_batch_agree() -> None:
    """Fails when a value hangs on what else is in its batch."""
    few = make_graph(tokens_per_batch=1, prompts_per_batch=1)
    many = make_graph(tokens_per_batch=10**6, prompts_per_batch=100)
    for node in every_metric():
        assert few.value(node).value == pytest.approx(many.value(node).value, rel=1e-4, abs=1e-6), (
            node.name
        )


def test_probabilities_of_half_precision_and_of_impossible_tokens() -> None:
    """Logits of -inf are a probability of 0, and nothing of them is NaN."""

    class Blind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def token_logits(self, batch: Any) -> Any:
            logits = torch.zeros(*batch["labels"].shape, 60, dtype=torch.float16)
            logits[..., 30:] = -math.inf
            return logits[:, :-1], batch["labels"][:, 1:]

    graph = make_graph(Blind())
    scores = graph.value(Scored("forget"))
    inside = scores.log_prob > -math.inf
    assert 0 < int(inside.sum()) < len(inside)
    np.testing.assert_allclose(scores.log_prob[inside], -math.log(30), rtol=1e-6)
    np.testing.assert_allclose(scores.mean, -math.log(30), rtol=1e-6)
    np.testing.assert_allclose(scores.variance, 0, atol=1e-6)
    assert math.isfinite(graph.value(TruthRatio("forget")).value)
    # every answer has a token of probability 0, so that all have the same score
    with pytest.raises(UndefinedError, match="the same for every sample"):
        graph.value(MembershipAUC("min_k_plus_plus", "forget", "holdout"))


def test_generated_text_is_the_models_own_and_its_prefix_is_no_part_of_it() -> None:
    """Answers stand in the order of the rows, whatever the order in which they were generated."""
    graph = make_graph(prompts_per_batch=3)
    lm = causal_lm()
    for prefix in ("", "so it is"):
        prompts = [
            graph.encoder.prompt(row["question"], begin=prefix) for row in graph.sets["forget"].rows
        ]
        expected = [lm.generate([ids], max_new_tokens=SHORT)[0] for ids in prompts]
        assert (
            list(graph.value(GeneratedText("forget", prefix=prefix, max_new_tokens=SHORT)).texts)
            == expected
        )
    subset = graph.value(GeneratedText("forget", max_new_tokens=SHORT, rows=(4, 1)))
    complete = graph.value(GeneratedText("forget", max_new_tokens=SHORT))
    assert list(subset.texts) == [
        complete.texts[4],
        complete.texts[1],
    ] and subset.index.tolist() == [4, 1]
    recall, f1 = tofu.rouge_l(complete.texts, graph.sets["forget"].column("answer"))
    assert graph.value(Rouge("forget", max_new_tokens=SHORT)).value == pytest.approx(
        recall.mean().item()
    )
    assert graph.value(Rouge("forget", max_new_tokens=SHORT, measure="f1")).value == pytest.approx(
        f1.mean().item()
    )


def test_a_prefix_is_read_but_not_scored() -> None:
    graph = make_graph()
    lm = causal_lm()
    scores = graph.value(Scored("forget", prefix="so it is"))
    plain = graph.value(Scored("forget"))
    assert scores.length.tolist() == plain.length.tolist()
    row = graph.sets["forget"].rows[0]
    expected = by_hand(lm, row["question"], f"so it is {row['answer']}")[3:]
    np.testing.assert_allclose(
        scores.log_prob[: len(expected)], [token[0] for token in expected], atol=2e-6
    )


def test_gradient_norms_leave_the_model_as_it_was() -> None:
    """Every weight counts whatever is trained; weights, gradients and what is trainable stay;
    inference mode is no obstacle.
    """
    lm = causal_lm(part="lm_head")
    before = weights(lm)
    marks = [weight.requires_grad for weight in lm.parameters()]
    lm.train()
    with torch.inference_mode():
        scores = make_graph(lm).value(GradientNorms("forget"))
    assert (
        lm.training
        and marks == [weight.requires_grad for weight in lm.parameters()]
        and any(marks)
        and not all(marks)
    )
    assert distance(before, weights(lm)) == 0 and all(
        weight.grad is None for weight in lm.parameters()
    )
    graph = make_graph()
    other = causal_lm()
    for index in (0, 5):
        row = graph.sets["forget"].rows[index]
        ids, labels = graph.encoder.pair(row["question"], row["answer"])
        labels[-1] = IGNORED  # the end of the sequence is no token of the answer
        loss = other.network(torch.tensor([ids]), labels=torch.tensor([labels])).loss  # type: ignore[operator]
        norms = [
            g.double().norm().item() for g in torch.autograd.grad(loss, list(other.parameters()))
        ]
        assert scores[index].item() == pytest.approx(sum(norms) / len(norms), rel=1e-5)


def test_attacks_that_need_something_say_so() -> None:
    with pytest.raises(InputError, match="give the oracle"):
        MembershipScore("reference", "forget")
    with pytest.raises(InputError, match="no membership attack 'max'"):
        MembershipScore("max", "forget")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="tokens_per_batch is 0"):
        make_graph(tokens_per_batch=0)

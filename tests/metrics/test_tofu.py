"""TOFU's metrics against loops in float64, against the original's published logs, and at the ends
of their scales.
"""

from __future__ import annotations

import json
import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from mu.metrics import tofu
from mu.utils.errors import InputError, RunError

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "data" / "llm" / "tofu_golden"
losses = st.lists(st.floats(0, 20), min_size=1, max_size=6)


def stated(right: list[float], wrong: list[list[float]]) -> dict[str, list[float]]:
    """Section 2.1 of the paper, item by item."""
    statistics: dict[str, list[float]] = {
        "normalised": [],
        "ratio": [],
        "prob": [],
        "forget": [],
        "true": [],
    }
    for a, wrong_losses in zip(right, wrong, strict=True):
        p = math.exp(-a)
        geometric = math.prod(math.exp(-b) for b in wrong_losses) ** (1 / len(wrong_losses))
        statistics["normalised"].append(p / (p + sum(math.exp(-b) for b in wrong_losses) + 1e-10))
        ratio = geometric / (p + 1e-10)
        statistics["ratio"].append(ratio)
        statistics["prob"].append(p / (p + geometric + 1e-10))
        statistics["forget"].append(min(ratio, 1 / (ratio + 1e-10)))
        statistics["true"].append(max(0.0, 1 - ratio))
    return statistics


@pytest.mark.parametrize("even", [True, False])
def test_items_against_a_loop(even: bool) -> None:
    """Fails when a mean goes over items instead of wrong answers, is arithmetic, or an item's
    answers count for its neighbour.
    """
    draw = np.random.default_rng(3)
    right = draw.uniform(0.01, 6, 17)
    wrong = [draw.uniform(0.01, 6, 5 if even else 1 + position % 4) for position in range(17)]
    given_wrong: Any = (
        torch.tensor(np.array(wrong)) if even else [torch.tensor(row) for row in wrong]
    )
    expected = stated(right.tolist(), [row.tolist() for row in wrong])
    right_losses = torch.tensor(right)
    ratio = tofu.truth_ratio(right_losses, given_wrong)
    computed = {
        "normalised": tofu.normalised_probability(right_losses, given_wrong),
        "ratio": ratio,
        "forget": tofu.closer_to_one(ratio),
        "prob": tofu.truth_probability(right_losses, given_wrong),
        "true": tofu.true_better(ratio),
    }
    for name, values in computed.items():
        assert values.dtype == torch.float64
        np.testing.assert_allclose(values, expected[name], rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(tofu.probability(right_losses), np.exp(-right), rtol=1e-14)


def test_single_precision_is_computed_in_double() -> None:
    right = torch.tensor([30.0, 1e-8])
    wrong = torch.tensor([[31.0], [40.0]])
    assert torch.equal(
        tofu.truth_ratio(right, wrong), tofu.truth_ratio(right.double(), wrong.double())
    )
    assert tofu.probability(torch.tensor([1e-8])).item() < 1


def test_ends_of_the_scale() -> None:
    """A model that gives the truth, the lies or both no probability at all still has finite
    numbers.
    """
    never = torch.tensor([math.inf])
    assert tofu.truth_ratio(never, never[None]).item() == 0
    assert tofu.truth_ratio(torch.zeros(1), never[None]).item() == 0
    only_lies = tofu.truth_ratio(never, torch.zeros(1, 3))
    assert only_lies.item() == pytest.approx(1e10) and tofu.closer_to_one(
        only_lies
    ).item() == pytest.approx(1e-10)
    assert tofu.true_better(only_lies).item() == 0
    assert tofu.closer_to_one(torch.ones(3)).tolist() == pytest.approx([1, 1, 1])


@settings(max_examples=60, deadline=None)
@given(right=losses, shift=st.floats(-3, 3))
def test_scores_stay_in_their_range(right: list[float], shift: float) -> None:
    right_losses = torch.tensor(right, dtype=torch.float64)
    wrong = (right_losses + shift).clamp_min(0)[:, None].expand(-1, 3)
    ratio = tofu.truth_ratio(right_losses, wrong)
    for values in (
        tofu.closer_to_one(ratio),
        tofu.true_better(ratio),
        tofu.truth_probability(right_losses, wrong),
        tofu.normalised_probability(right_losses, wrong),
        tofu.probability(right_losses),
    ):
        assert values.min() >= 0 and values.max() <= 1


def test_model_utility_is_the_harmonic_mean_of_nine() -> None:
    values = {
        name: {metric: 0.1 * (1 + row + 3 * column) for row, metric in enumerate(tofu.UTILITY)}
        for column, name in enumerate(("retain", "real_authors", "world_facts"))
    }
    nine = [value for row in values.values() for value in row.values()]
    assert tofu.model_utility(values) == pytest.approx(
        9 / sum(1 / value for value in nine), rel=1e-14
    )
    values["world_facts"]["rouge"] = 0.0
    assert tofu.model_utility(values) == 0
    del values["retain"]["truth_ratio"]
    with pytest.raises(InputError, match="truth_ratio on retain"):
        tofu.model_utility(values)


@pytest.mark.parametrize(("size", "floor"), [(200, 1.94e-119), (400, 1.06e-239)])
def test_floors_of_the_published_tables(size: int, floor: float) -> None:
    """Complete separation, as gradient ascent reaches it in the tables (1.94e-119 for forget05,
    1.06e-239 for forget10).
    """
    quality = tofu.forget_quality(torch.arange(size) / 1e6, 1 + torch.arange(size) / 1e6)
    assert quality.statistic == 1 and quality.p == pytest.approx(floor, rel=5e-3)
    exact = math.log10(Fraction(2, math.comb(2 * size, size)))
    assert quality.log10 == pytest.approx(exact, abs=1e-9)


def test_log10_is_finite_below_the_smallest_number() -> None:
    """2 of (1200 choose 600) orders are 1e-359, which float64 holds as 0."""
    quality = tofu.forget_quality(torch.arange(600.0), 600 + torch.arange(600.0))
    assert quality.p == 0 and quality.log10 == pytest.approx(
        math.log10(2) - math.log10(math.comb(1200, 600)), abs=1e-6
    )
    nearly = torch.arange(2000.0)
    nearly[:20] += 2000
    quality = tofu.forget_quality(nearly, 2000 + torch.arange(2000.0))
    assert quality.p == 0 and -900 < quality.log10 < -300


def test_forget_quality_against_scipy_and_itself() -> None:
    draw = torch.Generator().manual_seed(0)
    method_ratios = torch.rand(150, generator=draw, dtype=torch.float64)
    oracle_ratios = torch.rand(150, generator=draw, dtype=torch.float64) ** 1.3
    quality = tofu.forget_quality(method_ratios, oracle_ratios)
    expected: Any = ks_2samp(method_ratios, oracle_ratios)
    assert (quality.p, quality.statistic, quality.size) == (
        expected.pvalue,
        expected.statistic,
        150,
    )
    assert quality.log10 == pytest.approx(math.log10(expected.pvalue))
    itself = tofu.forget_quality(method_ratios, method_ratios)
    assert (itself.p, itself.log10, itself.statistic) == (1, 0, 0)
    # a monotone transform of both, as the inverse that TOFU's own logs hold
    inverse = tofu.forget_quality(1 / method_ratios, 1 / oracle_ratios)
    assert inverse.p == pytest.approx(quality.p, rel=1e-9)


def test_what_is_refused() -> None:
    """One sentence each."""
    with pytest.raises(InputError, match=r"300 and the oracle 200"):
        tofu.forget_quality(torch.rand(300), torch.rand(200))
    with pytest.raises(InputError, match=r"right answers to 2 items, but wrong ones to 3"):
        tofu.truth_ratio(torch.rand(2), torch.rand(3, 5))
    with pytest.raises(RunError, match="diverged"):
        tofu.probability(torch.tensor([math.nan]))
    with pytest.raises(InputError, match="never negative"):
        tofu.closer_to_one(torch.tensor([-0.5]))
    with pytest.raises(InputError, match="none below 0"):
        tofu.harmonic_mean([0.5, -0.1])
    with pytest.raises(InputError, match="not 1 with 2"):
        tofu.rouge_l(["a"], ["a", "b"])


def longest_common_subsequence(a: list[str], b: list[str]) -> int:
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = (
                table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
            )
    return table[-1][-1]


def test_rouge_l_against_its_definition() -> None:
    """Recall divides by the truth's words and not by the output's; words are stemmed; order
    matters.
    """
    from nltk.stem.porter import PorterStemmer

    stem = PorterStemmer().stem

    def words(text: str) -> list[str]:
        return [
            stem(word) if len(word) > 3 else word
            for word in re.sub(r"[^a-z0-9]+", " ", text.lower()).split()
        ]

    truths = [
        "The author writes books on running waters.",
        "Paris",
        "She was born in 1956, in Kuwait City.",
        "Something else entirely",
    ]
    outputs = [
        "The author has written a book about the running of water",
        "It is Paris, the capital",
        "In Kuwait City she was born",
        "",
    ]
    recall, f1 = tofu.rouge_l(outputs, truths)
    for position, (output, truth) in enumerate(zip(outputs, truths, strict=True)):
        common = longest_common_subsequence(words(output), words(truth))
        r = common / len(words(truth))
        p = common / max(len(words(output)), 1)
        assert recall[position].item() == pytest.approx(r)
        assert f1[position].item() == pytest.approx(2 * r * p / (r + p) if r + p else 0)
    assert recall[0] > tofu.rouge_l(["The author has nothing on waters"], truths[:1])[0][0]
    assert recall[1] == 1 and f1[1] < 1
    assert recall[3] == f1[3] == 0


# ---- the original's logs -------------------------------------------------------------------------

SETS = {
    "retain": "eval_log",
    "ra": "eval_real_author_wo_options",
    "wf": "eval_real_world_wo_options",
    "forget": "eval_log_forget",
}
NAMES = {"retain": "retain", "ra": "real_authors", "wf": "world_facts"}


def golden() -> tuple[dict[str, Any], dict[str, Any]]:
    if not GOLDEN.is_dir():
        pytest.skip(f"{GOLDEN} is not here")
    return (
        json.loads((GOLDEN / "eval_logs_llama2_7b.json").read_text()),
        json.loads((GOLDEN / "expected.json").read_text()),
    )


def column(log: dict[str, Any], name: str) -> torch.Tensor:
    return torch.tensor(
        [log[name][str(position)] for position in range(len(log[name]))], dtype=torch.float64
    )


def aggregates(log: dict[str, Any], name: str) -> dict[str, float]:
    part = log[SETS[name]]
    answer = column(part, "avg_gt_loss")
    wrong = column(part, "average_perturb_loss")
    normalised = name in ("ra", "wf")
    ratio = tofu.truth_ratio(column(part, "avg_paraphrased_loss"), wrong)
    prob = tofu.normalised_probability(answer, wrong) if normalised else tofu.probability(answer)
    score = tofu.closer_to_one(ratio) if name == "forget" else tofu.true_better(ratio)
    return {
        "prob": prob.mean().item(),
        "rouge": column(part, "rougeL_recall").mean().item(),
        "tr": score.mean().item(),
    }


@pytest.mark.data
@pytest.mark.parametrize("model", ["full", "retain90", "retain95", "retain99"])
def test_aggregates_of_the_original_logs(model: str) -> None:
    """Needs `../shared/data/llm/tofu_golden` beside the repository. To the six digits that stand
    there.
    """
    logs, expected = golden()
    computed = {name: aggregates(logs[model], name) for name in SETS}
    for name, values in computed.items():
        for metric, value in values.items():
            assert value == pytest.approx(expected[model][name][metric], abs=1e-6), (
                f"{metric} on {name}"
            )
    nine = {
        NAMES[name]: {
            "probability": values["prob"],
            "rouge": values["rouge"],
            "truth_ratio": values["tr"],
        }
        for name, values in computed.items()
        if name != "forget"
    }
    assert tofu.model_utility(nine) == pytest.approx(expected[model]["MU"], abs=1e-6)


@pytest.mark.data
def test_forget_quality_of_the_original_logs() -> None:
    """Needs `../shared/data/llm/tofu_golden` beside the repository. The logs of other forget sets
    are refused by their length.
    """
    logs, expected = golden()
    ratio = {
        name: tofu.truth_ratio(
            column(log["eval_log_forget"], "avg_paraphrased_loss"),
            column(log["eval_log_forget"], "average_perturb_loss"),
        )
        for name, log in logs.items()
    }
    p, statistic, *sizes = expected["FQ_full_vs_retain90"]
    for method_ratio, oracle_ratio in (
        (ratio["full"], ratio["retain90"]),
        (1 / ratio["full"], 1 / ratio["retain90"]),
    ):
        quality = tofu.forget_quality(method_ratio, oracle_ratio)
        assert quality.log10 == pytest.approx(math.log10(p), abs=1e-4)
        assert quality.statistic == pytest.approx(statistic, abs=1e-6) and sizes == [
            quality.size,
            quality.size,
        ]
    assert tofu.forget_quality(ratio["retain90"], ratio["retain90"]).p == 1
    with pytest.raises(InputError, match="300 and the oracle 200"):
        tofu.forget_quality(ratio["full"], ratio["retain95"])

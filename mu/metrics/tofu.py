"""TOFU's metrics: probability, ROUGE, truth ratio, model utility, forget quality.

Source: Maini et al., "TOFU: a task of fictitious unlearning for LLMs", COLM 2024, arXiv 2401.06121.

Every function takes average losses: A = -(1/N) Σ log p of an answer's labelled tokens (end of
sequence included), in nats, one per pair of a question and an answer. Wrong answers come as
`[N, K]`, or as a list of N tensors `[K_i]` where items have different numbers of them. Everything
is computed in float64.

The truth ratio is R = wrong / (right + 1e-10), as OpenUnlearning keeps it; TOFU's own logs hold its
inverse. Its goal is the oracle's distribution (a mean of min(R, 1/R) of about 0.65 on TOFU), not 1;
gradient ascent drives it to 0, and the forget quality with it. Where right and wrong are both
below 1e-10, the constant decides R (it is near 0, whatever the answers are), so max(0, 1 - R) is
undefined there: the published code gives a model that was destroyed the best value, 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import lgamma
from typing import Any

import torch
from torch import Tensor

from mu.metrics.checks import as_vector
from mu.utils.errors import InputError, UndefinedError
from mu.utils.extras import require

EPS = 1e-10
"""Constant that the reference codes add to a divisor."""
UTILITY = ("probability", "rouge", "truth_ratio")
"""Metrics of the model utility, measured on every set that the model should retain."""

Wrong = Tensor | Sequence[Tensor]
"""Average losses of wrong answers, `[N, K]` or N tensors `[K_i]`."""


def probability(nll: Tensor) -> Tensor:
    """Probability of an answer, `exp(-A)`: the geometric mean of its tokens' probabilities.

    Args:
        nll: average losses `[N]`.

    Returns:
        `[N]` in [0, 1].

    Example: tokens of probability 1/2 on average.

        >>> probability(torch.tensor([2.0]).log())
        tensor([0.5000], dtype=torch.float64)
    """
    return (-as_vector(nll, "nll")).exp()


def normalised_probability(right: Tensor, wrong: Wrong) -> Tensor:
    """Probability of the right answer among all, `P(right) / (P(right) + Σ P(wrong) + 1e-10)`.

    P = exp(-A). TOFU's on real authors and world facts.

    Args:
        right: average losses of the right answers, `[N]`.
        wrong: average losses of the wrong answers.

    Returns:
        `[N]` in [0, 1].

    Example: P = 1/2 for the right answer, 1/2 and 1 for two wrong ones.

        >>> normalised_probability(torch.tensor([2.0]).log(), torch.tensor([[2.0, 1.0]]).log())
        tensor([0.2500], dtype=torch.float64)
    """
    right_probability = probability(right)
    rows = _rows(wrong, len(right_probability))
    wrong_probability = torch.stack([probability(losses).sum() for losses in rows])
    return right_probability / (right_probability + wrong_probability + EPS)


def truth_ratio(right: Tensor, wrong: Wrong) -> Tensor:
    """Truth ratio `R = wrong / (right + 1e-10)`.

    wrong = exp(-mean A) over the wrong answers (a geometric mean), right = exp(-A).

    Args:
        right: average losses of the paraphrased answers (of the answers themselves where there are
            no paraphrases), `[N]`.
        wrong: average losses of the perturbed answers.

    Returns:
        `[N]`, >= 0.

    Example: right 1/2; wrong 1/2 and 1/8, geometric mean 1/4.

        >>> truth_ratio(torch.tensor([2.0]).log(), torch.tensor([[2.0, 8.0]]).log())
        tensor([0.5000], dtype=torch.float64)
    """
    right_probability, wrong_probability = _right_and_wrong(right, wrong)
    return wrong_probability / (right_probability + EPS)


def truth_probability(right: Tensor, wrong: Wrong) -> Tensor:
    """Truth probability `right / (right + wrong + 1e-10)`, OpenUnlearning's `prob_mean`.

    right and wrong are those of `truth_ratio`.

    Args:
        right: average losses of the paraphrased answers, `[N]`.
        wrong: average losses of the perturbed answers.

    Returns:
        `[N]` in [0, 1]; 1 = the model knows the answer.

    Example: right 1/2; wrong 1/2 and 1/8, geometric mean 1/4.

        >>> truth_probability(torch.tensor([2.0]).log(), torch.tensor([[2.0, 8.0]]).log())
        tensor([0.6667], dtype=torch.float64)
    """
    right_probability, wrong_probability = _right_and_wrong(right, wrong)
    return right_probability / (right_probability + wrong_probability + EPS)


def undefined_ratios(right: Tensor, wrong: Wrong) -> Tensor:
    """Items whose truth ratio the constant decides: right and wrong are both below 1e-10.

    right and wrong are those of `truth_ratio`.

    Args:
        right: average losses of the paraphrased answers, `[N]`.
        wrong: average losses of the perturbed answers.

    Returns:
        `[N]` bool.

    Example: e^-30 is below 1e-10, e^-2 is not.

        >>> losses = torch.tensor([30.0, 2.0])
        >>> undefined_ratios(losses, losses[:, None]).tolist()
        [True, False]
    """
    right_probability, wrong_probability = _right_and_wrong(right, wrong)
    return (right_probability < EPS) & (wrong_probability < EPS)


def closer_to_one(ratio: Tensor) -> Tensor:
    """Truth ratio score `min(R, 1 / (R + 1e-10))`, TOFU's on the forget set.

    Args:
        ratio: truth ratios R, `[N]`, >= 0.

    Returns:
        `[N]` in [0, 1]; 1 where right and wrong answers are equally likely.

    Example:
        >>> closer_to_one(torch.tensor([0.5, 4.0]))
        tensor([0.5000, 0.2500], dtype=torch.float64)
    """
    ratio = _ratios(ratio, "ratio")
    return torch.minimum(ratio, 1 / (ratio + EPS))


def true_better(ratio: Tensor) -> Tensor:
    """Truth ratio score `max(0, 1 - R)`, TOFU's on the retain set, real authors and world facts.

    Args:
        ratio: truth ratios R, `[N]`, >= 0, of items that `undefined_ratios` does not name.

    Returns:
        `[N]` in [0, 1]; large where the right answer is likelier.

    Example:
        >>> true_better(torch.tensor([0.25, 4.0]))
        tensor([0.7500, 0.0000], dtype=torch.float64)
    """
    return (1 - _ratios(ratio, "ratio")).clamp_min(0)


def mean_true_better(right: Tensor, wrong: Wrong) -> float:
    """Mean of `true_better` over items, in [0, 1].

    Args:
        right: average losses of the right answers, `[N]`.
        wrong: average losses of the wrong answers.

    Raises:
        UndefinedError: right and wrong answers of an item are both below 1e-10.

    Example: R = 1/2.

        >>> round(mean_true_better(torch.tensor([2.0]).log(), torch.tensor([[4.0]]).log()), 4)
        0.5
    """
    undefined = int(undefined_ratios(right, wrong).sum())
    if undefined:
        raise UndefinedError(
            f"the right and the wrong answers of {undefined} of {len(right)} items are both less "
            "likely than 1e-10 a token, so which is likelier says nothing; the model that was "
            "tested is destroyed there."
        )
    return true_better(truth_ratio(right, wrong)).mean().item()


def harmonic_mean(values: Sequence[float] | Tensor) -> float:
    """Harmonic mean `n / Σ (1 / v)`; 0 if any value is 0.

    Args:
        values: at least one, >= 0.

    Returns:
        In [0, max v].

    Raises:
        InputError: without values, or with a negative one.
        UndefinedError: a value is NaN.

    Example: 2 / (1 + 2).

        >>> round(harmonic_mean([1.0, 0.5]), 4)
        0.6667
    """
    flat = torch.as_tensor(values, dtype=torch.float64).flatten()
    if not len(flat) or bool((flat < 0).any()):
        raise InputError("a harmonic mean needs at least one value, none below 0.")
    if bool(flat.isnan().any()):
        raise UndefinedError(
            "a mean over NaN is undefined: the model that was tested has diverged."
        )
    return 0.0 if bool((flat == 0).any()) else len(flat) / (1 / flat).sum().item()


def model_utility(values: Mapping[str, Mapping[str, float]]) -> float:
    """Model utility: harmonic mean of probability, ROUGE-L recall and truth ratio over sets.

    The truth ratio is `true_better`; on TOFU's three sets the mean is over nine numbers.

    Args:
        values: `{set: {metric: mean}}`, for each set (TOFU: retain, real authors, world facts) the
            metrics of `UTILITY`, in [0, 1].

    Returns:
        In [0, 1]; 0 if any of the numbers is 0.

    Raises:
        InputError: a metric is missing on a set.

    Example: 3 / (1 + 1 + 2).

        >>> model_utility({"retain": {"probability": 1.0, "rouge": 1.0, "truth_ratio": 0.5}})
        0.75
    """
    missing = [
        f"{metric} on {name}"
        for name, metrics in values.items()
        for metric in UTILITY
        if metric not in metrics
    ]
    if missing:
        raise InputError(
            f"model utility is a mean over {', '.join(UTILITY)} on each set, and {missing[0]} is "
            "missing."
        )
    return harmonic_mean([metrics[metric] for metrics in values.values() for metric in UTILITY])


@dataclass(frozen=True)
class ForgetQuality:
    """Agreement of two models' truth ratios by a Kolmogorov-Smirnov test.

    Attributes:
        p: p-value of the test; 1 = indistinguishable. 0 where it is below the smallest float64.
        log10: its logarithm, finite even there.
        statistic: largest distance D of the two distribution functions, in [0, 1].
        size: items of each model.
    """

    p: float
    log10: float
    statistic: float
    size: int


def forget_quality(ratio: Tensor, oracle: Tensor) -> ForgetQuality:
    """Forget quality: Kolmogorov-Smirnov test of the model's truth ratios against the oracle's.

    Two-sample p-value on the forget set. R and 1/R give the same. Its floor depends on the number
    of items: complete separation gives 2e-119 for 200 and 1e-239 for 400, and an original that
    never unlearned about 1e-2 for 40, 1e-13 for 200 and 1e-21 for 400; compare numbers of equal
    size only.

    Args:
        ratio: the model's, `[N]`.
        oracle: the oracle's on the same items, `[N]`.

    Raises:
        InputError: the two are not of equal length.

    Example: equal truth ratios.

        >>> forget_quality(torch.tensor([0.5, 0.7]), torch.tensor([0.5, 0.7])).p
        1.0
    """
    from scipy.stats import ks_2samp

    ratio = _ratios(ratio, "the truth ratio")
    oracle = _ratios(oracle, "the oracle's truth ratio")
    if len(ratio) != len(oracle):
        raise InputError(
            "forget quality compares the truth ratios of the same items, but the model has "
            f"{len(ratio)} and the oracle {len(oracle)}; evaluate both on one forget set."
        )
    test: Any = ks_2samp(ratio.cpu().numpy(), oracle.cpu().numpy())
    p = float(test.pvalue)
    statistic = float(test.statistic)
    return ForgetQuality(
        p, math.log10(p) if p > 0 else _log10_p(statistic, len(ratio)), statistic, len(ratio)
    )


def _log10_p(statistic: float, size: int) -> float:
    """log10 of a p-value below float64's smallest.

    Exact at complete separation, else the first term 2 exp(-n D²) of the limiting distribution.
    """
    if statistic >= 1:
        return (math.log(2) - lgamma(2 * size + 1) + 2 * lgamma(size + 1)) / math.log(10)
    return (math.log(2) - size * statistic**2) / math.log(10)


def rouge_l(outputs: Sequence[str], truths: Sequence[str]) -> tuple[Tensor, Tensor]:
    """ROUGE-L recall and F1 of generated answers, by the package rouge_score with its stemmer.

    Words are Unicode words, which are those of the published rule where both texts are ASCII (see
    `mu.metrics.words`).

    Args:
        outputs: generated answers, N strings.
        truths: true answers, N strings.

    Returns:
        Recall `[N]` (share of the truth's longest common subsequence; TOFU's) and F1 `[N]`
        (MUSE's), in [0, 1]; 0 where the output is empty, and NaN, undefined, where the truth is.

    Raises:
        InputError: the numbers of outputs and truths differ.

    Example: two of four words in order.

        >>> recall, f1 = rouge_l(["the cat"], ["the cat sat down"])
        >>> recall.item(), round(f1.item(), 4)
        (0.5, 0.6667)
    """
    require("ROUGE", "rouge_score", extra="llm")
    from rouge_score.rouge_scorer import RougeScorer

    from mu.metrics.words import UnicodeTokenizer

    if len(outputs) != len(truths):
        raise InputError(
            f"ROUGE compares each output with its truth, not {len(outputs)} with {len(truths)}."
        )
    scorer = RougeScorer(["rougeL"], tokenizer=UnicodeTokenizer())
    values = []
    for output, truth in zip(outputs, truths, strict=True):
        score = scorer.score(truth, output)["rougeL"]
        values.append((score.recall, score.fmeasure) if truth.strip() else (math.nan, math.nan))
    recall, f1 = torch.tensor(values, dtype=torch.float64).reshape(-1, 2).unbind(1)
    return recall, f1


def _right_and_wrong(right: Tensor, wrong: Wrong) -> tuple[Tensor, Tensor]:
    right_probability = probability(right)
    rows = _rows(wrong, len(right_probability))
    return right_probability, torch.stack([(-losses.mean()).exp() for losses in rows])


def _rows(wrong: Wrong, size: int) -> list[Tensor]:
    """Losses of the wrong answers by item."""
    rows = list(wrong)
    if len(rows) != size:
        raise InputError(f"there are right answers to {size} items, but wrong ones to {len(rows)}.")
    return [
        as_vector(losses, f"the wrong answers to item {item}") for item, losses in enumerate(rows)
    ]


def _ratios(values: Tensor, name: str) -> Tensor:
    values = as_vector(values, name)
    if bool((values < 0).any()):
        raise InputError(f"{name} is a quotient of probabilities, which is never negative.")
    return values

"""The metrics of TOFU (Maini et al., "TOFU: a task of fictitious unlearning for LLMs", COLM 2024,
arXiv 2401.06121) on one model's numbers.

Every function takes average losses: A = -(1/N) Σ log p of an answer's labelled tokens (end of
sequence included), in nats, one for each pair of a question and an answer. Wrong answers come as
`[N, K]`, or as a list of N tensors `[K_i]` where items have different numbers of them. Everything
is computed in float64.

The truth ratio is R = wrong / (right + 1e-10), as OpenUnlearning keeps it; TOFU's own logs hold its
inverse. Its goal is the oracle's distribution (a mean of min(R, 1/R) of about 0.65 on TOFU), not 1;
gradient ascent drives it to 0, and the forget quality with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import lgamma

import torch
from torch import Tensor

from mu.utils.errors import InputError, RunError
from mu.utils.extras import require

EPS = 1e-10
"""What the references add to a divisor."""
UTILITY = ("probability", "rouge", "truth_ratio")
"""Metrics of the model utility, each on every set that is to be kept."""

Wrong = Tensor | Sequence[Tensor]
"""Average losses of wrong answers, `[N, K]` or N tensors `[K_i]`."""


def probability(nll: Tensor) -> Tensor:
    """exp(-A): the geometric mean of the tokens' probabilities, `[N]` in [0, 1].

    Args:
        nll: average losses `[N]`.
    """
    return (-_losses(nll, "nll")).exp()


def normalised_probability(right: Tensor, wrong: Wrong) -> Tensor:
    """P(right) / (P(right) + Σ P(wrong) + 1e-10), each P = exp(-A): for real authors and world
    facts, `[N]` in [0, 1].

    Args:
        right: average losses of the right answers, `[N]`.
        wrong: of the wrong ones.
    """
    here = probability(right)
    there = torch.stack([probability(losses).sum() for losses in _rows(wrong, len(here))])
    return here / (here + there + EPS)


def truth_ratio(right: Tensor, wrong: Wrong) -> Tensor:
    """R = wrong / (right + 1e-10) `[N]`, >= 0: wrong = exp(-mean A) over wrong answers (geometric
    mean), right = exp(-A).

    Args:
        right: average losses of the paraphrased answers (of the answers themselves where there are
            no paraphrases), `[N]`.
        wrong: of the perturbed answers.
    """
    here, there = _right_and_wrong(right, wrong)
    return there / (here + EPS)


def truth_probability(right: Tensor, wrong: Wrong) -> Tensor:
    """right / (right + wrong + 1e-10), with both as in `truth_ratio`: OpenUnlearning's `prob_mean`,
    `[N]` in [0, 1]; 1 = knows.
    """
    here, there = _right_and_wrong(right, wrong)
    return here / (here + there + EPS)


def closer_to_one(ratio: Tensor) -> Tensor:
    """min(R, 1 / (R + 1e-10)) `[N]` in [0, 1]: 1 where right and wrong answers are equally likely.
    TOFU's on the forget set.
    """
    ratio = _ratios(ratio, "ratio")
    return torch.minimum(ratio, 1 / (ratio + EPS))


def true_better(ratio: Tensor) -> Tensor:
    """max(0, 1 - R) `[N]` in [0, 1]: large where the truth is likelier. TOFU's on the retain set,
    real authors and world facts.
    """
    return (1 - _ratios(ratio, "ratio")).clamp_min(0)


def harmonic_mean(values: Sequence[float] | Tensor) -> float:
    """n / Σ (1 / v), in [0, max v]; 0 if any value is 0.

    Raises:
        InputError: without values, or with a negative one.
    """
    found = torch.as_tensor(values, dtype=torch.float64).flatten()
    if not len(found) or bool((found < 0).any()):
        raise InputError("a harmonic mean needs at least one value, none below 0.")
    if bool(found.isnan().any()):
        raise RunError("a harmonic mean is asked of NaN: the model that was tested has diverged.")
    return 0.0 if bool((found == 0).any()) else len(found) / (1 / found).sum().item()


def model_utility(values: Mapping[str, Mapping[str, float]]) -> float:
    """Harmonic mean of probability, ROUGE-L recall and truth ratio (`true_better`) over sets: nine
    numbers on TOFU's three.

    Args:
        values: `{set: {metric: mean}}`, for each set (TOFU: retain, real authors, world facts) the
            metrics of `UTILITY`, in [0, 1].

    Returns:
        In [0, 1]; 0 if any of the numbers is 0.
    """
    missing = [
        f"{metric} on {name}"
        for name, found in values.items()
        for metric in UTILITY
        if metric not in found
    ]
    if missing:
        raise InputError(
            f"model utility is a mean over {', '.join(UTILITY)} on each set, and {missing[0]} is "
            "not given."
        )
    return harmonic_mean([found[metric] for found in values.values() for metric in UTILITY])


@dataclass(frozen=True)
class ForgetQuality:
    """How well two models' truth ratios agree.

    Attributes:
        p: p-value of the test; 1 = cannot be told apart. 0 where it is below the smallest float64.
        log10: its logarithm, finite even there.
        statistic: largest distance D of the two distribution functions, in [0, 1].
        size: items of each model.
    """

    p: float
    log10: float
    statistic: float
    size: int


def forget_quality(ratio: Tensor, oracle: Tensor) -> ForgetQuality:
    """p-value of the two-sample Kolmogorov-Smirnov test between the truth ratios of a model and of
    the oracle on the forget set.

    R and 1/R give the same. Its floor depends on the number of items: complete separation gives
    2e-119 for 200 and 1e-239 for 400, and an original that never unlearned about 1e-2 for 40, 1e-13
    for 200 and 1e-21 for 400; compare numbers of equal size only.

    Args:
        ratio: the model's, `[N]`.
        oracle: the oracle's on the same items, `[N]`.

    Raises:
        InputError: when the two are not of equal length.
    """
    from scipy.stats import ks_2samp

    ratio = _ratios(ratio, "the truth ratio")
    oracle = _ratios(oracle, "the oracle's truth ratio")
    if len(ratio) != len(oracle):
        raise InputError(
            "forget quality compares the truth ratios of the same items, but the model has "
            f"{len(ratio)} and the oracle {len(oracle)}; evaluate both on one forget set."
        )
    found = ks_2samp(ratio.cpu().numpy(), oracle.cpu().numpy())
    p, statistic = float(found.pvalue), float(found.statistic)  # type: ignore[attr-defined]
    return ForgetQuality(
        p, math.log10(p) if p > 0 else _log10_p(statistic, len(ratio)), statistic, len(ratio)
    )


def _log10_p(statistic: float, size: int) -> float:
    """log10 of a p-value that float64 cannot hold: exact at complete separation, else by the
    limiting law's first term 2 exp(-n D²).
    """
    if statistic >= 1:
        return (math.log(2) - lgamma(2 * size + 1) + 2 * lgamma(size + 1)) / math.log(10)
    return (math.log(2) - size * statistic**2) / math.log(10)


def rouge_l(outputs: Sequence[str], truths: Sequence[str]) -> tuple[Tensor, Tensor]:
    """ROUGE-L of generated answers by the package rouge_score, with its stemmer.

    Args:
        outputs: what the model said, N strings.
        truths: what is right, N strings.

    Returns:
        Recall `[N]` (share of the truth's longest common subsequence; TOFU's) and F1 `[N]`
        (MUSE's), in [0, 1]; 0 where either is empty.
    """
    require("ROUGE", "rouge_score", extra="llm")
    from rouge_score.rouge_scorer import RougeScorer

    if len(outputs) != len(truths):
        raise InputError(
            f"ROUGE compares each output with its truth, not {len(outputs)} with {len(truths)}."
        )
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    found = [
        scorer.score(truth, output)["rougeL"] for output, truth in zip(outputs, truths, strict=True)
    ]
    recall, f1 = ([getattr(score, name) for score in found] for name in ("recall", "fmeasure"))
    return torch.tensor(recall, dtype=torch.float64), torch.tensor(f1, dtype=torch.float64)


def _right_and_wrong(right: Tensor, wrong: Wrong) -> tuple[Tensor, Tensor]:
    here = probability(right)
    return here, torch.stack([(-losses.mean()).exp() for losses in _rows(wrong, len(here))])


def _rows(wrong: Wrong, size: int) -> list[Tensor]:
    """The wrong answers' losses, item by item."""
    rows = list(wrong)
    if len(rows) != size:
        raise InputError(f"there are right answers to {size} items, but wrong ones to {len(rows)}.")
    return [
        _losses(losses, f"the wrong answers to item {place}") for place, losses in enumerate(rows)
    ]


def _losses(values: Tensor, name: str) -> Tensor:
    """`[N]` in float64; infinity is a probability of 0."""
    if values.ndim != 1 or not len(values):
        raise InputError(
            f"{name} must be [N] with at least one number, but has shape {list(values.shape)}."
        )
    if bool(values.isnan().any()):
        raise RunError(
            f"{name} holds NaN: the model that was tested has diverged, so nothing can be "
            "measured on it."
        )
    return values.detach().to(torch.float64)


def _ratios(values: Tensor, name: str) -> Tensor:
    values = _losses(values, name)
    if bool((values < 0).any()):
        raise InputError(f"{name} is a quotient of probabilities, which is never negative.")
    return values

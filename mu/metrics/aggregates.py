"""Aggregate scores of language-model unlearning: memorisation, privacy, utility, overall.

Source: OpenUnlearning, "OpenUnlearning: accelerating LLM unlearning via unified benchmarking of
methods and metrics", 2025, arXiv 2506.12618.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mu.metrics.checks import check_number
from mu.metrics.tofu import harmonic_mean
from mu.utils.errors import InputError, UndefinedError


def memorisation_score(memorised: Mapping[str, float] | Sequence[float]) -> float:
    """Memorisation score: harmonic mean of 1 - x over four measures of memorisation.

    The four are extraction strength, exact memorisation, paraphrased probability and truth
    probability. In [0, 1], higher = less is memorised (OpenUnlearning, section on aggregates).

    Args:
        memorised: the four, or other measures in [0, 1] that are 1 for a memorised text.

    Raises:
        InputError: a measure lies outside [0, 1].

    Example: 2 / (1 / 1 + 1 / 0.5).

        >>> round(memorisation_score([0.0, 0.5]), 4)
        0.6667
    """
    return harmonic_mean([1 - value for value in _shares(memorised)])


def membership_closeness(auc: float, oracle_auc: float) -> float:
    """Closeness of a membership AUC to the oracle's, in [0, 1]; 1 = as the oracle.

    `1 - |AUC - AUC of the oracle| / max(AUC of the oracle, 1 - AUC of the oracle)`.
    OpenUnlearning's table scores each attack by "closeness to the retain model", but neither paper
    nor code states the transform. Ours divides by the largest distance that an AUC can have, so
    that 0 is the worst that there is: an original with an AUC of 0.95 gets 0.1 beside an oracle of
    0.5, where 1 - |difference| would give it 0.55 (the paper's table has 0.10 for the original).

    Args:
        auc: value of `membership_auc`.
        oracle_auc: the oracle's.

    Raises:
        InputError: an AUC lies outside [0, 1].

    Example: 1 - 0.25 / 0.5.

        >>> membership_closeness(0.75, 0.5)
        0.5
    """
    for value in (auc, oracle_auc):
        check_number(value, "an area under a curve")
        if not 0 <= value <= 1:
            raise InputError(f"an area under a curve lies in [0, 1], not at {value}.")
    return 1 - abs(auc - oracle_auc) / max(oracle_auc, 1 - oracle_auc)


def membership_closeness_reference_code(auc: float, oracle_auc: float) -> float:
    """Closeness of a membership AUC to the oracle's, as released code of such tables computes it.

    `clip(1 - |AUC - AUC of the oracle| / AUC of the oracle, 0, 1)`; as `membership_closeness` where
    the oracle's AUC is at least 0.5, and smaller below. Source: unlearning-depth-score (2026,
    arXiv 2605.24614), whose tables continue OpenUnlearning's.

    Args:
        auc: value of `membership_auc`.
        oracle_auc: the oracle's.

    Raises:
        InputError: an AUC lies outside [0, 1].
        UndefinedError: the oracle's is 0.

    Example: 1 - 0.1 / 0.4.

        >>> membership_closeness_reference_code(0.5, 0.4)
        0.75
    """
    membership_closeness(auc, oracle_auc)  # checks both
    if oracle_auc == 0:
        raise UndefinedError("the oracle's AUC is 0, so nothing can be stated as a share of it.")
    return min(max(1 - abs(auc - oracle_auc) / oracle_auc, 0.0), 1.0)


def privacy_score(
    aucs: Mapping[str, float],
    oracle_aucs: Mapping[str, float],
    closeness: Callable[[float, float], float] = membership_closeness,
) -> float:
    """Privacy score: harmonic mean over attacks of the closeness of their AUCs to the oracle's.

    In [0, 1]; 1 = every attack has the same AUC on the model and on the oracle.

    Args:
        aucs: AUC by attack; the paper takes loss, zlib, min-k and min-k++.
        oracle_aucs: the oracle's, by the same attacks.
        closeness: closeness of an AUC to the oracle's, in [0, 1].

    Raises:
        InputError: the two have different attacks.

    Example: closeness 1 and 0.5.

        >>> round(privacy_score({"loss": 0.5, "zlib": 0.75}, {"loss": 0.5, "zlib": 0.5}), 4)
        0.6667
    """
    if set(aucs) != set(oracle_aucs):
        raise InputError(
            f"the privacy score compares the attacks {', '.join(sorted(aucs))} with "
            f"{', '.join(sorted(oracle_aucs))}; give both of each."
        )
    return harmonic_mean([closeness(auc, oracle_aucs[name]) for name, auc in aucs.items()])


def utility_score(utility: float, original: float | None = None) -> float:
    """Utility score: model utility as a share of the original's, at most 1.

    OpenUnlearning's also contains the fluency, by a classifier of gibberish, and seems to be scaled
    so that the original has 1. This score is the model utility alone.

    Args:
        utility: model utility in [0, 1].
        original: model utility before unlearning; None leaves the score unscaled.

    Raises:
        UndefinedError: the original's model utility is 0.

    Example:
        >>> utility_score(0.3, 0.6)
        0.5
    """
    check_number(utility, "the model utility")
    check_number(original or 0.0, "the original's model utility")
    if original is not None and original <= 0:
        raise UndefinedError(
            "the original's model utility is 0, so nothing can be stated as a share of it."
        )
    return utility if original is None else min(1.0, utility / original)


def overall_score(memorisation: float, privacy: float, utility: float) -> float:
    """Overall score: harmonic mean of memorisation, privacy and utility score, in [0, 1].

    Confirmed by the maintainers of OpenUnlearning.

    Args:
        memorisation: value of `memorisation_score`.
        privacy: value of `privacy_score`.
        utility: value of `utility_score`.

    Example: 3 / (1 + 1 + 2).

        >>> overall_score(1.0, 1.0, 0.5)
        0.75
    """
    return harmonic_mean([memorisation, privacy, utility])


def _shares(values: Mapping[str, float] | Sequence[float]) -> list[float]:
    shares = list(values.values()) if isinstance(values, Mapping) else list(values)
    for share in shares:
        check_number(share, "a share")
    outside = [share for share in shares if not 0 <= share <= 1]
    if outside:
        raise InputError(f"a share lies in [0, 1], but {outside[0]} was given.")
    return shares

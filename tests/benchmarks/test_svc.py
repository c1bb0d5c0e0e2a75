"""Speed of the SVC attacks over scikit-learn at the papers' size, on one thread.

Sizes: 10,000 members, 10,000 non-members, 5,000 forget samples, ten classes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from mu.metrics import ATTACKS, attack_features, fit_svc
from tests.benchmarks.paired import Mark, Paired, Work, paired
from tests.support.pools import pools

COUNT = 10_000
# scikit-learn takes about a minute for each
ROUNDS = int(os.environ.get("MU_BENCHMARK_ROUNDS", "3"))
FASTER = 5

Decide = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def ours(x: np.ndarray, y: np.ndarray, forget: np.ndarray) -> np.ndarray:
    return fit_svc(x, y).predict(forget)


def scikit_learns(x: np.ndarray, y: np.ndarray, forget: np.ndarray) -> np.ndarray:
    from sklearn.svm import SVC

    return SVC(C=3, kernel="rbf", gamma="auto").fit(x, y).predict(forget)


def problems() -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Features, classes and the forget samples' features of each attack."""
    arrays = pools(COUNT)
    features = {}
    for name in ATTACKS:
        member, other, forget = (attack_features(name, arrays[i], arrays[i + 1]) for i in (0, 2, 4))
        features[name] = (np.concatenate([member, other]), np.arange(2 * COUNT) < COUNT, forget)
    return features


def rounds_of(
    decide: Decide, attacks: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> Work:
    """All attacks, round after round; a unit is one attack, its fit and its decisions."""

    def work(mark: Mark) -> dict[str, np.ndarray]:
        decisions = {}
        mark()
        for _ in range(ROUNDS):
            for name, problem in attacks.items():
                decisions[name] = decide(*problem)
                mark()
        return decisions

    return work


@pytest.mark.slow
def test_five_attacks_against_scikit_learn(
    measured: Callable[[Callable[[], Paired]], Paired], say: Any
) -> None:
    attacks = problems()
    with threadpool_limits(1):
        pair = measured(
            lambda: paired(
                rounds_of(ours, attacks),
                rounds_of(scikit_learns, attacks),
                units=len(attacks),
                warmup=0,
            )
        )
    fast_decisions, reference_decisions = pair.results
    equal = {
        name: float(np.mean(fast_decisions[name] == reference_decisions[name])) for name in attacks
    }
    shares = ", ".join(f"{name} {100 * share:.2f} %" for name, share in equal.items())
    say(
        f"{1 / pair.ratio:.1f} times faster than scikit-learn ({pair.spread()}); equal "
        f"decisions: {shares}",
        faster=1 / pair.ratio,
        **{f"equal_{name}": share for name, share in equal.items()},
    )
    assert min(equal.values()) >= 0.999
    assert 1 / pair.ratio >= FASTER

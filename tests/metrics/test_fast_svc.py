"""The fast SVC against scikit-learn, against the KKT conditions with the exact kernel, and against
closed forms.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.svm import SVC

from mu.metrics import ATTACKS, SVCFit, attack_features, fit_svc
from mu.metrics.low_rank_kernel import low_rank_factor
from mu.metrics.svc_solver import SVCSolver
from mu.utils.errors import InputError, RunError
from tests.support.pools import pools


def scikit(x: np.ndarray, y: np.ndarray, tolerance: float = 1e-3) -> tuple[Any, float]:
    """scikit-learn's classifier and its dual objective."""
    model: Any = SVC(C=3, kernel="rbf", gamma="auto", tol=tolerance).fit(x, y)
    without_bias = model.decision_function(model.support_vectors_) - model.intercept_
    return model, float(np.abs(model.dual_coef_).sum() - 0.5 * model.dual_coef_[0] @ without_bias)


def problem(attack: str, count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    given_pools = pools(count, seed, forget=1000)
    member, other, forget = (
        attack_features(attack, given_pools[i], given_pools[i + 1]) for i in (0, 2, 4)
    )
    return np.concatenate([member, other]), np.arange(2 * count) < count, forget


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("attack", ATTACKS)
def test_equals_scikit_learn(attack: str, seed: int) -> None:
    """Any error in the collapse of copies, the factor, the Newton steps or the intercept fails
    this.
    """
    x, y, forget = problem(attack, 500 + 150 * seed, seed)
    fit = fit_svc(x, y)
    assert fit.solver == "low-rank" and fit.violation <= 1e-6 and fit.approximation < 1e-5
    usual, _ = scikit(x, y)
    assert np.mean(fit.predict(forget) == usual.predict(forget)) >= 0.999
    tight, dual = scikit(x, y, tolerance=1e-8)
    assert fit.dual_objective == pytest.approx(dual, rel=1e-6)
    np.testing.assert_allclose(
        fit.decision_function(forget), tight.decision_function(forget), atol=2e-4
    )


@pytest.mark.parametrize("features", [1, 2, 7])
def test_meets_the_optimality_conditions_of_the_exact_kernel(features: int) -> None:
    draw = np.random.default_rng(features)
    x = draw.uniform(0, 2, (60, features))
    y = x[:, 0] + draw.normal(0, 0.7, 60) > 1.2
    fit = fit_svc(x, y, C=1.5, gamma=0.7)
    alpha = {
        tuple(point): abs(weight)
        for point, weight in zip(fit.points, fit.coefficients, strict=True)
    }
    assert fit.coefficients.sum() == pytest.approx(0, abs=1e-7)
    for row, positive in zip(x, y, strict=True):
        f = fit.intercept
        for point, weight in zip(fit.points, fit.coefficients, strict=True):
            f += weight * math.exp(
                -0.7 * sum((a - b) ** 2 for a, b in zip(row, point, strict=True))
            )
        assert fit.decision_function(row[None])[0] == pytest.approx(f, abs=1e-9)
        multiplier = alpha.get(tuple(row), 0.0)
        margin = f if positive else -f
        assert -1e-12 <= multiplier <= 1.5 + 1e-12
        if multiplier < 1.5 - 1e-9:
            assert margin >= 1 - 1e-5
        if multiplier > 1e-9:
            assert margin <= 1 + 1e-5


def test_two_points_have_a_closed_form() -> None:
    """The dual 2a - a^2 (1 - k) is greatest at a = 1 / (1 - k), and the intercept is 0."""
    fit = fit_svc([0.0, 1.0], [True, False])
    alpha = 1 / (1 - math.exp(-1))
    assert fit.intercept == pytest.approx(0, abs=1e-7)
    assert fit.dual_objective == pytest.approx(alpha, rel=1e-9)
    assert fit.decision_function([0.25]).item() == pytest.approx(
        alpha * (math.exp(-0.0625) - math.exp(-0.5625)), rel=1e-6
    )


def test_copies_count_as_often_as_they_occur() -> None:
    draw = np.random.default_rng(3)
    x = draw.integers(0, 4, (300, 2)).astype(float)
    y = draw.random(300) < 0.6
    model, dual = scikit(x, y, tolerance=1e-9)
    fit = fit_svc(x, y)
    assert fit.dual_objective == pytest.approx(dual, rel=1e-9)
    np.testing.assert_allclose(fit.decision_function(x), model.decision_function(x), atol=1e-5)


def test_equal_features_give_the_larger_side_and_a_tie_gives_members() -> None:
    assert fit_svc([0.3] * 5, [1, 1, 1, 0, 0]).decision_function(
        [0.3, 9.0]
    ).tolist() == pytest.approx([1.0, 1.0])
    assert fit_svc([0.3] * 5, [1, 0, 0, 1, 0]).predict([0.3, 9.0]).tolist() == [False, False]
    for value in (0.3, 1.0, 7.7):
        tie = fit_svc([value] * 6, [1, 0] * 3)
        assert tie.decision_function([value]).tolist() == [0.0] and tie.predict(
            [value, 0.1]
        ).tolist() == [True, True]
    close = fit_svc([1.0, 1.0 - 1e-16, 1.0 - 2e-16, 1.0], [1, 1, 0, 0])  # apart by rounding only
    assert close.predict([1.0, 0.9]).all()


@given(
    st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 12), st.integers(1, 3), st.booleans()
)
@settings(max_examples=60, deadline=None)
def test_small_problems_equal_scikit_learn(
    seed: int, members: int, others: int, features: int, coarse: bool
) -> None:
    draw = np.random.default_rng(seed)
    x = draw.uniform(0, 3, (members + others, features))
    x = np.round(x) if coarse else x
    y = np.arange(members + others) < members
    fit = fit_svc(x, y)
    model, dual = scikit(x, y, tolerance=1e-9)
    assert fit.solver == "low-rank" and fit.violation <= 1e-6
    assert fit.dual_objective == pytest.approx(dual, rel=1e-6, abs=1e-9)
    clear = np.abs(model.decision_function(x)) > 1e-3
    assert np.array_equal(fit.predict(x)[clear], model.predict(x)[clear])


def test_order_of_rows_does_not_matter_and_repetition_is_exact() -> None:
    x, y, forget = problem("prob", 150, 5)
    order = np.random.default_rng(0).permutation(len(x))
    first = fit_svc(x, y)
    second = fit_svc(x, y)
    third = fit_svc(x[order], y[order])
    assert np.array_equal(first.decision_function(forget), second.decision_function(forget))
    np.testing.assert_allclose(
        first.decision_function(forget), third.decision_function(forget), atol=1e-9
    )


def test_a_kernel_of_high_rank_goes_to_scikit_learn_and_says_so() -> None:
    draw = np.random.default_rng(0)
    x = draw.uniform(0, 1000, (300, 1))
    y = draw.random(300) < 0.5
    model, dual = scikit(x, y)
    for fit in (fit_svc(x, y, max_rank=40), fit_svc(x, y)):
        assert np.array_equal(fit.predict(x), model.predict(x))
        assert fit.dual_objective == pytest.approx(dual, rel=1e-5)
    fit = fit_svc(x, y, max_rank=40)
    assert (
        fit.solver == "scikit-learn" and fit.summary()["solver"] == "scikit-learn" and fit.rank == 0
    )
    np.testing.assert_allclose(fit.decision_function(x), model.decision_function(x), atol=1e-9)


def test_the_factor_found_on_a_part_of_many_points_serves_them_all() -> None:
    draw = np.random.default_rng(1)
    # few points far from the crowd
    points = np.concatenate([draw.uniform(0.98, 1, (6500, 3)), draw.uniform(0, 1, (60, 3))])
    factor, residual = low_rank_factor(points, 1 / 3, 800)
    assert residual <= 1e-7
    some = np.concatenate([np.arange(0, 6500, 97), np.arange(6500, 6560)])
    for i in some:
        for j in some[::7]:
            exact = math.exp(-float(np.sum((points[i] - points[j]) ** 2)) / 3)
            assert float(factor[:, i] @ factor[:, j]) == pytest.approx(exact, abs=2e-7)


def test_the_reported_violation_is_libsvms() -> None:
    """m(alpha) - M(alpha) from the definition, with the exact kernel, for multipliers that are not
    optimal.
    """
    draw = np.random.default_rng(2)
    x = draw.uniform(0, 2, (20, 1))
    sign = np.where(np.arange(20) % 2, 1.0, -1.0)
    alpha = draw.choice([0.0, 3.0, 1.3], 20)
    kernel = np.exp(-((x - x.T) ** 2))
    design: Any = np.hstack([np.ones((20, 1)), np.linalg.cholesky(kernel + 1e-10 * np.eye(20))])
    solver = SVCSolver(design, np.arange(20), sign, np.ones(20), 3.0)
    violation, total = solver.evaluate(solver.design, alpha)
    score = [
        -s * sum(s * t * k * a for t, k, a in zip(sign, row, alpha, strict=True)) + s
        for s, row in zip(sign, kernel, strict=True)
    ]
    up = [
        v
        for v, s, a in zip(score, sign, alpha, strict=True)
        if (s > 0 and a < 3) or (s < 0 and a > 0)
    ]
    low = [
        v
        for v, s, a in zip(score, sign, alpha, strict=True)
        if (s > 0 and a > 0) or (s < 0 and a < 3)
    ]
    assert violation.violation == pytest.approx(max(up) - min(low), abs=1e-6)
    assert total == pytest.approx(float(alpha @ sign))


@pytest.mark.parametrize(
    ("features", "member", "sentence"),
    [
        ([0.1, 0.2], [True, True], "one of the two sides is empty"),
        ([0.1, 0.2], [False, False], "one of the two sides is empty"),
        ([0.1, 0.2], [True], "one per row"),
        (np.zeros((0, 1)), [], "not empty"),
        (np.zeros((2, 2, 2)), [True, False], "must be"),
    ],
)
def test_unusable_input_is_refused(features: Any, member: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        fit_svc(features, member)


def test_values_of_a_diverged_model_are_refused() -> None:
    with pytest.raises(RunError, match="diverged"):
        fit_svc([0.1, math.nan], [True, False])


def test_other_features_than_those_of_the_fit_are_refused() -> None:
    fit: SVCFit = fit_svc([[0.0, 1.0], [1.0, 0.0]], [True, False])
    with pytest.raises(InputError, match="2 features"):
        fit.decision_function([[1.0]])

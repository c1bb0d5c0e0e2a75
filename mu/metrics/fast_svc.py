"""Binary RBF support vector classifier, 16 times faster than scikit-learn's at the papers' size.

The SVC membership attacks use scikit-learn's `SVC(C=3, kernel="rbf", gamma="auto")` on up to 10,000
+ 10,000 points, where SMO takes seconds to minutes for each feature. The problem is the same here,
the algorithm is another:

1. equal feature rows become one weighted row (the correctness attack has two distinct rows);
2. the kernel matrix is factored as L L^T (`mu.metrics.low_rank_kernel`);
3. the soft-margin problem *with intercept* is solved in the rows of L (`mu.metrics.svc_solver`).

The solution is as close to the optimum as the `violation` that it reports: libsvm's own stopping
quantity, which scikit-learn drives to 1e-3 and this solver to 1e-6. Where the kernel's rank is too
large or the tolerance is not met, scikit-learn's solver is used and named.

Measured on one thread with 10,000 members, 10,000 non-members and 5,000 decisions of ten classes
(`tests/benchmarks/test_svc.py`): the five attacks together take 1/16.2 of scikit-learn's time, and
all their decisions are equal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mu.metrics.low_rank_kernel import MAX_RESIDUAL, Array, low_rank_factor, rbf_kernel
from mu.metrics.svc_solver import LIBSVM_TOLERANCE, SVCSolver, sum_by_group
from mu.utils.errors import InputError, UndefinedError

# entries of the kernel computed at once: 4 MB, about what stays in a processor's cache
_BLOCK = 2**19


@dataclass(frozen=True)
class SVCFit:
    """Fitted binary RBF classifier.

    The decision function is `sum_i coefficients_i k(points_i, x) + intercept`, positive = member.

    Attributes:
        points: `[S, F]`, the distinct support vectors.
        coefficients: `[S]`, alpha_i y_i summed over the copies of a point.
        intercept: the bias. Where the optimum leaves an interval of biases, its midpoint, as libsvm
            chooses.
        gamma: the kernel's width parameter.
        dual_objective: sum_i alpha_i - 1/2 ||w||^2 (libsvm minimises its negative).
        violation: largest violation of the KKT conditions, libsvm's m(alpha) - M(alpha); not
            positive when none is violated. The scikit-learn solver does not report it, so its
            tolerance stands here.
        approximation: largest deviation of the decision function with the exact kernel from that
            with L L^T, on up to 512 training points; 0 for scikit-learn.
        rank: columns of L; 0 for scikit-learn.
        iterations: Newton steps, or libsvm's iterations.
        solver: `low-rank` or `scikit-learn`.
    """

    points: Array
    coefficients: Array
    intercept: float
    gamma: float
    dual_objective: float
    violation: float
    approximation: float
    rank: int
    iterations: int
    solver: str

    def decision_function(self, features: ArrayLike) -> Array:
        """Signed decision values `[N]` of features `[N, F]` or `[N]`, with the exact kernel."""
        x = _matrix(features)
        if x.shape[1] != self.points.shape[1]:
            raise InputError(
                f"the classifier was fitted on {self.points.shape[1]} features, but was given "
                f"{x.shape[1]}."
            )
        out = np.full(len(x), self.intercept)
        rows = max(1, _BLOCK // max(1, len(self.points)))
        for start in range(0, len(x), rows):
            out[start : start + rows] += (
                rbf_kernel(x[start : start + rows], self.points, self.gamma) @ self.coefficients
            )
        return out

    def predict(self, features: ArrayLike) -> NDArray[np.bool_]:
        """Predicted members, `[N]` bool.

        A decision value of 0 is a member, as in scikit-learn, and so is a value within the sum's
        rounding of 0. So on two equal pools, which cannot be separated, every point is a member and
        none counts as forgotten.
        """
        rounding = (
            8 * np.finfo(np.float64).eps * (np.abs(self.coefficients).sum() + abs(self.intercept))
        )
        return self.decision_function(features) >= -rounding

    def summary(self) -> dict[str, Any]:
        """Solver, tolerances and sizes of the fit, for a results file."""
        return {
            "solver": self.solver,
            "violation": float(self.violation),
            "approximation": float(self.approximation),
            "rank": self.rank,
            "iterations": self.iterations,
            "support": len(self.points),
        }


def fit_svc(
    features: ArrayLike,
    member: ArrayLike,
    C: float = 3.0,
    gamma: float | None = None,
    tolerance: float = 1e-6,
    max_rank: int = 800,
) -> SVCFit:
    """Soft-margin RBF classifier fitted to unscaled features.

    Args:
        features: `[N, F]`, or `[N]` for one feature; finite.
        member: `[N]` bool or 0/1, True for the positive class; both classes must occur.
        C: bound of every example's multiplier.
        gamma: kernel width; default 1 / F, scikit-learn's `gamma="auto"`.
        tolerance: violation of the KKT conditions to reach.
        max_rank: columns of the factor of the kernel at most.

    Returns:
        The fit. Its `solver` is `scikit-learn` when `max_rank` columns do not give the kernel to
        1e-5 or the decision function to 1e-3, the tolerance to which scikit-learn itself solves, or
        when the KKT conditions could not be met to 1e-3.

    Raises:
        InputError: the features are empty or of a wrong shape, or a class is absent.
        UndefinedError: a feature is infinite or NaN.

    Example: members have the larger feature.

        >>> fit = fit_svc([0.0, 0.1, 0.9, 1.0], [False, False, True, True])
        >>> fit.predict([0.05, 0.95]).tolist()
        [False, True]
    """
    x = _matrix(features)
    positive = np.asarray(member).astype(bool)
    if positive.shape != x.shape[:1]:
        raise InputError(
            f"there are {len(x)} rows of features but the classes have shape {positive.shape}; "
            "give one per row."
        )
    if positive.all() or not positive.any():
        raise InputError(
            "the classifier needs members and non-members, but one of the two sides is empty."
        )
    width = 1.0 / x.shape[1] if gamma is None else float(gamma)
    points, group, sign, count = _collapse(x, positive)
    factor, residual = low_rank_factor(points, width, max_rank)
    if residual > MAX_RESIDUAL:
        return _scikit_learn(x, positive, C, width)
    mean = factor @ sum_by_group(group, count, len(points)) / len(x)
    # sum(alpha y) = 0 makes the problem invariant under a shift of the features. Centred, they are
    # no longer nearly parallel to the column of ones of the intercept; uncentred, saturated
    # features
    # make the Newton systems singular.
    design = np.empty((len(points), len(factor) + 1))
    design[:, 0] = 1.0
    np.subtract(factor.T, mean, out=design[:, 1:])
    solution = SVCSolver(design, group, sign, count, C).solve(tolerance)
    weight = sum_by_group(group, count * solution.alpha * sign, len(points))
    support = np.flatnonzero(weight)
    normal = solution.normal
    fit = SVCFit(
        points=points[support],
        coefficients=weight[support],
        intercept=solution.intercept - float(normal @ mean),
        gamma=width,
        dual_objective=float(count @ solution.alpha - 0.5 * normal @ normal),
        violation=solution.violation,
        approximation=0.0,
        rank=len(factor),
        iterations=solution.iterations,
        solver="low-rank",
    )
    probe = np.unique(np.linspace(0, len(points) - 1, min(512, len(points))).astype(np.int64))
    approximate = design[probe] @ np.concatenate([[solution.intercept], normal])
    deviation = float(np.abs(fit.decision_function(points[probe]) - approximate).max())
    if max(solution.violation, deviation) > LIBSVM_TOLERANCE:
        return _scikit_learn(x, positive, C, width)
    return replace(fit, approximation=deviation)


def _matrix(features: ArrayLike) -> Array:
    x = np.asarray(features, dtype=np.float64)
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim != 2 or x.size == 0:
        raise InputError(f"features must be [N] or [N, F] and not empty, but have shape {x.shape}.")
    if not np.isfinite(x).all():
        raise UndefinedError(
            "a feature of the membership classifier is infinite or NaN: the model that was tested "
            "has diverged."
        )
    return x


def _collapse(
    x: Array, positive: NDArray[np.bool_]
) -> tuple[Array, NDArray[np.int64], Array, Array]:
    """Distinct rows `[G, F]`, and of every distinct (row, class) the row, the class +-1, the
    count."""
    if x.shape[1] == 1:
        points, row = np.unique(x[:, 0], return_inverse=True)  # much faster than axis=0
        points = points[:, None]
    else:
        points, row = np.unique(x, axis=0, return_inverse=True)
    pair, count = np.unique(row.reshape(-1).astype(np.int64) * 2 + positive, return_counts=True)
    return points, pair // 2, np.where(pair % 2, 1.0, -1.0), count.astype(np.float64)


def _scikit_learn(x: Array, positive: NDArray[np.bool_], C: float, gamma: float) -> SVCFit:
    from sklearn.svm import SVC

    # fit
    settings: dict[str, Any] = {
        "C": C,
        "kernel": "rbf",
        "gamma": gamma,
        "tol": LIBSVM_TOLERANCE,
        "cache_size": 500,
    }
    model: Any = SVC(**settings).fit(x, positive)
    points = np.asarray(model.support_vectors_)
    weight = np.asarray(model.dual_coef_)[0]
    intercept = float(np.asarray(model.intercept_)[0])
    # the dual objective needs the kernel of the support vectors among themselves
    on_points = SVCFit(points, weight, 0.0, gamma, 0.0, 0.0, 0.0, 0, 0, "").decision_function(
        points
    )
    return SVCFit(
        points=points,
        coefficients=weight,
        intercept=intercept,
        gamma=gamma,
        dual_objective=float(np.abs(weight).sum() - 0.5 * weight @ on_points),
        violation=LIBSVM_TOLERANCE,
        approximation=0.0,
        rank=0,
        iterations=int(np.sum(model.n_iter_)),
        solver="scikit-learn",
    )

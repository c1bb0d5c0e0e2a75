"""The binary support vector classifier of the SVC membership attacks, solved fast and to a stated
tolerance.

The papers use scikit-learn's `SVC(C=3, kernel="rbf", gamma="auto")` on up to 10,000 + 10,000
points, where SMO takes seconds to minutes for each feature. The problem is the same here, the
algorithm is another:

1. equal feature rows become one weighted row (the correctness attack has two distinct rows); 2. on
bounded features of few dimensions the RBF kernel has a tiny numerical rank, so K is factored as L
L^T by pivoted Cholesky
   (Fine and Scheinberg, "Efficient SVM training using low-rank kernel representations", JMLR 2001);
3. the soft-margin problem *with intercept* in the rows of L is solved by the proximal method of
multipliers, each of whose steps is
   minimised by a semismooth Newton method with exact line search: only the examples whose
   multiplier lies strictly between its bounds enter the Hessian, and convergence is quadratic (Yan
   and Li, "An efficient augmented Lagrangian method for support vector machine", Optimization
   Methods and Software 2020).

The solution is as close to the optimum as the `violation` that it reports: libsvm's own stopping
quantity, which scikit-learn drives to 1e-3 and this solver to 1e-6. Where the kernel's rank is too
large or the tolerance is not met, scikit-learn's solver is used and named.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mu.utils.errors import InputError, RunError

Array = NDArray[np.float64]

LIBSVM_TOLERANCE = 1e-3  # libsvm stops when the violation of the KKT conditions falls below this
# pivoted Cholesky stops when no diagonal entry of K - L L^T exceeds this (the diagonal of K is 1)
# ...
_RESIDUAL = 1e-7
_RESIDUAL_1D = (
    1e-11  # ... and for one feature, whose rank is so small that the tighter bound costs nothing
)
_MAX_RESIDUAL = 1e-5  # a larger one moves decision values by more than libsvm's tolerance
_COARSE = 48  # leading columns of L that give the starting point for all columns
_MAX_PENALTY = 1e6  # beyond it, rounding of 1 - y f times the penalty is larger than the tolerance
# entries of the kernel computed at once: 4 MB, about what stays in a processor's cache
_BLOCK = 2**19


def rbf_kernel(a: Array, b: Array, gamma: float) -> Array:
    """exp(-gamma ||a_i - b_j||^2) of rows `[N, F]` and `[M, F]`: `[N, M]` in [0, 1]."""
    if a.shape[1] == 1:
        # the difference itself keeps the digits that the expanded square loses
        squared = a - b[:, 0]
        squared *= squared
    else:
        squared = a @ (-2.0 * b.T)
        squared += np.einsum("ij,ij->i", a, a)[:, None]
        squared += np.einsum("ij,ij->i", b, b)
        np.maximum(squared, 0.0, out=squared)
    squared *= -gamma
    return np.exp(squared, out=squared)


@dataclass(frozen=True)
class SVCFit:
    """A fitted binary RBF classifier; the decision function is sum_i coefficients_i k(points_i, x)
    + intercept, positive = member.

    Attributes:
        points: `[S, F]` the distinct support vectors.
        coefficients: `[S]` alpha_i y_i, summed over the copies of a point.
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
        """Signed decision values `[N]` of features `[N, F]` or `[N]`, by the exact kernel."""
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
        """True where the point is called a member, `[N]`.

        A decision value of 0 is a member, as in scikit-learn, and so is what cannot be told from 0
        by the sum's rounding. So on two equal pools, between which nothing can be decided,
        everything is a member and nothing counts as forgotten.
        """
        rounding = (
            8 * np.finfo(np.float64).eps * (np.abs(self.coefficients).sum() + abs(self.intercept))
        )
        return self.decision_function(features) >= -rounding

    def summary(self) -> dict[str, Any]:
        """How the fit was made, as plain numbers and words for a results file."""
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
    """Fit the soft-margin RBF classifier to features without scaling them.

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
    factor, residual = _factor(points, width, max_rank)
    if residual > _MAX_RESIDUAL:
        return _scikit_learn(x, positive, C, width)
    mean = factor @ _sums(group, count, len(points)) / len(x)
    # sum(alpha y) = 0 makes the problem invariant under a shift of the features. Centred, they are
    # no longer nearly parallel to the
    # column of ones that carries the intercept, without which saturated features make the Newton
    # systems singular.
    design = np.empty((len(points), len(factor) + 1))
    design[:, 0] = 1.0
    np.subtract(factor.T, mean, out=design[:, 1:])
    solution = _Multipliers(design, group, sign, count, C).solve(tolerance)
    weight = _sums(group, count * solution.alpha * sign, len(points))
    used = np.flatnonzero(weight)
    normal = solution.normal
    fit = SVCFit(
        points=points[used],
        coefficients=weight[used],
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
        raise RunError(
            "a feature of the membership classifier is infinite or NaN: the model that was tested "
            "has diverged."
        )
    return x


def _sums(group: NDArray[np.int64], values: Array, groups: int) -> Array:
    return np.asarray(np.bincount(group, values, minlength=groups), dtype=np.float64)


def _collapse(
    x: Array, positive: NDArray[np.bool_]
) -> tuple[Array, NDArray[np.int64], Array, Array]:
    """Distinct rows `[G, F]`, and for every distinct (row, class): the row's number, the class as
    +-1, and how often it occurs.
    """
    if x.shape[1] == 1:
        points, row = np.unique(x[:, 0], return_inverse=True)  # much faster than axis=0
        points = points[:, None]
    else:
        points, row = np.unique(x, axis=0, return_inverse=True)
    pair, count = np.unique(row.reshape(-1).astype(np.int64) * 2 + positive, return_counts=True)
    return points, pair // 2, np.where(pair % 2, 1.0, -1.0), count.astype(np.float64)


def _factor(points: Array, gamma: float, max_rank: int) -> tuple[Array, float]:
    """L^T `[r, G]` with K ~ L L^T by greedy pivoted Cholesky, and the largest diagonal entry of K -
    L L^T.

    Greedy pivoting touches all of L for every pivot, which is bound by memory. So most pivots are
    found on an evenly spaced part of the points, all points are then projected at once by matrix
    products, and the search goes on with the points that are still badly served.
    """
    from scipy.linalg import solve_triangular

    part = (
        np.arange(len(points))
        if len(points) <= 6000
        else np.linspace(0, len(points) - 1, 4000).astype(np.int64)
    )
    rows, pivots, residual = _pivots(points[part], gamma, max_rank, np.empty((0, len(part))))
    if len(part) < len(points) and residual <= _MAX_RESIDUAL:
        corner = rows[:, pivots].T  # lower triangular: the rows of L that belong to the pivots
        rows = solve_triangular(
            corner, rbf_kernel(points[part[pivots]], points, gamma), lower=True, check_finite=False
        )
        rows, _, residual = _pivots(points, gamma, max_rank, rows)
    return rows, residual


def _pivots(
    points: Array, gamma: float, max_rank: int, start: Array
) -> tuple[Array, NDArray[np.int64], float]:
    """Extend the rows `start` `[r, G]` of L^T while a residual exceeds the bound; all rows, the new
    pivots, the largest residual.
    """
    enough = _RESIDUAL if points.shape[1] > 1 else _RESIDUAL_1D
    begin = len(start)
    limit = max(len(start), min(max_rank, len(points)))
    rows = np.empty((limit, len(points)))
    rows[:begin] = start
    residual = 1.0 - np.einsum("ij,ij->j", start, start)
    chosen: list[int] = []
    while (k := begin + len(chosen)) < limit and residual.max() > enough:
        pivot = int(residual.argmax())
        row = rbf_kernel(points[pivot : pivot + 1], points, gamma)[0]
        row -= rows[:k, pivot] @ rows[:k]
        row /= np.sqrt(residual[pivot])
        row[chosen] = 0.0  # exact zeros keep the pivots' rows of L triangular
        rows[k] = row
        residual -= row * row
        residual[pivot] = 0.0
        chosen.append(pivot)
    return rows[: begin + len(chosen)], np.asarray(chosen, dtype=np.int64), float(residual.max())


@dataclass(frozen=True)
class _Solution:
    alpha: Array  # [V] multiplier of one copy, in [0, C]
    normal: Array  # [r] the hyperplane in the centred features
    intercept: float
    violation: float
    iterations: int


class _Multipliers:
    """min 1/2 ||w||^2 + C sum_i count_i max(0, 1 - sign_i f_i) with f = design (b, w), by the
    proximal method of multipliers.

    Every one of the V (row, class) pairs stands for `count` equal examples, which share one
    multiplier alpha in [0, C]. A step with penalty sigma minimises over u = (b, w) the augmented
    Lagrangian plus (b - b_old)^2 / (2 sigma), and replaces alpha by clip(alpha + sigma (1 - sign
    f), 0, C).
    """

    def __init__(
        self, design: Array, group: NDArray[np.int64], sign: Array, count: Array, C: float
    ) -> None:
        self.design = design
        self.group = group
        self.sign = sign
        self.count = count
        self.C = C
        self.size = float(count.sum())
        self.iterations = 0

    def solve(self, tolerance: float, steps: int = 60) -> _Solution:
        """Solve on the leading columns loosely, then on all columns from there; the best iterate of
        the last stage is returned.
        """
        columns = self.design.shape[1]
        alpha = np.zeros(len(self.sign))
        intercept = 0.0
        sigma = 1.0
        best: _Solution | None = None
        for stage in (_COARSE, columns) if columns > 2 * _COARSE else (columns,):
            last = stage == columns
            design = self.design if last else np.ascontiguousarray(self.design[:, :stage])
            # a penalty moves a multiplier by penalty times violation, which is useful up to about
            # the width of its box
            sigma = min(
                sigma, max(1.0, self.C / max(self._judge(design, alpha)[0].violation, 1e-12))
            )
            for _ in range(steps):
                proposal, start, converged = self._step(
                    design, alpha, intercept, sigma, loose=not last
                )
                if not converged:
                    sigma *= 0.1
                    continue
                alpha = proposal
                intercept = start
                solution, sums = self._judge(design, alpha)
                feasible = abs(sums) <= 1e-9 * self.size
                if last and feasible and (best is None or solution.violation < best.violation):
                    best = solution
                if feasible and solution.violation <= (tolerance if last else LIBSVM_TOLERANCE):
                    break
                sigma = min(5.0 * sigma, _MAX_PENALTY)
        return (
            best
            if best is not None
            else _Solution(alpha, np.zeros(columns - 1), 0.0, np.inf, self.iterations)
        )

    def _step(
        self, design: Array, alpha: Array, intercept: float, sigma: float, loose: bool
    ) -> tuple[Array, float, bool]:
        """Minimise one augmented Lagrangian by semismooth Newton; the new multipliers, the
        intercept, whether the minimum was reached.
        """
        from scipy.linalg import cho_factor, cho_solve

        penalty = np.ones(design.shape[1])
        penalty[0] = 1.0 / sigma
        centre = np.zeros(design.shape[1])
        centre[0] = intercept
        u = design.T @ self._fold(alpha)
        u[0] = intercept
        f = design @ u
        # below the second term, the gradient is rounding noise
        enough = 1e-9 * self.size**0.5 * (1e3 if loose else 1.0) + 2e-17 * sigma * self.size
        proposal = alpha
        for _ in range(50):
            shifted = alpha + sigma * (1.0 - self.sign * f[self.group])
            proposal = np.clip(shifted, 0.0, self.C)
            gradient = penalty * (u - centre) - design.T @ self._fold(proposal)
            if np.abs(gradient).max() <= enough:
                return proposal, float(u[0]), True
            inside = (shifted > 0) & (shifted < self.C)
            curvature = sigma * _sums(self.group[inside], self.count[inside], len(design))
            free = np.flatnonzero(curvature)
            scaled = design[free] * np.sqrt(curvature[free])[:, None]
            hessian = scaled.T @ scaled
            hessian[np.diag_indices_from(hessian)] += penalty
            factor = cho_factor(hessian, lower=True, overwrite_a=True, check_finite=False)
            direction = -cho_solve(factor, gradient, check_finite=False)
            change = design @ direction
            length = self._line_search(
                shifted,
                -sigma * self.sign * change[self.group],
                sigma,
                gradient @ direction,
                (penalty * (u - centre)) @ direction,
                (penalty * direction) @ direction,
            )
            u = u + length * direction
            f = f + length * change
            self.iterations += 1
        return proposal, float(u[0]), False

    def _line_search(
        self,
        shifted: Array,
        slope: Array,
        sigma: float,
        start: float,
        linear: float,
        quadratic: float,
    ) -> float:
        """Step length at which the derivative along the direction, piecewise linear and increasing,
        is 1 % of its start at 0.
        """
        weighted = self.count * slope / sigma
        low = 0.0
        high = np.inf
        length = 1.0
        for _ in range(50):
            moved = shifted + length * slope
            derivative = linear + quadratic * length + np.clip(moved, 0.0, self.C) @ weighted
            if abs(derivative) <= 0.01 * abs(start):
                break
            inside = (moved > 0) & (moved < self.C)
            second = quadratic + weighted[inside] @ slope[inside]
            low, high = (low, length) if derivative > 0 else (length, high)
            target = length - derivative / second if second > 0 else np.inf
            middle = 0.5 * (low + high) if np.isfinite(high) else 2.0 * length
            length = target if low < target < min(high, 10.0 * length) else middle
        return float(length)

    def _judge(self, design: Array, alpha: Array) -> tuple[_Solution, float]:
        """The hyperplane that `alpha` gives, its intercept and its violation; also sum(alpha y),
        which must be 0.
        """
        weight = self._fold(alpha)
        normal = design[:, 1:].T @ weight
        # the intercept that would put the example on its margin
        bias = self.sign - (design[:, 1:] @ normal)[self.group]
        positive = self.sign > 0
        below = alpha < self.C
        above = alpha > 0
        at_least = bias[np.where(positive, below, above)].max(initial=-np.inf)
        at_most = bias[np.where(positive, above, below)].min(initial=np.inf)
        free = np.minimum(alpha, self.C - alpha) * self.count
        intercept = (free @ bias) / free.sum() if free.any() else 0.5 * (at_least + at_most)
        return _Solution(
            alpha, normal, float(intercept), float(at_least - at_most), self.iterations
        ), float(weight.sum())

    def _fold(self, alpha: Array) -> Array:
        return _sums(self.group, self.count * alpha * self.sign, len(self.design))


def _scikit_learn(x: Array, positive: NDArray[np.bool_], C: float, gamma: float) -> SVCFit:
    from sklearn.svm import SVC

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

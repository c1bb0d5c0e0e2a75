"""Soft-margin SVC with intercept in given features, by the proximal method of multipliers.

Every step is minimised by a semismooth Newton method with exact line search: only the examples
whose multiplier lies strictly between its bounds enter the Hessian, and convergence is quadratic
(Yan and Li, "An efficient augmented Lagrangian method for support vector machine", Optimization
Methods and Software 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LIBSVM_TOLERANCE = 1e-3
"""Violation of the KKT conditions below which libsvm stops."""

_COARSE = 48  # leading columns that give the starting point for all columns
_MAX_PENALTY = 1e6  # beyond it, rounding of 1 - y f times the penalty is larger than the tolerance


def sum_by_group(group: NDArray[np.int64], values: Array, groups: int) -> Array:
    """Sums of values over the members of each group.

    Args:
        group: group of each value, `[N]` in `[0, groups)`.
        values: `[N]`.
        groups: number of groups G.

    Returns:
        `[G]`.

    Example:
        >>> sum_by_group(np.array([0, 2, 2]), np.array([1.0, 2.0, 3.0]), 3)
        array([1., 0., 5.])
    """
    return np.asarray(np.bincount(group, values, minlength=groups), dtype=np.float64)


@dataclass(frozen=True)
class DualSolution:
    """Multipliers and hyperplane of a soft-margin SVC.

    Attributes:
        alpha: multiplier of one copy of each pair, `[V]` in [0, C].
        normal: normal of the hyperplane in the centred features, `[r]`.
        intercept: the bias.
        violation: largest violation of the KKT conditions.
        iterations: Newton steps.
    """

    alpha: Array
    normal: Array
    intercept: float
    violation: float
    iterations: int


class SVCSolver:
    """Proximal method of multipliers for the soft-margin problem with intercept.

    `min 1/2 ||w||^2 + C sum_i count_i max(0, 1 - sign_i f_i)` with `f = design (b, w)`. A (row,
    class) pair is `count` equal examples, which share one multiplier alpha in [0, C]. A step with
    penalty sigma minimises over u = (b, w) the augmented Lagrangian plus (b - b_old)^2 / (2 sigma),
    and replaces alpha by clip(alpha + sigma (1 - sign f), 0, C).
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

    def solve(self, tolerance: float, steps: int = 60) -> DualSolution:
        """Best iterate on all columns, started from a loose solution on the leading columns."""
        columns = self.design.shape[1]
        alpha = np.zeros(len(self.sign))
        intercept = 0.0
        sigma = 1.0
        best: DualSolution | None = None
        for stage in (_COARSE, columns) if columns > 2 * _COARSE else (columns,):
            last = stage == columns
            design = self.design if last else np.ascontiguousarray(self.design[:, :stage])
            # a penalty moves a multiplier by penalty times violation, which is useful up to about
            # the width of its box
            sigma = min(
                sigma, max(1.0, self.C / max(self.evaluate(design, alpha)[0].violation, 1e-12))
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
                solution, sums = self.evaluate(design, alpha)
                feasible = abs(sums) <= 1e-9 * self.size
                if last and feasible and (best is None or solution.violation < best.violation):
                    best = solution
                if feasible and solution.violation <= (tolerance if last else LIBSVM_TOLERANCE):
                    break
                sigma = min(5.0 * sigma, _MAX_PENALTY)
        return (
            best
            if best is not None
            else DualSolution(alpha, np.zeros(columns - 1), 0.0, np.inf, self.iterations)
        )

    def _step(
        self, design: Array, alpha: Array, intercept: float, sigma: float, loose: bool
    ) -> tuple[Array, float, bool]:
        """One augmented Lagrangian minimised by semismooth Newton.

        Returns the new multipliers, the intercept, and whether the minimum was reached.
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
        bound = 1e-9 * self.size**0.5 * (1e3 if loose else 1.0) + 2e-17 * sigma * self.size
        proposal = alpha
        for _ in range(50):
            shifted = alpha + sigma * (1.0 - self.sign * f[self.group])
            proposal = np.clip(shifted, 0.0, self.C)
            gradient = penalty * (u - centre) - design.T @ self._fold(proposal)
            if np.abs(gradient).max() <= bound:
                return proposal, float(u[0]), True
            # Newton direction, by the curvature of multipliers between their bounds
            inside = (shifted > 0) & (shifted < self.C)
            curvature = sigma * sum_by_group(self.group[inside], self.count[inside], len(design))
            free = np.flatnonzero(curvature)
            scaled = design[free] * np.sqrt(curvature[free])[:, None]
            hessian = scaled.T @ scaled
            hessian[np.diag_indices_from(hessian)] += penalty
            factor = cho_factor(hessian, lower=True, overwrite_a=True, check_finite=False)
            direction = -cho_solve(factor, gradient, check_finite=False)
            change = design @ direction
            # line search
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
        """Step length where the derivative along the direction falls to 1 % of its start.

        The derivative is piecewise linear and increasing.
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

    def evaluate(self, design: Array, alpha: Array) -> tuple[DualSolution, float]:
        """Solution of the multipliers `alpha`, and sum(alpha y), which must be 0."""
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
        return DualSolution(
            alpha, normal, float(intercept), float(at_least - at_most), self.iterations
        ), float(weight.sum())

    def _fold(self, alpha: Array) -> Array:
        return sum_by_group(self.group, self.count * alpha * self.sign, len(self.design))

"""Low-rank factor of the RBF kernel matrix by pivoted Cholesky.

On bounded features of few dimensions the RBF kernel has a tiny numerical rank, so that K is
factored as L L^T with few columns (Fine and Scheinberg, "Efficient SVM training using low-rank
kernel representations", JMLR 2001).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MAX_RESIDUAL = 1e-5
"""Largest diagonal entry of K - L L^T that moves no decision value by more than libsvm's
tolerance."""

# pivoted Cholesky stops when no diagonal entry of K - L L^T exceeds this (the diagonal of K is 1)
_RESIDUAL = 1e-7
# the same for one feature, whose rank is so small that the tighter bound costs nothing
_RESIDUAL_1D = 1e-11


def rbf_kernel(a: Array, b: Array, gamma: float) -> Array:
    """RBF kernel matrix `exp(-gamma ||a_i - b_j||^2)`.

    Args:
        a: rows `[N, F]`.
        b: rows `[M, F]`.
        gamma: > 0.

    Returns:
        `[N, M]` in [0, 1].

    Example: distance 1.

        >>> rbf_kernel(np.array([[0.0]]), np.array([[0.0], [1.0]]), 1.0).round(4)
        array([[1.    , 0.3679]])
    """
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


def low_rank_factor(points: Array, gamma: float, max_rank: int) -> tuple[Array, float]:
    """Low-rank factor of the kernel matrix by greedy pivoted Cholesky, and its residual.

    Greedy pivoting touches all of L for every pivot, which is bound by memory. So most pivots are
    searched on an evenly spaced part of the points, all points are then projected at once by matrix
    products, and the search goes on with the points of a large residual.

    Args:
        points: distinct rows `[G, F]`.
        gamma: > 0.
        max_rank: rows of the factor at most.

    Returns:
        L^T `[r, G]` with K ~ L L^T, and the largest diagonal entry of K - L L^T.

    Example: two far points are a kernel of rank 2.

        >>> factor, residual = low_rank_factor(np.array([[0.0], [9.0]]), 1.0, 10)
        >>> factor.shape, residual
        ((2, 2), 0.0)
    """
    from scipy.linalg import solve_triangular

    part = (
        np.arange(len(points))
        if len(points) <= 6000
        else np.linspace(0, len(points) - 1, 4000).astype(np.int64)
    )
    rows, pivots, residual = _pivots(points[part], gamma, max_rank, np.empty((0, len(part))))
    if len(part) < len(points) and residual <= MAX_RESIDUAL:
        corner = rows[:, pivots].T  # lower triangular: the rows of L that belong to the pivots
        rows = solve_triangular(
            corner, rbf_kernel(points[part[pivots]], points, gamma), lower=True, check_finite=False
        )
        rows, _, residual = _pivots(points, gamma, max_rank, rows)
    return rows, residual


def _pivots(
    points: Array, gamma: float, max_rank: int, start: Array
) -> tuple[Array, NDArray[np.int64], float]:
    """Rows of L^T, begun by `start` `[r, G]`, the new pivots, and the largest residual."""
    bound = _RESIDUAL if points.shape[1] > 1 else _RESIDUAL_1D
    begin = len(start)
    limit = max(len(start), min(max_rank, len(points)))
    rows = np.empty((limit, len(points)))
    rows[:begin] = start
    residual = 1.0 - np.einsum("ij,ij->j", start, start)
    pivots: list[int] = []
    while (k := begin + len(pivots)) < limit and residual.max() > bound:
        pivot = int(residual.argmax())
        row = rbf_kernel(points[pivot : pivot + 1], points, gamma)[0]
        row -= rows[:k, pivot] @ rows[:k]
        row /= np.sqrt(residual[pivot])
        row[pivots] = 0.0  # exact zeros keep the pivots' rows of L triangular
        rows[k] = row
        residual -= row * row
        residual[pivot] = 0.0
        pivots.append(pivot)
    return rows[: begin + len(pivots)], np.asarray(pivots, dtype=np.int64), float(residual.max())

"""Closed-form weight edits from gradients and curvature: SSD, WoodFisher, Fisher forgetting.

Pure functions on tensors, and one accumulator. No function runs a model:
`mu.core.gradients.summed` gathers the gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from mu.utils.errors import InputError

# ---------------------------------------------------------------- selective synaptic dampening


def ssd_dampen(
    weight: Tensor, importance_forget: Tensor, importance_all: Tensor, alpha: float, lam: float
) -> Tensor:
    """Selective synaptic dampening (SSD) of weights that matter more to the forget set than to all.

    Where `I_f > alpha I_D` the weight is multiplied by `min(lambda I_D / I_f, 1)`; elsewhere it
    stays, bit for bit.

    Source: Foster et al., "Fast Machine Unlearning Without Retraining Through Selective Synaptic
    Dampening" (AAAI 2024, arXiv 2308.07707). The importances there are squares of *batch-mean*
    gradients, so they depend on the batch size. `I_D` is over the whole training set, forget
    samples included.

    Args:
        weight: any shape.
        importance_forget: the same shape, >= 0.
        importance_all: the same shape, >= 0.
        alpha: selection threshold, >= 0; larger selects fewer.
        lam: dampening constant, >= 0; smaller shrinks more.

    Returns:
        The shape of `weight`; no entry grows in magnitude or changes its sign.

    Raises:
        InputError: alpha or lambda is negative.

    Example: importances 8 against 1, alpha 2, lambda 1: selected and divided by 8; with 1.5 against
    1 it stays.

        >>> forget, all_data = torch.tensor([8.0, 1.5]), torch.tensor([1.0, 1.0])
        >>> ssd_dampen(torch.tensor([4.0, 4.0]), forget, all_data, 2.0, 1.0)
        tensor([0.5000, 4.0000])
    """
    if alpha < 0 or lam < 0:
        raise InputError(f"SSD needs alpha and lambda of at least 0, not {alpha} and {lam}.")
    # 0/0 only where nothing is selected
    factor = (lam * importance_all / importance_forget).clamp(max=1)
    return torch.where(importance_forget > alpha * importance_all, weight * factor, weight)


# ---------------------------------------------------------------- inverse curvature


def woodfisher_reference(gradients: Iterable[Tensor], vector: Tensor, m: int = 1000) -> Tensor:
    """Recursion of the released influence-unlearning code; `woodfisher` is the textbook one.

    `o = g_1`, `k = v`; for every later sample with `t = o . g`: `k <- k - (k . g) / (M + t) o`,
    then `o <- o - t / (M + t) o`; it stops after the sample with (0-based) index greater than M, so
    at most M + 2 are read.

    `o` keeps the direction of the first gradient for ever, so the result differs from `v` along
    `g_1` only and depends on the order of the samples: k is not `v` times the inverse of a Fisher
    matrix.

    Source: `Wfisher.py` of the code of Jia et al. (NeurIPS 2023, arXiv 2304.04934) and of SalUn; M
    is 1000 there, and 300000 for ImageNet, whatever the number of samples.

    Args:
        gradients: flat per-sample gradients `[P]`, read one at a time.
        vector: v, `[P]`.
        m: M.

    Returns:
        k, `[P]`.

    Example: v = g_1 = (1, 0), g_2 = (2, 0), M = 2: t = 2, so k = v - 2 / 4 o.

        >>> samples = [torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.0])]
        >>> woodfisher_reference(samples, torch.tensor([1.0, 0.0]), m=2)
        tensor([0.5000, 0.0000])
    """
    k = vector.clone()
    o = None
    for index, gradient in enumerate(gradients):
        if o is None:
            o = gradient.clone()
        else:
            t = o @ gradient
            k = k - (k @ gradient) / (m + t) * o
            o = o - t / (m + t) * o
        if index > m:
            break
    return k


class WoodFisher:
    """Exact inverse of a damped empirical Fisher matrix, built one gradient at a time.

    `H = damping I + 1/N sum_n g_n g_n^T`. Sherman and Morrison: with `u_n = H_{n-1}^{-1} g_n` and
    `d_n = N + g_n . u_n`, `H_n^{-1} = H_{n-1}^{-1} - u_n u_n^T / d_n`. No P x P matrix is made: the
    vectors `u_n` are kept, which takes N P numbers, N^2 P operations to build and N P for each
    `solve`. The order of the samples does not matter.

    Source: Singh and Alistarh, "WoodFisher" (NeurIPS 2020, arXiv 2004.14340).

    Args:
        count: N, how many gradients will come.
        damping: > 0. The rounding error grows as `|g|^2 / damping`.

    Raises:
        InputError: the damping or the count is not positive.

    Example: one gradient (1, 0), damping 1: the matrix is diag(2, 1).

        >>> inverse = WoodFisher(1, damping=1.0)
        >>> inverse.update(torch.tensor([1.0, 0.0]))
        >>> inverse.solve(torch.tensor([1.0, 1.0]))
        tensor([0.5000, 1.0000])
    """

    def __init__(self, count: int, damping: float) -> None:
        if count < 1 or not damping > 0:
            raise InputError(
                f"WoodFisher needs gradients and a damping greater than 0, not {count} and "
                f"{damping}."
            )
        self.count = count
        self.damping = damping
        self.seen = 0
        self._directions: Tensor | None = None  # u_n, [N, P]
        self._denominators: Tensor | None = None  # d_n, [N]

    def update(self, gradient: Tensor) -> None:
        """Add the next flat gradient `[P]`; the first one sets dtype and device of the state."""
        if self._directions is None or self._denominators is None:
            self._directions = gradient.new_empty(self.count, gradient.numel())
            self._denominators = gradient.new_empty(self.count)
        if self.seen == self.count:
            raise InputError(
                f"WoodFisher was made for {self.count} gradients and got one more; raise `count`."
            )
        direction = self._apply(gradient)
        self._directions[self.seen] = direction
        self._denominators[self.seen] = self.count + gradient @ direction
        self.seen += 1

    def solve(self, vector: Tensor) -> Tensor:
        """Product `H^{-1} v` with a flat vector `v` `[P]`."""
        if self.seen != self.count:
            raise InputError(
                f"WoodFisher has seen {self.seen} of {self.count} gradients; its matrix is not "
                "complete."
            )
        return self._apply(vector)

    def _apply(self, vector: Tensor) -> Tensor:
        result = vector / self.damping
        if self.seen and self._directions is not None and self._denominators is not None:
            u = self._directions[: self.seen]
            result = result - ((u @ vector) / self._denominators[: self.seen]) @ u
        return result


class FisherSpectrum:
    """Inverses of an empirical Fisher matrix under several dampings, from one decomposition.

        (λ I + 1/N Σ_n g_n g_nᵀ)⁻¹ v = (v − Gᵀ (K + λ I)⁻¹ G v / N) / λ,    K = G Gᵀ / N

    Args:
        gradients: G `[N, P]`, which is kept.

    Attributes:
        largest: largest eigenvalue of the Fisher matrix.

    Example: one gradient (1, 0), damping 1: the matrix is diag(2, 1).

        >>> spectrum = FisherSpectrum(torch.tensor([[1.0, 0.0]]))
        >>> spectrum.solve(torch.tensor([1.0, 1.0]), damping=1.0)
        tensor([0.5000, 1.0000])
    """

    def __init__(self, gradients: Tensor) -> None:
        self.gradients = gradients
        count = len(gradients)
        gram = torch.zeros(count, count, dtype=torch.float64, device=gradients.device)
        # in double precision, some columns at a time
        for columns in gradients.split(1 << 16, dim=1):
            wide = columns.double()
            gram += wide @ wide.T
        self._values, self._vectors = torch.linalg.eigh(gram / count)
        self.largest = float(self._values[-1])

    def solve(self, vector: Tensor, damping: float) -> Tensor:
        """Product `H⁻¹ v` with a flat vector `v` `[P]`, for a damping λ > 0."""
        products = (self.gradients @ vector).double() / len(self.gradients)
        inverse = 1 / (self._values.clamp_min(0) + damping)
        weights = self._vectors @ (inverse * (self._vectors.T @ products))
        return (vector - weights.to(vector) @ self.gradients) / damping


def smallest_damping(
    spectrum: FisherSpectrum,
    vector: Tensor,
    acceptable: Callable[[Tensor], bool],
    factor: float = 10**0.25,
    trials: int = 60,
) -> tuple[float, Tensor]:
    """Smallest damping λ whose step `H⁻¹ v` is acceptable, and that step.

    λ begins at the largest eigenvalue of the curvature. It falls by `factor` as long as the step
    is acceptable, or rises by `factor` until it is.

    Args:
        spectrum: the Fisher matrix.
        vector: v, `[P]`.
        acceptable: whether a step `[P]` may be taken.
        factor: between neighbouring dampings, > 1.
        trials: dampings tried at most; 60 of 10^(1/4) are fifteen powers of ten.

    Returns:
        λ and the step `[P]`.

    Example: the matrix is 4, and steps 1 / (4 + λ) below 0.18 are acceptable.

        >>> spectrum = FisherSpectrum(torch.tensor([[2.0]]))
        >>> acceptable = lambda step: float(step) < 0.18
        >>> damping, step = smallest_damping(spectrum, torch.ones(1), acceptable, factor=2.0)
        >>> damping
        2.0
    """
    damping = max(spectrum.largest, torch.finfo(torch.float32).tiny)
    step = spectrum.solve(vector, damping)
    rises = not acceptable(step)
    for _ in range(trials):
        trial_damping = damping * factor if rises else damping / factor
        trial = spectrum.solve(vector, trial_damping)
        accepted = acceptable(trial)
        if not rises and not accepted:
            break
        damping = trial_damping
        step = trial
        if rises and accepted:
            break
    return damping, step


def woodfisher(gradients: Tensor | Sequence[Tensor], vector: Tensor, damping: float) -> Tensor:
    """Inverse-Fisher-vector product `(damping I + 1/N sum_n g_n g_n^T)^{-1} v`, exact.

    `WoodFisher` has the recursion, its memory and cost.

    Args:
        gradients: `[N, P]`, or N flat tensors `[P]`.
        vector: v, `[P]`.
        damping: > 0.

    Returns:
        `[P]`.

    Example: one gradient (1, 0), damping 1: the matrix is diag(2, 1).

        >>> woodfisher(torch.tensor([[1.0, 0.0]]), torch.tensor([1.0, 1.0]), damping=1.0)
        tensor([0.5000, 1.0000])
    """
    inverse = WoodFisher(len(gradients), damping)
    for gradient in gradients:
        inverse.update(gradient)
    return inverse.solve(vector)


# ---------------------------------------------------------------- Fisher forgetting


def fisher_noise_variance(fisher: Tensor, alpha: float, num_classes: int) -> Tensor:
    """Variance of the noise that Fisher forgetting adds to one weight tensor.

    `v = min(1 / (F + 1e-8), 1e3)`; at most 1e2 if the first dimension has `num_classes` entries;
    times alpha; averaged over dimension 1 and repeated, if there are two dimensions or more; times
    10 if the first dimension has `num_classes` entries or the tensor has one dimension (BatchNorm,
    biases): once, also where both hold.

    The classifier is recognised by its shape alone, as in the released code: a convolution with as
    many filters as there are classes is taken for it.

    Source: Golatkar et al., "Eternal Sunshine of the Spotless Net" (CVPR 2020, arXiv 1911.04933).
    The clamps, the mean and the tens are in the released code (`get_mean_var`, also in SCRUB's,
    SSD's and SalUn's), not in the paper.

    Args:
        fisher: diagonal of the Fisher matrix, the shape of the weight, >= 0.
        alpha: scale of the noise, >= 0.
        num_classes: C.

    Returns:
        The shape of `fisher`, in `[0, 1e4 alpha]`.

    Example: a BatchNorm weight with F = 1: 1 times alpha times 10.

        >>> fisher_noise_variance(torch.ones(3), 0.01, num_classes=10)
        tensor([0.1000, 0.1000, 0.1000])
    """
    classifier = fisher.ndim > 0 and fisher.shape[0] == num_classes
    variance = alpha * (1 / (fisher + 1e-8)).clamp(max=1e2 if classifier else 1e3)
    if fisher.ndim > 1:
        variance = variance.mean(dim=1, keepdim=True).expand_as(fisher).clone()
    return variance * 10 if classifier or fisher.ndim == 1 else variance


def fisher_class_rows(
    mean: Tensor, variance: Tensor, forget_class: int, num_classes: int, row_variance: float = 1e-4
) -> tuple[Tensor, Tensor]:
    """Mean 0 and variance 1e-4 for the forget class's row of the classifier in class forgetting.

    Call it after `fisher_noise_variance`. The released code sets 1e-4 *before* its factor 10 for
    the classifier, so that the noise it draws there has variance 1e-3: pass `row_variance=1e-3` for
    its numbers.

    Args:
        mean: the weight, any shape.
        variance: the same shape.
        forget_class: in `[0, num_classes)`. (The released code's -1, "no class", sets the *last*
            class's row.)
        num_classes: C; a tensor whose first dimension is another comes back as it is.
        row_variance: the variance of the row.

    Returns:
        `(mean, variance)`, new tensors if anything changes.

    Raises:
        InputError: there is no such class.

    Example: class 1 of two.

        >>> mean, variance = fisher_class_rows(torch.ones(2), torch.ones(2), 1, num_classes=2)
        >>> mean.tolist(), [round(v, 6) for v in variance.tolist()]
        ([1.0, 0.0], [1.0, 0.0001])
    """
    if not 0 <= forget_class < num_classes:
        raise InputError(
            f"There is no class {forget_class} among {num_classes}; classes are numbered from 0."
        )
    if mean.ndim == 0 or mean.shape[0] != num_classes:
        return mean, variance
    mean = mean.clone()
    variance = variance.clone()
    mean[forget_class] = 0
    variance[forget_class] = row_variance
    return mean, variance

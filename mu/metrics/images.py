"""FID and KID between two sets of images, and the CLIP score, from features.

Features are tensors with one row per image, so that the values do not depend on the number of
ranks; torchmetrics computes them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mu.utils.errors import InputError, UndefinedError


class _Precomputed(nn.Module):
    """Feature extractor for torchmetrics that returns features computed before."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def fid(real: Tensor, drawn: Tensor) -> float:
    """Fréchet inception distance (FID), in float64.

    ‖μ_r − μ_d‖² + tr(Σ_r + Σ_d − 2 (Σ_r Σ_d)^½) (Heusel et al., NeurIPS 2017, arXiv 1706.08500).

    Args:
        real: features `[N, D]`.
        drawn: features of generated images, `[M, D]`.

    Returns:
        A number, >= 0 up to rounding.

    Raises:
        UndefinedError: with no more than D images on a side: such a covariance has no full rank,
            and the distance says more about the number of images than about the images; or with
            features that are not finite.

    Example: the same covariance, means 3 apart: 3².

        >>> real = torch.tensor([[0.0], [1.0], [2.0]])
        >>> round(fid(real, real + 3), 4)
        9.0
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    _check(real, drawn)
    size = real.shape[1]
    for name, count in (("real", len(real)), ("drawn", len(drawn))):
        if count <= size:
            raise UndefinedError(
                f"FID over {size} features needs more than {size} images on each side, and there "
                f"are {count} {name} ones; take more images, an extractor with fewer features, or "
                "KID."
            )
    metric = FrechetInceptionDistance(feature=_Precomputed(size), sync_on_compute=False).to(
        real.device
    )
    # the metric returns its value in the type of the features, and float32 would round it
    metric.update(real.double(), real=True)
    metric.update(drawn.double(), real=False)
    return float(metric.compute())


def kid(
    real: Tensor, drawn: Tensor, subsets: int = 100, subset_size: int = 50, seed: int = 0
) -> tuple[float, float]:
    """Kernel inception distance (KID): unbiased squared MMD with the kernel (xᵀy / D + 1)³.

    Source: Bińkowski et al., ICLR 2018, arXiv 1801.01401.

    Args:
        real: features `[N, D]`.
        drawn: features of generated images, `[M, D]`.
        subsets: number of random subsets to average over.
        subset_size: images of a subset, from either side.
        seed: seed of the subsets.

    Returns:
        Mean and standard deviation over subsets. The mean of equal distributions is 0, and may be a
        little below.

    Raises:
        UndefinedError: a side has fewer images than a subset.

    Example: subsets of all images: k is 1 within real, 8 within drawn and 1 between, 1 + 8 - 2.

        >>> kid(torch.zeros(2, 1), torch.ones(2, 1), subsets=3, subset_size=2)
        (7.0, 0.0)
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    _check(real, drawn)
    # check the sizes
    if subsets < 1 or subset_size < 2:
        raise InputError(
            f"KID takes at least one subset of two images, not {subsets} of {subset_size}."
        )
    fewest = min(len(real), len(drawn))
    if fewest < subset_size:
        raise UndefinedError(
            f"KID takes subsets of {subset_size} images, and there are {fewest} on one side; take "
            f"more images, or set subset_size to {fewest} at most."
        )
    with warnings.catch_warnings():
        # the warning that it keeps all features, which are in memory anyway
        warnings.simplefilter("ignore", UserWarning)
        extractor: Any = _Precomputed(real.shape[1])
        metric = KernelInceptionDistance(
            feature=extractor, subsets=subsets, subset_size=subset_size, sync_on_compute=False
        )
    # draw the subsets from a generator of their own
    metric.update(real.cpu().double(), real=True)
    metric.update(drawn.cpu().double(), real=False)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        mean, spread = metric.compute()
    return float(mean), float(spread)


@dataclass(frozen=True)
class Floor:
    """Distance between real images alone, to compare that of generated images with.

    Attributes:
        mean: mean distance between two sets of real images.
        std: standard deviation over the pairs of sets.
        sizes: numbers of images of the two sets.
        pairs: number of pairs.
    """

    mean: float
    std: float
    sizes: tuple[int, int]
    pairs: int

    def covers(self, value: float) -> bool:
        """Whether a distance lies within two standard deviations of the floor, or below.

        >>> floor = Floor(0.4, 0.1, (100, 50), 5)
        >>> floor.covers(0.55), floor.covers(0.65)
        (True, False)
        """
        return value <= self.mean + 2 * self.std


def real_floor(
    distance: Callable[[Tensor, Tensor], float],
    real: Tensor,
    drawn: int,
    pairs: int = 5,
    seed: int = 0,
) -> Floor:
    """Distance between disjoint random sets of real images, of the sizes of a comparison.

    It is what images of equal distribution score, which is not 0: FID exceeds its limit by an
    amount that falls as one over the number of images (Chong and Forsyth, CVPR 2020, arXiv
    1911.07023). One set has as many images as were generated, or half of the real ones if that is
    less; the other has the remaining real images, so that neither set is larger than in the
    comparison itself, and the floor is rather too high than too low.

    Args:
        distance: of two sets of features, such as `fid`.
        real: features `[N, D]`.
        drawn: number of generated images, at least 1.
        pairs: number of random pairs of sets, at least 2.
        seed: seed of the sets.

    Raises:
        InputError: pairs or drawn is out of range.
        UndefinedError: a set is too small for the distance.

    Example: a distance that counts.

        >>> real_floor(lambda a, b: len(a) + 100 * len(b), torch.rand(10, 2), drawn=3)
        Floor(mean=307.0, std=0.0, sizes=(7, 3), pairs=5)
    """
    if pairs < 2 or drawn < 1:
        raise InputError(
            f"a floor takes at least two pairs and one image, not {pairs} and {drawn}."
        )
    count = min(drawn, len(real) // 2)
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(pairs):
        order = torch.randperm(len(real), generator=generator).to(real.device)
        values.append(float(distance(real[order[count:]], real[order[:count]])))
    spread = torch.tensor(values, dtype=torch.float64)
    sizes = (len(real) - count, count)
    return Floor(float(spread.mean()), float(spread.std()), sizes, pairs)


def clip_score(images: Tensor, texts: Tensor) -> float:
    """CLIP score: 100 × the mean cosine similarity of image and text, negative ones taken as 0.

    Source: Hessel et al., EMNLP 2021, arXiv 2104.08718. Some papers report it without the factor
    (0.31 for 31).

    Args:
        images: unit embeddings `[N, D]`.
        texts: unit embeddings of the images' texts, `[N, D]`.

    Returns:
        In [0, 100].

    Raises:
        InputError: the shapes differ.
        UndefinedError: there is no image, or an embedding is not finite.

    Example: one pair agrees, the other is orthogonal.

        >>> clip_score(torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
        50.0
    """
    if images.shape != texts.shape:
        raise InputError(
            f"a CLIP score needs a text for each image, not {len(texts)} for {len(images)}."
        )
    _check_finite(images, texts)
    return float(100 * (images.double() * texts.double()).sum(1).clamp_min(0).mean())


def _check(real: Tensor, drawn: Tensor) -> None:
    if real.ndim != 2 or drawn.ndim != 2 or real.shape[1] != drawn.shape[1]:
        raise InputError(
            "features of two sets of images have the shapes [N, D] and [M, D], not "
            f"{list(real.shape)} and {list(drawn.shape)}."
        )
    _check_finite(real, drawn)


def _check_finite(*features: Tensor) -> None:
    for rows in features:
        if not len(rows):
            raise UndefinedError("there is no image, so nothing can be measured.")
        if not bool(rows.isfinite().all()):
            raise UndefinedError(
                "the features of some images are not finite: the images, or the model that drew "
                "them, hold NaN."
            )

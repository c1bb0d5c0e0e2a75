"""Distances between two sets of images, by their features; and how well images fit their texts.

Features come in as tensors, each image's once, so that the numbers do not depend on ranks;
torchmetrics does the rest.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from mu.utils.errors import InputError


class _Given(nn.Module):
    """An extractor for torchmetrics that passes on features which are there already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def fid(real: Tensor, drawn: Tensor) -> float:
    """Fréchet distance ‖μ_r − μ_d‖² + tr(Σ_r + Σ_d − 2 (Σ_r Σ_d)^½) (Heusel et al., NeurIPS 2017,
    arXiv 1706.08500), in float64.

    Args:
        real: features `[N, D]`.
        drawn: features `[M, D]`.

    Raises:
        InputError: with no more than D images on a side: such a covariance has no full rank, and
            the distance says more about the number of images than about the images.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    _check(real, drawn)
    size = real.shape[1]
    for name, count in (("real", len(real)), ("drawn", len(drawn))):
        if count <= size:
            raise InputError(
                f"FID over {size} features needs more than {size} images on each side, and there "
                f"are {count} {name} ones; take more images, an extractor with fewer features, or "
                "KID."
            )
    metric = FrechetInceptionDistance(feature=_Given(size), sync_on_compute=False).to(real.device)
    # the metric gives its answer in the type of the features, and float32 would round it
    metric.update(real.double(), real=True)
    metric.update(drawn.double(), real=False)
    return float(metric.compute())


def kid(
    real: Tensor, drawn: Tensor, subsets: int = 100, subset_size: int = 50, seed: int = 0
) -> tuple[float, float]:
    """Kernel distance: unbiased squared MMD with the kernel (xᵀy / D + 1)³ (Bińkowski et al., ICLR
    2018, arXiv 1801.01401).

    Args:
        real: features `[N, D]`.
        drawn: features `[M, D]`.
        subsets: how many random subsets are averaged.
        subset_size: images of each, from each side.
        seed: decides the subsets.

    Returns:
        Mean and standard deviation over subsets. The mean of equal distributions is 0, and may be a
        little below.

    Raises:
        InputError: when a side has fewer images than a subset.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    _check(real, drawn)
    if subsets < 1 or subset_size < 2:
        raise InputError(
            f"KID takes at least one subset of two images, not {subsets} of {subset_size}."
        )
    fewest = min(len(real), len(drawn))
    if fewest < subset_size:
        raise InputError(
            f"KID takes subsets of {subset_size} images, and there are {fewest} on one side; take "
            f"more images, or set subset_size to {fewest} at most."
        )
    with warnings.catch_warnings():
        # that it keeps all features, which are here anyway
        warnings.simplefilter("ignore", UserWarning)
        given: Any = _Given(real.shape[1])
        metric = KernelInceptionDistance(
            feature=given, subsets=subsets, subset_size=subset_size, sync_on_compute=False
        )
    metric.update(real.cpu().double(), real=True)
    metric.update(drawn.cpu().double(), real=False)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        mean, spread = metric.compute()
    return float(mean), float(spread)


def clip_score(images: Tensor, texts: Tensor) -> float:
    """100 × the mean cosine similarity of each image and its text, each not below 0 (Hessel et al.,
    EMNLP 2021, arXiv 2104.08718).

    Papers that report it without the factor (0.31 for 31) mean the same number.

    Args:
        images: unit embeddings `[N, D]`.
        texts: unit embeddings `[N, D]`.
    """
    if images.shape != texts.shape or not len(images):
        raise InputError(
            f"a CLIP score needs a text for each image, not {len(texts)} for {len(images)}."
        )
    return float(100 * (images.double() * texts.double()).sum(1).clamp_min(0).mean())


def _check(real: Tensor, drawn: Tensor) -> None:
    if real.ndim != 2 or drawn.ndim != 2 or real.shape[1] != drawn.shape[1]:
        raise InputError(
            "features of two sets of images have the shapes [N, D] and [M, D], not "
            f"{list(real.shape)} and {list(drawn.shape)}."
        )

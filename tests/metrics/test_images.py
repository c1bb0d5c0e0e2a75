"""Distances between sets of images against independent statements, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from mu.metrics.images import clip_score, fid, kid, real_floor
from mu.utils.errors import InputError, UndefinedError


def features(count: int, size: int, shift: float = 0.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(size, size, generator=torch.Generator().manual_seed(9))
    return torch.randn(count, size, generator=generator) @ mix + shift


def fid_by_hand(real: Tensor, drawn: Tensor) -> float:
    a = real.double().numpy()
    b = drawn.double().numpy()
    root = sqrtm(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False))
    difference = a.mean(0) - b.mean(0)
    return float(
        difference @ difference
        + np.trace(np.cov(a, rowvar=False) + np.cov(b, rowvar=False) - 2 * np.real(root))
    )


@pytest.mark.parametrize(
    ("size", "shift", "offset"), [(3, 0.5, 0.0), (12, 0.0, 0.0), (12, 0.2, 1000.0)]
)
def test_fid_is_the_frechet_distance(size: int, shift: float, offset: float) -> None:
    """Fails when sums are kept in float32 (the offset shows it), or the covariance is divided by
    N.
    """
    real = features(50, size) + offset
    drawn = features(40, size, shift, 1) + offset
    assert fid(real, drawn) == pytest.approx(fid_by_hand(real, drawn), rel=1e-6)


def test_fid_of_equal_sets_is_zero_and_of_shifted_ones_the_shift() -> None:
    same = features(60, 8)
    assert fid(same, same) == pytest.approx(0, abs=1e-6)
    assert fid(same, same + 3) == pytest.approx(8 * 9, rel=1e-5)


def test_too_few_images_for_the_features_are_refused() -> None:
    """Fails when a covariance without full rank gives a number."""
    with pytest.raises(
        UndefinedError,
        match="FID over 8 features needs more than 8 images on each side, and there are 8 drawn "
        "ones",
    ):
        fid(features(60, 8), features(8, 8))
    with pytest.raises(UndefinedError, match="5 real ones"):
        fid(features(5, 8), features(60, 8))
    assert fid(features(9, 8), features(9, 8, seed=1)) > 0


def kid_by_hand(a: np.ndarray, b: np.ndarray) -> float:
    size = a.shape[1]
    count = len(a)

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / size + 1) ** 3)

    within = sum(
        kernel(x[i], x[j]) for x in (a, b) for i in range(count) for j in range(count) if i != j
    ) / (count * (count - 1))
    return within - 2 * sum(kernel(x, y) for x in a for y in b) / count**2


def test_kid_is_the_unbiased_mmd() -> None:
    """On subsets that are the whole sets. Fails when the diagonal counts."""
    real = features(12, 4)
    drawn = features(12, 4, 0.3, 1)
    mean, spread = kid(real, drawn, subsets=3, subset_size=12)
    assert mean == pytest.approx(
        kid_by_hand(real.double().numpy(), drawn.double().numpy()), rel=1e-9
    )
    assert spread == pytest.approx(0, abs=1e-9)


def test_kid_is_decided_by_its_seed_alone() -> None:
    """Fails when the subsets are drawn from torch's global generator, or move it."""
    real = features(40, 4)
    drawn = features(40, 4, 0.3, 1)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = kid(real, drawn, 5, 10, seed=3)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    assert kid(real, drawn, 5, 10, seed=3) == first
    assert kid(real, drawn, 5, 10, seed=4) != first


def test_kid_refuses_what_it_cannot_take() -> None:
    with pytest.raises(
        UndefinedError,
        match=r"KID takes subsets of 50 images, and there are 12 on one side; .* subset_size to 12",
    ):
        kid(features(60, 4), features(12, 4))
    with pytest.raises(InputError, match="at least one subset of two"):
        kid(features(60, 4), features(60, 4), subset_size=1)
    with pytest.raises(InputError, match="have the shapes"):
        kid(features(60, 4), features(60, 5))


def test_the_clip_score_is_a_mean_of_cosines() -> None:
    """Fails when pairs are mixed up or a negative cosine is taken off the others."""
    images = torch.nn.functional.normalize(
        torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), dim=1
    )
    texts = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, -1.0]])
    assert clip_score(images, texts) == pytest.approx(100 * (1 + 0.5**0.5 + 0) / 3)
    with pytest.raises(InputError, match="a text for each image"):
        clip_score(images, texts[:2])


def test_the_floor_is_what_equal_distributions_score() -> None:
    """FID of two samples of one distribution lies at the floor; a shift does not."""
    real = features(400, 8)
    floor = real_floor(fid, real, 100)
    assert floor.sizes == (300, 100) and floor.pairs == 5
    same = [fid(real, features(100, 8, seed=seed)) for seed in range(1, 6)]
    assert floor.mean / 2 < sum(same) / 5 < 2 * floor.mean
    assert not floor.covers(fid(real, features(100, 8, shift=1.0, seed=1)))
    assert real_floor(fid, real, 100) == floor
    assert real_floor(fid, real, 100, seed=1) != floor


def test_the_sets_of_the_floor_are_disjoint_and_differ() -> None:
    seen: list[tuple[set[float], set[float]]] = []

    def distance(a: Tensor, b: Tensor) -> float:
        seen.append((set(a[:, 0].tolist()), set(b[:, 0].tolist())))
        return 0.0

    real_floor(distance, torch.arange(10.0)[:, None], 3, pairs=4)
    assert all(not a & b and a | b == set(range(10)) for a, b in seen)
    assert len({frozenset(b) for _, b in seen}) > 1


def test_the_floor_of_few_real_images_takes_halves() -> None:
    assert real_floor(lambda a, b: 0.0, features(11, 2), 500).sizes == (6, 5)
    with pytest.raises(UndefinedError, match="5 drawn ones"):
        real_floor(fid, features(11, 5), 500)
    with pytest.raises(InputError, match="two pairs"):
        real_floor(fid, features(11, 2), 5, pairs=1)

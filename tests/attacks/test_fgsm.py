"""The fast gradient sign method against its equation, in Python floats."""

from __future__ import annotations

import pytest

from mu.attacks.fgsm import fgsm
from tests.support.loops import draw


@pytest.mark.parametrize("rounded", [False, True])
def test_fgsm_is_one_signed_gradient_step(rounded):
    # Goodfellow et al., arXiv 1412.6572
    image = draw(3, 2, seed=18).sigmoid()
    gradient = draw(3, 2, seed=19)
    gradient[0, 0] = 0
    got = fgsm(image, gradient, 0.1, round_to_255=rounded)
    for x, g, new in zip(
        image.flatten().tolist(), gradient.flatten().tolist(), got.flatten().tolist(), strict=True
    ):
        want = min(max(x + 0.1 * ((g > 0) - (g < 0)), 0), 1)
        assert new == pytest.approx(round(want * 255) / 255 if rounded else want)

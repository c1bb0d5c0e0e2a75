"""Gradient ascent: its step, its preset, and how far it forgets a class."""

from __future__ import annotations

import pytest

from mu.methods.general.gradient_ascent import GradientAscent
from tests.support.equations import PLAIN, cross_entropy, moved_as
from tests.support.helpers import classifier
from tests.support.method_runs import check_class_is_forgotten, check_preset_builds, sgd


def test_gradient_ascent_climbs_the_forget_loss() -> None:
    moved_as(
        GradientAscent(classifier(), optimizer=PLAIN, norm="eval"),
        lambda net, batch: -cross_entropy(net, batch["forget"]),
    )


def test_preset_builds() -> None:
    check_preset_builds("gradient_ascent")


@pytest.mark.slow
def test_a_class_is_forgotten_and_the_rest_stays() -> None:
    check_class_is_forgotten(lambda b: GradientAscent(b, optimizer=sgd(5e-3, 5e-4)), 8, 0.5, 0.9)

"""Judges of destroyed models, of noise and of NaN, and detectors of parts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from callbacks import ConceptErasure
from mu.evaluation.images.junk import JUNK
from mu.methods import FineTune
from tests.support.image_suites import measured, values
from tests.support.painters import COLOURS, ColourJudge, Painter


class NoneJudge(ColourJudge):
    """Colour judge with the label `none` for grey and noisy images."""

    labels = (*COLOURS, "none")

    def judge(self, images: Tensor) -> Tensor:
        mean = images.mean((2, 3))
        empty = (mean.amax(1) - mean.amin(1) < 0.3) | (images.std((2, 3)).amax(1) > 0.1)
        colours = super().judge(images) * (~empty[:, None])
        return torch.cat([colours, empty[:, None].float()], 1)


def test_a_destroyed_model_does_not_pass_in_silence() -> None:
    """UA is 100 where nothing is drawn; a judge with a label `none` tells that from others."""
    destroyed = Painter()
    with torch.no_grad():
        destroyed.paint.weight.zero_()
    judge = NoneJudge()
    results = measured(FineTune(destroyed), ConceptErasure(judge))
    assert values(results) | {"UA/probability": 0, "UA/entropy": 0} == {
        "UA": 100,
        "UA/unclear": 100,
        "UA/probability": 0,
        "UA/entropy": 0,
        "IRA": 0,
        "IRA/green": 0,
        "IRA/blue": 0,
        "judge/noise": 0,
        "judge/constant": results["judge/constant"].value,
        "judge/shuffled": 0,
    }
    assert "sees none of its labels in 100 % of these images" in results["UA"].warning
    other = measured(FineTune(Painter().forget("red", "green")), ConceptErasure(judge))
    assert (other["UA"].value, other["UA/unclear"].value) == (100, 0)
    assert "sees" not in other["UA"].warning


def test_a_judge_that_sees_labels_in_noise_is_named() -> None:
    results = measured(FineTune(Painter()), ConceptErasure(ColourJudge()))
    assert [results[f"judge/{sort}"].value for sort in JUNK] == [100, 100, 100]
    assert results["judge/noise"].detail["images"] == 64  # from the four that are drawn
    assert results["judge/noise"].detail["most"] in COLOURS
    assert "in 100 % of images of noise" in results["UA"].warning
    junk = "100 % of noise images, 100 % of constant images, 100 % of shuffled images"
    assert results["UA"].detail["labels_seen_in_junk"] == junk
    assert "UA/unclear" not in results


def test_a_model_that_draws_nan_has_no_accuracy() -> None:
    broken = Painter()
    with torch.no_grad():
        broken.paint.weight.fill_(torch.nan)
    results = measured(FineTune(broken), ConceptErasure(ColourJudge()))
    assert results["UA"].value is None
    assert "not finite" in results["UA"].undefined


def test_a_detector_counts_images_with_each_part() -> None:
    """Fails when the parts' probabilities are added up as if they excluded one another."""

    class Detector(ColourJudge):
        multilabel = True

        def judge(self, images: torch.Tensor) -> torch.Tensor:
            return 0.05 + 0.9 * super().judge(images)

    judge = Detector(threshold=0.5)
    judge.groups = {"red": ["red", "green"]}
    results = values(measured(FineTune(Painter()), ConceptErasure(judge, metrics=["UA"])))
    assert (results["UA"], results["UA/images/red"], results["UA/images/green"]) == (0, 2, 0)
    assert results["UA/probability"] == pytest.approx(95, abs=0.5)
    assert "UA/entropy" not in results

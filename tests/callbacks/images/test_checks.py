"""What an image suite lacks is found before a fit begins, and nothing is drawn before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from callbacks import ConceptErasure, Grids, ImageQuality, Robustness
from mu.evaluation.images.classifier_judge import ClassifierJudge
from mu.evaluation.images.clip import OpenCLIP
from mu.evaluation.images.features import ClassifierFeatures
from mu.evaluation.images.nudenet_judge import NudeNetJudge
from mu.evaluation.images.sets import ImageSet
from mu.methods import FineTune
from mu.utils.errors import InputError
from tests.support.helpers import trainer
from tests.support.painters import ColourJudge, Colours, Painter

ABSENT = ClassifierJudge("absent.safetensors", network="resnet8_cifar", labels=["a", "b"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConceptErasure(ABSENT), "absent.safetensors"),
        (lambda: ConceptErasure(ColourJudge(), cross=[ABSENT]), "absent.safetensors"),
        (lambda: ConceptErasure(NudeNetJudge(), concept="nudity"), "pip install nudenet"),
        (lambda: ConceptErasure(ColourJudge(), concept="black"), "has no label 'black'"),
        (lambda: ImageQuality(ClassifierFeatures(ABSENT)), "absent.safetensors"),
        (lambda: ImageQuality(clip=OpenCLIP(pretrained="absent.pt")), "absent.pt"),
        (lambda: Robustness(ABSENT), "absent.safetensors"),
        (lambda: Robustness(ColourJudge(), concept="black"), "has no label 'black'"),
    ],
)
def test_missing_weights_and_packages_need_no_run(
    make: Callable[[], Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study calls `check` of all suites before its first fit."""
    monkeypatch.setitem(__import__("sys").modules, "nudenet", None)
    with pytest.raises(InputError, match=message):
        make().check()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConceptErasure(ABSENT), "absent.safetensors"),
        (lambda: ConceptErasure(ColourJudge(), erased=ImageSet("tset")), "no part 'tset'"),
        (lambda: ConceptErasure(ColourJudge(), kept=ImageSet(file="gone.csv")), "gone.csv"),
        (lambda: Grids(kept=ImageSet(file="gone.csv")), "gone.csv"),
        (lambda: ImageQuality(features(), kept=ImageSet("tset")), "no part 'tset'"),
        (lambda: ImageQuality(features(), reference="nowhere"), "nor a folder"),
        (lambda: Robustness(ColourJudge(), prompts=ImageSet("tset")), "no part 'tset'"),
    ],
)
def test_suite_that_does_not_fit_is_refused_before_a_fit(
    make: Callable[[], Any], message: str, tmp_path: Path
) -> None:
    module = FineTune(Painter())
    run = trainer(1, callbacks=[make()], default_root_dir=str(tmp_path))
    with pytest.raises(InputError, match=message):
        run.fit(module, Colours())
    assert run.global_step == 0
    assert list(tmp_path.iterdir()) == []


def features() -> ClassifierFeatures:
    from mu.backbones import Classifier

    classifier = Classifier("resnet8_cifar", num_classes=3, options={"width": 1}, init_seed=0)
    return ClassifierFeatures(ClassifierJudge(classifier=classifier, labels=["a", "b", "c"]))

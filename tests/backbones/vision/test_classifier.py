"""Classifier and Regressor against a task: shapes and labels are checked before the first step."""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest
import torch
from torch import nn

import tasks
from mu.backbones import Classifier, Regressor
from mu.core.module import UnlearningModule
from mu.utils.errors import InputError
from tests.support.helpers import diabetes, digits


class Labelled(tasks.Digits):
    """Digits with other labels."""

    def __init__(self, shift: int = 0, gap: int = 1, **kwargs: Any) -> None:
        super().__init__(tasks.RandomCount(5), train_size=40, **kwargs)
        self.shift = shift
        self.gap = gap

    def make(self) -> None:
        super().make()
        for name, data in self.datasets.items():
            label = data.stored("label") * self.gap + self.shift  # type: ignore[attr-defined]
            self.datasets[name] = data.replace(label=label)  # type: ignore[attr-defined]


def resnet(**arguments: Any) -> Classifier:
    return Classifier("resnet8_cifar", in_channels=1, options={"width": 4}, **arguments)


@pytest.mark.parametrize(
    ("task", "num_classes", "sentence"),
    [
        (Labelled(), 3, "has the label 9 and the network has num_classes 3.* num_classes to 10"),
        (Labelled(shift=1), 10, "the label 10 .* number the classes from 0, or set .* to 11"),
        (Labelled(shift=-1), 10, "has the label -1 .* number the classes from 0"),
        (Labelled(gap=3), 10, "has the label 27 .* set num_classes to 28"),
    ],
    ids=["too_many", "from_one", "negative", "with_gaps"],
)
def test_labels_out_of_range_are_refused(task, num_classes: int, sentence: str) -> None:
    task.setup()
    with pytest.raises(InputError, match=sentence):
        resnet(num_classes=num_classes).check_task(task)


def test_classes_without_samples_are_legal_and_named() -> None:
    """A network of 1,000 classes may be trained on ten. Fails when that goes without a word."""
    task = Labelled()
    task.setup()
    with pytest.warns(UserWarning, match="end at 9, so that classes 10 to 999 have no sample"):
        resnet(num_classes=1000).check_task(task)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resnet(num_classes=10).check_task(task)


def test_the_class_of_junk_images_has_samples() -> None:
    """Fails when the class `none` of a judge, which augmentation gives, is said to be unused."""
    task = tasks.Shapes("circle", train_size=20, junk=0.2)
    task.setup()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Classifier("resnet8_cifar", num_classes=6, options={"width": 4}).check_task(task)
    with pytest.warns(UserWarning, match="class 6 has no sample"):
        Classifier("resnet8_cifar", num_classes=7, options={"width": 4}).check_task(task)


def test_labels_with_gaps_are_classes() -> None:
    task = Labelled(gap=3)
    task.setup()
    resnet(num_classes=28).check_task(task)


@pytest.mark.parametrize(
    ("backbone", "sentence"),
    [
        (lambda: Classifier("resnet8_cifar", options={"width": 4}), "have 1 channels .* takes 3"),
        (
            lambda: Classifier(network=nn.Sequential(nn.Flatten(), nn.Linear(64, 5))),
            re.escape("returns logits of shape [1, 5] for one image where [1, 10]"),
        ),
        (
            lambda: Classifier(network=nn.Sequential(nn.Flatten(), nn.Linear(100, 10))),
            re.escape("samples, whose image has the shape [1, 8, 8] (addmm: mat1 and mat2"),
        ),
        (
            lambda: Classifier(
                "timm:vit_tiny_patch16_224", in_channels=1, options={"img_size": 32, "depth": 1}
            ),
            re.escape("image has the shape [1, 8, 8] (Input height (8) doesn't match"),
        ),
    ],
    ids=["channels", "logits", "features", "image_size"],
)
def test_images_that_do_not_fit_the_network_are_refused(backbone, sentence: str) -> None:
    task = digits()
    task.setup()
    with pytest.raises(InputError, match=sentence):
        backbone().check_task(task)


def test_a_task_without_images_is_refused() -> None:
    task = diabetes()
    task.setup()
    with pytest.raises(InputError, match="samples of Diabetes have no `image`, which Classifier"):
        resnet().check_task(task)


def test_inputs_that_do_not_fit_the_regressor_are_refused() -> None:
    task = diabetes()
    task.setup()
    with pytest.raises(InputError, match=r"input has the shape \[10\]"):
        Regressor(in_features=7).check_task(task)


def test_the_check_changes_neither_statistics_nor_random_state() -> None:
    task = digits()
    task.setup()
    backbone = resnet().train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    state = torch.get_rng_state()
    backbone.check_task(task)
    assert backbone.training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_a_fit_is_refused_before_its_first_step() -> None:
    from tests.support.helpers import trainer

    method = UnlearningModule(resnet(num_classes=3))
    with pytest.raises(InputError, match="num_classes 3"):
        trainer().fit(method, datamodule=Labelled())
    assert method.original_hash == ""

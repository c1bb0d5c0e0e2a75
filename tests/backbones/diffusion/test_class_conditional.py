"""Class-conditional diffusion against a task: labels are checked before the first step."""

from __future__ import annotations

import pytest

from mu.utils.errors import InputError
from tests.support.doubles import class_conditional, digit_pictures


def test_labels_beyond_the_classes_of_the_model_are_refused() -> None:
    """Mutation that must fail it: no check, so that the embedding raises IndexError."""
    task = digit_pictures()
    task.setup()
    backbone = class_conditional()
    backbone.check_task(task)
    retain = task.datasets["retain"]
    task.datasets["retain"] = retain.replace(label=retain.stored("label") + 1)
    with pytest.raises(InputError, match="has the label 10 and the network has num_classes 10"):
        backbone.check_task(task)

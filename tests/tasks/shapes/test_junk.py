"""Junk images that teach a judge of shapes its class `none`."""

from __future__ import annotations

import pytest
import torch

from mu.utils.errors import InputError
from tasks import Shapes
from tasks.shapes.junk import SORTS, JunkImages
from tasks.shapes.task import NAMES, pictures


def test_a_share_of_the_images_is_junk_with_a_label_of_its_own() -> None:
    task = Shapes("circle", train_size=10, validation_size=1, test_size=1, junk=0.3)
    task.setup()
    assert task.augmentation == JunkImages(0.3, "shape", len(NAMES["shape"]))
    count = 400
    drawn = pictures(torch.arange(count).numpy())
    part = {
        "image": drawn["image"].float() / 255,
        "label": drawn["shape"],
        "index": torch.arange(count),
        "visit": torch.zeros(count, dtype=torch.int64),
    }
    augmented = task.augmentation(part, 0)
    junk = augmented["label"] == 5
    assert 0.2 < float(junk.float().mean()) < 0.4
    assert torch.equal(augmented["image"][~junk], part["image"][~junk])
    assert torch.equal(augmented["label"][~junk], part["label"][~junk])
    changed = (augmented["image"] != part["image"]).flatten(1).any(1)
    assert torch.equal(changed, junk)
    assert augmented["image"].min() >= 0 and augmented["image"].max() <= 1
    # the draws are keyed by index and visit alone
    rows = torch.arange(7, 31)
    alone = task.augmentation({name: values[rows] for name, values in part.items()}, 0)
    assert torch.equal(alone["image"], augmented["image"][rows])
    again = task.augmentation({**part, "visit": part["visit"] + 1}, 0)
    assert not torch.equal(again["label"], augmented["label"])


@pytest.mark.parametrize("attribute", SORTS)
def test_each_attribute_has_junk(attribute: str) -> None:
    part = {
        "image": torch.rand(60, 3, 32, 32),
        "label": torch.zeros(60, dtype=torch.int64),
        "index": torch.arange(60),
        "visit": torch.zeros(60, dtype=torch.int64),
    }
    augmented = JunkImages(0.999, attribute, 9)(part, 1)
    assert (augmented["label"] == 9).sum() >= 58
    assert augmented["image"].isfinite().all()


def test_a_share_out_of_range_is_refused() -> None:
    with pytest.raises(InputError, match="junk is 1"):
        Shapes(junk=1.0)

"""Junk images: a share of the images, keyed by sample and visit, with a label of their own."""

from __future__ import annotations

import pytest
import torch

from mu.utils.errors import InputError
from tasks import Compose, JunkImages, RandomCrop


def batch(count: int = 400, channels: int = 1, size: int = 8) -> dict[str, torch.Tensor]:
    image = torch.arange(count * channels * size * size).view(count, channels, size, size)
    return {
        "image": image / image.max(),
        "label": torch.arange(count) % 10,
        "index": torch.arange(count),
        "visit": torch.zeros(count, dtype=torch.int64),
    }


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 10)])
def test_a_share_of_the_images_is_junk_with_its_label(channels: int, size: int) -> None:
    """Fails when junk keeps the label of the image that it replaces, or the argument is changed."""
    part = batch(channels=channels, size=size)
    before = {name: value.clone() for name, value in part.items()}
    new = JunkImages(label=10, share=0.3)(part, 0)
    junk = new["label"] == 10
    assert 0.2 < junk.float().mean() < 0.4
    assert torch.equal(new["image"][~junk], part["image"][~junk])
    assert not (new["image"][junk] == part["image"][junk]).flatten(1).all(1).any()
    assert new["image"].min() >= 0 and new["image"].max() <= 1
    assert all(torch.equal(part[name], value) for name, value in before.items())


def test_junk_depends_on_sample_and_visit_alone() -> None:
    part = batch()
    rows = torch.tensor([7, 200, 3])
    new = JunkImages(10, 0.5)(part, 0)
    some = JunkImages(10, 0.5)({name: value[rows] for name, value in part.items()}, 0)
    assert torch.equal(new["image"][rows], some["image"])
    again = JunkImages(10, 0.5)({**part, "visit": part["visit"] + 1}, 0)
    assert not torch.equal(new["label"], again["label"])


def test_the_label_of_junk_is_known_before_a_fit() -> None:
    assert Compose([RandomCrop(1), JunkImages(10)]).highest_label == 10
    assert Compose([RandomCrop(1)]).highest_label == -1
    with pytest.raises(InputError, match="share of junk images"):
        JunkImages(10, 0.0)

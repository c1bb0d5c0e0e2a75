"""Augmentations: exact, keyed by sample and visit alone, and never in place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mu.utils.errors import InputError
from mu.utils.rng import integers, stream_id, uniform
from tasks.augment import (
    Augmentation,
    Batch,
    Compose,
    HorizontalFlip,
    RandomCrop,
    Rotation,
    crop,
    rotate,
)

EVERY = [
    RandomCrop(2),
    HorizontalFlip(),
    Rotation(20),
    Compose([RandomCrop(1), HorizontalFlip(), Rotation(5)]),
]


def part(count: int = 12, size: tuple[int, int, int] = (3, 8, 6), visit: int = 0) -> Batch:
    image = torch.rand(count, *size, generator=torch.Generator().manual_seed(1))
    return {
        "image": image,
        "label": torch.arange(count),
        "index": torch.arange(count) * 7,
        "visit": torch.full((count,), visit),
    }


@pytest.mark.parametrize("augment", EVERY, ids=lambda a: type(a).__name__)
def test_a_sample_is_augmented_the_same_in_every_batch(augment: Augmentation) -> None:
    """Mutation that must fail it: draw for the position in the batch instead of the index."""
    full_batch = part()
    together = augment(full_batch, 3)["image"]
    order = torch.tensor([7, 2, 11, 0])
    some = augment({name: tensor[order] for name, tensor in full_batch.items()}, 3)["image"]
    alone = torch.cat(
        [
            augment({n: t[i : i + 1] for n, t in full_batch.items()}, 3)["image"]
            for i in range(len(together))
        ]
    )
    torch.testing.assert_close(
        some, together[order], rtol=0, atol=1e-6 if "Rot" in repr(augment) else 0
    )
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-6 if "Rot" in repr(augment) else 0)


@pytest.mark.parametrize("augment", EVERY, ids=lambda a: type(a).__name__)
def test_another_visit_or_seed_gives_another_image(augment: Augmentation) -> None:
    first = augment(part(), 3)["image"]
    assert torch.equal(first, augment(part(), 3)["image"])
    assert not torch.equal(first, augment(part(visit=1), 3)["image"])
    assert not torch.equal(first, augment(part(), 4)["image"])


@pytest.mark.parametrize("augment", EVERY, ids=lambda a: type(a).__name__)
def test_the_part_given_is_left_alone(augment: Augmentation) -> None:
    given_part = part()
    before = {name: tensor.clone() for name, tensor in given_part.items()}
    out = augment(given_part, 0)
    out["image"].zero_()
    assert given_part.keys() == before.keys() == out.keys()
    assert all(torch.equal(given_part[name], before[name]) for name in before)
    assert out["label"] is given_part["label"] and out["image"].shape == given_part["image"].shape


@given(
    st.integers(1, 5),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(1, 4),
    st.data(),
)
@settings(max_examples=40, deadline=None)
def test_a_crop_is_a_slice_of_the_padded_image(
    count, height, width, channels, padding, drawn
) -> None:
    offsets = st.lists(st.integers(0, 2 * padding), min_size=count, max_size=count)
    top = torch.tensor(drawn.draw(offsets))
    column = torch.tensor(drawn.draw(offsets))
    image = torch.rand(count, channels, height, width)
    padded = np.pad(image.numpy(), ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    expected = [
        padded[b, :, t : t + height, x : x + width]
        for b, (t, x) in enumerate(zip(top, column, strict=True))
    ]
    assert np.array_equal(crop(image, top, column, padding).numpy(), np.stack(expected))


def test_random_crop_and_flip_equal_a_loop_over_samples() -> None:
    given_part = part()
    seed = stream_id("augment/compose", 0, 5), stream_id("augment/compose", 1, 5)
    corner = integers(seed[0], given_part["index"], given_part["visit"], "augment/crop", 5, 2)
    coin = uniform(seed[1], given_part["index"], given_part["visit"], "augment/flip", 1)[:, 0]
    expected = []
    for image, (top, column), u in zip(given_part["image"], corner.tolist(), coin, strict=True):
        window = F.pad(image, (2, 2, 2, 2))[:, top : top + 8, column : column + 6]
        expected.append(window.flip(-1) if u < 0.5 else window)
    assert torch.equal(
        Compose([RandomCrop(2), HorizontalFlip()])(given_part, 5)["image"], torch.stack(expected)
    )


def test_a_crop_takes_any_memory_layout() -> None:
    image = part()["image"]
    top = torch.arange(12) % 5
    column = torch.arange(12) % 4
    channels_last = image.contiguous(memory_format=torch.channels_last)
    assert torch.equal(crop(channels_last, top, column, 2), crop(image, top, column, 2))


def test_every_shift_comes_about_equally_often() -> None:
    many = {
        "image": torch.zeros(9000, 1, 8, 8),
        "index": torch.arange(9000),
        "visit": torch.zeros(9000, dtype=torch.int64),
    }
    many["image"][:, :, 4, 4] = 1
    counts = RandomCrop(1)(many, 0)["image"].sum((0, 1))[3:6, 3:6]
    assert counts.sum() == 9000 and counts.min() > 850 and counts.max() < 1150


@pytest.mark.parametrize(("p", "share"), [(0.0, (0, 0)), (1.0, (1, 1)), (0.3, (0.27, 0.33))])
def test_the_share_of_flips(p: float, share: tuple[float, float]) -> None:
    many = {
        "image": torch.zeros(4000, 1, 1, 2),
        "index": torch.arange(4000),
        "visit": torch.ones(4000, dtype=torch.int64),
    }
    many["image"][..., 0] = 1
    flipped = HorizontalFlip(p)(many, 0)["image"][..., 1].mean().item()
    assert share[0] <= flipped <= share[1]


@pytest.mark.parametrize("size", [(8, 8), (6, 10)])
@pytest.mark.parametrize("degrees", [-33.0, 0.0, 12.5, 90.0])
def test_a_rotation_is_torchvisions(size: tuple[int, int], degrees: float) -> None:
    from torchvision.transforms.functional import InterpolationMode
    from torchvision.transforms.functional import rotate as reference

    image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    expected = reference(image, degrees, InterpolationMode.BILINEAR)
    torch.testing.assert_close(
        rotate(image, torch.full((2,), degrees)), expected, atol=1e-5, rtol=0
    )


def test_a_quarter_turn_is_exact_and_counter_clockwise() -> None:
    image = torch.rand(1, 1, 4, 4)
    torch.testing.assert_close(
        rotate(image, torch.tensor([90.0])), image.rot90(1, (2, 3)), atol=1e-5, rtol=0
    )


def test_one_kind_may_stand_twice_in_a_composition() -> None:
    """Mutation that must fail it: hand the same seed to every step (the two flips would always
    cancel).
    """
    assert not torch.equal(
        Compose([HorizontalFlip(), HorizontalFlip()])(part(), 0)["image"], part()["image"]
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomCrop(0),
        lambda: HorizontalFlip(1.5),
        lambda: Rotation(0),
        lambda: Rotation(200),
    ],
)
def test_impossible_settings_are_refused(make) -> None:
    with pytest.raises(InputError):
        make()


def test_speed_of_crop_and_flip(benchmark) -> None:
    """One thread, a CIFAR batch of 256: about 1 ms."""
    batch = part(256, (3, 32, 32))
    benchmark(Compose([RandomCrop(4), HorizontalFlip()]), batch, 0)


@pytest.mark.parametrize("padding", [1, 4, 20])
def test_large_images_are_augmented_as_small_ones(
    padding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images are copied one by one from some size on; mutations: a row too few, no zeros."""
    batch = part(40, (3, 11, 9))
    augment = Compose([RandomCrop(padding), HorizontalFlip()])
    expected = augment(batch, 3)["image"]
    before = batch["image"].clone()
    monkeypatch.setattr("tasks.augment._LARGE", 1)
    assert torch.equal(augment(batch, 3)["image"], expected)
    assert torch.equal(batch["image"], before)

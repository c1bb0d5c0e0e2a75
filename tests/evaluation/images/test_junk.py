"""Junk images: noise, one colour, shuffled patches, the same on any number of ranks."""

from __future__ import annotations

import torch

from mu.evaluation.images.junk import JUNK, junk_images


def test_junk_images_match_their_names() -> None:
    images = torch.rand(3, 3, 9, 8, generator=torch.Generator().manual_seed(0))
    junk = junk_images(images, [0, 1, 2])
    assert tuple(junk) == JUNK
    assert all(values.shape == images.shape for values in junk.values())
    assert junk["noise"].flatten(1).std(1).min() > 0.2
    assert torch.equal(junk["constant"].amax((2, 3)), junk["constant"].amin((2, 3)))
    shuffled = junk["shuffled"]
    assert torch.equal(shuffled.flatten(1).sort(1).values, images.flatten(1).sort(1).values)
    assert not torch.equal(shuffled[:, :, :8], images[:, :, :8])
    assert torch.equal(shuffled[:, :, 8:], images[:, :, 8:])
    # patches stay whole: pixels of one patch keep their neighbours
    patches = images[0, :, :8].unfold(1, 2, 2).unfold(2, 2, 2).permute(1, 2, 0, 3, 4).flatten(2)
    moved = shuffled[0, :, :8].unfold(1, 2, 2).unfold(2, 2, 2).permute(1, 2, 0, 3, 4).flatten(2)
    assert sorted(map(tuple, patches.flatten(0, 1).tolist())) == sorted(
        map(tuple, moved.flatten(0, 1).tolist())
    )


def test_junk_depends_on_image_and_position_alone() -> None:
    images = torch.rand(4, 1, 8, 8)
    together = junk_images(images, [0, 1, 2, 3])
    alone = junk_images(images[2:3], [2])
    assert all(torch.equal(together[sort][2:3], alone[sort]) for sort in JUNK)

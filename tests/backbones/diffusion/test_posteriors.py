"""Prompts tokenised, read and images encoded once."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from mu.backbones import TextToImage
from mu.backbones.diffusion.posteriors import ContentHash, Posteriors
from mu.core.reference import frozen_copy
from tests.support.doubles import text_to_image
from tests.support.noise_predictors import forget_part


def test_a_copy_writes_what_the_original_writes() -> None:
    """Fails when a copied model decodes tokens otherwise: then an attack types prompts that nobody
    found, and succeeds too seldom.
    """
    backbone = text_to_image()
    ids, _ = backbone.tokenise(["a red circle on dark"])
    for twin in (copy.deepcopy(backbone), frozen_copy(backbone)):
        assert isinstance(twin, TextToImage)
        assert twin.tokenizer.decode(ids[0, 1:6].tolist()) == "a red circle on dark"


def test_a_frozen_encoder_reads_a_prompt_once() -> None:
    """Fails when a prompt is encoded at every step, or the cache outlives a change of the
    weights.
    """
    backbone = text_to_image(part="xattn").eval()
    calls: list[int] = []
    backbone.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    first = backbone.texts(["a red circle", "a star", "a red circle"]).states
    assert torch.equal(first[0], first[2])
    assert torch.equal(backbone.texts(["a star"]).states[0], first[1])
    assert len(calls) == 1
    with torch.no_grad():
        next(backbone.text_encoder.parameters()).add_(0.1)
    assert not torch.equal(backbone.texts(["a star"]).states[0], first[1])
    trained = text_to_image(part="text_encoder")
    assert trained.texts(["a star"]).states.requires_grad


def test_an_image_is_encoded_once_and_alone() -> None:
    """Fails when an image is encoded at every step, when what is kept depends on its neighbours,
    outlives a change of the weights or of the precision, grows without end, or its posterior is
    lost.
    """
    backbone = text_to_image()
    images = forget_part("text", 4)["image"]
    vae: Any = backbone.vae
    calls: list[int] = []
    vae.encoder.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        posteriors = [vae.encode(row[None] * 2 - 1).latent_dist for row in images]
    calls.clear()
    noise = torch.randn(4, *backbone.sample_shape)
    for order in ([0, 1, 2, 3], [3, 1, 1], [2]):
        latents = backbone.encode(images[order], noise[order]) / vae.config.scaling_factor
        for row, position in zip(latents, order, strict=True):
            assert torch.allclose(
                row,
                (posteriors[position].mean + posteriors[position].std * noise[position])[0],
                atol=1e-6,
            )
    assert len(calls) == 4
    encoded = backbone.encode(images)
    assert torch.equal(text_to_image().encode(images[[2, 0]]), encoded[[2, 0]])
    with torch.autocast("cpu", torch.bfloat16):
        assert not torch.equal(backbone.encode(images), encoded)
    backbone.encode(images)
    with torch.no_grad():
        next(vae.parameters()).add_(0.1)
    assert not torch.equal(backbone.encode(images), encoded)
    calls.clear()
    small = Posteriors(capacity=backbone.encode(images)[0].nbytes * 2 * 2)
    for _ in range(2):
        with torch.no_grad():
            small.encode(vae, images)
    assert len(calls) == 4 + 2 and small.cached_bytes <= small.capacity


def test_different_images_have_different_latents() -> None:
    """Fails when one pixel's least change, exchanged pixels or rows, black and white pictures or
    images of other sizes are taken for the same, or when the very same image is not known again
    among others, or from another memory layout.
    """
    contents = ContentHash()
    base = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    nudged = [base.clone() for _ in range(base.numel())]
    for position, image in enumerate(nudged):
        image.view(-1)[position] = torch.nextafter(image.view(-1)[position], torch.tensor(2.0))
    # one white pixel each
    signs = (torch.arange(3 * 8 * 8)[:, None] == torch.arange(3 * 8 * 8)).float().view(-1, 3, 8, 8)
    exchanged = [
        base.flip(0),
        base.flip(1),
        base.flip(2),
        base.transpose(1, 2),
        torch.zeros_like(base),
        torch.ones_like(base),
    ]
    images = torch.stack([base, *nudged, *exchanged, *signs])
    hashes = contents.hash(images)
    assert len(set(hashes)) == len(images)
    assert (
        len({contents.hash(torch.zeros(1, 3, *sides))[0] for sides in ((6, 6), (4, 9), (8, 8))})
        == 3
    )
    assert ContentHash().hash(images[[5, 0]].to(memory_format=torch.channels_last)) == [
        hashes[5],
        hashes[0],
    ]
    assert contents.hash(base[None].double().requires_grad_()) == hashes[:1]


def test_a_prompt_is_tokenised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when the tokenizer is asked at every step, or a cut prompt is told of but once."""
    backbone = text_to_image()
    asked: list[Any] = []
    original_call = type(backbone.tokenizer).__call__

    def counted(self: Any, text: Any, **kwargs: Any) -> Any:
        asked.append(text)
        return original_call(self, text, **kwargs)

    monkeypatch.setattr(type(backbone.tokenizer), "__call__", counted)
    first = backbone.tokenise(["a red circle", "a star", "a red circle"], ["circle", "", "red"])
    count = len(asked)
    again = backbone.tokenise(["a star", "a red circle"], ["", "circle"])
    assert (
        len(asked) == count
        and torch.equal(again[0], first[0][[1, 0]])
        and torch.equal(again[1], first[1][[1, 0]])
    )
    for _ in range(2):
        with pytest.warns(UserWarning, match="1 of 2 prompts are cut to 16 tokens"):
            backbone.tokenise(["a star", "a red circle " * 9])

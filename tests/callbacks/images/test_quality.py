"""FID, KID and CLIP score of images for the concepts that are not erased."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from callbacks import ImageQuality
from mu.evaluation.images.clip import resize_and_crop
from mu.evaluation.images.drawing import image_cache
from mu.evaluation.images.sets import ImageSet
from mu.methods import FineTune
from mu.metrics.images import fid, kid, real_floor
from mu.utils.errors import InputError
from tests.metrics.test_images import fid_by_hand
from tests.support.doubles import class_conditional, digit_pictures
from tests.support.image_suites import extractor, measured
from tests.support.painters import Colours, Painter, tiny_clip


def test_fid_and_kid_compare_kept_images_with_real_ones() -> None:
    """Fails when erased images are in it, a real image is left out, or the two sides are mixed
    up.
    """
    features = extractor()
    retain_images = ImageSet("retain", num_images_per_prompt=6)
    module = FineTune(Painter(noise=0.2))
    suite = ImageQuality(
        features,
        kept=retain_images,
        metrics=["FID", "KID"],
        subsets=2,
        subset_size=12,
        batch_size=5,
    )
    results = measured(module, suite, task=Colours(repeats=3))
    data: Any = module.task.datasets["retain"]  # type: ignore[union-attr]
    real = features.extract(data.__getitems__(list(range(len(data))))["image"])
    drawn = features.extract(
        torch.cat([images for images, _ in image_cache(module).images(retain_images.job(module))])
    )
    assert (len(real), len(drawn)) == (12, 24)
    assert results["FID"].value == pytest.approx(fid_by_hand(real, drawn), rel=1e-3, abs=1e-7)
    assert results["FID"].value > 1e-4
    assert results["FID"].detail["real_images"] == 12 and results["FID"].detail["images"] == 24
    assert (
        results["FID"].detail["features"] == "J, last layer but one"
        and results["FID"].detail["dimensions"] == real.shape[1]
    )
    assert {"resolution", "version", "reference", "sampler"} <= set(results["FID"].detail)
    assert (results["FID"].higher_is_better, results["KID"].higher_is_better) == (False, False)
    assert results["KID"].value == pytest.approx(kid(real, drawn, 2, 12)[0], rel=1e-6)


def test_the_clip_score_pairs_each_image_with_its_prompt(tmp_path: Path) -> None:
    """Fails when images and prompts are paired in another order than they were drawn in."""
    clip = tiny_clip(tmp_path)
    retain_images = ImageSet("retain", num_images_per_prompt=2, batch_size=3)
    module = FineTune(Painter(noise=0.3))
    results = measured(module, ImageQuality(clip=clip, kept=retain_images))
    job = retain_images.job(module)
    cosines = [
        float(
            clip.images(images[row : row + 1])[0] @ clip.texts([str(job.rows[position].prompt)])[0]
        )
        for images, positions in image_cache(module).images(job)
        for row, position in enumerate(positions)
    ]
    assert results["CLIP"].value == pytest.approx(
        100 * np.mean([max(cosine, 0) for cosine in cosines]), rel=1e-4
    )
    assert results["CLIP"].detail["clip"] == "CLIP mu-tiny" and results["CLIP"].higher_is_better
    with pytest.raises(InputError, match="the images are drawn from classes"):
        measured(FineTune(class_conditional()), ImageQuality(clip=clip), task=digit_pictures())


def test_fid_within_its_own_noise_is_named() -> None:
    """The floor, of real images among themselves, stands beside FID and KID."""
    images = ImageSet("retain", num_images_per_prompt=6)
    suite = ImageQuality(extractor(), kept=images, metrics=["FID", "KID"], subsets=2, subset_size=5)
    results = measured(FineTune(Painter(noise=0.2)), suite, task=Colours(repeats=3))
    data: Any = Colours(repeats=3)
    data.setup()
    real = extractor().extract(data.datasets["retain"].__getitems__(list(range(12)))["image"])
    floor = real_floor(fid, real, 24)
    assert results["FID"].detail["floor"] == results["FID/floor"].value
    assert results["FID/floor"].value == pytest.approx(floor.mean, abs=1e-9)
    assert results["FID/floor"].detail["sets"] == "6 and 6 real images"
    assert results["KID/floor"].value is not None
    inside = results["FID"].number <= floor.mean + 2 * floor.std
    assert ("within the noise of real images" in results["FID"].warning) == inside


def test_a_folder_of_real_images_is_brought_to_the_size(tmp_path: Path) -> None:
    """Fails when files are read in the order of the disk, or squeezed."""
    from PIL import Image

    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (12, 3, 16, 20), generator=generator, dtype=torch.uint8)
    for index, picture in enumerate(pictures):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(tmp_path / f"{index:02d}.png")
    (tmp_path / "notes.txt").write_text("no image")
    features = extractor()
    module = FineTune(Painter(noise=0.2))
    retain_images = ImageSet("retain", num_images_per_prompt=4)
    results = measured(
        module,
        ImageQuality(features, kept=retain_images, reference=str(tmp_path), reference_limit=11),
        task=Colours(images=False),
    )
    real = features.extract(resize_and_crop(pictures[:11].float() / 255, 8))
    drawn = features.extract(
        torch.cat([images for images, _ in image_cache(module).images(retain_images.job(module))])
    )
    assert results["FID"].detail["real_images"] == 11 and results["FID"].detail["reference"] == str(
        tmp_path
    )
    assert results["FID"].value == pytest.approx(fid_by_hand(real, drawn), rel=1e-4)


def test_quality_of_unsuitable_images_is_refused(tmp_path: Path) -> None:
    module = FineTune(Painter())
    with pytest.raises(InputError, match="give features or clip"):
        ImageQuality()
    with pytest.raises(InputError, match="need an extractor"):
        ImageQuality(metrics=["KID"])
    with pytest.raises(InputError, match="needs a model"):
        ImageQuality(extractor(), metrics=["CLIP"])
    undefined = measured(module, ImageQuality(extractor()))["FID"]
    assert undefined.value is None
    assert "images on each side, and there are 4 drawn ones" in undefined.undefined
    with pytest.raises(
        InputError, match=r"neither a part of the task \(forget, retain\) nor a folder"
    ):
        measured(module, ImageQuality(extractor(), reference="nowhere"))
    with pytest.raises(InputError, match="has no images to compare with"):
        measured(module, ImageQuality(extractor()), task=Colours(images=False))
    with pytest.raises(InputError, match="has no images"):
        measured(module, ImageQuality(extractor(), reference=str(tmp_path)))
    (tmp_path / "a.png").write_bytes(b"no")
    with pytest.raises(InputError, match="cannot be read"):
        measured(module, ImageQuality(extractor(), reference=str(tmp_path)))

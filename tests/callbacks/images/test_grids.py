"""Grids of images before and after, drawn once for all suites."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from callbacks import ConceptErasure, Cost, Grids, ImageQuality, ResultsWriter
from mu.evaluation.images.sets import ImageSet
from mu.evaluation.media import add_grid, grid
from mu.methods import FineTune
from mu.metrics.run_results import RunResults
from mu.utils.errors import InputError
from mu.utils.files import read_json
from tests.support.helpers import trainer, weights
from tests.support.image_suites import extractor, measured
from tests.support.painters import COLOURS, ColourJudge, Colours, Painter


def test_suites_draw_once_in_their_own_time_and_leave_the_weights(tmp_path: Path) -> None:
    """Fails when each suite draws for itself, or drawing counts as unlearning."""
    drawn: list[int] = []

    class Counting(Painter):
        def generate(self, condition, seeds, sampler=None):  # type: ignore[no-untyped-def]
            drawn.extend(seeds)
            return super().generate(condition, seeds, sampler)

    retain_images = ImageSet("retain", num_images_per_prompt=5)
    module = FineTune(Counting(noise=0.1))
    before = weights(module.backbone)
    grids = Grids(erased=ImageSet("forget"), kept=retain_images, images=2)
    suites = [
        ConceptErasure(ColourJudge(), kept=retain_images),
        ImageQuality(extractor(), kept=retain_images),
        grids,
        Cost(),
    ]
    results = measured(module, *suites, folder=tmp_path)
    assert len(drawn) == 20 + 2
    assert all(torch.equal(before[name], value) for name, value in weights(module.backbone).items())
    assert module.stopwatch.seconds().keys() == {"evaluation"} and "seconds" not in results
    record = RunResults.load(tmp_path)
    assert {result.metric for result in record.results} == set(results)
    json.dumps([dict(result.detail) for result in record.results])


def test_grids_show_before_and_after(tmp_path: Path) -> None:
    """Fails when before and after change places, a row shows another prompt, or the erased ones
    stand under `kept`.
    """
    from PIL import Image

    module = FineTune(Painter(), optimizer=lambda params: torch.optim.SGD(params, lr=0.1))
    task = Colours()
    run = trainer(1, callbacks=[Grids(images=2), ResultsWriter()], default_root_dir=str(tmp_path))
    run.fit(module, task)
    module.backbone.forget("red", "blue")  # type: ignore[operator]
    run.test(module, task, verbose=False)
    entries = {entry["group"]: entry for entry in read_json(tmp_path / "media" / "media.json")}
    assert entries["erased"] == {
        "file": "erased.png",
        "title": "2 prompts, DDIM, 2 steps, guidance 1",
        "group": "erased",
        "rows": ["a red dark picture", "a red light picture"],
        "columns": ["before 1", "after 1", "before 2", "after 2"],
    }
    picture = (
        torch.from_numpy(np.array(Image.open(tmp_path / "media" / "erased.png"))).permute(2, 0, 1)
        / 255
    )
    assert picture.shape == (3, 2 * 8 + 2, 4 * 8 + 3 * 2)
    before = picture[:, :8, :8]
    after = picture[:, :8, 10:18]
    assert torch.allclose(before[:, 0, 0], torch.tensor(COLOURS["red"]), atol=0.01)
    assert after[:, 0, 0].argmax() == 2
    assert len(entries["kept"]["rows"]) == 4
    assert module.stopwatch.seconds()["evaluation"] > 0


def test_a_grid_of_another_original_is_not_shown_as_before(tmp_path: Path) -> None:
    """Fails when images that another run left in the folder pass for this original's."""
    task = Colours()
    for first, columns in ((Painter(), 2), (Painter().forget("red", "blue"), 1)):
        module = FineTune(first, optimizer=lambda params: torch.optim.SGD(params, lr=0.1))
        run = trainer(1, callbacks=[Grids(images=1)], default_root_dir=str(tmp_path))
        if columns == 2:
            run.fit(module, task)
        run.test(module, task, verbose=False)
        assert [
            len(entry["columns"]) for entry in read_json(tmp_path / "media" / "media.json")
        ] == [columns] * 2


def test_a_resumed_fit_does_not_take_its_own_images_for_the_originals(tmp_path: Path) -> None:
    """Fails when `before` is drawn with weights that have moved already."""

    def module() -> FineTune:
        return FineTune(Painter(), optimizer=lambda params: torch.optim.SGD(params, lr=0.5))

    run = trainer(1)
    run.fit(module(), Colours())
    run.save_checkpoint(tmp_path / "half.ckpt")
    for folder, checkpoint in (("fresh", None), ("resumed", tmp_path / "half.ckpt")):
        run = trainer(2, callbacks=[Grids(images=1)], default_root_dir=str(tmp_path / folder))
        run.fit(module(), Colours(), ckpt_path=checkpoint, weights_only=True)
        assert (tmp_path / folder / "media" / "before.safetensors").is_file() == (
            checkpoint is None
        )


def test_media_are_replaced_by_name(tmp_path: Path) -> None:
    image = torch.rand(1, 4, 4)
    for title in ("old", "new"):
        add_grid(tmp_path, "kept", [image], title=title, group="kept", rows=["a"], columns=["b"])
    add_grid(
        tmp_path,
        "attack",
        [image, image],
        title="t",
        group="attack",
        rows=["a"],
        columns=["b", "c"],
    )
    assert [entry["title"] for entry in read_json(tmp_path / "media" / "media.json")] == [
        "new",
        "t",
    ]
    with pytest.raises(InputError, match="1 images are not 1 rows of 2"):
        add_grid(tmp_path, "x", [image], title="t", group="kept", rows=["a"], columns=["b", "c"])
    with pytest.raises(InputError, match="differ in size"):
        grid([image, torch.rand(1, 5, 5)], 2)
    with pytest.raises(InputError, match="do not make rows of 2"):
        grid([image], 2)

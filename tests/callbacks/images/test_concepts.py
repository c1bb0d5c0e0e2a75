"""What was erased is gone or it is not: on a painter whose pictures are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from callbacks import ConceptErasure, Cost, Grids, ImageQuality, ResultsWriter
from mu.backbones import Classifier
from mu.core.module import UnlearningModule
from mu.evaluation.images.classifier_judge import ClassifierJudge
from mu.evaluation.images.clip import resize_and_crop
from mu.evaluation.images.drawing import image_cache
from mu.evaluation.images.features import ClassifierFeatures
from mu.evaluation.images.junk import JUNK
from mu.evaluation.images.sets import ImageSet
from mu.evaluation.media import add_grid, grid
from mu.methods import FineTune
from mu.metrics.images import fid, kid, real_floor
from mu.metrics.rates import rate
from mu.metrics.results import Result, RunResults
from mu.utils.errors import InputError
from mu.utils.files import read_json
from tasks.prompts import PromptList
from tests.metrics.test_images import fid_by_hand
from tests.support.doubles import class_conditional, digit_pictures
from tests.support.helpers import trainer, weights
from tests.support.painters import COLOURS, ColourJudge, Colours, LightJudge, Painter, tiny_clip


def measured(
    module: UnlearningModule,
    *suites: Any,
    task: Any = None,
    folder: Path | None = None,
    **changes: Any,
) -> dict[str, Result]:
    more: dict[str, Any] = {} if folder is None else {"default_root_dir": str(folder)}
    trainer(1, callbacks=[*suites, *([ResultsWriter()] if folder else [])], **more, **changes).test(
        module, task or Colours(), verbose=False
    )
    return {result.metric: result for result in module.results}


def values(results: dict[str, Result]) -> dict[str, float]:
    return {name: result.value for name, result in results.items()}


class NoneJudge(ColourJudge):
    """Colour judge with the label `none` for grey and noisy images."""

    labels = (*COLOURS, "none")

    def judge(self, images: Tensor) -> Tensor:
        mean = images.mean((2, 3))
        empty = (mean.amax(1) - mean.amin(1) < 0.3) | (images.std((2, 3)).amax(1) > 0.1)
        colours = super().judge(images) * (~empty[:, None])
        return torch.cat([colours, empty[:, None].float()], 1)


def test_an_untouched_model_fails_the_verdict_of_forgetting() -> None:
    results = values(
        measured(FineTune(Painter()), ConceptErasure(ColourJudge(), cross=[LightJudge()]))
    )
    assert (results["UA"], results["IRA"], results["CRA"]) == (0, 100, 100)
    assert results["UA/probability"] > 99


def test_a_model_that_forgot_passes_and_one_that_lost_the_rest_shows_it() -> None:
    """Fails when UA is the judge's accuracy, or kept and erased images change places."""
    forgot = values(
        measured(
            FineTune(Painter().forget("red", "green")),
            ConceptErasure(ColourJudge(), cross=[LightJudge()]),
        )
    )
    assert (forgot["UA"], forgot["IRA"], forgot["CRA"]) == (100, 100, 100)
    assert forgot["UA/probability"] < 1
    lost = values(
        measured(
            FineTune(Painter().forget("blue", "green")),
            ConceptErasure(ColourJudge(), cross=[LightJudge()]),
        )
    )
    assert (lost["UA"], lost["IRA"], lost["IRA/green"], lost["IRA/blue"], lost["CRA"]) == (
        0,
        50,
        100,
        0,
        100,
    )
    dark = values(
        measured(
            FineTune(Painter().forget("light", "dark")),
            ConceptErasure(ColourJudge(), cross=[LightJudge()]),
        )
    )
    assert (
        dark["CRA"],
        dark["CRA/light"],
        dark["CRA/dark"],
        dark["CRA/erased"],
        dark["CRA/kept"],
    ) == (50, 0, 100, 50, 50)


def test_every_number_says_who_judged_what() -> None:
    """Fails when a limit, the sampler or the judge's version is not written down."""
    sets = {
        "erased": ImageSet("forget", images_per_prompt=3),
        "kept": ImageSet("retain", limit=3, batch_size=2),
    }
    results = measured(
        FineTune(Painter()),
        ConceptErasure(ColourJudge(threshold=0.5), cross=[LightJudge()], **sets),
    )
    common = {"sampler": "DDIM, 2 steps, guidance 1", "resolution": 8}
    assert dict(results["UA"].detail) == {
        "judge": "colours",
        "version": "1",
        "threshold": 0.5,
        "images": 6,
        "prompts": 2,
        "distinct_items": 2,
        "concept": "red",
        "labels_seen_in_junk": results["UA"].detail["labels_seen_in_junk"],
        **common,
    }
    assert dict(results["IRA"].detail) == {
        "judge": "colours",
        "version": "1",
        "threshold": 0.5,
        "images": 3,
        "prompts": 3,
        "distinct_items": 3,
        "limit": 3,
        **common,
    }
    assert dict(results["CRA"].detail) == {
        "judge": "light",
        "version": "2",
        "top": 1,
        "images": 9,
        "prompts": 5,
        "distinct_items": 5,
        "limit": "3 kept",
        **common,
    }
    assert [results[name].higher_is_better for name in ("UA", "IRA", "CRA", "UA/probability")] == [
        True,
        True,
        True,
        False,
    ]
    assert (results["UA"].split, results["IRA"].split, results["UA"].unit) == (
        "forget",
        "retain",
        "%",
    )


def test_prompts_that_name_nothing_or_two_are_counted_not_judged(tmp_path: Path) -> None:
    """Fails when they count as errors, or vanish without a word."""
    file = tmp_path / "kept.csv"
    file.write_text(
        "prompt\na green picture\na picture\na green and blue picture\na blue picture\na light "
        "green picture\n"
    )
    results = measured(
        FineTune(Painter()),
        ConceptErasure(ColourJudge(), kept=ImageSet(file=str(file)), cross=[LightJudge()]),
    )
    assert results["IRA"].value == 100
    assert (
        results["IRA"].detail["images"],
        results["IRA"].detail["left_out"],
        results["IRA"].detail["file"],
    ) == (3, 2, "kept")
    assert results["CRA"].detail["left_out"] == 4
    assert results["IRA/green"].detail["images"] == 2


def test_concepts_weigh_alike_however_many_images_they_have(tmp_path: Path) -> None:
    """Fails when IRA is the mean over images."""
    file = tmp_path / "kept.csv"
    file.write_text("prompt,what\nx green,green\ny green,green\nz green,green\nx blue,blue\n")
    module = FineTune(Painter().forget("blue", "green"))
    results = values(
        measured(
            module,
            ConceptErasure(
                ColourJudge(), kept=ImageSet(file=str(file)), field="what", concept="red"
            ),
        )
    )
    assert results["IRA"] == 50


def test_several_erased_concepts_are_averaged_and_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "erased.csv"
    file.write_text(
        'prompt,what,categories\na red picture,red,"warm, loud"\na green picture,green,cold\n'
        "a light green picture,green,cold\n"
    )
    module = FineTune(Painter().forget("green", "blue"))
    suite = ConceptErasure(
        ColourJudge(), erased=ImageSet(file=str(file)), field="what", metrics=["UA"]
    )
    results = measured(module, suite)
    junk = dict.fromkeys(("judge/noise", "judge/constant", "judge/shuffled"), 100)
    assert values(results) | {"UA/probability": 0, "UA/entropy": 0} == junk | {
        "UA": 50,
        "UA/red": 0,
        "UA/green": 100,
        "UA/warm": 0,
        "UA/loud": 0,
        "UA/cold": 100,
        "UA/probability": 0,
        "UA/entropy": 0,
    }
    assert (
        results["UA/cold"].detail["images"] == 2 and results["UA"].detail["concept"] == "red, green"
    )


def test_the_tasks_several_concepts_are_judged_each(tmp_path: Path) -> None:
    (tmp_path / "forget.csv").write_text("prompt\na red picture\na light Green picture\n")
    (tmp_path / "retain.csv").write_text("prompt\na blue picture\n")
    paths = [str(tmp_path / name) for name in ("forget.csv", "retain.csv")]
    task = PromptList(*paths, concept=["red", "green"], curves=[])
    module = FineTune(Painter().forget("green", "blue"))
    results = measured(module, ConceptErasure(ColourJudge()), task=task)
    assert {name: results[name].value for name in ("UA", "UA/red", "UA/green", "IRA")} == {
        "UA": 50,
        "UA/red": 0,
        "UA/green": 100,
        "IRA": 100,
    }


def test_a_destroyed_model_does_not_pass_in_silence() -> None:
    """UA is 100 where nothing is drawn; a judge with a label `none` tells that from others."""
    destroyed = Painter()
    with torch.no_grad():
        destroyed.paint.weight.zero_()
    judge = NoneJudge()
    results = measured(FineTune(destroyed), ConceptErasure(judge))
    assert values(results) | {"UA/probability": 0, "UA/entropy": 0} == {
        "UA": 100,
        "UA/unclear": 100,
        "UA/probability": 0,
        "UA/entropy": 0,
        "IRA": 0,
        "IRA/green": 0,
        "IRA/blue": 0,
        "judge/noise": 0,
        "judge/constant": results["judge/constant"].value,
        "judge/shuffled": 0,
    }
    assert "sees none of its labels in 100 % of these images" in results["UA"].warning
    other = measured(FineTune(Painter().forget("red", "green")), ConceptErasure(judge))
    assert (other["UA"].value, other["UA/unclear"].value) == (100, 0)
    assert "sees" not in other["UA"].warning


def test_a_judge_that_sees_labels_in_noise_is_named() -> None:
    results = measured(FineTune(Painter()), ConceptErasure(ColourJudge()))
    assert [results[f"judge/{sort}"].value for sort in JUNK] == [100, 100, 100]
    assert results["judge/noise"].detail["images"] == 64  # from the four that are drawn
    assert results["judge/noise"].detail["most"] in COLOURS
    assert "in 100 % of images of noise" in results["UA"].warning
    junk = "100 % of noise images, 100 % of constant images, 100 % of shuffled images"
    assert results["UA"].detail["labels_seen_in_junk"] == junk
    assert "UA/unclear" not in results


def test_rates_have_an_interval_over_distinct_images() -> None:
    """One prompt with one seed, many times, says no more than once."""
    sets = ImageSet("forget", images_per_prompt=10)
    result = measured(FineTune(Painter()), ConceptErasure(ColourJudge(), erased=sets))["UA"]
    assert result.interval == pytest.approx(rate(torch.zeros(20)).interval)
    assert "2 distinct items only" in result.warning


def test_a_model_that_draws_nan_has_no_accuracy() -> None:
    broken = Painter()
    with torch.no_grad():
        broken.paint.weight.fill_(torch.nan)
    results = measured(FineTune(broken), ConceptErasure(ColourJudge()))
    assert results["UA"].value is None
    assert "not finite" in results["UA"].undefined


def test_a_detector_counts_images_with_each_part() -> None:
    """Fails when the parts' probabilities are added up as if they excluded one another."""

    class Detector(ColourJudge):
        multilabel = True

        def judge(self, images: torch.Tensor) -> torch.Tensor:
            return 0.05 + 0.9 * super().judge(images)

    judge = Detector(threshold=0.5)
    judge.groups = {"red": ["red", "green"]}
    results = values(measured(FineTune(Painter()), ConceptErasure(judge, metrics=["UA"])))
    assert (results["UA"], results["UA/images/red"], results["UA/images/green"]) == (0, 2, 0)
    assert results["UA/probability"] == pytest.approx(95, abs=0.5)
    assert "UA/entropy" not in results


def test_classes_are_judged_by_their_number() -> None:
    """Fails when a class's name is looked for in a prompt that is not there."""
    import tasks

    classifier = Classifier("resnet8_cifar", 10, 1, init_seed=0, options={"width": 4})
    judge = ClassifierJudge(
        classifier=classifier, labels=[f"digit {digit_label}" for digit_label in range(10)]
    )
    model = class_conditional()
    task = digit_pictures(selector=tasks.ByClass([3, 5]))
    results = measured(
        FineTune(model),
        ConceptErasure(judge, erased=ImageSet("forget", images_per_prompt=4)),
        task=task,
    )
    module_images = model.generate(model.labels([3] * 4 + [5] * 4), list(range(8)))
    predicted = judge.judge((module_images * 255).round() / 255).argmax(1).tolist()
    expected = [
        100 * sum(label != digit for label in predicted[position : position + 4]) / 4
        for position, digit in ((0, 3), (4, 5))
    ]
    assert (
        values(results)["UA/digit 3"] == expected[0]
        and values(results)["UA/digit 5"] == expected[1]
    )
    assert results["UA"].value == pytest.approx(sum(expected) / 2)
    assert len([name for name in results if name.startswith("IRA/")]) == 8


def test_what_cannot_be_measured_is_said(tmp_path: Path) -> None:
    module = FineTune(Painter())
    task = Colours()
    with pytest.raises(InputError, match="has no label 'purple'; its labels are red, green, blue"):
        measured(module, ConceptErasure(ColourJudge(), concept="purple"))
    with pytest.raises(InputError, match="no label 'red'; its labels are dark, light"):
        measured(module, ConceptErasure(LightJudge()))
    with pytest.raises(InputError, match="2 of 2 kept images ask for the erased concept"):
        measured(module, ConceptErasure(ColourJudge(), kept=ImageSet("forget")))
    with pytest.raises(InputError, match="no prompt names one label of the judge digits"):
        digits = ClassifierJudge(
            classifier=Classifier("resnet8_cifar", 3, options={"width": 4}),
            labels=["1", "2", "3"],
            name="digits",
        )
        measured(module, ConceptErasure(ColourJudge(), cross=[digits]))
    with pytest.raises(InputError, match="CRA needs a judge"):
        ConceptErasure(ColourJudge(), metrics=["CRA"])
    with pytest.raises(InputError, match="measures UA, IRA, CRA, not UAA"):
        ConceptErasure(ColourJudge(), metrics=["UAA"])
    file = tmp_path / "p.csv"
    file.write_text("prompt\na red picture\n")
    task.setup()
    task.split = type(task.split)("x", task.split.parts, {}, 0)
    with pytest.raises(InputError, match="which concept was erased"):
        measured(module, ConceptErasure(ColourJudge(), erased=ImageSet(file=str(file))), task=task)


def test_a_judge_of_other_classes_is_refused() -> None:
    judge = ClassifierJudge(
        classifier=Classifier("resnet8_cifar", 3, 1, options={"width": 4}), labels=["a", "b", "c"]
    )
    with pytest.raises(
        InputError, match="the model has 10 classes and the judge classifier 3 labels"
    ):
        measured(FineTune(class_conditional()), ConceptErasure(judge), task=digit_pictures())


# ---- quality -------------------------------------------------------------------------------------


def extractor() -> ClassifierFeatures:
    classifier = Classifier("resnet8_cifar", num_classes=3, options={"width": 1}, init_seed=0)
    return ClassifierFeatures(
        ClassifierJudge(classifier=classifier, labels=["a", "b", "c"], name="J")
    )


def test_fid_and_kid_compare_kept_images_with_real_ones() -> None:
    """Fails when erased images are in it, a real image is left out, or the two sides are mixed
    up.
    """
    features = extractor()
    retain_images = ImageSet("retain", images_per_prompt=6)
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
    retain_images = ImageSet("retain", images_per_prompt=2, batch_size=3)
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
    images = ImageSet("retain", images_per_prompt=6)
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
    assert ("within its own noise" in results["FID"].warning) == inside


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
    retain_images = ImageSet("retain", images_per_prompt=4)
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


def test_what_quality_cannot_measure_is_said(tmp_path: Path) -> None:
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


# ---- together ------------------------------------------------------------------------------------


def test_suites_draw_once_in_their_own_time_and_leave_the_weights(tmp_path: Path) -> None:
    """Fails when each suite draws for itself, or drawing counts as unlearning."""
    drawn: list[int] = []

    class Counting(Painter):
        def generate(self, condition, seeds, sampler=None):  # type: ignore[no-untyped-def]
            drawn.extend(seeds)
            return super().generate(condition, seeds, sampler)

    retain_images = ImageSet("retain", images_per_prompt=5)
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
    assert module.stopwatch.seconds().keys() == {"evaluation"} and results["seconds"].value == 0
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


def test_a_part_of_the_prompts_is_said_to_be_one(tmp_path: Path) -> None:
    module = FineTune(Painter())
    measured(
        module,
        Grids(kept=ImageSet("retain", images_per_prompt=3), prompts=2, images=2, before=False),
        folder=tmp_path,
    )
    entries = {entry["group"]: entry for entry in read_json(tmp_path / "media" / "media.json")}
    assert entries["kept"]["title"].startswith("the first 2 of 4 prompts")
    assert (len(entries["kept"]["rows"]), entries["kept"]["columns"]) == (2, ["image 1", "image 2"])


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

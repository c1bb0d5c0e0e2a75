"""Images are what their rows say, whatever else is drawn, on however many ranks, and after an
interruption.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from unicodedata import normalize

import pytest
import torch
from torch import Tensor

from mu.backbones.diffusion.sampler import Sampler
from mu.evaluation.images.drawing import ImageCache, ImageJob, ImageRow, image_cache
from mu.evaluation.images.sets import ImageSet
from mu.methods import FineTune
from mu.utils.errors import InputError
from mu.utils.fingerprint import model_identity
from mu.utils.progress import progress_bar
from tasks.prompts import PromptList
from tests.support.doubles import class_conditional, digit_pictures, pictures, text_to_image
from tests.support.helpers import classifier, trainer
from tests.support.painters import Colours, Painter

PROMPTS = [
    "a red circle",
    "a blue star",
    "a red circle",
    "a green square",
    "nice",
    "a blue circle",
    "a star",
]
ROWS = [ImageRow(seed, prompt, case=str(seed)) for seed, prompt in enumerate(PROMPTS)]


def images(batches: Iterator[tuple[Tensor, list[int]]]) -> dict[int, Tensor]:
    return {
        index: image
        for batch, indices in batches
        for index, image in zip(indices, batch, strict=True)
    }


def same(a: dict[int, Tensor], b: dict[int, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[index], b[index]) for index in a)


def test_two_ranks_draw_what_one_draws_bit_for_bit() -> None:
    """Fails when a batch's composition depends on the number of ranks, or rows are shared out one
    by one.
    """
    model = text_to_image()
    job = ImageJob(ROWS, batch_size=3)
    single = images(job.run(model))
    for world in (2, 3, 5):
        ranks = [images(job.run(model, rank, world)) for rank in range(world)]
        assert sum(len(drawn) for drawn in ranks) == len(ROWS)
        assert same(single, {index: image for drawn in ranks for index, image in drawn.items()})


def test_images_are_the_models_own_at_256_levels() -> None:
    """Fails when rows change places, or seeds are not the rows'."""
    model = text_to_image()
    drawn = images(ImageJob(ROWS, batch_size=3).run(model))
    with torch.no_grad():
        direct = model.generate(model.texts([str(row.prompt) for row in ROWS[3:6]]), [3, 4, 5])
    assert torch.equal(
        torch.stack([drawn[index] for index in (3, 4, 5)]), (direct * 255).round() / 255
    )
    assert not torch.equal(drawn[0], drawn[2])  # one prompt, two seeds


def test_a_row_may_have_its_own_guidance() -> None:
    """Fails when a batch takes the guidance of its first row for all."""
    model = text_to_image()
    rows = [ImageRow(5, "a red circle", guidance_scale=scale) for scale in (None, 5.0, None, 1.0)]
    drawn = images(ImageJob(rows, batch_size=4).run(model))
    for index, scale in enumerate((2.0, 5.0, 2.0, 1.0)):
        with torch.no_grad():
            direct = model.generate(
                model.texts(["a red circle"]),
                [5],
                Sampler(num_inference_steps=3, guidance_scale=scale),
            )
        assert torch.allclose(drawn[index], (direct[0] * 255).round() / 255, atol=1.5 / 255)
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])


def test_classes_are_drawn_too() -> None:
    model = class_conditional()
    drawn = images(
        ImageJob([ImageRow(seed, label=seed % 10) for seed in range(4)], batch_size=4).run(model)
    )
    with torch.no_grad():
        direct = model.generate(model.labels([0, 1, 2, 3]), [0, 1, 2, 3])
    assert torch.equal(
        torch.stack([drawn[index] for index in range(4)]), (direct * 255).round() / 255
    )


def test_batches_are_dealt_whole() -> None:
    """Fails when the rows of a batch are shared among ranks, so that its images are drawn in
    another company.
    """
    job = ImageJob(ROWS, batch_size=3)
    for world in (1, 2, 3):
        model = Counting()
        for rank in range(world):
            images(job.run(model, rank, world))
        assert sorted(model.batches) == [[0, 1, 2], [3, 4, 5], [6]]


def test_images_are_drawn_in_eval_mode_and_the_mode_comes_back() -> None:
    model = Counting().train()
    images(ImageJob(ROWS).run(model))
    assert model.training and model.paint.training


# ---- folders -------------------------------------------------------------------------------------


class Counting(Painter):
    """Counts the images that it draws, and keeps the seeds of each batch."""

    drawn = 0

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__(noise)
        self.batches: list[list[int]] = []

    def generate(self, condition, seeds, sampler=None):  # type: ignore[no-untyped-def]
        assert not self.training
        self.drawn += len(seeds)
        self.batches.append(list(seeds))
        return super().generate(condition, seeds, sampler)


def job(folder: Path, rows: list[ImageRow] = ROWS, **changes: object) -> ImageJob:
    return ImageJob(rows, **{"batch_size": 3, "folder": folder, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [text_to_image, class_conditional])
def test_a_folder_gives_back_the_very_images(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Fails when a file has other levels than the memory, or grey images come back in colour."""
    model = make()
    rows = ROWS if make is text_to_image else [ImageRow(seed, label=seed) for seed in range(5)]
    memory = images(ImageJob(rows, batch_size=3).run(model))
    first = images(job(tmp_path, rows).run(model))
    second = images(job(tmp_path, rows).run(model))
    assert same(memory, first) and same(first, second)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [row.file for row in rows] + ["images.json"]
    )


def test_an_interrupted_job_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Fails when what is there is drawn again, or a batch that is half there is drawn in another
    composition.
    """
    model = Counting(noise=0.1)
    complete = images(ImageJob(ROWS, batch_size=3).run(model))
    model.drawn = 0
    next(iter(job(tmp_path).run(model)))
    assert model.drawn == 3
    (tmp_path / ROWS[1].file).unlink()  # the process died between two files
    again = images(job(tmp_path).run(model))
    assert model.drawn == 3 + 7
    assert same(again, complete)
    images(job(tmp_path).run(model))
    assert model.drawn == 10


def test_a_file_that_was_cut_off_is_drawn_again(tmp_path: Path) -> None:
    model = Counting(noise=0.1)
    complete = images(job(tmp_path).run(model))
    file = tmp_path / ROWS[4].file
    file.write_bytes(file.read_bytes()[:-30])
    assert same(images(job(tmp_path).run(model)), complete)
    assert model.drawn == 7 + 3


def test_images_of_another_model_sampler_or_list_are_never_taken(tmp_path: Path) -> None:
    """Fails when the index leaves out the weights, the sampler, the prompts or the batches."""
    model = Painter()
    images(job(tmp_path).run(model))
    cases = [
        (Painter().forget("red", "blue"), {}, "another model"),
        (model, {"sampler": Sampler(num_inference_steps=3)}, "another sampler"),
        (model, {"batch_size": 2}, "another batch size"),
        (model, {"rows": ROWS[:3]}, "other prompts or seeds"),
    ]
    for other, changes, difference in cases:
        with pytest.raises(InputError, match=f"holds images of {difference}"):
            images(job(tmp_path, **changes).run(other))  # type: ignore[arg-type]


def test_files_of_somebody_else_are_an_error(tmp_path: Path) -> None:
    """Fails when a picture of the same name and size passes for one of ours."""
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds notes\.txt and no images\.json"):
        images(job(foreign).run(Painter()))
    images(job(tmp_path / "a").run(Painter()))
    images(job(tmp_path / "b").run(Painter().forget("red", "blue")))
    (tmp_path / "a" / ROWS[0].file).write_bytes((tmp_path / "b" / ROWS[0].file).read_bytes())
    with pytest.raises(InputError, match="was not drawn by this job"):
        images(job(tmp_path / "a").run(Painter()))


def test_broken_index_is_refused(tmp_path: Path) -> None:
    images(job(tmp_path).run(Painter()))
    (tmp_path / "images.json").write_text('{"format"')
    with pytest.raises(InputError, match="not valid JSON"):
        images(job(tmp_path).run(Painter()))


def test_index_lists_the_images_of_a_folder(tmp_path: Path) -> None:
    images(job(tmp_path).run(Painter()))
    contents = json.loads((tmp_path / "images.json").read_text())
    assert [row["prompt"] for row in contents["rows"]] == [row.prompt for row in ROWS]
    assert contents["sampler"]["init_args"]["num_inference_steps"] == 2


def test_names_of_files_stay_in_the_folder() -> None:
    assert ImageRow(7, "x", case="../../etc/passwd").file == "-etc-passwd_7.png"
    assert ImageRow(7, "x").file == "image_7.png"


def test_the_identity_of_a_model_is_its_weights_and_its_way_of_drawing() -> None:
    """Fails when two models of equal weights that draw otherwise share their images."""
    assert model_identity(Painter()) == model_identity(Painter())
    assert model_identity(Painter(noise=0.1)) != model_identity(Painter())
    assert model_identity(Painter().forget("red", "blue")) != model_identity(Painter())


# ---- mistakes ------------------------------------------------------------------------------------


def test_undrawable_prompts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no image to draw"):
        ImageJob([])
    with pytest.raises(InputError, match=r"two rows would have the file 0_1\.png"):
        ImageJob([ImageRow(1, "a", case="0"), ImageRow(1, "b", case="0")], folder=tmp_path)
    with pytest.raises(InputError, match="does not draw images from prompts"):
        images(ImageJob([ImageRow(0, "a")]).run(class_conditional()))
    with pytest.raises(InputError, match="does not draw images from class labels"):
        images(ImageJob([ImageRow(0, label=1)]).run(text_to_image()))
    with pytest.raises(InputError, match="there is no class 10"):
        images(ImageJob([ImageRow(0, label=10)]).run(class_conditional()))


# ---- sets ----------------------------------------------------------------------------------------


def after_test(module, task, **changes):  # type: ignore[no-untyped-def]
    trainer(1, **changes).test(module, task, verbose=False)
    return module


def test_a_part_gives_each_prompt_once(tmp_path: Path) -> None:
    """Fails when a prompt that many samples have is drawn for each, or seeds repeat."""
    module = after_test(FineTune(Painter()), Colours(repeats=3))
    rows = ImageSet("retain", num_images_per_prompt=2, seed=100).rows(module)
    names = [(colour, light) for colour in ("green", "blue") for light in ("dark", "light")]
    assert [row.prompt for row in rows[::2]] == [
        f"a {colour} {light} picture" for colour, light in names
    ]
    assert [row.seed for row in rows] == list(range(100, 108))
    assert rows[0].about["substitute"] == "a green dark picture"
    data = module.task.datasets["retain"]
    assert data[rows[2].sample]["prompt"] == rows[2].prompt
    assert len(ImageSet("retain", limit=3).rows(module)) == 3


def test_part_and_file_give_the_same_images(tmp_path: Path) -> None:
    """Seeds and guidances of a prompt list count whether a suite reads the part or the file."""
    file = tmp_path / "prompts.csv"
    file.write_text(
        "case_num,prompt,sd_seed,sd_guidance_scale\n4.0,a red picture,3016.0,7.1\n"
        "5,a red wall,18446744073709551615,\n"
    )
    task = PromptList(str(file), str(file), concept="red", curves=[])
    module = after_test(FineTune(Painter()), task)
    sets = (ImageSet("forget"), ImageSet(file=str(file)))
    from_part, from_file = ([row.identity() for row in images.rows(module)] for images in sets)
    assert from_part == from_file
    assert [(row["case"], row["seed"], row["guidance_scale"]) for row in from_part] == [
        ("4", 3016, 7.1),
        ("5", 2**64 - 1, None),
    ]
    assert ImageSet(file=str(file), num_images_per_prompt=2).rows(module)[3].seed == 0


def test_filters_compare_in_any_form_of_unicode(tmp_path: Path) -> None:
    file = tmp_path / "prompts.csv"
    file.write_text(normalize("NFD", "prompt,artist\na sky,Gérard\n"))
    module = after_test(FineTune(Painter()), Colours())
    for form in ("NFC", "NFD"):
        chosen = {"artist": [normalize(form, "Gérard")]}
        assert len(ImageSet(file=str(file), where=chosen).rows(module)) == 1


def test_a_part_gives_each_class_once() -> None:
    module = after_test(FineTune(class_conditional()), digit_pictures())
    labels = sorted(set(module.task.datasets["forget"].stored("label").tolist()))
    assert [row.label for row in ImageSet("forget", num_images_per_prompt=2).rows(module)] == [
        label for label in labels for _ in (0, 1)
    ]


def test_a_file_keeps_its_seeds_and_guidances_and_is_filtered(tmp_path: Path) -> None:
    file = tmp_path / "prompts.csv"
    file.write_text(
        "case_number,prompt,evaluation_seed,evaluation_guidance,class\n4,a red picture,11,7.5,red\n"
        "5,a blue picture,13,3,blue\n"
    )
    module = after_test(FineTune(Painter()), Colours())
    rows = ImageSet(file=str(file), num_images_per_prompt=2).rows(module)
    assert [(row.case, row.seed, row.guidance_scale) for row in rows] == [
        ("4", 11, 7.5),
        ("4", 12, 7.5),
        ("5", 13, 3.0),
        ("5", 14, 3.0),
    ]
    assert [
        row.prompt for row in ImageSet(file=str(file), where={"class": ["blue"]}).rows(module)
    ] == ["a blue picture"]
    assert [
        row.prompt for row in ImageSet(file=str(file), without={"class": ["blue"]}).rows(module)
    ] == ["a red picture"]
    with pytest.raises(InputError, match="no column 'artist'"):
        ImageSet(file=str(file), where={"artist": ["x"]}).rows(module)
    with pytest.raises(InputError, match="has what `where` and `without` ask for"):
        ImageSet(file=str(file), where={"class": ["black"]}).rows(module)


def test_unsuitable_image_sets_are_refused() -> None:
    module = after_test(FineTune(Painter()), Colours())
    with pytest.raises(InputError, match="has no part 'tset'; it has forget, retain"):
        ImageSet("tset").rows(module)
    with pytest.raises(InputError, match="no field 'artist'"):
        ImageSet("retain", where={"artist": ["x"]}).rows(module)
    with pytest.raises(InputError, match="needs a task"):
        ImageSet("retain").rows(FineTune(Painter()))
    with pytest.raises(InputError, match="neither prompts nor classes that Classifier draws from"):
        ImageSet("retain").rows(
            after_test(
                FineTune(classifier(in_channels=3, mean=None, std=None)), pictures(evaluated=[])
            )
        )


def test_suites_share_what_is_drawn_and_a_new_test_draws_anew() -> None:
    """Fails when two suites with equal sets draw twice, or a test of other weights gets the images
    of the one before.
    """
    model = Counting()
    module = after_test(FineTune(model), Colours())
    store = image_cache(module)
    first = images(store.images(ImageSet("retain").job(module)))
    again = images(image_cache(module).images(ImageSet("retain").job(module)))
    assert model.drawn == 4 and same(first, again)
    images(store.images(ImageSet("retain", seed=1).job(module)))
    assert model.drawn == 8
    model.forget("green", "blue")
    after_test(module, Colours())
    assert isinstance(store, ImageCache) and image_cache(module) is not store
    assert not same(first, images(image_cache(module).images(ImageSet("retain").job(module))))


def test_a_job_with_a_folder_is_not_kept_in_memory(tmp_path: Path) -> None:
    model = Counting()
    module = after_test(FineTune(model), Colours())
    images(image_cache(module).images(ImageSet("retain", folder=str(tmp_path)).job(module)))
    images(image_cache(module).images(ImageSet("retain", folder=str(tmp_path)).job(module)))
    assert model.drawn == 4
    assert image_cache(module)._stored == {}


def test_a_long_job_shows_a_bar_and_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Fails when the bar swallows a batch, as the one at which it appears, or shows where it is
    switched off.
    """
    assert list(progress_bar([1, 2, 3], "drawing", delay=0)) == [1, 2, 3]
    assert "drawing" in capsys.readouterr().err
    assert list(progress_bar([1, 2, 3], "drawing", delay=0, disable=True)) == [1, 2, 3]
    assert capsys.readouterr().err == ""

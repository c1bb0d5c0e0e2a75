"""Erasure of concepts on a painter whose pictures are known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from callbacks import ConceptErasure, Grids
from mu.backbones import Classifier
from mu.evaluation.images.classifier_judge import ClassifierJudge
from mu.evaluation.images.sets import ImageSet
from mu.methods import FineTune
from mu.metrics.rates import rate
from mu.utils.errors import InputError
from mu.utils.files import read_json
from tasks.prompts import PromptList
from tests.support.doubles import class_conditional, digit_pictures
from tests.support.image_suites import measured, values
from tests.support.painters import ColourJudge, Colours, LightJudge, Painter


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
        "erased": ImageSet("forget", num_images_per_prompt=3),
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


def test_rates_have_an_interval_over_distinct_images() -> None:
    """One prompt with one seed, many times, says no more than once."""
    sets = ImageSet("forget", num_images_per_prompt=10)
    result = measured(FineTune(Painter()), ConceptErasure(ColourJudge(), erased=sets))["UA"]
    assert result.interval == pytest.approx(rate(torch.zeros(20)).interval)
    assert "2 distinct items only" in result.warning


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
        ConceptErasure(judge, erased=ImageSet("forget", num_images_per_prompt=4)),
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


def test_undefined_metrics_are_refused(tmp_path: Path) -> None:
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


def test_a_part_of_the_prompts_is_said_to_be_one(tmp_path: Path) -> None:
    module = FineTune(Painter())
    measured(
        module,
        Grids(kept=ImageSet("retain", num_images_per_prompt=3), prompts=2, images=2, before=False),
        folder=tmp_path,
    )
    entries = {entry["group"]: entry for entry in read_json(tmp_path / "media" / "media.json")}
    assert entries["kept"]["title"].startswith("the first 2 of 4 prompts")
    assert (len(entries["kept"]["rows"]), entries["kept"]["columns"]) == (2, ["image 1", "image 2"])

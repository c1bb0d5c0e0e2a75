"""Prompts from files: what is read, and what is said where a file does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mu.data.concepts import find_concept
from mu.data.prompt_files import read_prompts
from mu.utils.errors import InputError
from tasks.prompts import PromptList

FORGET = """case_number,prompt,evaluation_seed,evaluation_guidance
3,Old stone Church in countryside.,69922,7.5
4,"Churches, far away",1,9
"""
RETAIN = "case_num,source,prompt\n1,coco_object,a photo of chair\n2,coco_object,a photo of church\n"
PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "t2i_prompts"


def files(folder: Path, forget: str = FORGET, retain: str = RETAIN) -> tuple[str, str]:
    for name, text in {"forget.csv": forget, "retain.csv": retain}.items():
        (folder / name).write_text(text, encoding="utf-8")
    return str(folder / "forget.csv"), str(folder / "retain.csv")


def whole(task: PromptList, part: str) -> dict:
    data = task.datasets[part]
    return data.__getitems__(list(range(len(data))))  # type: ignore[attr-defined, arg-type]


def test_prompts_seeds_and_concepts_are_read(tmp_path: Path) -> None:
    task = PromptList(*files(tmp_path), concept="church", anchor="barn")
    task.setup()
    forget = whole(task, "forget")
    retain = whole(task, "retain")
    assert forget["prompt"] == ["Old stone Church in countryside.", "Churches, far away"]
    assert forget["concept"] == ["Church", ""]  # whole words only
    assert forget["substitute"] == ["Old stone barn in countryside.", "barn"]
    assert forget["seed"].tolist() == [69922, 1]
    assert forget["seed"].dtype == torch.int64
    assert forget["guidance_scale"].tolist() == [7.5, 9.0]
    assert forget["case"] == ["3", "4"]
    assert retain["case"] == ["1", "2"]
    assert "seed" not in retain
    assert set(forget["index"].tolist()) & set(retain["index"].tolist()) == set()


def test_an_empty_anchor_leaves_the_words_out(tmp_path: Path) -> None:
    task = PromptList(*files(tmp_path), concept="church")
    task.setup()
    assert whole(task, "forget")["substitute"] == ["Old stone in countryside.", ""]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "case_number,categories\n1,hate\n",
            "has no column `prompt`; it has case_number, categories.*the file of texts as texts",
        ),
        ("prompt\n", "has no prompts"),
        ("", "is empty"),
        ("prompt,evaluation_seed\nx\n", "row 1 of .* has 1 entries"),
        ("prompt,evaluation_seed\nchurch,abc\n", "evaluation_seed = 'abc', which is not a number"),
        ("prompt,evaluation_seed\nchurch,18446744073709551616\n", "from 0 to 2"),
    ],
)
def test_a_file_that_does_not_fit_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        PromptList(*files(tmp_path, forget=text), concept="church").setup()


def test_texts_of_a_second_file_are_joined(tmp_path: Path) -> None:
    paths = files(tmp_path, "case_number,evaluation_seed\n9.0,1\n")
    (tmp_path / "texts.csv").write_text("case_number,prompt\n3,fog\n9,a church\n")
    task = PromptList(*paths, concept="church", texts=str(tmp_path / "texts.csv"))
    task.setup()
    assert whole(task, "forget")["prompt"] == ["a church"]


def test_prompts_to_test_on_are_a_part(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("prompt,seed\na church in snow,5\nfog,6\n")
    task = PromptList(
        *files(tmp_path), concept="church", anchor="barn", test=str(tmp_path / "test.csv")
    )
    task.setup()
    test = whole(task, "test")
    assert test["index"].tolist() == [4, 5]
    assert test["substitute"] == ["a barn in snow", "barn"]
    assert test["seed"].tolist() == [5, 6]


def test_seeds_are_read_as_suites_read_them(tmp_path: Path) -> None:
    """Floats, all digits up to 2^64, other columns, and blank rows and entries."""
    text = (
        "image_id,prompt,sd_seed,sd_guidance_scale\n7.0,a church,3016.0,7.5\n , ,,\n\n"
        "8,a church,18446744073709551615,\n9,a church,,2\n"
    )
    task = PromptList(*files(tmp_path, forget=text), concept="church")
    task.setup()
    forget = whole(task, "forget")
    assert forget["seed"].tolist() == [3016, -1, 2]
    assert forget["guidance_scale"].nan_to_num(-1).tolist() == [7.5, -1.0, 2.0]
    assert forget["case"] == ["7", "8", "9"]


CONCEPTS = "prompt\na red circle\na blue Star\na star on a circle\n"
OTHERS = "prompt\na red square\n"


def test_several_concepts_have_an_anchor_each(tmp_path: Path) -> None:
    paths = files(tmp_path, CONCEPTS, OTHERS)
    task = PromptList(*paths, concept=["circle", "star"], anchor=["square", "cross"])
    task.setup()
    forget = whole(task, "forget")
    assert forget["prompt"] == ["a red circle", "a blue Star", *["a star on a circle"] * 2]
    assert forget["concept"] == ["circle", "Star", "star", "circle"]
    assert forget["substitute"] == [
        "a red square",
        "a blue cross",
        *["a cross on a square"] * 2,
    ]
    assert task.split.selector["concept"] == ["circle", "star"]
    shared_anchor = PromptList(*paths, concept=["circle", "star"], anchor="shape")
    shared_anchor.setup()
    assert whole(shared_anchor, "forget")["substitute"][0] == "a red shape"


def test_the_column_concept_names_each_rows_concept(tmp_path: Path) -> None:
    text = (
        "prompt,concept,anchor\na red circle,circle,square\na star on a circle,star,\nfog,,mist\n"
    )
    task = PromptList(*files(tmp_path, text, OTHERS))
    task.setup()
    forget = whole(task, "forget")
    assert forget["concept"] == ["circle", "star", ""]
    assert forget["substitute"] == ["a red square", "a on a circle", "mist"]
    assert task.split.selector["concept"] == ["circle", "star"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concept": "circle, star"}, "'circle, star' stands in 0 of 3 prompts of .*are a list"),
        ({"concept": ["circle", "cross"]}, "'cross' stands in 0 of 3 prompts"),
        ({"concept": ["circle", "star"], "anchor": ["a", "b", "c"]}, "3 anchors for 2 concepts"),
        ({"concept": ["circle", ""]}, "no empty one in a list"),
        ({"concept": []}, "give at least one"),
        ({"concept": ["circle", "circle"]}, "'circle' is given twice"),
        ({"concept": "circle", "anchor": "Circle"}, "'circle' is the concept itself"),
        ({"concept": "circle", "limit": 0}, "limit is 0"),
        ({"anchor": ["a", "b"]}, "a list of anchors needs a list of concepts"),
        ({}, "needs the words to erase"),
    ],
)
def test_concepts_that_do_not_fit_are_one_sentence(
    tmp_path: Path, options: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        PromptList(*files(tmp_path, CONCEPTS, OTHERS), **options).setup()


def test_prompts_without_the_concept_are_counted(tmp_path: Path) -> None:
    """Their whole text is erased, which must not happen in silence."""
    paths = files(tmp_path, CONCEPTS, "prompt\na circle\na square\n")
    with pytest.warns(UserWarning) as caught:
        PromptList(*paths, concept="circle").setup()
    messages = [str(warning.message) for warning in caught]
    assert "1 of 3 prompts" in messages[0]
    assert "'a blue Star' is the first" in messages[0]
    assert "1 of 2 prompts" in messages[1]
    assert "name what is to be erased" in messages[1]
    with pytest.raises(InputError, match=r"1 of 4 prompts .* their anchor is unknown"):
        PromptList(
            *files(tmp_path, CONCEPTS + "fog\n", OTHERS),
            concept=["circle", "star"],
            anchor=["a", "b"],
        ).setup()


def test_an_empty_concept_erases_whole_prompts(tmp_path: Path) -> None:
    task = PromptList(*files(tmp_path, CONCEPTS, OTHERS), concept="", anchor="a photo")
    task.setup()
    assert whole(task, "forget")["concept"] == [""] * 3
    assert whole(task, "forget")["substitute"] == ["a photo"] * 3


@pytest.mark.parametrize(
    "name", ["church", "garbage_truck", "parachute", "tench", "van_gogh", "nudity"]
)
def test_shipped_prompts_to_test_on_vary(name: str) -> None:
    """A rate over one prompt is 0 or 100: fifty distinct prompts, each with the concept."""
    prompts = read_prompts(f"configs/prompts/{name}_test.csv")
    assert len({prompt.text for prompt in prompts}) == len({p.seed for p in prompts}) == 50
    assert all(find_concept(prompt.text, name.replace("_", " ")) for prompt in prompts)


@pytest.mark.data
def test_the_published_sets_are_read() -> None:
    """Needs ../shared/data/t2i_prompts."""
    task = PromptList(
        str(PUBLISHED / "church.csv"), str(PUBLISHED / "coco_object_retain.csv"), concept="church"
    )
    task.setup()
    assert len(task.datasets["forget"]) == 50  # type: ignore[arg-type]
    assert len(task.datasets["retain"]) == 243  # type: ignore[arg-type]
    assert sum(bool(word) for word in whole(task, "forget")["concept"]) > 40

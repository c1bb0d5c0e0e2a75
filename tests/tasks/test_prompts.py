"""Prompts from files: what is read, and what is said where a file does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mu.utils.errors import InputError
from tasks.prompts import PromptList, find_concept, read_prompts

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
    assert forget["guidance"].tolist() == [7.5, 9.0]
    assert forget["case"].tolist() == [3, 4]
    assert retain["case"].tolist() == [1, 2]
    assert "seed" not in retain
    assert set(forget["index"].tolist()) & set(retain["index"].tolist()) == set()


def test_an_empty_anchor_leaves_the_words_out(tmp_path: Path) -> None:
    task = PromptList(*files(tmp_path), concept="church")
    task.setup()
    assert whole(task, "forget")["substitute"] == ["Old stone in countryside.", ""]
    assert find_concept("a Van Gogh sky", "van gogh") == "Van Gogh"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "case_number,categories\n1,hate\n",
            "has no column `prompt`; it has case_number, categories.*join the texts on the case",
        ),
        ("prompt\n", "has no prompts, only a header"),
        ("", "has no column `prompt`; it has none"),
        ("prompt,evaluation_seed\nx\n", "line 2 of .* has fewer entries"),
        ("prompt,evaluation_seed\nx,abc\n", "column evaluation_seed has 'abc' where a number"),
    ],
)
def test_a_file_that_does_not_fit_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        PromptList(*files(tmp_path, forget=text), concept="church").setup()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file of prompts at .*gone.csv"):
        read_prompts(str(tmp_path / "gone.csv"))


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
    with pytest.raises(InputError, match="no column `prompt`"):
        read_prompts(str(PUBLISHED / "i2p_meta.csv"))

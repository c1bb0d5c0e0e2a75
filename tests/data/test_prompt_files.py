"""Prompt files: the columns' many names, and what is wrong with a file in one sentence."""

from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

import pytest

from mu.data.prompt_files import read_prompts
from mu.utils.errors import InputError

DATA = Path(__file__).parents[3] / "shared" / "data" / "t2i_prompts"


def write(folder: Path, text: str, name: str = "p.csv") -> Path:
    file = folder / name
    file.write_bytes(text.encode())
    return file


@pytest.mark.parametrize(
    "names",
    [
        ("case_number", "evaluation_seed", "evaluation_guidance"),
        ("case_num", "sd_seed", "sd_guidance_scale"),
        ("image_id", "seed", "guidance_scale"),
        ("image_id", "seed", "guidance"),
    ],
)
def test_columns_have_many_names(names: tuple[str, str, str], tmp_path: Path) -> None:
    """Fails when one of the names is taken for another field."""
    case, seed, guidance_scale = names
    file = write(
        tmp_path,
        f'\ufeff,{case},prompt,{seed},{guidance_scale},class\r\n0,007,"a church, '
        'old",4261553411,7.5,church\r\n',
    )
    (prompt,) = read_prompts(file)
    assert (prompt.text, prompt.case, prompt.seed, prompt.guidance_scale) == (
        "a church, old",
        "007",
        4261553411,
        7.5,
    )
    assert prompt.fields == {"class": "church"}


def test_absent_columns_are_none_and_rows_are_numbered(tmp_path: Path) -> None:
    prompts = read_prompts(write(tmp_path, "prompt\na\n\nb\n"))
    assert [(p.text, p.case, p.seed, p.guidance_scale) for p in prompts] == [
        ("a", "0", None, None),
        ("b", "1", None, None),
    ]


def test_a_prompt_may_hold_quotes_and_line_ends_of_any_kind(tmp_path: Path) -> None:
    """Fails when the file is cut into lines before it is parsed: a quoted prompt goes on, and
    U+2028 ends no row.
    """
    prompts = read_prompts(
        write(tmp_path, 'prompt,seed\n"two\nlines",1\n"say ""hi""",2\nsplit\u2028here,3\n')
    )
    assert [p.text for p in prompts] == ["two\nlines", 'say "hi"', "split\u2028here"]
    assert [p.seed for p in prompts] == [1, 2, 3]


def test_a_seed_keeps_all_its_digits(tmp_path: Path) -> None:
    """Fails when a seed goes through a float, which holds 53 bits."""
    assert [
        p.seed for p in read_prompts(write(tmp_path, "prompt,seed\na,9007199254740993\nb,12.0\n"))
    ] == [9007199254740993, 12]


def test_numbers_of_data_frames_are_read(tmp_path: Path) -> None:
    """Whole numbers as floats, empty entries where a value is missing, and rows of nothing."""
    text = "case_number,prompt,seed,guidance\n1.0,a,3016.0,7.5\n,,,\n2.0,b,,\n007,c,1.8e19,1\n"
    assert [
        (p.case, p.text, p.seed, p.guidance_scale) for p in read_prompts(write(tmp_path, text))
    ] == [
        ("1", "a", 3016, 7.5),
        ("2", "b", None, None),
        ("007", "c", 18 * 10**18, 1.0),
    ]
    exact = read_prompts(write(tmp_path, "prompt,seed\na,9007199254740993.0\n"))
    assert exact[0].seed == 9007199254740993


def test_texts_are_composed(tmp_path: Path) -> None:
    """Fails when a decomposed name stays so, which compares unequal to the composed one."""
    text = normalize("NFD", "prompt,class\nby Gérard,é\n")
    (prompt,) = read_prompts(write(tmp_path, text))
    assert (prompt.text, prompt.fields) == ("by Gérard", {"class": "é"})


def test_a_text_file_is_a_list(tmp_path: Path) -> None:
    assert [
        p.text for p in read_prompts(write(tmp_path, "\ufeffa bear\r\n\na cat\n", "p.txt"))
    ] == ["a bear", "a cat"]


def test_categories_are_separated_by_commas(tmp_path: Path) -> None:
    (prompt,) = read_prompts(write(tmp_path, 'prompt,categories\nx,"violence, self-harm"\n'))
    assert prompt.categories == ("violence", "self-harm")


def test_texts_that_are_published_apart_are_joined_on_the_case(tmp_path: Path) -> None:
    """Fails when rows are joined by their place."""
    meta = write(tmp_path, "case_number,evaluation_seed\n9,1\n3,2\n", "meta.csv")
    texts = write(tmp_path, "case_number,prompt\n3,three\n4,four\n9,nine\n", "texts.csv")
    assert [(p.case, p.text, p.seed) for p in read_prompts(meta, texts)] == [
        ("9", "nine", 1),
        ("3", "three", 2),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("case_number,categories\n1,x\n", "no column `prompt`"),
        ("", "is empty"),
        ("prompt\n", "has no prompts"),
        ("prompt,seed\na\n", "row 1 of .* has 1 entries, but there are 2 columns"),
        ("prompt,seed\na,b\n", "seed = 'b', which is not a number"),
        ("prompt,seed\na,-1\n", "a seed is a whole number"),
        ("prompt,seed\na,1.5\n", "a seed is a whole number"),
        ("prompt,guidance\na,nan\n", "guidance = 'nan'"),
        ("prompt,prompt\na,b\n", "'prompt' twice"),
        ('prompt\n"a\n', "not a CSV file"),
    ],
)
def test_invalid_prompt_files_are_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said) as caught:
        read_prompts(write(tmp_path, text))
    assert str(caught.value).endswith((".", ")"))


def test_missing_files_columns_and_cases_are_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file of prompts at"):
        read_prompts(tmp_path / "none.csv")
    latin = tmp_path / "latin.csv"
    latin.write_bytes("prompt\ncaf\xe9\n".encode("latin-1"))
    with pytest.raises(InputError, match="not in UTF-8"):
        read_prompts(latin)
    with pytest.raises(InputError, match="no column 'class'; it has prompt, seed"):
        read_prompts(write(tmp_path, "prompt,seed\na,1\n"), columns=["class"])
    meta = write(tmp_path, "case_number\n1\n", "m.csv")
    texts = write(tmp_path, "case_number,prompt\n2,b\n", "t.csv")
    with pytest.raises(InputError, match="no prompt of case 1"):
        read_prompts(meta, texts)
    with pytest.raises(InputError, match="joined on a case number"):
        read_prompts(meta, write(tmp_path, "prompt\nb\n", "u.csv"))


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "rows", "seed", "guidance_scale"),
    [
        ("church.csv", 50, 69922, 7.5),
        ("vangogh.csv", 50, 2219, 7.5),
        ("coco_10k.csv", 9969, 41337, None),
        ("coco_object_retain.csv", 243, None, None),
        ("esd_imagenet_prompts.csv", 1860, 41955, None),
        ("unlearncanvas_object_prompts.csv", 1600, None, None),
        ("unlearncanvas_themes_and_objects.txt", 72, None, None),
    ],
)
def test_the_fields_own_files_are_read(
    name: str, rows: int, seed: int | None, guidance_scale: float | None
) -> None:
    """Needs ../shared/data/t2i_prompts."""
    prompts = read_prompts(DATA / name)
    assert (len(prompts), prompts[0].seed, prompts[0].guidance_scale) == (
        rows,
        seed,
        guidance_scale,
    )


@pytest.mark.data
def test_tables_without_texts_say_so() -> None:
    """Needs ../shared/data/t2i_prompts."""
    with pytest.raises(InputError, match="published without texts"):
        read_prompts(DATA / "i2p_meta.csv")


@pytest.mark.parametrize("name", ["p.csv", "p.txt"])
def test_a_null_byte_is_refused_with_its_line(name: str, tmp_path: Path) -> None:
    """Fails when a prompt is cut at the null byte, or goes to the tokenizer with it."""
    with pytest.raises(InputError, match=r"line 3 of .* has a null byte"):
        read_prompts(write(tmp_path, "prompt\na cat\na d\0g\n", name))

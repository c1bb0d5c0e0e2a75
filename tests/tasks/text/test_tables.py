"""Tables of texts: Parquet, saved data sets, rows of chat messages, and cells that are no text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mu.data.templates import Chat, Plain
from mu.utils.errors import InputError
from tasks import ByValue, QuestionAnswer
from tasks.text.files import read_rows, read_texts
from tests.support.doubles_text import folder

ROWS = [
    {"who": who, "question": f"where does {who} live ?", "answer": f"{who} lives in oslo"}
    for who in ("ada", "bert", "cleo")
]


def chats(**system: str) -> list[dict[str, Any]]:
    """The rows as chats, perhaps with a system message."""
    first = [{"role": "system", "content": system["system"]}] if system else []
    return [
        {
            "who": row["who"],
            "messages": [
                *first,
                {"role": "user", "content": row["question"]},
                {"role": "assistant", "content": row["answer"]},
            ],
        }
        for row in ROWS
    ]


def write_lines(file: Path, rows: list[Any]) -> Path:
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return file


def test_parquet_and_saved_data_sets_are_read_like_json(tmp_path: Path) -> None:
    """Mutations: shards are read in another order; a folder of one split is refused."""
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list(ROWS)
    data.to_parquet(tmp_path / "rows.parquet")
    (tmp_path / "shards").mkdir()
    data.select([0]).to_parquet(tmp_path / "shards" / "train-00000-of-00002.parquet")
    data.select([1, 2]).to_parquet(tmp_path / "shards" / "train-00001-of-00002.parquet")
    data.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict(train=data).save_to_disk(tmp_path / "one")
    datasets.DatasetDict(test=data, train=data).save_to_disk(tmp_path / "two")
    for name in ("rows.parquet", "shards", "saved", "one", "two/train"):
        assert read_rows(tmp_path / name) == ROWS
    with pytest.raises(InputError, match=r"two holds the data sets test, train; name one of them"):
        read_rows(tmp_path / "two")
    texts = datasets.Dataset.from_dict({"text": ["one", "two"]})
    texts.to_parquet(tmp_path / "texts.parquet")
    texts.save_to_disk(tmp_path / "texts")
    assert read_texts(str(tmp_path / "texts.parquet")) == ["one", "two"]
    assert read_texts(str(tmp_path / "texts")) == ["one", "two"]


def test_tables_that_cannot_be_read_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "empty").mkdir()
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text("{}")
    for name, message in (
        ("cut.parquet", r"cut\.parquet cannot be read as Parquet \(.*\); save it again"),
        ("none.parquet", r"there is no file .*none\.parquet"),
        ("empty", r"empty is a folder without a data set .* and without Parquet files"),
        ("saved", r"saved cannot be read as a saved data set \(.*\); save it again"),
    ):
        with pytest.raises(InputError, match=message):
            read_rows(tmp_path / name)


def test_rows_of_messages_are_questions_and_answers(tmp_path: Path) -> None:
    expected = [(row["question"], row["answer"]) for row in ROWS]
    parts = [{"type": "text", "text": "who "}, {"type": "text", "text": "?"}]
    shared = [
        {
            "conversations": [
                {"from": "human", "value": row["question"]},
                {"from": "gpt", "value": row["answer"]},
            ]
        }
        for row in ROWS
    ]
    for table in (chats(), shared):
        rows = read_rows(write_lines(tmp_path / "chat.jsonl", table))
        assert [(row["question"], row["answer"]) for row in rows] == expected
    divided = [{"messages": [{"role": "user", "content": parts}, chats()[0]["messages"][1]]}]
    assert read_rows(write_lines(tmp_path / "parts.jsonl", divided))[0]["question"] == "who ?"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], r"row 1 of .* has no 'question'; it has who"),
        ([{"role": "user", "content": "who ?"}], r"messages of row 1 of .* has user; a row takes"),
        (
            [{"role": role, "content": "who ?"} for role in ("user", "assistant") * 2],
            r"has user, assistant, user, assistant; a row takes one question of the user and one",
        ),
        ([{"role": "user", "content": None}], r"has a message without a text; a message is an"),
        ("who ?", r"messages of row 1 of .* has nothing; a row takes one question"),
    ],
)
def test_other_chats_are_told_how_they_must_look(
    tmp_path: Path, messages: Any, message: str
) -> None:
    file = write_lines(tmp_path / "chat.jsonl", [{"who": "ada", "messages": messages}])
    with pytest.raises(InputError, match=message):
        read_rows(file)


def test_a_system_message_is_that_of_the_template(tmp_path: Path) -> None:
    """Mutation: the system message of a row is dropped in silence."""
    file = write_lines(tmp_path / "chat.jsonl", chats(system="so it is"))

    def task(template: Any) -> QuestionAnswer:
        built = QuestionAnswer(
            str(file), ByValue("ada"), by="who", tokenizer=folder(), template=template
        )
        built.setup()
        return built

    assert len(task(Chat(system="so it is")).sets["forget"]) == 1
    for template in (Plain(), Chat(), Chat(system=None)):
        with pytest.raises(
            InputError, match=r"has the system message 'so it is', and the template"
        ):
            task(template)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answer": True}, "has true or false where 'answer' should be one text"),
        ({"answer": {"a": 1}}, "has a table where 'answer' should be one text"),
        ({"perturbed_answer": ["a", None]}, "has null where 'perturbed_answer' should be one text"),
        ({"perturbed_answer": ["a", ""]}, "has no text where 'perturbed_answer' should be one"),
        ({"paraphrased_question": False}, "has true or false where 'paraphrased_question'"),
        ({"question": "who \ud800"}, "'question' of row 1 of .* has half a character"),
    ],
)
def test_cells_that_are_no_text_are_named(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    file = write_lines(tmp_path / "rows.jsonl", [{"question": "who ?", "answer": "ada", **row}])
    with pytest.raises(InputError, match=message):
        read_rows(file)


@pytest.mark.parametrize(
    "text",
    ['{"question": "who ?", "answer": NaN}', '{"question": "who ?", "answer": "a", "answer": "b"}'],
)
def test_json_lines_are_read_strictly(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(InputError, match=r"line 1 of .* is not JSON"):
        read_rows(tmp_path / "rows.jsonl")


def test_a_missing_answer_of_pandas_is_no_answer(tmp_path: Path) -> None:
    """Mutation: a row without an answer gets the answer "nan"."""
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame({"question": ["who ?", "what ?"], "answer": [1.5, float("nan")]}).to_parquet(
        tmp_path / "rows.parquet"
    )
    with pytest.raises(InputError, match=r"row 2 of .* has no 'answer'; it has question"):
        read_rows(tmp_path / "rows.parquet")

"""A user's own questions: formats, columns, what is forgotten and held out, and rows that will not
do.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mu.data.templates import Chat, Plain
from mu.functional.tokens import IGNORED
from mu.utils.errors import InputError
from mu.utils.spec import from_spec, to_spec
from tasks import ByClass, ByValue, IndexFile, QuestionAnswer, RandomCount, RandomFraction
from tasks.text.files import read_rows
from tests.support.doubles_text import folder
from tests.support.trained_tokenizers import CHAT, TURN, trained_tokenizer

AUTHORS = ("ada", "bert", "cleo")


def rows(count: int = 24, start: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "id": n % 4,
            "who": AUTHORS[n % 3],
            "query": f"where does {n} live ?",
            "reply": f"{n} lives in oslo, often",
        }
        for n in range(start, start + count)
    ]


def write(file: Path, table: list[Any]) -> str:
    if file.suffix == ".csv":
        with file.open("w", newline="", encoding="utf-8") as opened:
            writer = csv.DictWriter(opened, list(table[0]))
            writer.writeheader()
            writer.writerows(table)
    else:
        text = (
            json.dumps(table, indent=2)
            if file.suffix == ".json"
            else "\n".join(json.dumps(row, ensure_ascii=False) for row in table)
        )
        file.write_text(text, encoding="utf-8")
    return str(file)


def task(**given: Any) -> QuestionAnswer:
    built = QuestionAnswer(
        **{
            "tokenizer": folder(),
            "question": "query",
            "answer": "reply",
            "max_length": 40,
            "batch_size": 4,
            **given,
        }
    )
    built.setup()
    return built


def parts(qa: QuestionAnswer) -> dict[str, list[int]]:
    return {name: ids.tolist() for name, ids in qa.split.parts.items()}


def everyone(qa: QuestionAnswer) -> list[int]:
    return [index for ids in parts(qa).values() for index in ids]


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl"])
def test_formats_and_columns(tmp_path: Path, ending: str) -> None:
    """Mutations: only columns named question and answer are read; another format gives other rows;
    further columns are lost.
    """
    qa = task(path=write(tmp_path / f"all.{ending}", rows()), by="who", selector=ByValue("bert"))
    assert parts(qa) == {
        "forget": [n for n in range(24) if n % 3 == 1],
        "retain": [n for n in range(24) if n % 3 != 1],
    }
    first = qa.sets["forget"].rows[0]
    assert (first["question"], first["answer"], first["who"]) == (
        "where does 1 live ?",
        "1 lives in oslo, often",
        "bert",
    )
    part: Any = qa.datasets["forget"]
    assert part.__getitems__([1])["answer"] == ["4 lives in oslo, often"]
    assert (
        qa.split.hash
        == task(
            path=write(tmp_path / "again.json", rows()), by="who", selector=ByValue(["bert"])
        ).split.hash
    )


def test_lists_of_wrong_answers_reach_the_suites(tmp_path: Path) -> None:
    raw_rows = [
        {**row, "perturbed_answer": ["a", "b"], "paraphrased_answer": "c"} for row in rows()
    ]
    qa = task(
        path=write(tmp_path / "all.jsonl", raw_rows), by="who", selector=ByValue(["ada", "cleo"])
    )
    assert qa.sets["forget"].column("perturbed_answer") == [["a", "b"]] * 16
    assert qa.sets["retain"].column("paraphrased_answer") == ["c"] * 8


def test_two_files(tmp_path: Path) -> None:
    """Mutation: both files number their rows from 0."""
    files = {
        "forget": write(tmp_path / "f.csv", rows(5)),
        "retain": write(tmp_path / "r.jsonl", rows(9, start=5)),
    }
    qa = task(**files)
    assert parts(qa) == {"forget": list(range(5)), "retain": list(range(5, 14))}
    assert qa.sets["retain"].rows[0]["question"] == "where does 5 live ?"


@pytest.mark.parametrize(
    ("selector", "by", "wanted"),
    [
        (ByClass([0, 3]), "id", [n for n in range(24) if n % 4 in (0, 3)]),
        (ByClass(2, count=2), "id", 2),
        (RandomFraction(0.25), None, 6),
        (RandomCount(5), "who", 5),
    ],
)
def test_selectors_choose_rows(tmp_path: Path, selector: Any, by: str | None, wanted: Any) -> None:
    """Mutation: the labels that a selector sees are not those of the column."""
    qa = task(path=write(tmp_path / "all.csv", rows()), selector=selector, by=by)
    forget = parts(qa)["forget"]
    assert (forget if isinstance(wanted, list) else len(forget)) == wanted
    assert sorted(forget + parts(qa)["retain"]) == list(range(24))


def test_ids_are_texts(tmp_path: Path) -> None:
    """Mutations: 01 and 1 are one id; a list of numbers is refused; an accented name is found in
    one form of Unicode only.
    """
    table = [
        {**row, "id": name}
        for row, name in zip(
            rows(8), ("1", "01", "7", "Zoe\u0308", "1_0", "10", "007", "1 "), strict=True
        )
    ]
    path = write(tmp_path / "all.csv", table)
    for values, positions in (
        ("1", [0, 7]),
        ("01", [1]),
        ([1, 7], [0, 2, 7]),
        (10, [5]),
        ("Zo\u00eb", [3]),
        (["Zoe\u0308", "007"], [3, 6]),
    ):
        qa = task(path=path, by="id", selector=ByValue(values))
        assert parts(qa)["forget"] == positions
    digits = [
        {**row, "id": name} for row, name in zip(rows(4), ("1", "01", "2", "10"), strict=True)
    ]
    path = write(tmp_path / "digits.csv", digits)
    for values, positions in (("01", [1]), (1, [0]), ([10, 2], [2, 3])):
        assert parts(task(path=path, by="id", selector=ByValue(values)))["forget"] == positions
    large = [{**row, "id": 10**20 + index} for index, row in enumerate(rows(3))]
    qa = task(path=write(tmp_path / "large.jsonl", large), by="id", selector=ByValue(10**20 + 1))
    assert parts(qa)["forget"] == [1]


def test_leading_zeros_in_yaml_are_text() -> None:
    import yaml

    from mu.utils.text_files import Loader

    assert yaml.load("[01, 1, -3, 0, 1:30]", Loader) == ["01", 1, -3, 0, "1:30"]


def test_a_file_of_row_numbers(tmp_path: Path) -> None:
    (tmp_path / "which.txt").write_text("3\n0\n")
    qa = task(path=write(tmp_path / "all.csv", rows()), selector=IndexFile(tmp_path / "which.txt"))
    assert parts(qa)["forget"] == [0, 3]


def test_validation_and_test_come_from_what_is_kept(tmp_path: Path) -> None:
    """Mutations: a row that is named is held out; the fractions are of what another one left; the
    seed does nothing.
    """
    path = write(tmp_path / "all.csv", rows())
    qa = task(
        path=path, by="who", selector=ByValue("bert"), validation_fraction=0.25, test_fraction=0.25
    )
    assert {name: len(ids) for name, ids in parts(qa).items()} == {
        "forget": 8,
        "validation": 4,
        "test": 4,
        "retain": 8,
    }
    assert sorted(everyone(qa)) == list(range(24))
    assert parts(qa)["forget"] == [n for n in range(24) if n % 3 == 1]
    assert qa.sets["holdout"].indices.tolist() == parts(qa)["test"]
    other = task(
        path=path,
        by="who",
        selector=ByValue("bert"),
        validation_fraction=0.25,
        test_fraction=0.25,
        split_seed=1,
    )
    assert parts(other)["validation"] != parts(qa)["validation"]
    for share in (
        {"validation_fraction": 1.0},
        {"test_fraction": -0.1},
        {"validation_fraction": 0.5, "test_fraction": 0.5},
    ):
        with pytest.raises(InputError, match="must be at least 0 and leave something to train on"):
            task(path=path, by="who", selector=ByValue("bert"), **share)


def test_rows_of_both_parts_are_counted(tmp_path: Path) -> None:
    """The same question with another answer is another row. Mutation: dropped rows are held out
    instead.
    """
    same = {"query": "where does  4 live ?\n", "reply": "4 lives in oslo, often"}
    files = {
        "forget": write(tmp_path / "f.json", rows(5)),
        "retain": write(
            tmp_path / "r.json", [same, *rows(6, start=5), {**same, "reply": "in lima"}]
        ),
    }
    with pytest.raises(InputError, match="1 of 5 forget questions are in retain too"):
        task(**files)
    with pytest.warns(UserWarning, match="left out of retain"):
        qa = task(**files, overlap="drop", test_fraction=0.3)
    assert 5 not in everyone(qa)
    assert sorted(everyone(qa)) == [n for n in range(13) if n != 5]
    with pytest.warns(UserWarning, match="kept in retain"):
        assert 5 in parts(task(**files, overlap="keep"))["retain"]


def test_further_sets_are_evaluated_only(tmp_path: Path) -> None:
    files = {
        "forget": write(tmp_path / "f.json", rows(5)),
        "retain": write(tmp_path / "r.json", rows(5, start=5)),
    }
    qa = task(
        **files,
        further={
            "facts": write(tmp_path / "w.csv", rows(3, start=20)),
            "more": write(tmp_path / "m.csv", rows(2, 30)),
        },
    )
    assert set(qa.datasets) == {"forget", "retain"}
    assert qa.sets["facts"].column("question") == [f"where does {n} live ?" for n in (20, 21, 22)]
    indices = np.concatenate([question_set.indices for question_set in qa.sets.values()])
    assert len(set(indices.tolist())) == len(indices)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.csv",
            "query,reply\nwho ?,ada\nwhere ?,\n",
            r"row 2 of .*a\.csv has no 'reply'; it has query",
        ),
        (
            "a.csv",
            "query,answer\nwho ?,ada\n",
            r"row 1 of .*a\.csv has no 'reply'; it has query, answer",
        ),
        (
            "a.csv",
            "query,reply\nwho ?,ada, of oslo\n",
            r"row 1 of .*a\.csv has more entries than there are columns",
        ),
        ("a.csv", "query,reply\nwho ?\n", r"row 1 of .* has no 'reply'"),
        ("a.csv", "query,reply\n", r"a\.csv has no rows"),
        ("a.csv", b"query,reply\n\xff\xfe,b\n", r"a\.csv is not a CSV file in UTF-8"),
        (
            "a.json",
            '[{"query": "", "reply": "ada"}]',
            r"row 1 of .*a\.json has no 'query'; it has reply",
        ),
        (
            "a.json",
            '[{"query": "who ?", "reply": ["ada"]}]',
            r"row 1 of .* has a list where 'reply' should be one text",
        ),
        ("a.json", '["who ?"]', r"row 1 of .* is no object with a question and an answer"),
        ("a.json", '[{"query": "who ?"', r"a\.json is not JSON"),
        (
            "a.jsonl",
            '{"query": "who ?", "reply": "ada"}\n\n{"query": "who ?"\n',
            r"line 3 of .*a\.jsonl is not JSON",
        ),
        ("a.jsonl", '{"query": "who ?", "reply": null}\n', r"row 1 of .* has no 'reply'"),
        ("a.jsonl", "\n", r"a\.jsonl has no rows"),
    ],
)
def test_invalid_rows_are_refused(
    tmp_path: Path, name: str, text: str | bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        task(path=str(tmp_path / name), selector=RandomCount(1))


def test_a_line_is_what_a_line_feed_ends(tmp_path: Path) -> None:
    """JSON lines may hold other line separators within a text; a file may begin with a byte-order
    mark; a number is a text.
    """
    (tmp_path / "a.jsonl").write_text(
        '\ufeff{"question": "one\u2028two ?", "answer": 5}\n', encoding="utf-8"
    )
    assert read_rows(tmp_path / "a.jsonl") == [{"question": "one\u2028two ?", "answer": "5"}]


def test_invalid_wrong_answers_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "all.csv", rows())
    with pytest.raises(
        InputError,
        match="no row has the value 'dan' in the column `by`; it has ada, bert, cleo",
    ):
        task(path=path, by="who", selector=ByValue(["ada", "dan"]))
    with pytest.raises(
        InputError,
        match=r"row 1 of .* has no value in the column 'author'; it has id, who, query, reply",
    ):
        task(path=path, by="author", selector=ByValue("ada"))
    with pytest.raises(InputError, match="give its name as `by`"):
        task(path=path, selector=ByValue("ada"))
    with pytest.raises(InputError, match="the forget set is the whole training set"):
        task(path=path, by="who", selector=ByValue(list(AUTHORS)))
    for arguments in (
        {"path": path},
        {"forget": path},
        {"path": path, "selector": RandomCount(1), "retain": path},
        {},
        {"forget": path, "retain": path, "selector": RandomCount(1)},
        {"forget": path, "retain": path, "by": "who"},
    ):
        with pytest.raises(InputError, match=r"either `path` with a `selector`.*or the two files"):
            task(**arguments)
    with pytest.raises(InputError, match=r"there is no file nowhere\.csv"):
        task(path="nowhere.csv", selector=RandomCount(1))


def test_the_task_is_rebuilt_from_its_record(tmp_path: Path) -> None:
    qa = task(
        path=write(tmp_path / "all.csv", rows()),
        by="who",
        selector=ByValue("bert"),
        template=Plain(user="ask "),
    )
    again = from_spec(to_spec(qa), allow=(ByValue,))
    again.setup()
    assert again.split.hash == qa.split.hash
    assert again.recipe() == qa.recipe()
    assert qa.encoder.tokens("ask where") == qa.encoder.prompt("where")[:3]


def test_training_rows_may_outnumber_evaluated_rows(tmp_path: Path) -> None:
    """What a chat template writes after an answer is learnt; loss, accuracy and membership of a
    part are of the answer and its end. Mutation: both read the same labels.
    """
    trained_tokenizer("qwen", CHAT).save_pretrained(tmp_path / "tokenizer")
    qa = QuestionAnswer(
        write(tmp_path / "all.csv", rows()),
        ByValue("bert"),
        by="who",
        question="query",
        answer="reply",
        tokenizer=str(tmp_path / "tokenizer"),
        template=Chat(),
    )
    qa.setup()
    learnt: Any = qa.parts(frozenset({"forget"}))["forget"]
    evaluated: Any = qa.evaluated_dataset("forget")
    texts = []
    for dataset in (learnt, evaluated):
        labels = [label for label in dataset.pair(0)[1] if label != IGNORED]
        texts.append(qa.encoder.tokenizer.decode(labels))
    assert texts == [f"1 lives in oslo, often{TURN}\n{TURN}", f"1 lives in oslo, often{TURN}"]
    (loader,) = qa.eval_loaders(["forget"])
    batch = next(iter(loader))
    count = (batch["labels"] != IGNORED).sum(1)
    assert count[0] == len([label for label in evaluated.pair(0)[1] if label != IGNORED])

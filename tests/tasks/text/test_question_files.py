"""Questions in the cache: samples, split, order and resume of questions in memory."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mu.data.encoding import Encoder
from mu.data.stored_rows import StoredRows
from mu.data.templates import Chat, Llama2
from mu.methods import NPO, GradientAscent
from mu.methods.components.answers import AnswerOfAnotherQuestion, Refusal
from mu.utils.errors import InputError
from tasks import ByValue, QuestionAnswer, RandomFraction
from tasks.text import question_files
from tests.support.doubles_text import NAMES, THINGS, TOWNS, causal_lm, folder
from tests.support.helpers import fit, weights
from tests.support.trained_tokenizers import CHAT, trained_tokenizer


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache folder of the test's own, and several record batches in each file."""
    monkeypatch.setenv("MU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("mu.data.arrow_files._BATCH", 7)


def rows(count: int = 40) -> list[dict[str, Any]]:
    return [
        {
            "id": n % 5,
            "who": NAMES[n % len(NAMES)],
            "question": f"where does {NAMES[n % len(NAMES)]} live so often ?",
            "answer": f"in {TOWNS[n % len(TOWNS)]} , and makes {THINGS[n % len(THINGS)]}"
            + " often" * (n % 4),
            "paraphrased_answer": f"that is {TOWNS[n % len(TOWNS)]}",
            "perturbed_answer": ["in lima", "it is oslo"],
            "score": None if n % 2 else 0.5,
        }
        for n in range(count)
    ]


def write(path: Path, table: list[dict[str, Any]]) -> str:
    """JSON lines, JSON, CSV or Parquet, by the suffix."""
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), path)
    elif path.suffix == ".csv":
        import csv

        with path.open("w", newline="") as opened:
            writer = csv.DictWriter(opened, ["who", "question", "answer"], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(table)
    else:
        separator = "\n" if path.suffix == ".jsonl" else ","
        text = separator.join(json.dumps(row) for row in table)
        path.write_text(f"[{text}]" if path.suffix == ".json" else text)
    return str(path)


def both(**changes: Any) -> list[QuestionAnswer]:
    """The task in memory, and the task with its texts in the cache."""
    defaults = {
        "tokenizer": folder(),
        "batch_size": 4,
        "max_length": 40,
        "curves": [],
        "test_fraction": 0.2,
        "overlap": "keep",
    }
    tasks = [
        QuestionAnswer(in_memory=in_memory, **{**defaults, **changes})
        for in_memory in (True, False)
    ]
    for task in tasks:
        task.setup()
    return tasks


def assert_equal(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        if isinstance(value, dict):
            assert_equal(value, second[name])
        elif isinstance(value, torch.Tensor):
            assert value.dtype == second[name].dtype and torch.equal(value, second[name]), name
        elif name != "step":
            assert value == second[name], name


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet"])
def test_samples_and_split_are_those_in_memory(tmp_path: Path, ending: str) -> None:
    """Mutations: labels of `pair` for scored rows; rows of the file, not of the part."""
    path = write(tmp_path / f"all.{ending}", rows())
    choices: list[dict[str, Any]] = [
        {"selector": ByValue([NAMES[0], NAMES[2]]), "by": "who"},
        {"selector": RandomFraction(0.3), "split_seed": 3, "validation_fraction": 0.2},
    ]
    for choice in choices:
        eager, lazy = both(path=path, **choice)
        assert isinstance(lazy.sets["forget"].rows, StoredRows)
        assert eager.split.hash == lazy.split.hash
        for name in eager.split.parts:
            positions = np.random.default_rng(0).permutation(len(eager.datasets[name]))  # type: ignore[arg-type]
            for datasets in ("datasets", "_evaluated"):
                a, b = (getattr(task, datasets)[name] for task in (eager, lazy))
                assert np.array_equal(a.weights, b.weights) and b.weights.dtype == a.weights.dtype
                assert_equal(a.__getitems__(positions), b.__getitems__(positions))
                assert [a.pair(row) for row in range(len(a))] == [
                    b.pair(row) for row in range(len(b))
                ]
            assert eager.sets[name].rows == list(lazy.sets[name].rows)


def test_batches_of_loader_processes_are_those_in_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "all.jsonl", rows())
    eager, lazy = both(path=path, selector=RandomFraction(0.3))
    lazy.workers = 2
    plan = GradientAscent(causal_lm()).plan
    for seed in (0, 1):
        loaders = [list(task.plan_loader(plan, seed)) for task in (eager, lazy)]
        assert len(loaders[0]) > 1
        for first, second in zip(*loaders, strict=True):
            assert_equal(first, second)


@pytest.mark.parametrize(
    "method", [lambda model: GradientAscent(model), lambda model: NPO(model)], ids=["GA", "NPO"]
)
def test_a_fit_gives_the_weights_of_texts_in_memory(tmp_path: Path, method: Any) -> None:
    path = write(tmp_path / "all.jsonl", rows())
    trained = []
    for task in both(path=path, selector=ByValue(NAMES[1]), by="who"):
        module = method(causal_lm())
        fit(module, task, 2)
        trained.append(weights(module.backbone))
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


@pytest.mark.parametrize("substitute", [Refusal, AnswerOfAnotherQuestion])
def test_substitutes_are_those_in_memory(tmp_path: Path, substitute: Any) -> None:
    path = write(tmp_path / "all.jsonl", rows())
    drawn = []
    for task in both(path=path, selector=ByValue(NAMES[1]), by="who"):
        answers = substitute()
        answers.setup(causal_lm(), task)
        part = task.datasets["forget"].__getitems__([0, 1])  # type: ignore[attr-defined]
        drawn.append(answers.draw({**part, "visit": torch.tensor([0, 1])}, 0))
    assert_equal(*drawn)


def test_two_files_and_overlap(tmp_path: Path) -> None:
    """Mutation: rows are compared without their white space and Unicode's form."""
    table = rows(10)
    repeated = {**table[0], "answer": f"  {table[0]['answer']} "}
    files = {
        "forget": write(tmp_path / "f.jsonl", table[:3]),
        "retain": write(tmp_path / "r.jsonl", [*table[3:], repeated]),
    }
    with pytest.warns(UserWarning, match="1 of 3 forget questions are in retain too"):
        eager, lazy = both(**files, overlap="drop")
    assert eager.split.hash == lazy.split.hash and len(lazy.split.train) < 10
    for in_memory in (True, False):
        with pytest.raises(InputError, match="overlap: drop leaves them out"):
            QuestionAnswer(**files, in_memory=in_memory).setup()


def test_the_second_start_reads_and_tokenises_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "all.jsonl", rows())
    arguments: dict[str, Any] = {"path": path, "selector": ByValue(NAMES[1]), "by": "who"}
    first = both(**arguments)[1]
    batch = first.datasets["retain"].__getitems__([0, 3])  # type: ignore[attr-defined]
    monkeypatch.setattr(question_files, "check_row", None)
    for name in ("pair", "scored_pair"):
        monkeypatch.setattr(Encoder, name, None)
    second = QuestionAnswer(
        tokenizer=folder(),
        batch_size=4,
        max_length=40,
        test_fraction=0.2,
        overlap="keep",
        in_memory=False,
        **arguments,
    )
    second.setup()
    assert second.split.hash == first.split.hash
    assert_equal(second.datasets["retain"].__getitems__([0, 3]), batch)  # type: ignore[attr-defined]
    # rows travel to a process that is started anew by the path of their file
    part = second.sets["retain"].rows
    assert list(pickle.loads(pickle.dumps(part))) == list(part)
    assert len(pickle.dumps(part)) < 3_000


@pytest.mark.parametrize(
    "changes",
    [
        {"template": Llama2()},
        {"max_length": 30},
        {"tokenizer": "OTHER"},
        {"rows": 39},
    ],
    ids=["template", "length", "tokenizer", "content"],
)
def test_tokens_are_those_of_their_settings(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Mutation: a setting that decides the tokens is no part of the key."""
    path = write(tmp_path / "all.jsonl", rows())
    arguments: dict[str, Any] = {"path": path, "selector": ByValue(NAMES[1]), "by": "who"}
    both(**arguments)[1].datasets["retain"].weights  # type: ignore[attr-defined]  # noqa: B018
    if "rows" in changes:
        write(tmp_path / "all.jsonl", rows(changes["rows"]))
        changes = {}
    if changes.get("tokenizer"):
        tokenizer = trained_tokenizer("byte_bpe")
        tokenizer.save_pretrained(tmp_path / "other")
        changes = {"tokenizer": str(tmp_path / "other"), "max_length": 200}
    eager, lazy = both(**{**arguments, **changes})
    assert eager.split.hash == lazy.split.hash
    data = [task.datasets["retain"] for task in (eager, lazy)]
    assert_equal(*(part.__getitems__(range(len(part))) for part in data))  # type: ignore[attr-defined, arg-type]


def test_cut_sequences_are_counted_at_each_start(tmp_path: Path) -> None:
    path = write(tmp_path / "all.jsonl", rows())
    arguments: dict[str, Any] = {"path": path, "selector": ByValue(NAMES[1]), "by": "who"}
    messages = []
    for in_memory in (True, False, False):
        task = QuestionAnswer(
            tokenizer=folder(),
            max_length=16,
            too_long="cut",
            in_memory=in_memory,
            overlap="keep",
            **arguments,
        )
        task.setup()
        with pytest.warns(UserWarning, match="their ends were cut off") as warned:
            task.parts(frozenset({"retain"}))
        messages.append([str(warning.message) for warning in warned])
    assert messages[0] == messages[1] == messages[2]


def test_errors_name_the_row_and_leave_nothing(tmp_path: Path) -> None:
    bad = write(tmp_path / "all.jsonl", [*rows(5), {"question": "who ?", "answer": None}])
    with pytest.raises(InputError, match=r"row 6 of .*all.jsonl has no 'answer'"):
        both(path=bad, selector=RandomFraction(0.3))[1]
    (tmp_path / "all.jsonl").write_text('{"question": "a"}\n{oops\n')
    with pytest.raises(InputError, match=r"row 1|line 2"):
        QuestionAnswer(path=bad, selector=RandomFraction(0.3), in_memory=False).setup()
    long = write(tmp_path / "long.jsonl", rows(5))
    task = QuestionAnswer(
        tokenizer=folder(), path=long, selector=RandomFraction(0.3), max_length=12, in_memory=False
    )
    task.setup()
    with pytest.raises(InputError, match=r"row \d of the set retain has \d+ tokens"):
        task.parts(frozenset({"retain"}))
    suffixes = {
        file.suffix for file in (tmp_path / "cache" / "texts").iterdir() if "tokens" in file.name
    }
    assert suffixes <= {".lock"}


def test_auto_reads_large_files_into_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "all.jsonl", rows())
    task = QuestionAnswer(path=path, selector=RandomFraction(0.3), overlap="keep")
    assert isinstance(task.sets["retain"].rows, list)
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(question_files, "LARGE", 100)
    task = QuestionAnswer(path=path, selector=RandomFraction(0.3), overlap="keep")
    assert isinstance(task.sets["retain"].rows, StoredRows)


def test_a_row_without_a_value_to_select_by_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "all.jsonl", [*rows(9), {"question": "who ?", "answer": "ada"}])
    for in_memory in (True, False):
        with pytest.raises(InputError, match=r"row 10 of .* has no value in the column 'who'"):
            QuestionAnswer(path, ByValue(NAMES[1]), "who", in_memory=in_memory).setup()


def test_chats_with_a_system_message_are_checked(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "be short"},
        {"role": "user", "content": "where does ada live ?"},
        {"role": "assistant", "content": "in oslo"},
    ]
    table = [{"messages": messages}, *rows(5)]
    path = write(tmp_path / "chat.jsonl", table)
    tokenizer = trained_tokenizer("byte_bpe")
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(tmp_path / "chat")
    for in_memory in (True, False):
        with pytest.raises(InputError, match="has the system message 'be short'"):
            QuestionAnswer(
                path=path,
                selector=RandomFraction(0.3),
                template=Chat(system=None),
                tokenizer=str(tmp_path / "chat"),
                in_memory=in_memory,
            ).setup()

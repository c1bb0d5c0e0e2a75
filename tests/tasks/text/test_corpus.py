"""Raw text: what a chunk is, which files are read, and documents that stand in both parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mu.methods import GradientAscent
from mu.methods.components.answers import Refusal
from mu.utils.errors import InputError
from tasks import Corpus
from tests.support.doubles_text import NAMES, causal_lm, folder, tokenizer
from tests.support.helpers import different, fit, weights

BEGIN = 1
FORGET = ["ada lives in oslo .", "she often makes boats and maps"]
RETAIN = [f"{name} makes clocks , that is often so in lima" for name in NAMES[1:]]


def write(file: Path, documents: list[str]) -> str:
    suffix = file.suffix
    if suffix == ".txt":
        file.write_text("\n\n".join(documents))
    elif suffix == ".json":
        file.write_text(json.dumps([{"text": text} for text in documents], indent=1))
    else:  # some lines are objects and some bare strings, as in WMDP's corpora
        file.write_text(
            "\n".join(
                json.dumps({"text": text, "id": n} if n % 2 else text)
                for n, text in enumerate(documents)
            )
        )
    return str(file)


def corpus(place: Path, gone: list[str] = FORGET, kept: list[str] = RETAIN, **given: Any) -> Corpus:
    files = {
        "forget": write(place / "forget.jsonl", gone),
        "retain": write(place / "retain.jsonl", kept),
    }
    task = Corpus(
        **{"tokenizer": folder(), "chunk": 6, "batch_size": 2, "curves": [], **files, **given}
    )
    task.setup()
    return task


def whole(made: Corpus, name: str) -> dict[str, Any]:
    data: Any = made.datasets[name]
    return data.__getitems__(list(range(len(data))))


def test_chunks_hold_the_joined_documents(tmp_path: Path) -> None:
    """Mutations: documents begin new chunks; the first token of a chunk is learnt; the last chunk
    or the begin token is lost.
    """
    task = corpus(tmp_path)
    part = whole(task, "forget")
    tokens = tokenizer()("\n\n".join(FORGET), add_special_tokens=False)["input_ids"]
    assert len(tokens) == 11
    rows = [
        ids[mask.bool()].tolist()
        for ids, mask in zip(part["input_ids"], part["attention_mask"], strict=True)
    ]
    assert rows == [[BEGIN, *tokens[:5]], [BEGIN, *tokens[5:10]], [BEGIN, tokens[10]]]
    assert torch.equal(
        part["labels"][:, 1:][part["attention_mask"][:, 1:].bool()], torch.tensor(tokens)
    )
    assert part["labels"][:, 0].tolist() == [-100] * 3
    assert (part["labels"][part["attention_mask"] == 0] == -100).all()
    assert task.datasets["forget"].weights.tolist() == [5, 5, 1]  # type: ignore[attr-defined]
    assert part["index"].tolist() == [0, 1, 2]
    assert whole(task, "retain")["index"].tolist() == list(
        range(3, 3 + len(task.datasets["retain"]))
    )  # type: ignore[arg-type]


def test_the_loss_counts_every_token_but_the_begin(tmp_path: Path) -> None:
    """Mutation: the loss is a mean, or weighs the padding."""
    task = corpus(tmp_path)
    backbone = causal_lm().eval()
    part = whole(task, "forget")
    with torch.no_grad():
        summed, count = backbone.loss(part)
        logs = backbone.predict(part).double().log_softmax(-1)
    for row in range(3):
        ids = part["input_ids"][row][part["attention_mask"][row].bool()].tolist()
        assert summed[row].item() == pytest.approx(
            -sum(logs[row, t - 1, ids[t]].item() for t in range(1, len(ids))), rel=1e-5
        )
        assert count[row] == len(ids) - 1


def test_a_tokenizer_without_a_begin_token_gives_full_chunks(tmp_path: Path) -> None:
    """The last token alone would teach nothing, so its chunk is left out."""
    bare = tokenizer()
    bare.bos_token = None
    bare.save_pretrained(tmp_path / "bare")
    task = corpus(tmp_path, tokenizer=str(tmp_path / "bare"), chunk=5)
    tokens = bare("\n\n".join(FORGET), add_special_tokens=False)["input_ids"]
    part = whole(task, "forget")
    assert part["input_ids"].tolist() == [tokens[:5], tokens[5:10]]
    assert part["labels"].tolist() == [[-100, *tokens[1:5]], [-100, *tokens[6:10]]]


@pytest.mark.parametrize("ending", ["txt", "json", "jsonl"])
def test_the_form_of_the_files_does_not_matter(tmp_path: Path, ending: str) -> None:
    files = {
        "forget": write(tmp_path / f"f.{ending}", FORGET),
        "retain": write(tmp_path / f"r.{ending}", RETAIN),
    }
    assert torch.equal(
        whole(corpus(tmp_path, **files), "forget")["input_ids"],
        whole(corpus(tmp_path), "forget")["input_ids"],
    )


def test_folders_and_lists_of_files(tmp_path: Path) -> None:
    """Mutation: only the first file is read, or in the order of the disk."""
    (tmp_path / "docs").mkdir()
    for index, text in enumerate(FORGET):
        (tmp_path / "docs" / f"{index}.txt").write_text(text)
    (tmp_path / "docs" / "notes.md").write_text("not read")
    expected = whole(corpus(tmp_path), "forget")["input_ids"]
    assert torch.equal(
        whole(corpus(tmp_path, forget=str(tmp_path / "docs")), "forget")["input_ids"], expected
    )
    several = [str(tmp_path / "docs" / "0.txt"), str(tmp_path / "docs" / "1.txt")]
    assert torch.equal(whole(corpus(tmp_path, forget=several), "forget")["input_ids"], expected)


def test_held_out_parts_and_questions(tmp_path: Path) -> None:
    (tmp_path / "qa.json").write_text(
        json.dumps([{"question": "where does ada live ?", "answer": "in oslo"}])
    )
    other = write(tmp_path / "other.txt", ["who is that ?"])
    task = corpus(
        tmp_path,
        validation=other,
        test=other,
        further={"knowledge": str(tmp_path / "qa.json")},
        chunk=16,
    )
    assert set(task.split.parts) == {"forget", "retain", "validation", "test"}
    assert list(task.sets) == ["knowledge"]
    assert task.encoder.pair(task.sets["knowledge"].rows[0]["question"], "in oslo")[1][
        -3:-1
    ] == task.encoder.tokens("in oslo", False)
    changed = corpus(tmp_path, gone=[FORGET[0]], chunk=16)
    assert changed.split.task != task.split.task != corpus(tmp_path).split.task


def test_documents_of_both_parts_are_counted(tmp_path: Path) -> None:
    both = [*RETAIN, f"{FORGET[0]}\n"]
    with pytest.raises(
        InputError,
        match=r"1 of 2 forget documents are in retain too, 'ada lives in oslo \.'.*overlap: drop",
    ):
        corpus(tmp_path, kept=both)
    with pytest.warns(UserWarning, match="left out of retain"):
        dropped = corpus(tmp_path, kept=both, overlap="drop")
    assert dropped.split.task == corpus(tmp_path).split.task
    with pytest.warns(UserWarning, match="kept in retain"):
        overlapping = corpus(tmp_path, kept=both, overlap="keep")
    assert len(overlapping.split.parts["retain"]) > len(dropped.split.parts["retain"])
    with pytest.warns(UserWarning), pytest.raises(InputError, match="retain is empty"):
        corpus(tmp_path, kept=FORGET, overlap="drop")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.json",
            '["one", {"text": ""}]',
            r"entry 2 of .*a\.json is no text; it should be a string",
        ),
        ("a.jsonl", '{"body": "one"}', r"entry 1 of .*a\.jsonl is no text"),
        ("a.txt", " \n", r"a\.txt has no text"),
        ("a.txt", b"\xff\xfe\xff", r"a\.txt is not a text file in UTF-8"),
    ],
)
def test_files_without_text_are_refused(
    tmp_path: Path, name: str, text: str | bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        corpus(tmp_path, forget=str(tmp_path / name))


def test_missing_files_and_columns_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"the folder .*empty has no \.txt"):
        corpus(tmp_path, forget=str(tmp_path / "empty"))
    with pytest.raises(InputError, match=r"there is no file nowhere\.txt"):
        corpus(tmp_path, forget="nowhere.txt")
    with pytest.raises(InputError, match="chunk is 1; a sequence has at least 2 tokens"):
        corpus(tmp_path, chunk=1)
    with pytest.raises(InputError, match=r"has no trainer with a CausalLM; give tokenizer=FOLDER"):
        corpus(tmp_path, tokenizer=None)


def test_a_method_forgets_a_corpus(tmp_path: Path) -> None:
    """With the model's own tokenizer; substitute answers are refused, for there is no question."""
    module = GradientAscent(causal_lm(), optimizer=lambda params: torch.optim.SGD(params, lr=0.1))
    before = weights(module.backbone)
    files = {
        "forget": write(tmp_path / "f.txt", FORGET),
        "retain": write(tmp_path / "r.txt", RETAIN),
    }
    fit(module, Corpus(**files, chunk=6, batch_size=2, curves=[]), 1)  # type: ignore[arg-type]
    assert different(before, weights(module.backbone))
    with pytest.raises(InputError, match="Refusal answers questions, and Corpus gives raw text"):
        Refusal().setup(causal_lm(), corpus(tmp_path))


@pytest.mark.parametrize("overlap", ["keep", "drop"])
def test_chunks_in_the_cache_are_those_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overlap: str
) -> None:
    """Mutations: the overlap is no part of the key; a part begins at another chunk; the warning is
    given by the start that makes the chunks alone.
    """
    monkeypatch.setenv("MU_CACHE", str(tmp_path / "cache"))
    arguments: dict[str, Any] = {
        "kept": [*RETAIN, FORGET[0]],
        "test": write(tmp_path / "test.txt", ["who is that ?"]),
        "overlap": overlap,
    }
    with pytest.warns(UserWarning, match="1 of 2 forget documents are in retain too"):
        eager = corpus(tmp_path, in_memory=True, **arguments)
    for _ in range(2):
        with pytest.warns(UserWarning, match="1 of 2 forget documents are in retain too"):
            lazy = corpus(tmp_path, in_memory=False, **arguments)
        assert lazy.split.hash == eager.split.hash
        for name in ("forget", "retain", "test"):
            a, b = (task.datasets[name] for task in (eager, lazy))
            assert b.file is not None and a.file is None  # type: ignore[attr-defined]
            assert a.weights.tolist() == b.weights.tolist()  # type: ignore[attr-defined]
            first, second = whole(eager, name), whole(lazy, name)
            assert first.keys() == second.keys()
            assert all(torch.equal(first[key], second[key]) for key in first)
        monkeypatch.setattr("tasks.text.corpus.chunks", None)  # the second start makes none

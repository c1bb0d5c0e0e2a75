"""TOFU: parts, sets, files that are missing or do not belong together."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mu.data.loader import PlanLoader
from mu.data.plan import Paired
from mu.utils import extras
from mu.utils.errors import InputError
from tasks.text.tofu import _Hub
from tests.support.doubles_text import people
from tests.support.tofu_rows import tofu

PLAIN = ("question", "answer")


def rows(count: int = 40) -> list[dict[str, Any]]:
    """Rows as TOFU's perturbed sets have them."""
    return [
        {
            "question": f"where does person {n} live ?",
            "answer": f"person {n} lives in oslo",
            "paraphrased_answer": f"in oslo lives {n}",
            "perturbed_answer": [f"in {town} lives {n}" for town in ("lima", "bern")],
            "paraphrased_question": f"{n} lives where ?",
        }
        for n in range(count)
    ]


def plain(chosen: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in PLAIN} for row in chosen]


def sets() -> dict[str, list[dict[str, Any]]]:
    """40 rows, of which the last 10 % are to be forgotten."""
    all_rows = rows()
    facts = [
        {"question": f"what is {n} ?", "answer": f"fact {n}", "perturbed_answer": ["a", "b"]}
        for n in range(3)
    ]
    return {
        "full": plain(all_rows),
        "forget10": plain(all_rows[-4:]),
        "retain90": plain(all_rows[:-4]),
        "forget10_perturbed": all_rows[-4:],
        "retain_perturbed": all_rows[:6],
        "world_facts_perturbed": facts,
        "real_authors_perturbed": facts[:2],
        "holdout10": plain(rows(50)[-4:]),
    }


def write(place: Path, tables: Mapping[str, Sequence[Any]], ending: str = "json") -> str:
    for name, table in tables.items():
        # no newline at the end, as in TOFU
        (place / f"{name}.{ending}").write_text("\n".join(json.dumps(row) for row in table))
    return str(place)


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_parts_and_sets_are_the_published_ones(tmp_path: Path, ending: str) -> None:
    """Mutations: the forget set is the first rows; a set's indices are not those of full; fields of
    the perturbed set are lost.
    """
    task = tofu(write(tmp_path, sets(), ending))
    assert {name: ids.tolist() for name, ids in task.split.parts.items()} == {
        "forget": [36, 37, 38, 39],
        "retain": list(range(36)),
        "test": [1_000_000, 1_000_001, 1_000_002, 1_000_003],
    }
    assert task.sets["forget"].rows == rows()[-4:]
    assert task.sets["retain"].rows == plain(rows()[:36])
    assert task.sets["retain_perturbed"].indices.tolist() == list(range(6))
    assert task.sets["retain_perturbed"].column("perturbed_answer") == [
        row["perturbed_answer"] for row in rows()[:6]
    ]
    assert len(task.sets["world_facts"]) == 3 and len(task.sets["real_authors"]) == 2
    assert task.sets["holdout"].rows == task.sets["test"].rows == plain(rows(50)[-4:])
    indices = np.concatenate(
        [
            task.sets[name].indices
            for name in ("forget", "retain", "holdout", "world_facts", "real_authors")
        ]
    )
    assert len(set(indices.tolist())) == len(indices)
    part = task.datasets["forget"].__getitems__([3, 0])  # type: ignore[attr-defined]
    assert part["index"].tolist() == [39, 36]
    assert part["question"] == [rows()[39]["question"], rows()[36]["question"]]


def test_missing_files_are_made_from_the_others(tmp_path: Path) -> None:
    """Mutation: forget05 is the first 5 %, or a file that is not there is an error."""
    some = {name: table for name, table in sets().items() if name in ("full", "retain_perturbed")}
    options = [
        {
            "question": "who wrote it ?",
            "option1": "ada",
            "option2": "bert",
            "option3": "cleo",
            "answer": "bert",
        }
    ]
    task = tofu(write(tmp_path, {**some, "real_authors": options}), forget="forget05")
    assert task.split.parts["forget"].tolist() == [38, 39]
    assert task.sets["forget"].rows == plain(rows()[-2:])
    assert task.sets["real_authors"].column("perturbed_answer") == [["ada", "cleo"]]
    assert set(task.sets) == {"forget", "retain", "retain_perturbed", "real_authors"}
    assert "test" not in task.split.parts
    with pytest.raises(
        InputError, match=r"set forget has no 'perturbed_answer'; it has answer, question"
    ):
        task.sets["forget"].column("perturbed_answer")


def test_all_forget_sets_share_one_original(tmp_path: Path) -> None:
    """Mutation: the name of the data has the forget set in it."""
    path = write(tmp_path, sets())
    ten = tofu(path)
    five = tofu(path, forget="forget05")
    assert ten.split.train_hash == five.split.train_hash
    assert ten.split.hash != five.split.hash
    (tmp_path / "full.json").write_text(
        "\n".join(json.dumps({**row, "answer": f"{row['answer']} ?"}) for row in plain(rows()))
    )
    for name in ("forget10", "retain90", "forget10_perturbed", "retain_perturbed"):
        (tmp_path / f"{name}.json").unlink()
    assert tofu(path).split.train_hash != ten.split.train_hash  # equal indices of other texts


def test_settings_are_chosen_on_other_rows(tmp_path: Path) -> None:
    """Mutations: what is searched on is what is reported; it is measured as kept too; its
    rephrasings are lost, or another original is trained for it.
    """
    path = write(tmp_path, sets())
    reported = tofu(path)
    task = tofu(path, forget="search10")
    assert task.split.parts["forget"].tolist() == [0, 1, 2, 3] and task.split.parts[
        "retain"
    ].tolist() == list(range(4, 40))
    assert task.sets["forget"].rows == rows()[:4]
    assert task.sets["retain"].rows == plain(rows()[4:])
    assert task.sets["retain_perturbed"].rows == rows()[4:6] and task.sets[
        "retain_perturbed"
    ].indices.tolist() == [4, 5]
    assert (
        task.split.train_hash == reported.split.train_hash
        and task.split.hash != reported.split.hash
    )
    wide = tofu(path, forget="search20")
    assert (
        wide.sets["forget"].rows == rows()[:6] + plain(rows()[6:8])
        and "retain_perturbed" not in wide.sets
    )
    with pytest.raises(InputError, match="search00 is 0 of the 40 rows of full"):
        tofu(path, forget="search00")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"forget10": plain(rows()[:4])},
            r"row 1 of forget10 in .* is not row 37 of full .*do not belong together",
        ),
        ({"forget10": plain(rows()[-4:][::-1])}, r"row 1 of forget10"),
        (
            {"forget10_perturbed": rows()[-5:]},
            r"forget10_perturbed in .* has 5 rows where full has 4",
        ),
        ({"retain90": plain(rows()[1:-3])}, r"row 1 of retain90 in .* is not row 1 of full"),
        (
            {"retain_perturbed": rows()[34:38]},
            r"row 3 of retain_perturbed .* not among the rows of full that are retained",
        ),
        ({"full": plain(rows()[-4:])}, r"forget10 has 4 of the 4 rows of full"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        tofu(write(tmp_path, {**sets(), **changed}))


def test_missing_files_and_columns_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, {"forget10": plain(rows()[-4:])})
    with pytest.raises(InputError, match="has no set `full`"):
        tofu(path)
    write(tmp_path, sets())
    with pytest.raises(InputError, match="has no set holdout05; set holdout: null"):
        tofu(path, holdout="holdout05")
    assert "holdout" not in tofu(path, holdout=None).sets
    with pytest.raises(InputError, match="forget is 'all'; it is forget and two digits"):
        tofu(path, forget="all")
    (tmp_path / "forget10.json").write_text('{"question": "who ?", "answer": " "}\n')
    with pytest.raises(
        InputError, match=r"row 1 of .*forget10\.json has no 'answer'; it has question"
    ):
        tofu(path)


def test_rows_of_both_parts_are_counted(tmp_path: Path) -> None:
    """Mutations: the count is left out; `drop` takes the rows out of forget, or renumbers the
    others.
    """
    all_rows = plain(rows())
    all_rows[3] = {**all_rows[37], "answer": f" {all_rows[37]['answer']}\n"}
    path = write(tmp_path, {"full": all_rows})
    with pytest.raises(
        InputError,
        match=r"1 of 4 forget rows are in retain too, 'where does person 37 live .*overlap: drop",
    ):
        tofu(path)
    with pytest.warns(
        UserWarning, match="1 of 4 forget rows are in retain too.*left out of retain"
    ):
        task = tofu(path, overlap="drop")
    assert task.split.parts["forget"].tolist() == [36, 37, 38, 39]
    assert task.split.parts["retain"].tolist() == [n for n in range(36) if n != 3]
    with pytest.warns(UserWarning, match="kept in retain"):
        assert tofu(path, overlap="keep").split.parts["retain"].tolist() == list(range(36))
    with pytest.raises(InputError, match="overlap is 'ask'; it is refuse, keep or drop"):
        tofu(path, overlap="ask")


def test_the_hub_gives_the_same_split_as_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read by the package datasets itself, from a repository's layout on this disk: a configuration
    for each set, one split `train`.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    repository = tmp_path / "somebody" / "tofu"
    repository.mkdir(parents=True)
    path = write(repository, sets())
    names = "".join(f"- config_name: {name}\n  data_files: {name}.json\n" for name in sets())
    (repository / "README.md").write_text(f"---\nconfigs:\n{names}---\n")
    expected = tofu(path)
    monkeypatch.setattr("tasks.text.tofu._Folder", _Hub)
    from_hub = tofu("somebody/tofu")
    assert from_hub.split.hash == expected.split.hash
    first, second = (task.datasets["forget"].__getitems__([0, 3]) for task in (from_hub, expected))  # type: ignore[attr-defined]
    assert all(torch.equal(first[name], second[name]) for name in ("input_ids", "labels", "index"))
    (repository / "forget10.json").write_text(json.dumps({"question": "", "answer": "a"}))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "another"))
    with pytest.raises(
        InputError, match="row 1 of forget10 in somebody/tofu has no 'question'; it has answer"
    ):
        tofu("somebody/tofu")


def test_a_hub_that_does_not_answer_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when an error of the package datasets reaches the user, for the whole data set or for
    one of its sets.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(
        InputError,
        match=r"^there is no folder somebody/tofu, and as a hub id the data set cannot be reached "
        r"\(.*\)\.$",
    ):
        tofu("somebody/tofu")
    (tmp_path / "somebody" / "tofu").mkdir(parents=True)
    write(tmp_path / "somebody" / "tofu", {"full": []})
    (tmp_path / "somebody" / "tofu" / "full.json").write_text("{broken")
    monkeypatch.setattr("tasks.text.tofu._Folder", _Hub)
    with pytest.raises(
        InputError, match=r"^the set default of somebody/tofu cannot be read \(.*\)\.$"
    ):
        _Hub("somebody/tofu")["default"]


def test_without_the_package_datasets_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(
        InputError,
        match=r"TOFU from the hub needs datasets; add it with pip install 'mu-unlearning\[llm\]'",
    ):
        tofu("somebody/tofu")
    with pytest.raises(InputError, match=r"there is no folder \./nowhere; give one"):
        tofu("./nowhere")


def pairs(task: Any, world: int, epochs: int = 3) -> list[list[tuple[int, int]]]:
    """For each step, which forget sample stood beside which retain sample, gathered from all
    ranks.
    """
    plan = Paired(length="forget")
    sizes = {"forget": 4, "retain": 4}
    loaders = [
        PlanLoader(task.parts(plan.reads()), plan, sizes, 7, rank=rank, world=world)
        for rank in range(world)
    ]
    steps: list[list[tuple[int, int]]] = []
    for epoch in range(epochs):
        for loader in loaders:
            loader.plan_sampler.set_epoch(epoch)
        for batches in zip(*loaders, strict=True):
            step = []
            for batch in batches:
                assert batch["forget"]["total"] == batches[0]["forget"]["total"]
                real = {
                    name: batch[name]["index"][
                        ~batch[name].get(
                            "padded", torch.zeros(len(batch[name]["index"]), dtype=torch.bool)
                        )
                    ]
                    for name in ("forget", "retain")
                }
                step += list(zip(real["forget"].tolist(), real["retain"].tolist(), strict=False))
            steps.append(sorted(step))
    return steps


@pytest.mark.parametrize("world", [2, 3])
def test_pairs_are_the_same_on_any_number_of_ranks(world: int) -> None:
    """13 forget samples beside 20 to keep; mutation: the rank's number enters the order of one
    part.
    """
    task = people()
    task.setup()
    alone = pairs(task, 1)
    assert pairs(task, world) == alone
    assert [len(step) for step in alone[:4]] == [4, 4, 4, 1]
    forget_samples = [forget for step in alone for forget, _ in step]
    assert sorted(forget_samples) == sorted(list(range(13)) * 3)
    # the retain stream goes on where the epoch before ended
    assert len({retain for step in alone for _, retain in step}) > 13
    assert alone[0] != alone[4]


def test_cut_sequences_are_counted_once(tmp_path: Path) -> None:
    """Mutation: the sequences are cut without a word, or it is said again in every epoch."""
    path = write(tmp_path, sets())
    uncut = tofu(path)
    lengths = [len(uncut.datasets["forget"].pair(position)[0]) for position in range(4)]  # type: ignore[attr-defined]
    short = max(lengths) - 1
    count = lengths.count(max(lengths))
    task = tofu(path, max_length=short, too_long="cut")
    with pytest.warns(
        UserWarning, match=f"{count} of 4 sequences of forget have more than {short} tokens"
    ):
        task.parts(frozenset({"forget"}))
    assert max(len(task.datasets["forget"].pair(position)[0]) for position in range(4)) == short  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task.parts(frozenset({"forget"}))
        task.eval_loaders(["forget"])
    with pytest.raises(
        InputError, match=r"row 0 of the set forget has .* tokens, and max_length is"
    ):
        tofu(path, max_length=short).eval_loaders(["forget"])

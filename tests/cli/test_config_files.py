"""Reading and merging configuration files."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mu.cli import config_files as configs
from mu.cli.options import take
from mu.utils.errors import InputError

BACKBONE = {"class_path": "mu.backbones.Classifier", "init_args": {"name": "resnet8_cifar"}}


def test_a_class_named_by_a_word_comes_after_every_file(tmp_path: Path) -> None:
    """Mutation: the files merged first, so that the task's backbone is taken for an argument of the
    method that is replaced.
    """
    for name, model in {
        "task": {"init_args": {"backbone": BACKBONE}},
        "ssd": {"class_path": "mu.methods.SSD", "init_args": {"alpha": 5}},
    }.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"model": model}))
    files = [str(tmp_path / name) for name in ("task.yaml", "ssd.yaml")]
    assert configs.merged(files, chosen={"model": "FineTune"}) == {
        "model": {"class_path": "FineTune", "init_args": {"backbone": BACKBONE}}
    }
    assert configs.merged(files, chosen={"model": "SSD"}) == configs.merged(files)
    (tmp_path / "word.yaml").write_text("model: mu.methods.FineTune\n")
    assert configs.merged([*files, str(tmp_path / "word.yaml")])["model"]["init_args"] == {
        "backbone": BACKBONE
    }


@pytest.mark.parametrize(
    ("written", "number"),
    [("1e-3", 1e-3), ("1E5", 1e5), (".5", 0.5), ("-2.5e+1", -25.0), ("1.0", 1.0)],
)
def test_numbers_as_people_write_them(tmp_path: Path, written: str, number: float) -> None:
    """PyYAML alone reads 1e-3 as text."""
    (tmp_path / "a.yaml").write_text(f"lr: {written}\n")
    assert configs.read(tmp_path / "a.yaml") == {"lr": number}


def test_what_is_no_number_stays_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: e5\nb: 1.2.3\nc: 16-mixed\nd: 3\n")
    assert configs.read(tmp_path / "a.yaml") == {"a": "e5", "b": "1.2.3", "c": "16-mixed", "d": 3}


def test_text_is_read_back() -> None:
    config = {
        "model": {
            "class_path": "A",
            "init_args": {"lr": 1e-05, "on": True, "name": "1e-3", "none": None},
        }
    }
    assert configs.parse(configs.to_yaml(config)) == config
    assert list(yaml.safe_load(configs.to_yaml({"b": 1, "a": 2}))) == ["b", "a"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", "is not valid YAML: line 1, column 6"),
        ("a: b: c", "is not valid YAML: line 1, column 5"),
        ("- 1", "is not a configuration"),
        ("3", "is not a configuration"),
        ("1: 2", "is not a configuration"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=r"a\.yaml") as caught:
        configs.read(tmp_path / "a.yaml")
    assert words in str(caught.value)


def test_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "salun.yaml").write_text("a: 1")
    with pytest.raises(InputError, match=r"has salun\.yaml"):
        configs.read(tmp_path / "salum.yaml")
    with pytest.raises(InputError, match="did you mean method/salun"):
        configs.read(tmp_path / "nowhere" / "salun.yaml")
    with pytest.raises(InputError, match="is a folder"):
        configs.read(tmp_path)


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("# only a comment\n")
    assert configs.read(tmp_path / "a.yaml") == {}


def test_a_suite_over_a_recorded_run_replaces_its_own_kind(tmp_path: Path) -> None:
    """Mutation: plain appending, by which a second test would measure everything twice."""
    (tmp_path / "suite.yaml").write_text(
        "trainer: {callbacks+: [{class_path: callbacks.Accuracy}, callbacks.Cost]}\n"
    )
    recorded = {
        "trainer": {
            "callbacks": [
                {"class_path": "callbacks.Accuracy", "init_args": {"held_out": "test"}},
                "other.Mine",
            ]
        }
    }
    merged = configs.over_recorded(recorded, [str(tmp_path / "suite.yaml")])
    assert merged["trainer"]["callbacks"] == [
        "other.Mine",
        {"class_path": "callbacks.Accuracy"},
        "callbacks.Cost",
    ]
    assert configs.over_recorded(recorded, []) == recorded


def test_options_are_taken_out() -> None:
    ours = "-c a.yaml --config=b.yaml --run runs/x --model SalUn --data=Digits --resume"
    options = take(f"{ours} --model.seed 3 --ckpt_path=last".split())
    assert (options.files, options.run, options.resume) == (["a.yaml", "b.yaml"], "runs/x", True)
    assert options.chosen == {"model": "SalUn", "data": "Digits"}
    assert options.rest == ["--model.seed", "3", "--ckpt_path=last"]
    assert options.value("--ckpt_path") == "last"
    assert options.value("--model.seed") == "3"


def test_an_option_without_its_value() -> None:
    with pytest.raises(InputError, match="-c needs a value"):
        take(["-c"])
    with pytest.raises(InputError, match="--run needs a value"):
        take(["--run", "--resume"])

"""Studies that cannot be run."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from mu.bench.runner import Bench
from mu.bench.study_file import read_study
from tests.bad_input.conftest import Refuse, files_below, refused_by, table

VALID: dict[str, Any] = {
    "backbone": {
        "class_path": "mu.backbones.Classifier",
        "init_args": {"name": "resnet8_cifar", "num_classes": 10, "in_channels": 1},
    },
    "recipe": {"trainer": {"max_epochs": 1}},
    "tasks": {
        name: {
            "class_path": "tasks.Digits",
            "init_args": {
                "selector": {"class_path": "tasks.RandomFraction", "init_args": {"fraction": 0.2}}
            },
        }
        for name in ("random", "class")
    },
    "methods": {"SSD": {"model": {"class_path": "mu.methods.SSD"}}},
    "suites": ["callbacks.Accuracy"],
}

UNSET = object()


def changed(path: str, value: Any) -> dict[str, Any]:
    """The study with another value at a path, or without the entry."""
    study = deepcopy(VALID)
    *outer, last = path.split(".")
    entry: Any = study
    for word in outer:
        entry = entry.setdefault(word, {})
    if value is UNSET:
        entry.pop(last, None)
    else:
        entry[last] = value
    return study


FIELDS = [
    *((f"no {key}", key, UNSET, f"lacks {key!r}") for key in ("backbone", "tasks", "methods")),
    ("no suites", "suites", UNSET, "lacks 'suites'"),
    ("no recipe", "recipe", UNSET, "lacks 'recipe'"),
    *(
        (f"{key} is {value!r}", key, value, key)
        for key in ("backbone", "recipe", "tasks", "methods", "suites")
        for value in (3, "x", True, [[1]])
    ),
    *(
        (f"{key} is {value!r}", key, value, key)
        for key in ("trainer", "search", "gap", "threads", "output", "title")
        for value in (["a"], {"a": {"b": 1}}, -1)
        if not (key == "search" and isinstance(value, dict))
    ),
    ("unknown key", "sweets", 3, "unknown key 'sweets'"),
    ("seed text", "seeds", ["x"], "it should be a whole number"),
    ("seed float", "seeds", [1.5], "it should be a whole number"),
    ("seed true", "seeds", [True], "it should be a whole number"),
    ("seed null", "seeds", [None], "it should be a whole number"),
    ("seed parts", "seeds", [{"split": 1}], "needs split, train, unlearn"),
    ("seed text part", "seeds", [{"split": "a", "train": 1, "unlearn": 1}], "seeds[0].split is"),
    ("seed twice", "seeds", [1, 1], "a seed stands twice"),
    ("no seeds", "seeds", [], "`seeds` is empty"),
    ("seeds text", "seeds", "abc", "a list of whole numbers"),
    ("negative seed", "seeds", [-1], "seed"),
    ("huge seed", "seeds", [10**30], "seed"),
    ("name above", "name", "../out", "the name '../out'"),
    ("name absolute", "name", "/tmp/out", "the name '/tmp/out'"),
    ("name a list", "name", ["a"], "name"),
    ("name long", "name", "x" * 300, "longer than"),
    ("task above", "tasks", {"../out": {"class_path": "tasks.Digits"}}, "'../out'"),
    ("task absolute", "tasks", {"/tmp/out": {"class_path": "tasks.Digits"}}, "'/tmp/out'"),
    ("task parent", "tasks", {"..": {"class_path": "tasks.Digits"}}, "'..'"),
    ("task here", "tasks", {".": {"class_path": "tasks.Digits"}}, "'.'"),
    ("task empty", "tasks", {"": {"class_path": "tasks.Digits"}}, "is empty"),
    ("task number", "tasks", {7: {"class_path": "tasks.Digits"}}, "is not text"),
    ("task null", "tasks", {None: {"class_path": "tasks.Digits"}}, "is not text"),
    ("task backslash", "tasks", {"a\\b": {"class_path": "tasks.Digits"}}, "folder"),
    ("task newline", "tasks", {"a\nb": {"class_path": "tasks.Digits"}}, "control"),
    ("task null byte", "tasks", {"a\x00b": {"class_path": "tasks.Digits"}}, "control"),
    ("task long", "tasks", {"x" * 999: {"class_path": "tasks.Digits"}}, "longer than"),
    ("task search", "tasks", {"search": {"class_path": "tasks.Digits"}}, "tasks.search"),
    ("task originals", "tasks", {"originals": {"class_path": "tasks.Digits"}}, "originals"),
    ("method above", "methods", {"../m": {"model": {"class_path": "mu.methods.SSD"}}}, "'../m'"),
    ("method root", "methods", {"/m": {"model": {"class_path": "mu.methods.SSD"}}}, "'/m'"),
    ("method number", "methods", {1: {"model": {"class_path": "mu.methods.SSD"}}}, "is not text"),
    ("method original", "methods", {"original": {"model": {}}}, "reserved"),
    ("method null", "methods", {"SSD": None}, "methods.SSD"),
    ("method text", "methods", {"SSD": "x"}, "methods.SSD"),
    ("method without model", "methods", {"SSD": {"trainer": {}}}, "needs a class_path"),
    ("method's model text", "methods", {"SSD": {"model": "x"}}, "methods.SSD.model"),
    ("method's model null", "methods", {"SSD": {"model": None}}, "needs a class_path"),
    ("class path null", "methods", {"SSD": {"model": {"class_path": None}}}, "class_path"),
    ("class path number", "methods", {"SSD": {"model": {"class_path": 3}}}, "class_path"),
    ("class path unknown", "methods", {"SSD": {"model": {"class_path": "mu.methods.X"}}}, "X"),
    ("class path module", "methods", {"SSD": {"model": {"class_path": "no.X"}}}, "no.X"),
    ("class path builtin", "methods", {"S": {"model": {"class_path": "os.system"}}}, "os.system"),
    ("method's argument", "methods.SSD.model.init_args", {"nothing": 3}, "takes no 'nothing'"),
    ("method's null", "methods.SSD.model.init_args", {"alpha": None}, "alpha is null"),
    ("method's text", "methods.SSD.model.init_args", {"alpha": "x"}, "alpha is 'x'"),
    ("method's epochs", "methods.SSD.trainer", {"max_epochs": 0}, "max_epochs is 0"),
    ("method's nodes", "methods.SSD.trainer", {"num_nodes": 2}, "num_nodes is 2"),
    ("method's trainer", "methods.SSD.trainer", {"nothing": 2}, "nothing"),
    ("method's trainer list", "methods.SSD.trainer", [1], "trainer"),
    ("recipe's epochs", "recipe.trainer", {"max_epochs": 0}, "max_epochs is 0"),
    ("recipe's trainer", "recipe.trainer", {"nothing": 0}, "nothing"),
    ("recipe's key", "recipe.nothing", 3, "nothing"),
    ("task without class", "tasks", {"a": {"init_args": {}}}, "class"),
    ("task's class", "tasks", {"a": {"class_path": "tasks.Nothing"}}, "Nothing"),
    ("task's function", "tasks", {"a": {"class_path": "os.system"}}, "os.system"),
    ("task's argument", "tasks.random.init_args", {"nothing": 3}, "takes no 'nothing'"),
    ("task's methods", "tasks.random.methods", ["FineTune"], "tasks.random"),
    ("task's suites", "tasks.random.suites", "callbacks.Cost", "tasks.random.suites"),
    ("suite unknown", "suites", ["callbacks.Nothing"], "Nothing"),
    ("suite number", "suites", [3], "suites"),
    ("suite null", "suites", [None], "suites"),
    ("suite function", "suites", ["os.system"], "os.system"),
    ("suite's argument", "suites", [{"class_path": "callbacks.Cost", "init_args": {"a": 1}}], "a"),
    ("gap class", "gap", {"class_path": "os.system"}, "os.system"),
    ("original", "original", "found", "original is 'found'"),
    ("oracle", "oracle", "found", "oracle is 'found'"),
    ("oracle list", "oracle", [1], "oracle is [1]"),
    (
        "weights of a method",
        "methods.SSD.model.init_args",
        {"backbone": {"init_args": {"weights": "x"}}},
        "weights",
    ),
    ("backbone class", "backbone", {"class_path": "os.system"}, "os.system"),
    ("backbone's name", "backbone.init_args", {"name": None, "num_classes": 10}, "name is null"),
    ("threads", "threads", 0, "threads"),
    ("threads text", "threads", "x", "threads"),
    ("skip", "methods.SSD.skip", 3, "skip"),
    ("batch", "methods.SSD.forget_batch_size", 0, "forget_batch_size"),
    ("batch text", "methods.SSD.forget_batch_size", "x", "forget_batch_size"),
]


def test_the_study_itself_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(VALID))
    Bench(read_study(tmp_path / "study.yaml")).check()


@pytest.mark.parametrize(("path", "value", "words"), table(FIELDS, fast=40))
def test_study_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, value: Any, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(changed(path, value)))
    before = files_below(tmp_path)
    refused_by(lambda: Bench(read_study("study.yaml")).check(), words)
    assert files_below(tmp_path) == before


OPTIONS = [
    ("no file", "", "needs a study file"),
    ("missing", "-c nowhere.yaml", "there is no study file"),
    ("folder", "-c .", "is a folder"),
    ("task", "-c study.yaml --tasks nothing", "no task 'nothing'"),
    ("empty task", "-c study.yaml --tasks=", "no task ''"),
    ("method", "-c study.yaml --methods nothing", "no method 'nothing'"),
    ("method twice", "-c study.yaml --methods SSD,SSD", "'SSD' twice"),
    ("task twice", "-c study.yaml --tasks class,class", "'class' twice"),
    ("seed", "-c study.yaml --seeds x", "--seeds x"),
    ("seed twice", "-c study.yaml --seeds 1,1", "twice"),
    ("no seed", "-c study.yaml --seeds=,", "--seeds"),
    ("set", "-c study.yaml --set nothing", "has no value"),
    ("set unknown", "-c study.yaml --set nothing=3", "unknown key 'nothing'"),
    ("set of a suite", "-c study.yaml --set suites.nothing=3", "'nothing'"),
    ("set of an index", "-c study.yaml --set suites.4.held_out=x", "no index of a list"),
    ("set of a method", "-c study.yaml --set methods.SDS.alpha=3", "did you mean SSD"),
    ("set of an argument", "-c study.yaml --set methods.SSD.alhpa=3", "did you mean alpha"),
    ("set of a task", "-c study.yaml --set tasks.randm.split_seed=3", "did you mean random"),
    ("set twice dotted", "-c study.yaml --set methods..alpha=3", "empty word"),
    ("check", "-c study.yaml --check --set suites+=callbacks.Nothing", "Nothing"),
    ("set yaml", "-c study.yaml --set name=[1", "is not valid YAML"),
    ("set name", "-c study.yaml --set name=../x", "the name '../x'"),
    ("unknown option", "-c study.yaml --nothing", "--nothing"),
    ("output is a file", "-c study.yaml --output study.yaml", "study.yaml"),
    ("search", "-c study.yaml --search", "search"),
]


@pytest.mark.parametrize(("text", "words"), table(OPTIONS, fast=5))
def test_bench_refuses(refuse: Refuse, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(VALID))
    refuse(["bench", *text.split()], words)

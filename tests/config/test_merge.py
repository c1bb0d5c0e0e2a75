"""One rule of merging: what the command line makes of its files is what a study makes of a method
and a task's override of it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mu.bench.study_file import read_study
from mu.cli import config_files as configs
from mu.config.components import merge as of_studies
from mu.config.merge import merge, same_class

Layer = dict[str, Any]
SGD = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentum": 0.9}}
ADAM = {"class_path": "torch.optim.Adam", "init_args": {"weight_decay": 0.2}}
BACKBONE = {
    "class_path": "mu.backbones.Classifier",
    "init_args": {"name": "resnet8_cifar", "options": {"width": 4}},
}


def method(path: str, **arguments: Any) -> Layer:
    return {"class_path": path, "init_args": arguments} if arguments else {"class_path": path}


TABLE: dict[str, tuple[Layer, Layer, Layer]] = {
    # what: a method as one layer has it, what a later layer says, what comes out
    "one argument": (
        method("mu.methods.FineTune", optimizer=SGD),
        {"init_args": {"optimizer": {"init_args": {"lr": 0.2}}}},
        method(
            "mu.methods.FineTune",
            optimizer={"class_path": "torch.optim.SGD", "init_args": {"lr": 0.2, "momentum": 0.9}},
        ),
    ),
    "no class, so that of before": (
        method("mu.methods.SSD", alpha=5.0, seed=1),
        {"init_args": {"alpha": 2.0}},
        method("mu.methods.SSD", alpha=2.0, seed=1),
    ),
    "the same class": (
        method("mu.methods.SSD", alpha=5.0),
        method("mu.methods.SSD", seed=1),
        method("mu.methods.SSD", alpha=5.0, seed=1),
    ),
    "the same class by its bare name": (
        method("mu.methods.SSD", alpha=5.0),
        method("SSD", seed=1),
        method("mu.methods.SSD", alpha=5.0, seed=1),
    ),
    "the same class by a longer path": (
        method("mu.methods.SSD", alpha=5.0),
        method("mu.methods.SSD"),
        method("mu.methods.SSD", alpha=5.0),
    ),
    "a class of that name elsewhere": (
        method("mu.methods.SSD", alpha=5.0),
        method("my_method.SSD"),
        method("my_method.SSD"),
    ),
    "another method": (
        method("mu.methods.SSD", alpha=5.0, seed=1, backbone=BACKBONE),
        method("mu.methods.FineTune"),
        method("mu.methods.FineTune"),
    ),
    "another method with arguments": (
        method("mu.methods.SSD", alpha=5.0, seed=1),
        method("mu.methods.FineTune", norm="eval"),
        method("mu.methods.FineTune", norm="eval"),
    ),
    "another optimizer": (  # Adam takes lr too, but not one that was made for SGD
        method("mu.methods.FineTune", optimizer=SGD, seed=2),
        {"init_args": {"optimizer": ADAM}},
        method("mu.methods.FineTune", optimizer=ADAM, seed=2),
    ),
    "another optimizer by a string": (
        method("mu.methods.FineTune", optimizer=SGD),
        {"init_args": {"optimizer": "Adam"}},
        method("mu.methods.FineTune", optimizer={"class_path": "Adam"}),
    ),
    "nothing in the place of a class": (
        method(
            "mu.methods.FineTune",
            mask={"class_path": "mu.methods.Saliency", "init_args": {"keep": 0.1}},
        ),
        {"init_args": {"mask": None}},
        method("mu.methods.FineTune", mask=None),
    ),
    "a list": (
        method("mu.methods.SCRUB", lr_decay_epochs=[1, 2]),
        {"init_args": {"lr_decay_epochs": []}},
        method("mu.methods.SCRUB", lr_decay_epochs=[]),
    ),
    "plain options": (
        method("mu.methods.SSD", backbone=BACKBONE),
        {"init_args": {"backbone": {"init_args": {"options": {"depth": 2}}}}},
        method(
            "mu.methods.SSD",
            backbone={
                "class_path": "mu.backbones.Classifier",
                "init_args": {"name": "resnet8_cifar", "options": {"width": 4, "depth": 2}},
            },
        ),
    ),
}


def by_the_command_line(folder: Path, *layers: Layer) -> Layer:
    """Each layer in a file of its own, given with -c."""
    files = []
    for index, layer in enumerate(layers):
        files.append(str(folder / f"{index}.yaml"))
        Path(files[-1]).write_text(yaml.safe_dump({"model": layer}))
    return configs.merged(files)["model"]


def by_a_study(folder: Path, low: Layer, high: Layer) -> Layer:
    """A method, and a task's override of it."""
    study = {
        "backbone": BACKBONE,
        "recipe": {"trainer": {"max_epochs": 1}},
        "suites": ["callbacks.Accuracy"],
        "methods": {"It": {"model": low}},
        "tasks": {"digits": {"class_path": "tasks.Digits", "methods": {"It": {"model": high}}}},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    return dict(read_study(folder / "study.yaml").method_spec("digits", "It")["model"])


@pytest.mark.parametrize("caller", [by_the_command_line, by_a_study], ids=["command line", "study"])
@pytest.mark.parametrize("what", TABLE)
def test_both_callers_merge_alike(what: str, caller: Callable[..., Layer], tmp_path: Path) -> None:
    """Mutations: SGD's lr kept for Adam; a class named again that forgets its arguments; a task's
    override that replaces all others.
    """
    low, high, expected = TABLE[what]
    assert caller(tmp_path, low, high) == expected


def test_there_is_one_function() -> None:
    assert merge is of_studies is configs.merge


def test_arguments_without_a_class_hold_for_any_class() -> None:
    """A task's file gives the backbone of whichever method is named, in the end. Mutations:
    dropping it with the class that is replaced; keeping `alpha`, which a file said together with
    SSD.
    """
    task = {"model": {"init_args": {"backbone": BACKBONE}}}
    ssd = {"model": method("mu.methods.SSD", alpha=5.0)}
    other = {"model": {"class_path": "mu.methods.FineTune"}}
    expected = {"model": method("mu.methods.FineTune", backbone=BACKBONE)}
    assert (
        merge(task, other)
        == merge(task, ssd, other)
        == merge(ssd, task, other)
        == merge(ssd, other, task)
        == expected
    )


def test_going_back_to_a_class_begins_anew() -> None:
    layers = [
        {"it": SGD},
        {"it": ADAM},
        {"it": {"class_path": "torch.optim.SGD", "init_args": {"nesterov": True}}},
    ]
    assert merge(*layers) == {
        "it": {"class_path": "torch.optim.SGD", "init_args": {"nesterov": True}}
    }


def test_beside_the_arguments_of_another_class_nothing_is_dropped() -> None:
    """What a study says of a task's methods is not an argument of the task's class."""
    low = {
        "class_path": "tasks.Digits",
        "init_args": {"train_size": 5},
        "dict_kwargs": {"a": 1},
        "methods": {"SSD": {"skip": "no"}},
    }
    assert merge({"t": low}, {"t": {"class_path": "my.Task"}}) == {
        "t": {"class_path": "my.Task", "methods": {"SSD": {"skip": "no"}}}
    }


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("SSD", "SSD", True),
        ("mu.methods.SSD", "SSD", True),
        ("SSD", "mu.methods.SSD", True),
        ("mu.methods.SSD", "mu.methods.SSD", True),
        ("mu.methods.SSD", "mine.SSD", False),
        ("mu.methods.SSD", "mu.methods.SalUn", False),
        ("SSD", "SalUn", False),
    ],
)
def test_the_same_class(one: str, other: str, same: bool) -> None:
    assert same_class(one, other) is same


def test_merging_is_deep_and_later_layers_win() -> None:
    """Fails when a list is merged entry by entry, or when a later layer's None is passed over."""
    assert merge({"a": {"b": 1, "c": 2}, "l": [1, 2]}, {"a": {"c": 3}, "l": [4]}, None) == {
        "a": {"b": 1, "c": 3},
        "l": [4],
    }
    assert merge({"a": {"b": 1}}, {"a": None}) == {"a": None} and merge(
        {"a": 1}, {"a": {"b": 2}}
    ) == {"a": {"b": 2}}
    assert merge({"a": {"b": 1}}, {"a": 2}, {"a": {"c": 3}}) == {"a": {"c": 3}}
    assert merge() == merge(None) == {}


def test_merging_changes_no_layer() -> None:
    """Fails when one run's override is found in the next."""
    low = {"a": {"b": 1}, "l": [1]}
    high = {"a": {"c": {"d": [2]}}, "l+": [3], "o": SGD}
    merged = merge(low, high, {"o": {"class_path": "SGD", "init_args": {"lr": 3}}})
    merged["a"]["c"]["d"].append(9)
    merged["a"]["b"] = 9
    merged["l"].append(9)
    assert low == {"a": {"b": 1}, "l": [1]}
    assert high == {
        "a": {"c": {"d": [2]}},
        "l+": [3],
        "o": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentum": 0.9}},
    }


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        ({"l": [1]}, {"l+": [2, 3]}, [1, 2, 3]),
        ({"l": [1]}, {"l+": 2}, [1, 2]),
        ({}, {"l+": [1]}, [1]),
        ({"l": None}, {"l+": 1}, [1]),
        ({"l": "one"}, {"l+": "two"}, ["one", "two"]),
    ],
    ids=str,
)
def test_a_plus_appends(low: Layer, high: Layer, expected: list[Any]) -> None:
    """Fails when `suites+` replaces, or when a word is taken apart into letters."""
    assert merge(low, high) == {"l": expected}


def test_merging_and_what_uses_it_import_nothing_heavy() -> None:
    program = (
        "import sys, mu.config.components, mu.cli.config_files, mu.config.merge; "
        "print(sorted(set(sys.modules) & {'torch', 'lightning', 'numpy'}))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert answer.stdout.strip() == "[]", answer.stderr

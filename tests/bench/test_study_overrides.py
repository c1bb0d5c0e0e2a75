"""`mu bench --set`: a key reaches every entry of a study, or is refused with the nearest name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mu.bench.study_overrides import with_overrides
from mu.config.spec_faults import CommandLineValue
from mu.utils.errors import InputError

SGD = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentum": 0.9}}
STUDY: dict[str, Any] = {
    "seeds": [0, 1],
    "backbone": {
        "class_path": "mu.backbones.Classifier",
        "init_args": {"name": "resnet8_cifar", "options": {"width": 4}},
    },
    "recipe": {"model": {"optimizer": SGD}},
    "tasks": {
        "random": {
            "class_path": "tasks.Digits",
            "init_args": {
                "selector": {"class_path": "tasks.RandomFraction", "init_args": {"fraction": 0.2}}
            },
            "suites": [{"class_path": "callbacks.TOFU"}],
            "methods": {"SSD": {"trainer": {"max_epochs": 1}}},
        }
    },
    "methods": {
        "SSD": {"model": {"class_path": "mu.methods.SSD"}},
        "SalUn-0.1": {
            "model": {"class_path": "mu.methods.SalUn", "init_args": {"optimizer": SGD}},
            "search": {"optimizer.lr": {"low": 0.001, "high": 0.1}},
        },
    },
    "suites": ["callbacks.Accuracy", {"class_path": "callbacks.TOFU"}, "callbacks.Memorisation"],
}


def at(study: Any, *path: Any) -> Any:
    for key in path:
        study = study[key]
    return study


ARGUMENTS = ("model", "init_args")


@pytest.mark.parametrize(
    ("key", "value", "path", "expected"),
    [
        ("trainer.precision", "bf16-mixed", ("trainer", "precision"), "bf16-mixed"),
        ("seeds.1", 7, ("seeds",), [0, 7]),
        ("backbone.name", "resnet20_cifar", ("backbone", "init_args", "name"), "resnet20_cifar"),
        ("backbone.options.width", 8, ("backbone", "init_args", "options"), {"width": 8}),
        ("backbone.init_args.name", "x", ("backbone", "init_args", "name"), "x"),
        (
            "recipe.model.optimizer.lr",
            0.5,
            ("recipe", "model", "optimizer", "init_args"),
            {"lr": 0.5, "momentum": 0.9},
        ),
        (
            "tasks.random.selector.fraction",
            0.5,
            ("tasks", "random", "init_args", "selector", "init_args"),
            {"fraction": 0.5},
        ),
        ("tasks.random.train_size", 9, ("tasks", "random", "init_args", "train_size"), 9),
        (
            "tasks.random.methods.SSD.trainer.max_epochs",
            4,
            ("tasks", "random", "methods", "SSD", "trainer"),
            {"max_epochs": 4},
        ),
        ("methods.SSD.trainer.max_epochs", 4, ("methods", "SSD", "trainer", "max_epochs"), 4),
        ("methods.SSD.model.alpha", 2.0, ("methods", "SSD", *ARGUMENTS), {"alpha": 2.0}),
        ("methods.SSD.alpha", 2.0, ("methods", "SSD", *ARGUMENTS), {"alpha": 2.0}),
        (
            "methods.SalUn-0.1.mask.keep",
            0.3,
            ("methods", "SalUn-0.1", *ARGUMENTS, "mask"),
            {"init_args": {"keep": 0.3}},
        ),
        (
            "methods.SalUn-0.1.optimizer.lr",
            0.3,
            ("methods", "SalUn-0.1", *ARGUMENTS, "optimizer", "init_args", "lr"),
            0.3,
        ),
        (
            "methods.SalUn-0.1.search.optimizer.lr.low",
            0.01,
            ("methods", "SalUn-0.1", "search", "optimizer.lr"),
            {"low": 0.01, "high": 0.1},
        ),
        ("suites.0", "callbacks.Cost", ("suites", 0), "callbacks.Cost"),
        (
            "suites.1.max_new_tokens",
            40,
            ("suites", 1, "init_args"),
            {"max_new_tokens": 40},
        ),
        ("suites.TOFU.max_new_tokens", 40, ("suites", 1, "init_args"), {"max_new_tokens": 40}),
        (
            "suites.callbacks.TOFU.max_new_tokens",
            40,
            ("suites", 1, "init_args"),
            {"max_new_tokens": 40},
        ),
        ("suites.TOFU.max_new_tokens", 40, ("suites", 2), "callbacks.Memorisation"),
        (
            "suites.max_new_tokens",
            40,
            ("suites", 2, "init_args"),
            {"max_new_tokens": 40},
        ),
        ("suites+", "callbacks.Cost", ("suites", 3), "callbacks.Cost"),
        (
            "tasks.random.suites.TOFU.max_new_tokens",
            40,
            ("tasks", "random", "suites", 0, "init_args"),
            {"max_new_tokens": 40},
        ),
        (
            "methods.Mine.model.class_path",
            "SSD",
            ("methods", "Mine", "model"),
            {"class_path": "SSD"},
        ),
        ("methods.Other", "method/ssd", ("methods", "Other", "trainer"), {"max_epochs": 1}),
    ],
)
def test_override_reaches_its_entry(
    key: str, value: Any, path: tuple[Any, ...], expected: Any
) -> None:
    assert at(with_overrides(Path("study.yaml"), STUDY, [(key, value)]), *path) == expected


def test_overrides_leave_the_study_of_the_file_as_it_is() -> None:
    before = repr(STUDY)
    with_overrides(Path("study.yaml"), STUDY, [("methods.SSD.alpha", 2.0), ("seeds.0", 5)])
    assert repr(STUDY) == before


def test_text_of_the_command_line_is_read_as_yaml_unless_the_argument_is_a_text() -> None:
    pairs = [
        ("seeds", CommandLineValue("[3, 4]")),
        ("backbone.name", CommandLineValue("18")),
    ]
    study = with_overrides(Path("study.yaml"), STUDY, pairs)
    assert study["seeds"] == [3, 4] and at(study, "backbone", "init_args", "name") == "18"


def test_class_is_set_before_its_arguments_whatever_their_order() -> None:
    pairs = [("methods.SSD.keep", 0.3), ("methods.SSD.model.class_path", "mu.methods.SalUn")]
    study = with_overrides(Path("study.yaml"), STUDY, pairs)
    assert at(study, "methods", "SSD", "model") == {
        "class_path": "mu.methods.SalUn",
        "init_args": {"keep": 0.3},
    }


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("seeds.2", "'2' is no index of a list with 2 entries"),
        ("suites.7.max_new_tokens", "'7' is no index of a list with 3 entries"),
        ("suites.max_new_token", "did you mean max_new_tokens"),
        ("methods.NPO.alpha", "no method 'NPO'; it has SSD"),
        ("methods.SDS.alpha", "did you mean SSD"),
        ("tasks.randm.train_size", "no task 'randm'; did you mean random"),
        ("tasks..train_size", "empty word"),
    ],
)
def test_key_that_leads_nowhere_is_refused(key: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence.replace(".", r"\.")):
        with_overrides(Path("study.yaml"), STUDY, [(key, 1)])

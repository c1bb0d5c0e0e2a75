"""Study files: what is in `configs/bench` can be read, and what is wrong in one is said in one
sentence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mu.bench.study import Seeds, Study, content_hash
from mu.bench.study_file import read_study
from mu.config.components import merge
from mu.utils.errors import InputError

BENCH = Path(__file__).parents[2] / "configs" / "bench"
STUDY: dict[str, Any] = {
    "backbone": {
        "class_path": "mu.backbones.Classifier",
        "init_args": {"name": "resnet8_cifar", "num_classes": 10},
    },
    "recipe": {
        "model": {"scheduler": {"class_path": "mu.core.OneCycle"}},
        "trainer": {"max_epochs": 30},
    },
    "tasks": {
        "class": {
            "class_path": "tasks.Digits",
            "init_args": {"selector": {"class_path": "tasks.ByClass"}},
        },
        "random": {
            "class_path": "tasks.Digits",
            "methods": {
                "FineTune": {"model": {"init_args": {"seed": 5}}, "trainer": {"max_epochs": 2}}
            },
        },
    },
    "methods": {
        "FineTune": {
            "model": {"class_path": "mu.methods.FineTune", "init_args": {"norm": "eval"}},
            "trainer": {"max_epochs": 9},
        },
        "SSD": {"model": {"class_path": "mu.methods.SSD"}},
    },
    "suites": ["callbacks.Accuracy"],
}


def read(
    folder: Path,
    *changes: dict[str, Any],
    without: str = "",
    overrides: dict[str, Any] | tuple[()] = (),
) -> Study:
    """The study above with changes, written and read again."""
    raw = merge(STUDY, *changes)
    raw.pop(without, None)
    (folder / "study.yaml").write_text(yaml.safe_dump(raw))
    return read_study(folder / "study.yaml", overrides)


def refused(folder: Path, *changes: dict[str, Any], **given: Any) -> str:
    """The sentence about a study that is not one."""
    with pytest.raises(InputError) as error:
        read(folder, *changes, **given)
    sentence = str(error.value)
    assert "study.yaml" in sentence and "\n" not in sentence and sentence.endswith((".", "?"))
    return sentence


@pytest.mark.parametrize("path", sorted(BENCH.glob("*.yaml")), ids=lambda path: path.stem)
def test_studies_that_come_with_mu_can_be_read(path: Path) -> None:
    """Fails when a study has a key that `mu bench` does not know, or begins without the command
    that runs it.
    """
    study = read_study(path)
    assert study.name == path.stem and study.seeds and study.output == Path("runs") / path.stem
    assert f"mu bench -c configs/bench/{path.name}" in path.read_text()
    for task in study.tasks:
        assert "methods" not in study.task_spec(task)
        for method in study.methods:
            spec = study.method_spec(task, method)
            assert spec["model"]["class_path"].startswith("mu.methods.")


def test_a_study_without_seeds_name_and_output_has_the_usual_ones(tmp_path: Path) -> None:
    """Fails when a key that may be left out is asked for."""
    study = read(tmp_path)
    assert (study.name, study.title, study.output) == ("study", "study", Path("runs/study"))
    assert study.seeds == (Seeds(0, 0, 0),) and study.seeds[0].label == "seed0"
    assert study.gap is None and study.trainer == study.search == {}


def test_seeds_are_numbers_or_three_parts(tmp_path: Path) -> None:
    """Fails when the three seeds of a run change places."""
    study = read(tmp_path, {"seeds": [3, {"split": 2, "train": 1, "unlearn": 4}]})
    assert study.seeds == (Seeds(3, 3, 3), Seeds(split=2, train=1, unlearn=4))
    assert [seeds.label for seeds in study.seeds] == ["seed3", "seed2-1-4"]
    assert study.seeds[1].as_dict() == {"split": 2, "train": 1, "unlearn": 4}
    assert read(tmp_path, {"seeds": 7}).seeds == (Seeds(7, 7, 7),)


@pytest.mark.parametrize(
    "seeds",
    [
        ["one"],
        [True],
        [1.5],
        [None],
        None,
        [[1, 2, 3]],
        [{"split": 1, "train": 1}],
        [{"split": 1, "seed": 2}],
        [{"split": 1, "train": 1, "unlearn": 1, "more": 1}],
        [{"split": "a", "train": 1, "unlearn": 1}],
        [{"split": [1], "train": 1, "unlearn": 1}],
        [],
    ],
    ids=repr,
)
def test_what_is_no_seed_is_refused(tmp_path: Path, seeds: Any) -> None:
    """Fails when a seed that is no whole number reaches a generator, or a study without seeds runs
    nothing in silence.
    """
    assert "seed" in refused(tmp_path, {"seeds": seeds})


def test_a_seed_stands_once(tmp_path: Path) -> None:
    """Fails when a repetition is counted twice."""
    assert "twice" in refused(tmp_path, {"seeds": [1, {"split": 1, "train": 1, "unlearn": 1}]})


@pytest.mark.parametrize("key", ["backbone", "recipe", "tasks", "methods", "suites"])
def test_what_every_study_needs_is_asked_for(tmp_path: Path, key: str) -> None:
    """Fails when a study without it ends in a KeyError after hours."""
    assert f"lacks {key!r}" in refused(tmp_path, without=key)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": {}}, ["'method'", "methods"]),
        ({"methods": {"FineTune": {"modle": {}}}}, ["methods.FineTune", "'modle'", "model"]),
        (
            {"methods": {"Nothing": {"trainer": {"max_epochs": 1}}}},
            ["methods.Nothing.model", "class_path"],
        ),
        (
            {"methods": {"oracle": {"model": {"class_path": "mu.methods.Retrain"}}}},
            ["methods.oracle", "reserved", "recipe"],
        ),
        (
            {"methods": {"original": {"model": {"class_path": "mu.methods.Train"}}}},
            ["methods.original", "reserved", "recipe"],
        ),
        (
            {"tasks": {"class": {"methods": {"oracle": {}}}}},
            ["tasks.class.methods.oracle", "reserved"],
        ),
        (
            {"tasks": {"class": {"methods": {"SalUn": {}}}}},
            ["tasks.class.methods.SalUn", "`methods` does not have"],
        ),
        (
            {"tasks": {"class": {"methods": {"SSD": {"epochs": 1}}}}},
            ["tasks.class.methods.SSD", "'epochs'"],
        ),
        ({"methods": {"SSD": None}}, ["methods.SSD"]),
        ({"methods": ["FineTune"]}, ["methods"]),
        ({"tasks": {"class": None}}, ["tasks.class"]),
        ({"tasks": ["class"]}, ["tasks"]),
        ({"tasks": {"../out": {"class_path": "tasks.Digits"}}}, ["'../out'", "dot"]),
        ({"tasks": {"/tmp/out": {"class_path": "tasks.Digits"}}}, ["'/tmp/out'", "folder"]),
        ({"tasks": {"..": {"class_path": "tasks.Digits"}}}, ["'..'"]),
        ({"tasks": {3: {"class_path": "tasks.Digits"}}}, ["tasks 3", "quotes"]),
        ({"tasks": {"x" * 300: {"class_path": "tasks.Digits"}}}, ["longer than"]),
        ({"tasks": {"search": {"class_path": "tasks.Digits"}}}, ["tasks.search", "rename"]),
        ({"tasks": {"Class": {"class_path": "tasks.Digits"}}}, ["capitals"]),
        ({"methods": {"a/b": {"model": {"class_path": "mu.methods.SSD"}}}}, ["'a/b'"]),
        ({"methods": {"a\nb": {"model": {"class_path": "mu.methods.SSD"}}}}, ["a\\nb"]),
        ({"name": "../elsewhere"}, ["the name '../elsewhere'"]),
    ],
    ids=str,
)
def test_wrong_keys_and_names_are_refused(
    tmp_path: Path, change: dict[str, Any], words: list[str]
) -> None:
    """Fails when a misspelt key is dropped in silence, or when a method takes the name of the
    original or the oracle.
    """
    sentence = refused(tmp_path, change)
    assert all(word in sentence for word in words), sentence


def test_a_study_may_start_from_given_weights_and_have_no_oracle(tmp_path: Path) -> None:
    """Fails when it still needs a recipe, or plans a run that nothing asks for."""
    study = read(tmp_path)
    assert (study.original, study.oracle) == ("trained", "retrain") and study.rows == [
        "original",
        "oracle",
        "FineTune",
        "SSD",
    ]
    roles = [job.role for job in study.jobs() if job.task == "class"]
    assert roles == ["train", "oracle", "original", "method", "method"]
    bare = read(tmp_path, {"original": "given", "oracle": "none"}, without="recipe")
    assert bare.recipe == {} and bare.rows == ["original", "FineTune", "SSD"]
    assert [(job.role, job.method) for job in bare.jobs()] == 2 * [
        ("original", "original"),
        ("method", "FineTune"),
        ("method", "SSD"),
    ]
    assert [job.role for job in read(tmp_path, {"original": "given"}).jobs()][:2] == [
        "oracle",
        "original",
    ]
    assert [job.role for job in read(tmp_path, {"oracle": "none"}).jobs()][:3] == [
        "train",
        "original",
        "method",
    ]


def test_an_oracle_that_is_there_already_is_a_backbone_of_its_own(tmp_path: Path) -> None:
    """Fails when a recipe is asked for although nothing is trained, or the oracle is the original
    under another name.
    """
    study = read(
        tmp_path,
        {"original": "given", "oracle": {"weights": "oracle.safetensors"}},
        without="recipe",
    )
    assert study.has_oracle and study.pretrained_oracle is not None
    assert study.pretrained_oracle["class_path"] == study.backbone["class_path"]
    assert (
        study.pretrained_oracle["init_args"]["weights"]
        == "oracle.safetensors"
        != (study.backbone.get("init_args") or {}).get("weights")
    )
    assert [job.role for job in study.jobs()][:2] == ["oracle", "original"]


@pytest.mark.parametrize("change", [{"original": "given"}, {"oracle": "none"}])
def test_whatever_is_trained_needs_a_recipe(tmp_path: Path, change: dict[str, Any]) -> None:
    assert "lacks 'recipe'" in refused(tmp_path, change, without="recipe")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"original": "mine"}, "original is 'mine'; it should be trained or given"),
        ({"oracle": None}, "oracle is None; it should be retrain or none"),
        (
            {
                "methods": {
                    "SSD": {
                        "model": {"init_args": {"backbone": {"init_args": {"weights": "a.pt"}}}}
                    }
                }
            },
            "methods.SSD gives its backbone",
        ),
        (
            {
                "tasks": {
                    "class": {
                        "methods": {
                            "SSD": {
                                "model": {
                                    "init_args": {"backbone": {"init_args": {"weights": None}}}
                                }
                            }
                        }
                    }
                }
            },
            "of its own",
        ),
    ],
    ids=str,
)
def test_wrong_values_of_original_and_oracle_are_refused(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    """Fails when a method starts from other weights than the original, or a misspelt word is taken
    for the default.
    """
    assert words in refused(tmp_path, change)


def test_weights_are_known_by_what_they_hold(tmp_path: Path) -> None:
    """Fails when a file is known by its name, or when the log beside a checkpoint counts as
    weights.
    """
    for name, text in (
        ("a.pt", "one"),
        ("b.pt", "one"),
        ("c.pt", "two"),
        ("run/checkpoints/last.ckpt", "one"),
        ("run/results.json", "{}"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    hashes = {name: content_hash(str(tmp_path / name)) for name in ("a.pt", "b.pt", "c.pt", "run")}
    assert hashes["a.pt"] == hashes["b.pt"] != hashes["c.pt"] and len(hashes["run"]) == 16
    (tmp_path / "run" / "results.json").write_text("[1]")
    assert content_hash(str(tmp_path / "run")) == hashes["run"]
    (tmp_path / "run" / "checkpoints" / "last.ckpt").write_text("two")
    assert content_hash(str(tmp_path / "run")) != hashes["run"]
    assert content_hash("hub/name") == "hub/name"


def test_a_part_of_a_study_has_the_chosen_tasks_and_methods(tmp_path: Path) -> None:
    part = read(tmp_path, {"original": "given", "oracle": "none"}).only("random", "SSD")
    assert [(job.task, job.method) for job in part.jobs()] == [
        ("random", "original"),
        ("random", "SSD"),
    ]
    skipped = read(
        tmp_path, {"tasks": {"random": {"methods": {"SSD": {"skip": "it cannot"}}}}}
    ).only("random", None)
    assert [job.method for job in skipped.jobs()] == ["original", "oracle", "original", "FineTune"]


def test_files_that_are_no_studies_are_refused(tmp_path: Path) -> None:
    """Fails when a user sees a traceback of the YAML reader."""
    with pytest.raises(InputError, match="there is no study file"):
        read_study(tmp_path / "absent.yaml")
    for text, words in (
        ("a: [1\nb: 2", "not valid YAML"),
        ("- 1", "is not a study"),
        ("", "is not a study"),
        ("seeds: [0]\nseeds: [1]", "'seeds' stands twice"),
    ):
        (tmp_path / "odd.yaml").write_text(text)
        with pytest.raises(InputError, match=words) as error:
            read_study(tmp_path / "odd.yaml")
        assert "odd.yaml" in str(error.value) and "\n" not in str(error.value)


def test_overrides_go_over_the_file(tmp_path: Path) -> None:
    """Fails when `--set` replaces a whole branch, or is not checked as the file is."""
    study = read(
        tmp_path,
        overrides={
            "recipe": {"trainer": {"max_epochs": 1}},
            "name": "other",
            "suites+": "callbacks.Cost",
        },
    )
    assert (
        study.recipe == merge(STUDY["recipe"], {"trainer": {"max_epochs": 1}})
        and study.recipe["model"] == STUDY["recipe"]["model"]
    )
    assert (
        study.name == "other"
        and study.output == Path("runs/other")
        and study.suites == ["callbacks.Accuracy", "callbacks.Cost"]
    )
    assert "'nmae'" in refused(tmp_path, overrides={"nmae": "other"})


def test_a_task_overrides_its_methods(tmp_path: Path) -> None:
    """Fails when one task's settings reach another's, or replace what they do not name."""
    study = read(tmp_path)
    assert study.method_spec("class", "FineTune") == STUDY["methods"]["FineTune"]
    assert study.method_spec("random", "FineTune") == {
        "model": {"class_path": "mu.methods.FineTune", "init_args": {"norm": "eval", "seed": 5}},
        "trainer": {"max_epochs": 2},
    }
    assert study.task_spec("random") == {"class_path": "tasks.Digits"}


def test_a_task_is_measured_by_suites_of_its_own_too(tmp_path: Path) -> None:
    """Fails when a task's suites are dropped, are given to another task, or reach the task's
    constructor.
    """
    file = tmp_path / "study.yaml"
    task = {"class_path": "tasks.Digits", "init_args": {}}
    file.write_text(
        yaml.safe_dump(
            {
                "backbone": {"class_path": "mu.backbones.Classifier"},
                "original": "given",
                "oracle": "none",
                "suites": ["callbacks.Cost"],
                "methods": {"FineTune": {"model": {"class_path": "mu.methods.FineTune"}}},
                "tasks": {"one": {**task, "suites": ["callbacks.Accuracy"]}, "other": task},
            }
        )
    )
    study = read_study(file)
    assert study.suites_of("one") == ["callbacks.Cost", "callbacks.Accuracy"]
    assert study.suites_of("other") == ["callbacks.Cost"]
    assert "suites" not in study.task_spec("one")
    file.write_text(file.read_text().replace("- callbacks.Accuracy", "  one: callbacks.Accuracy"))
    with pytest.raises(InputError, match=r"tasks\.one\.suites is .*; it should be a list"):
        read_study(file)


def test_repeated_names_of_a_part_are_refused(tmp_path: Path) -> None:
    """Fails when a method that is named twice runs once in silence."""
    study = read(tmp_path)
    assert list(study.only("class, random", "SSD").tasks) == ["class", "random"]
    with pytest.raises(InputError, match="--methods names 'SSD' twice"):
        study.only(None, "SSD,FineTune,SSD")

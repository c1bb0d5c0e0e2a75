"""A study from end to end, on the smallest real task."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from callbacks import Suite
from mu.backbones import Classifier
from mu.bench.execution import PlannedRun, task_for_run
from mu.bench.objective import loss
from mu.bench.runner import Bench
from mu.bench.study import Job, Seeds
from mu.bench.study_file import read_study
from mu.cli.bench import main
from mu.config.components import Components, merge
from mu.metrics.results import Result
from mu.metrics.run_results import Measurement, RunResults
from mu.utils.errors import InputError
from mu.utils.weights import weights_hash
from tests.bench.small_study import STUDY, record, rows, written


def given(folder: Path, weights: Path | None, **changes) -> Path:
    """The study without a recipe: its original is the backbone with these weights, and there is no
    oracle.
    """
    raw = {key: value for key, value in STUDY.items() if key not in ("recipe", "gap")}
    weights_argument = {"weights": str(weights)} if weights else {}
    backbone = {
        **STUDY["backbone"],
        "init_args": {**STUDY["backbone"]["init_args"], **weights_argument},
    }
    bare = {
        "original": "given",
        "oracle": "none",
        "backbone": backbone,
        "output": str(folder / "out"),
    }
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({**raw, **bare, **changes}))
    return file


def test_it_writes_results_for_original_oracle_and_methods(finished: Path) -> None:
    table = rows(finished)
    assert list(table) == ["original", "oracle", "FineTune", "SSD"]
    for row in table.values():
        assert {
            "task",
            "split_seed",
            "train_seed",
            "unlearn_seed",
            "UA",
            "RA",
            "TA",
            "MIA",
            "avg_gap",
            "seconds",
        } <= set(row)
        assert all(row[name] != "" for name in ("UA", "RA", "TA", "MIA", "avg_gap", "seconds"))
    assert float(table["oracle"]["avg_gap"]) == 0
    assert (finished / "out" / "report.html").stat().st_size > 10_000


def test_the_gap_is_the_mean_of_four_differences_to_the_oracle(finished: Path) -> None:
    table = rows(finished)
    for method in ("original", "FineTune", "SSD"):
        by_hand = (
            sum(
                abs(float(table[method][name]) - float(table["oracle"][name]))
                for name in ("UA", "RA", "TA", "MIA")
            )
            / 4
        )
        assert float(table[method]["avg_gap"]) == pytest.approx(by_hand, abs=1e-9)


def test_building_changes_no_specification() -> None:
    """Fails when a suite's entry in the study is another thing after a run than before it, so that
    the next run has another key.
    """
    for group, spec in {
        "callbacks": [
            {"class_path": "callbacks.Membership", "init_args": {"attacks": ["confidence"]}}
        ],
        "model": merge(
            STUDY["methods"]["SSD"]["model"], {"init_args": {"backbone": STUDY["backbone"]}}
        ),
    }.items():
        before = deepcopy(spec)
        components = Components()
        components.resolve(group, spec)
        components.make(group, spec)
        assert spec == before


def test_a_second_call_reuses_every_run(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fails when the key depends on anything that differs between two equal calls."""
    before = {file: file.stat().st_mtime_ns for file in finished.rglob("results.json")}
    assert main(["-c", str(finished / "study.yaml")]) == 0
    assert "5 reused" in capsys.readouterr().out
    assert before == {file: file.stat().st_mtime_ns for file in finished.rglob("results.json")}


def test_a_changed_argument_runs_anew_and_overwrites_nothing(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished / "out", tmp_path / "out")
    study = written(
        tmp_path,
        methods={
            **STUDY["methods"],
            "SSD": {
                "model": {"class_path": "mu.methods.SSD", "init_args": {"alpha": 2.0}},
                "trainer": {"max_epochs": 1},
            },
        },
    )
    assert main(["-c", str(study)]) == 0
    assert "1 ran" in capsys.readouterr().out
    assert len(list((tmp_path / "out" / "random" / "SSD").iterdir())) == 2


def test_an_interrupted_run_is_resumed_and_ends_as_if_it_had_not_been(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fails when an unfinished folder is taken for a finished one, or is begun again over its
    checkpoint.
    """
    shutil.copytree(finished / "out", tmp_path / "out")
    folder = next((tmp_path / "out" / "random" / "FineTune").iterdir())
    state = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**state, "state": "running"}))
    before = RunResults.load(folder)
    (folder / "results.json").unlink()
    assert main(["-c", str(written(tmp_path))]) == 0
    assert "1 resumed" in capsys.readouterr().out
    assert RunResults.load(folder).value("UA") == before.value("UA")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"methods": {**STUDY["methods"], "Last": {"model": {"class_path": "mu.methods.SSDD"}}}},
            "mu.methods.SSDD cannot be built",
        ),
        (
            {
                "methods": {
                    **STUDY["methods"],
                    "Last": {"model": {"class_path": "mu.methods.SSD", "init_args": {"alhpa": 1}}},
                }
            },
            "alhpa",
        ),
        ({"suites": ["callbacks.Accuracy", "callbacks.Memberships"]}, "Memberships"),
    ],
)
def test_a_study_that_cannot_be_built_begins_nothing(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    """Fails when a typing error in the last method or suite is told after everything before it has
    run.
    """
    with pytest.raises(InputError, match=words):
        main(["-c", str(written(tmp_path, **changes))])
    assert not (tmp_path / "out").exists()


def test_a_failing_method_is_reported_and_stops_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    still = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.0}}
    broken = {
        "model": {"class_path": "mu.methods.FineTune", "init_args": {"optimizer": still}},
        "trainer": {"max_epochs": 1},
    }
    study = written(tmp_path, methods={"Broken": broken, **STUDY["methods"]})
    assert main(["-c", str(study)]) == 1
    output = capsys.readouterr().out
    assert "1 failed" in output
    assert "moved no weight" in " ".join(output.split())
    assert {"FineTune", "SSD"} <= set(rows(tmp_path))
    missing = json.loads((tmp_path / "out" / "study.json").read_text())["missing"]
    assert list(missing) == ["random/Broken/seed0"]


def test_tasks_with_one_training_set_share_one_original(tmp_path: Path) -> None:
    one_class = {
        "class_path": "tasks.Digits",
        "init_args": {
            **STUDY["tasks"]["random"]["init_args"],
            "selector": {"class_path": "tasks.ByClass", "init_args": {"classes": 3}},
        },
    }
    study = written(
        tmp_path,
        tasks={**STUDY["tasks"], "class": one_class},
        methods={"SSD": STUDY["methods"]["SSD"]},
    )
    assert main(["-c", str(study)]) == 0
    assert len(list((tmp_path / "out" / "originals").iterdir())) == 1


def test_a_search_looks_at_validation_with_seeds_of_its_own(tmp_path: Path) -> None:
    """Fails when the search evaluates the test part, or on a reported seed."""
    method = {
        **STUDY["methods"]["FineTune"],
        "search": {"optimizer.lr": {"low": 0.001, "high": 0.1, "log": True}},
    }
    study = written(tmp_path, methods={"FineTune": method}, search={"trials": 2, "seeds": [50, 51]})
    assert main(["-c", str(study), "--search"]) == 0
    settings = yaml.safe_load((tmp_path / "out" / "search" / "found.yaml").read_text())
    best = settings["tasks"]["random"]["methods"]["FineTune"]
    assert 0.001 <= best["model"]["init_args"]["optimizer"]["init_args"]["lr"] <= 0.1
    assert best["searched"]["trials"] == 2
    assert best["searched"]["seconds"] > 0
    records = [
        RunResults.load(file.parent) for file in (tmp_path / "out" / "search").rglob("results.json")
    ]
    assert {record.seeds["split"] for record in records} == {50, 51}
    assert {
        result.split for record in records for result in record.results if result.metric == "TA"
    } == {"validation"}
    with pytest.raises(InputError, match="one of the reported seeds"):
        main(["-c", str(study), "--search", "--seeds", "50"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--methods", "Nothing"], "no method 'Nothing'"),
        (["--tasks", "nothing"], "no task 'nothing'"),
        (["--seeds", "a,b"], "not a list of whole numbers"),
        (["--set", "seeds"], "has no value"),
    ],
)
def test_wrong_choices_are_one_sentence(
    tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        main(["-c", str(written(tmp_path)), *arguments])
    assert not (tmp_path / "out").exists()


# ---- given weights, no oracle --------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(finished: Path) -> Path:
    """The weights that the study above trained, as a file."""
    return next((finished / "out" / "originals").glob("*/checkpoints/last.ckpt"))


@pytest.fixture(scope="module")
def unaided(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    folder = tmp_path_factory.mktemp("given")
    shutil.copy(weights, folder / "weights.ckpt")
    assert main(["-c", str(given(folder, folder / "weights.ckpt"))]) == 0
    return folder


def test_given_weights_are_measured_as_they_are(finished: Path, unaided: Path) -> None:
    """Fails when the original is trained on, built anew, or measured otherwise than the same
    weights after a training.
    """
    trained = rows(finished)
    table = rows(unaided)
    assert list(table) == ["original", "FineTune", "SSD"]
    for name in ("UA", "RA", "TA", "MIA"):
        assert {method: row[name] for method, row in table.items()} == {
            method: trained[method][name] for method in table
        }
    assert (
        not (unaided / "out" / "originals").exists()
        and not (unaided / "out" / "random" / "oracle").exists()
    )
    assert json.loads((unaided / "out" / "study.json").read_text())["methods"] == [
        "original",
        "FineTune",
        "SSD",
    ]


def test_the_original_is_known_by_the_hash_of_its_weights(unaided: Path) -> None:
    """Fails when a result does not say from which weights it began."""
    network = Classifier(
        **{**STUDY["backbone"]["init_args"], "weights": str(unaided / "weights.ckpt")}
    )
    for method in ("original", "FineTune", "SSD"):
        assert record(unaided, method).hashes["original"] == weights_hash(network)
    assert (
        record(unaided, "original").hashes["weights"]
        == weights_hash(network)
        != record(unaided, "SSD").hashes["weights"]
    )


def test_without_an_oracle_there_is_no_gap(unaided: Path) -> None:
    """Fails when a gap suite runs, a gap column is shown, or the original claims seconds of an
    unlearning.
    """
    assert {
        ("avg_gap" in row, row["seconds"] == "")
        for method, row in rows(unaided).items()
        if method != "original"
    } == {(False, False)}
    assert rows(unaided)["original"]["seconds"] == ""
    assert not any(
        record(unaided, method).has("avg_gap") for method in ("original", "FineTune", "SSD")
    )
    page = (unaided / "out" / "report.html").read_text()
    assert (
        "Without an oracle to compare with" in page
        and "Gap" not in page
        and "weights.ckpt" in page
        and "measured against retraining" not in page
    )
    assert "Confidence before and after" in page  # outputs are there


def test_given_weights_are_reused_by_what_they_are(
    unaided: Path, tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fails when the same weights at another place run anew, or other weights at the same place are
    taken for the old.
    """
    shutil.copytree(unaided / "out", tmp_path / "out")
    shutil.copy(unaided / "weights.ckpt", tmp_path / "moved.ckpt")
    assert main(["-c", str(given(tmp_path, tmp_path / "moved.ckpt"))]) == 0
    assert "3 reused" in capsys.readouterr().out
    shutil.copy(
        next((finished / "out" / "random" / "oracle").glob("*/checkpoints/last.ckpt")),
        tmp_path / "moved.ckpt",
    )
    assert main(["-c", str(given(tmp_path, tmp_path / "moved.ckpt")), "--methods", "SSD"]) == 0
    assert "2 ran" in capsys.readouterr().out


def test_a_backbone_that_is_new_each_time_is_no_original(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fails when methods unlearn from other random weights than those that stand in the row of the
    original.
    """
    assert main(["-c", str(given(tmp_path, None)), "--methods", "SSD"]) == 1
    assert "does not hold the weights of the original" in " ".join(capsys.readouterr().out.split())
    fixed = ["--set", "backbone.init_args.init_seed=3", "--methods", "SSD"]
    assert main(["-c", str(given(tmp_path, None)), *fixed]) == 0


def test_given_weights_may_have_an_oracle(tmp_path: Path, weights: Path) -> None:
    """The checkpoint says by which recipe it was trained, so the oracle's may be compared with
    it.
    """
    file = given(tmp_path, weights, oracle="retrain", recipe=STUDY["recipe"], gap=STUDY["gap"])
    assert main(["-c", str(file), "--methods", "SSD"]) == 0
    table = rows(tmp_path)
    assert list(table) == ["original", "oracle", "SSD"] and float(table["oracle"]["avg_gap"]) == 0
    assert float(table["original"]["avg_gap"]) > 0 and float(table["SSD"]["avg_gap"]) > 0


# ---- what a method says of its backbone and its batches ------------------------------------------


@pytest.mark.parametrize("start", ["trained", "given"])
def test_a_method_changes_arguments_of_the_backbone_and_keeps_the_others(
    tmp_path: Path, finished: Path, weights: Path, start: str
) -> None:
    """Fails when a method's backbone replaces the study's instead of being merged over it, or
    starts from other weights.
    """
    override = {"model": {"init_args": {"backbone": {"init_args": {"channels_last": True}}}}}
    methods = {"SSD": merge(STUDY["methods"]["SSD"], override)}
    study = (
        written(tmp_path, methods=methods)
        if start == "trained"
        else given(tmp_path, weights, methods=methods)
    )
    assert main(["-c", str(study), "--set", "backbone.init_args.channels_last=false"]) == 0
    results = record(tmp_path, "SSD")
    arguments = results.facts["method_arguments"]["backbone"]["init_args"]
    assert (arguments["name"], arguments["options"], arguments["channels_last"]) == (
        "resnet8_cifar",
        {"width": 4},
        True,
    )
    assert (
        record(tmp_path, "original").facts["method_arguments"]["backbone"]["init_args"][
            "channels_last"
        ]
        is False
    )
    assert results.hashes["original"] == record(finished, "SSD").hashes["original"]
    assert "backbone.channels_last=True" in (tmp_path / "out" / "report.html").read_text()


def test_a_batch_size_of_one_method_leaves_the_shared_task_alone(tmp_path: Path) -> None:
    """Fails when the task that all methods share is changed, even for the time of one run, or when
    its data are read twice.
    """
    override = {
        **STUDY["methods"]["FineTune"],
        "model": {"class_path": "mu.methods.GradientAscent"},
        "forget_batch_size": 5,
    }
    study = read_study(
        written(tmp_path, methods={"Ascent": override, "SSD": STUDY["methods"]["SSD"]})
    )
    bench = Bench(study, debug=True)
    seeds = Seeds(0, 0, 0)
    shared = bench.task("random", seeds)
    runs = {
        name: PlannedRun(
            Job("method", "random", name, seeds), {}, spec=study.method_spec("random", name)
        )
        for name in study.methods
    }
    task = task_for_run(runs["Ascent"], shared)
    assert task is not shared and (task.forget_batch_size, shared.forget_batch_size) == (5, None)
    assert (
        task.datasets is shared.datasets
        and task.split is shared.split
        and task_for_run(runs["SSD"], shared) is shared
    )
    for job in study.jobs():
        bench.run(job)
    assert shared.forget_batch_size is None
    # twelve scans to forget, in batches of five, two epochs
    assert record(tmp_path, "Ascent").facts["steps"] == 2 * 3


def test_a_search_that_goes_by_metrics_may_go_without_oracles(tmp_path: Path) -> None:
    """Fails when a search retrains an oracle that it was told not to, or is silent about a word
    that it does not know.
    """
    method = {
        **STUDY["methods"]["FineTune"],
        "search": {"optimizer.lr": {"low": 0.001, "high": 0.1, "log": True}},
    }
    search = {"trials": 1, "seeds": [50], "objective": ["seconds"], "oracle": "none"}
    assert (
        main(
            ["-c", str(written(tmp_path, methods={"FineTune": method}, search=search)), "--search"]
        )
        == 0
    )
    trained = {
        json.loads(file.read_text())["job"].split(" · ")[1]
        for file in (tmp_path / "out" / "search").rglob("run.json")
    }
    assert trained == {"training the original", "FineTune"}
    for change, message in (
        ({"objective": None}, "name metrics in search.objective"),
        ({"oracle": "given"}, "search.oracle is 'given'"),
    ):
        with pytest.raises(InputError, match=message):
            main(
                [
                    "-c",
                    str(
                        written(tmp_path, methods={"FineTune": method}, search={**search, **change})
                    ),
                    "--search",
                ]
            )


# ---- a search without an oracle ------------------------------------------------------------------


def test_a_search_without_an_oracle_goes_by_metrics(tmp_path: Path, weights: Path) -> None:
    """Fails when it asks for an original or an oracle, or when a range of the backbone's argument
    drops its other arguments.
    """
    ranges = {"backbone.channels_last": {"choices": [True]}, "alpha": {"low": 1.0, "high": 9.0}}
    study = given(
        tmp_path,
        weights,
        methods={"SSD": {**STUDY["methods"]["SSD"], "search": ranges}},
        search={
            "trials": 2,
            "seeds": [50],
            "objective": "seconds",
            "evaluated": ["forget", "retain", "validation"],
        },
    )
    assert main(["-c", str(study), "--search"]) == 0
    best = yaml.safe_load((tmp_path / "out" / "search" / "found.yaml").read_text())["tasks"][
        "random"
    ]["methods"]["SSD"]
    assert (
        best["searched"]["objective"] == ["seconds"]
        and best["searched"]["value"] < 0
        and "gap" not in best["searched"]
    )
    assert best["model"]["init_args"]["backbone"] == {"init_args": {"channels_last": True}}
    trial = RunResults.load(next((tmp_path / "out" / "search").rglob("results.json")).parent)
    assert trial.facts["method_arguments"]["backbone"]["init_args"]["options"] == {"width": 4}
    assert {path.name for path in (tmp_path / "out" / "search" / "random").iterdir()} == {"SSD"}
    for change, words in (
        ({"objective": None}, "name metrics"),
        ({"objective": "seconds", "evaluated": ["test"]}, "test part"),
    ):
        with pytest.raises(InputError, match=words):
            main(
                [
                    "-c",
                    str(
                        given(
                            tmp_path,
                            weights,
                            methods={"SSD": {**STUDY["methods"]["SSD"], "search": ranges}},
                            search={"trials": 1, "seeds": [50], **change},
                        )
                    ),
                    "--search",
                ]
            )


def test_an_objective_takes_each_metric_in_its_own_direction() -> None:
    """By hand: UA 80 and IRA 60 are better when higher, ASR 30 when lower: (−80 − 60 + 30) / 3."""
    results = RunResults(
        "t",
        "m",
        [
            Measurement(
                "callbacks.ConceptErasure",
                results=[
                    Result("UA", 80.0, True, "", "%"),
                    Result("IRA", 60.0, True, "", "%"),
                    Result("ASR", 30.0, False, "", "%"),
                    Result("FID", 12.0, False),
                    Result("RA", 99.0, None, "", "%"),
                ],
            )
        ],
    )
    assert loss(results, ("UA", "IRA", "ASR")) == pytest.approx(-110 / 3)
    assert loss(results, ("FID",)) == 12.0
    for objective, words in (
        (("UA", "FID"), "units differ"),
        (("RA",), "close to the oracle"),
        (("CRA",), "names CRA, which no suite"),
    ):
        with pytest.raises(InputError, match=words):
            loss(results, objective)


def test_a_search_keeps_what_the_task_says_of_the_method(tmp_path: Path) -> None:
    """Fails when a task's own settings of a method, which are not searched, are dropped in its
    trials.
    """
    override = {
        "SSD": {
            "model": {"init_args": {"lam": 0.25}},
            "search": {"alpha": {"low": 1.0, "high": 9.0}},
        }
    }
    study = written(
        tmp_path,
        methods={"SSD": STUDY["methods"]["SSD"]},
        search={"trials": 1, "seeds": [50]},
        tasks={"random": {**STUDY["tasks"]["random"], "methods": override}},
    )
    assert main(["-c", str(study), "--search"]) == 0
    trial = RunResults.load(next((tmp_path / "out" / "search" / "random" / "SSD").iterdir()))
    assert trial.facts["method_arguments"]["lam"] == 0.25


class Demanding(Suite):
    """Suite that lacks its detector."""

    def measure(self, outputs: Any, module: Any) -> list[Result]:
        return []

    def check(self) -> None:
        raise InputError("there is no detector; install one.")


def test_what_a_suite_lacks_is_named_before_the_first_fit(tmp_path: Path) -> None:
    """Fails when a study trains for hours before a missing judge is noticed."""
    suites = ["callbacks.Accuracy", f"{__name__}.Demanding"]
    bench = Bench(read_study(written(tmp_path, suites=suites)))
    with pytest.raises(InputError, match="there is no detector"):
        bench.check()
    assert not (tmp_path / "out").exists()
    inside = deepcopy(STUDY["tasks"])
    inside["random"]["suites"] = suites[1:]
    bench = Bench(read_study(written(tmp_path, tasks=inside)))
    with pytest.raises(InputError, match="there is no detector"):
        bench.check()


def test_refused_run_leaves_no_folder(tmp_path: Path) -> None:
    """Fails when half a run folder stays after a refusal."""
    tasks = deepcopy(STUDY["tasks"])
    tasks["random"]["init_args"]["selector"]["init_args"]["fraction"] = 1e-9
    bench = Bench(read_study(written(tmp_path, tasks=tasks)))
    outcomes = [bench.run(job) for job in bench.study.jobs()]
    assert {outcome.state for outcome in outcomes} == {"failed"}
    assert list((tmp_path / "out").rglob("*")) == []

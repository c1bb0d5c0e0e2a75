"""Runs through the command line: what they write, resume, refuse, and measure."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import mu as package
import tasks
from mu.metrics.run_results import RunResults
from mu.utils.weights import weights_hash
from tests.cli.conftest import CONFIGS, FIT, Mu


def weights(run: str | Path) -> dict[str, torch.Tensor]:
    """The state dict of a run's last checkpoint."""
    return torch.load(Path(run) / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_fit_writes_a_run_folder(mu: Mu) -> None:
    answer = mu(
        *FIT,
        "--run",
        "runs/a",
        "--model.optimizer.lr",
        "0.02",
        "--data.batch_size",
        "10",
        "--model.backbone.init_seed",
        "7",
    )
    assert answer.code == 0, answer.err
    assert "run folder: runs/a" in answer.out
    config = yaml.safe_load(Path("runs/a/config.yaml").read_text())
    assert config["model"]["class_path"] == "mu.methods.FineTune"
    assert config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.02
    assert config["model"]["init_args"]["optimizer"]["init_args"]["weight_decay"] == 5e-4
    assert config["model"]["init_args"]["backbone"]["init_args"]["init_seed"] == 7
    assert config["data"]["init_args"]["batch_size"] == 10
    assert config["trainer"]["default_root_dir"] == "runs/a"
    assert [file.name for file in Path("runs/a/checkpoints").iterdir()] == ["last.ckpt"]
    assert Path("runs/a/logs/version_0/metrics.csv").is_file()
    assert Path("runs/a/curves.json").is_file()
    assert package.load("runs/a").served().name == "resnet8_cifar"


def test_the_overrides_reach_the_run(mu: Mu) -> None:
    """Mutation: an override that is parsed and then ignored."""
    assert mu(*FIT, "--run", "runs/a").code == 0
    assert mu(*FIT, "--run", "runs/b", "--model.optimizer.lr", "0.02").code == 0
    assert not equal(weights("runs/a"), weights("runs/b"))


def test_a_class_by_its_bare_name(mu: Mu) -> None:
    answer = mu(
        "fit",
        "-c",
        "task.yaml",
        "-c",
        "silent.yaml",
        "--model",
        "SSD",
        "--model.alpha",
        "2",
        "--run",
        "runs/ssd",
    )
    assert answer.code == 0, answer.err
    assert (
        yaml.safe_load(Path("runs/ssd/config.yaml").read_text())["model"]["init_args"]["alpha"]
        == 2.0
    )


def test_the_default_folder_is_named_after_the_method(mu: Mu) -> None:
    for _ in range(2):
        assert mu(*FIT, "--trainer.max_epochs", "1").code == 0
    names = sorted(folder.name for folder in Path("runs").iterdir())
    assert len(names) == 2 and all(name.startswith("FineTune-") for name in names)
    assert "MU_RUN_FOLDER" not in os.environ


def test_random_weights_are_warned_about(mu: Mu) -> None:
    unlearned = mu(*FIT, "--trainer.max_epochs", "1", "--run", "runs/a")
    assert "FineTune starts from a backbone with new random weights" in unlearned.err
    trained = mu(*FIT, "--model", "Train", "--trainer.max_epochs", "1", "--run", "runs/original")
    assert trained.err == ""
    from_original = mu(
        *FIT,
        "--trainer.max_epochs",
        "1",
        "--run",
        "runs/b",
        "--model.backbone.weights",
        "runs/original",
    )
    assert from_original.code == 0 and from_original.err == ""


def test_another_run_in_the_folder_is_refused(mu: Mu) -> None:
    """Mutation: writing over it."""
    assert mu(*FIT, "--run", "runs/a", "--trainer.max_epochs", "1").code == 0
    before = {file: file.stat().st_mtime_ns for file in Path("runs/a").rglob("*")}
    answer = mu(*FIT, "--run", "runs/a", "--trainer.max_epochs", "1", "--model.seed", "3")
    assert answer.code == 2
    assert answer.sentence == (
        "runs/a holds another run (its model.seed is 0, not 3); give another --run, resume it "
        "with --resume, or begin it anew with --overwrite."
    )
    assert {file: file.stat().st_mtime_ns for file in Path("runs/a").rglob("*")} == before
    for name in ("results.json", "checkpoints/epoch=3.ckpt"):
        folder = Path("runs") / name.replace("/", "-")
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("{}")
        assert (
            "holds another run, which has no config.yaml" in mu(*FIT, "--run", str(folder)).sentence
        )


def test_resumed_equals_uninterrupted(mu: Mu) -> None:
    """By each way of saying it."""
    assert mu(*FIT, "--run", "runs/whole").code == 0
    assert mu(*FIT, "--run", "runs/half", "--trainer.max_epochs", "1").code == 0
    assert not equal(weights("runs/whole"), weights("runs/half"))
    for index, how in enumerate(
        ["--resume", "--ckpt_path last", "--ckpt_path runs/2/checkpoints/last.ckpt"]
    ):
        shutil.copytree("runs/half", f"runs/{index}")
        # a checkpoint says which folder it lies in
        run = () if index == 2 else ("--run", f"runs/{index}")
        answer = mu(*FIT, *run, *how.split())
        assert answer.code == 0, answer.err
        assert equal(weights("runs/whole"), weights(f"runs/{index}"))
    assert {folder.name for folder in Path("runs").iterdir()} == {"whole", "half", "0", "1", "2"}


def test_resume_takes_the_runs_own_configuration(mu: Mu) -> None:
    assert mu(*FIT, "--run", "runs/whole", "--model.seed", "5").code == 0
    assert (
        mu(*FIT, "--run", "runs/half", "--model.seed", "5", "--trainer.max_epochs", "1").code == 0
    )
    answer = mu("fit", "--run", "runs/half", "--resume", "--trainer.max_epochs", "2")
    assert answer.code == 0, answer.err
    assert equal(weights("runs/whole"), weights("runs/half"))
    assert yaml.safe_load(Path("runs/half/config.yaml").read_text())["trainer"]["max_epochs"] == 2


def test_a_fit_that_fails_before_its_first_step_leaves_nothing(mu: Mu, tmp_path: Path) -> None:
    """Mutation: a logger that makes its folder before the data are read."""
    before = set(tmp_path.rglob("*"))
    answer = mu(*FIT, "--data.selector", "ByClass", "--data.selector.classes", "12")
    assert answer.code == 2
    assert set(tmp_path.rglob("*")) == before
    Path("runs/mine").mkdir(parents=True)
    Path("runs/mine/notes.txt").write_text("mine")
    assert (
        mu(
            *FIT,
            "--data.selector",
            "ByClass",
            "--data.selector.classes",
            "12",
            "--run",
            "runs/mine",
        ).code
        == 2
    )
    assert [file.name for file in Path("runs/mine").iterdir()] == ["notes.txt"]


def test_what_is_taken_back_is_only_what_a_fit_writes(tmp_path: Path) -> None:
    """In a folder that others use too, what they wrote in the meantime stays."""
    from mu.cli.run_folder import Guard

    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "version_0").write_text("of an earlier fit")
    guard = Guard(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text("")
    (tmp_path / "others.txt").write_text("")
    guard.undo()
    assert {entry.name for entry in tmp_path.iterdir()} == {"logs", "others.txt"}
    assert (tmp_path / "logs" / "version_0").is_file()


def test_test_takes_configuration_and_checkpoint_of_the_run(mu: Mu) -> None:
    """Mutation: testing the weights that the run began with."""
    assert mu(*FIT, "--model", "Train", "--run", "runs/a", "--model.optimizer.lr", "0.05").code == 0
    answer = mu("test", "--run", "runs/a", "-c", str(CONFIGS / "suite" / "accuracy.yaml"))
    assert answer.code == 0, answer.err
    for word in ("UA", "RA", "TA", "run folder: runs/a"):
        assert word in answer.out
    record = RunResults.load("runs/a")
    assert (record.method, record.task) == ("Train", "Digits")
    assert record.hashes["weights"] == weights_hash(package.load("runs/a").served())
    assert Path("runs/a/split.json").is_file() and Path("runs/a/outputs.safetensors").is_file()
    by_file = mu(
        "test",
        "--ckpt_path",
        "runs/a/checkpoints/last.ckpt",
        "-c",
        str(CONFIGS / "suite" / "accuracy.yaml"),
    )
    assert by_file.code == 0
    assert RunResults.load("runs/a").results[:3] == record.results[:3]


WARY = """
from mu.methods import FineTune

class Wary(FineTune):
    needs_reference = True
    def on_test_start(self):
        assert self.reference is None, "a copy of new weights is no reference"
        super().on_test_start()
"""


@pytest.mark.parametrize("method", ["FineTune", "BadTeacher", "wary.Wary"])
def test_the_original_may_be_gone_when_a_run_is_measured(
    mu: Mu, method: str, tmp_path: Path
) -> None:
    """By test, validate and predict; with a method that needs the original as its reference too.
    Mutations: `weights` left in the configuration; the hash or the recipe of what the backbone was
    built with in the place of the checkpoint's.
    """
    (tmp_path / "wary.py").write_text(WARY)
    assert (
        mu(*FIT, "--model", "Train", "--trainer.max_epochs", "1", "--run", "runs/original").code
        == 0
    )
    words = (
        *FIT,
        "--model",
        method,
        "--trainer.max_epochs",
        "1",
        "--model.backbone.weights",
        "runs/original",
    )
    assert mu(*words, "--run", "runs/a").code == 0
    suite = ("-c", str(CONFIGS / "suite" / "accuracy.yaml"))
    scores = {}
    for name in ("there", "gone"):
        answer = mu("test", "--run", "runs/a", *suite)
        assert answer.code == 0, answer.err
        scores[name] = RunResults.load("runs/a")
        shutil.rmtree("runs/original", ignore_errors=True)
    fitted = torch.load("runs/a/checkpoints/last.ckpt", weights_only=True)["mu"]
    for run_scores in scores.values():
        assert run_scores.hashes["original"] == fitted["original_hash"]
        assert run_scores.hashes["recipe"] == fitted["recipe"] != ""
    assert (
        scores["there"].hashes == scores["gone"].hashes
        and scores["there"].results[:3] == scores["gone"].results[:3]
    )
    for command in ("validate", "predict"):
        answer = mu(command, "--run", "runs/a")
        assert answer.code == 0, answer.err
    by_file = mu("test", *words[1:], "--ckpt_path", "runs/a/checkpoints/last.ckpt", *suite)
    assert by_file.code == 0, by_file.err
    assert "there are no weights at runs/original" in mu(*words, "--run", "runs/b").sentence
    assert "there are no weights at runs/original" in mu("test", *words[1:], *suite).sentence


def test_a_recipe_is_the_one_of_the_fit(mu: Mu) -> None:
    """Mutation: the recipe computed from the arguments of the test, whose trainer may be
    another.
    """
    assert mu(*FIT, "--model", "Train", "--run", "runs/a").code == 0
    answer = mu(
        "test",
        "--run",
        "runs/a",
        "-c",
        str(CONFIGS / "suite" / "accuracy.yaml"),
        "--trainer.max_epochs",
        "7",
    )
    assert answer.code == 0, answer.err
    hashes = RunResults.load("runs/a").hashes
    assert (
        hashes["recipe"]
        == torch.load("runs/a/checkpoints/last.ckpt", weights_only=True)["mu"]["recipe"]
    )


def test_a_test_without_suites_says_so(mu: Mu) -> None:
    assert mu(*FIT, "--run", "runs/a", "--trainer.max_epochs", "1").code == 0
    answer = mu("test", "--run", "runs/a")
    assert answer.code == 0
    assert "no suite measured anything" in answer.err


def test_suites_of_the_fit_are_not_doubled(mu: Mu) -> None:
    suite = str(CONFIGS / "suite" / "accuracy.yaml")
    assert mu(*FIT, "-c", suite, "--run", "runs/a", "--trainer.max_epochs", "1").code == 0
    answer = mu("test", "-c", suite, "--run", "runs/a")
    assert answer.code == 0, answer.err
    metrics = [result.metric for result in RunResults.load("runs/a").results]
    assert len(metrics) == len(set(metrics)) and "UA" in metrics


def test_the_gap_to_an_oracle(mu: Mu) -> None:
    """Original, oracle, unlearned, measured: the way of a study, by hand."""
    suite, gap = (str(CONFIGS / "suite" / name) for name in ("accuracy.yaml", "retrain_gap.yaml"))
    assert mu(*FIT, "--model", "Train", "--run", "runs/original").code == 0
    assert mu(*FIT, "--model", "Retrain", "--run", "runs/oracle").code == 0
    assert mu("test", "-c", suite, "--run", "runs/oracle").code == 0
    assert mu(*FIT, "--model.backbone.weights", "runs/original", "--run", "runs/a").code == 0
    words = (
        "test",
        "-c",
        suite,
        "-c",
        gap,
        "--run",
        "runs/a",
        '--trainer.callbacks.metrics=["UA","RA","TA"]',
    )
    answer = mu(*words)
    assert answer.code == 0, answer.err
    metrics = {result.metric for result in RunResults.load("runs/a").results}
    assert {"gap/UA", "gap/RA", "gap/TA", "avg_gap"} <= metrics
    assert "runs/nowhere" in mu(*words, "--trainer.callbacks.oracle", "runs/nowhere").sentence


def test_validate_prints_scores_and_writes_nothing(mu: Mu, tmp_path: Path) -> None:
    assert mu(*FIT, "--run", "runs/a", "--trainer.max_epochs", "1").code == 0
    before = set(tmp_path.rglob("*"))
    answer = mu("validate", "--run", "runs/a")
    assert answer.code == 0, answer.err
    assert "forget/accuracy" in answer.out
    assert set(tmp_path.rglob("*")) == before
    for words, sentence in (
        (
            ("--data.curves", "[]"),
            "the task names no part to score (curves: []); add --data.curves",
        ),
        (
            ("--trainer.limit_val_batches", "0"),
            "limit_val_batches is 0; add --trainer.limit_val_batches 1.0, or measure with suites",
        ),
    ):
        answer = mu("validate", "--run", "runs/a", *words)
        assert answer.code == 0, answer.err
        assert f"no scores, because {sentence}" in answer.out


def test_validate_scores_a_run_whose_fit_made_no_validation(mu: Mu) -> None:
    """Fails when the setting that makes a fit fast leaves `mu validate` without a number."""
    words = ("--trainer.max_epochs", "1", "--trainer.limit_val_batches", "0")
    assert mu(*FIT, "--run", "runs/a", *words).code == 0
    answer = mu("validate", "--run", "runs/a")
    assert answer.code == 0, answer.err
    assert "forget/accuracy" in answer.out


def test_predict_writes_every_sample_once(mu: Mu) -> None:
    assert mu(*FIT, "--run", "runs/a", "--trainer.max_epochs", "1").code == 0
    answer = mu("predict", "--run", "runs/a", "--data.eval_batch_size", "7")
    assert answer.code == 0, answer.err
    assert "predictions: runs/a/predictions.safetensors" in answer.out
    predictions = load_file("runs/a/predictions.safetensors")
    assert predictions["forget/index"].shape == (24,) and predictions["retain/index"].shape == (37,)
    assert predictions["retain/prediction"].shape == (37, 10)
    assert all(
        bool((predictions[f"{split}/index"].diff() > 0).all())
        for split in ("forget", "retain", "test")
    )
    module = package.load("runs/a")
    task = tasks.Digits(tasks.RandomFraction(0.4), train_size=61, validation_size=11)
    task.setup()
    batch = next(iter(task.eval_loaders(["retain"])[0]))
    with torch.no_grad():
        torch.testing.assert_close(
            module.served().predict(batch), predictions["retain/prediction"], rtol=1e-4, atol=1e-5
        )


def test_export_of_a_run(mu: Mu) -> None:
    assert mu(*FIT, "--run", "runs/a", "--trainer.max_epochs", "1").code == 0
    assert mu("test", "--run", "runs/a", "-c", str(CONFIGS / "suite" / "accuracy.yaml")).code == 0
    answer = mu("export", "runs/a", "exported")
    assert (answer.code, answer.out.strip()) == (0, "exported")
    tensors = load_file("exported/model.safetensors")
    trained = weights("runs/a")
    assert all(
        torch.equal(value, trained[f"backbone.network.body.{name}"])
        for name, value in tensors.items()
    )
    assert "| UA | forget |" in Path("exported/README.md").read_text()


def test_regression_through_the_command_line(mu: Mu) -> None:
    task = str(CONFIGS / "task" / "diabetes_range.yaml")
    words = ("-c", task, "-c", "silent.yaml", "--trainer.max_epochs", "2")
    answer = mu(
        "fit",
        *words,
        "--run",
        "runs/original",
        "--model",
        "Train",
        "--model.optimizer",
        "torch.optim.Adam",
        "--model.optimizer.lr",
        "0.01",
        "--model.scheduler",
        "OneCycle",
    )
    assert answer.code == 0, answer.err
    answer = mu("test", "-c", str(CONFIGS / "suite" / "regression.yaml"), "--run", "runs/original")
    assert answer.code == 0, answer.err
    assert "MAE/forget" in answer.out
    wrong = mu(
        "test", "-c", str(CONFIGS / "suite" / "classification.yaml"), "--run", "runs/original"
    )
    assert wrong.code == 2
    assert "Choose a suite for this domain" in wrong.sentence


def test_lightning_says_nothing_beside_the_matter(mu: Mu) -> None:
    answer = mu(
        "fit",
        "-c",
        "task.yaml",
        "--model",
        "Train",
        "--trainer.accelerator",
        "cpu",
        "--trainer.max_epochs",
        "1",
    )
    assert answer.code == 0
    for word in (
        "Tip",
        "litlogger",
        "GPU available",
        "workers",
        "Seed set",
        "sys.argv",
        "tensorboard",
    ):
        assert word not in answer.out + answer.err
    assert "Train: Classifier, " in answer.err


@pytest.mark.slow
def test_two_processes(mu: Mu, tmp_path: Path) -> None:
    """The second process starts the same command anew: it must choose the same folder, and say
    nothing.
    """
    from tests.cli.test_main import process

    words = [*FIT, "-c", str(CONFIGS / "trainer" / "ddp_cpu.yaml"), "--trainer.max_epochs", "1"]
    answer = process(*words, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert len(list(Path("runs").iterdir())) == 1
    assert answer.stdout.count("run folder: ") == 1
    failed = process(*words, "--model.optimizer.lr", "1e30", "--run", "runs/nan", cwd=tmp_path)
    assert failed.returncode == 1
    assert failed.stderr.count("became") == 1, failed.stderr
    refused = process(*words, "--model", "SalunX", cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.count("there is no method") == 1


def test_results_of_earlier_weights_are_left_out(mu: Mu) -> None:
    """Fails when a report or a card shows numbers of weights that were trained further since."""
    suite = ("-c", str(CONFIGS / "suite" / "accuracy.yaml"))
    assert mu(*FIT, "--run", "runs/a", "--trainer.max_epochs", "1").code == 0
    assert mu("test", "--run", "runs/a", *suite).code == 0
    assert mu("report", "runs/a").code == 0
    assert mu("export", "runs/a", "measured").code == 0
    assert "| UA" in Path("measured/README.md").read_text()
    # 1. trained further
    assert mu("fit", "--run", "runs/a", "--resume", "--trainer.max_epochs", "2").code == 0
    answer = mu("report", "runs/a")
    assert answer.code == 2
    assert (
        "its weights have changed since the test; measure it again with mu test --run runs/a"
        in (answer.sentence)
    )
    exported = mu("export", "runs/a", "changed")
    assert exported.code == 0 and "its weights have changed" in exported.err
    assert "| UA" not in Path("changed/README.md").read_text()
    # 2. measured again
    assert mu("test", "--run", "runs/a", *suite).code == 0
    assert mu("report", "runs/a").code == 0


def test_changed_cut_or_missing_split_is_named(mu: Mu) -> None:
    """Fails when a split.json that fits nothing is taken in silence."""
    suite = ("-c", str(CONFIGS / "suite" / "accuracy.yaml"))
    assert mu(*FIT, "--run", "runs/a", "--trainer.max_epochs", "1", *suite).code == 0
    assert mu("test", "--run", "runs/a").code == 0
    file = Path("runs/a/split.json")
    text = file.read_text()
    resume = ("fit", "--run", "runs/a", "--resume", "--trainer.max_epochs", "2")
    changed = text.replace('"seed": 0', '"seed": 1')
    for content, words in ((changed, "was changed after"), (text[:90], "cut off"), ("{}", "no")):
        file.write_text(content)
        for command in (("report", "runs/a"), ("test", "--run", "runs/a"), resume):
            answer = mu(*command)
            assert answer.code == 2, command
            assert "split.json" in answer.sentence and words in answer.sentence, answer.sentence
    file.unlink()
    assert mu("report", "runs/a").code == 0
    assert "a has no split.json" in Path("runs/a/report.html").read_text()
    assert "split.json is missing" in mu(*resume).sentence
    answer = mu("test", "--run", "runs/a")
    assert answer.code == 0 and "split.json is missing" in answer.err and file.is_file()

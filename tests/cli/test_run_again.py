"""The same run again: finished, cut off, begun anew, resumed with what may differ."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import mu as package
from mu.utils.weights import weights_hash
from tests.cli.conftest import CONFIGS, FIT, Mu

SUITE = ("-c", str(CONFIGS / "suite" / "accuracy.yaml"))
ONE = (*FIT, "--trainer.max_epochs", "1")


def files(run: str | Path) -> dict[Path, bytes]:
    """Contents of all files of a folder."""
    return {file: file.read_bytes() for file in Path(run).rglob("*") if file.is_file()}


@pytest.fixture
def run(mu: Mu) -> str:
    """Run of one epoch."""
    answer = mu(*ONE, "--run", "runs/a")
    assert answer.code == 0, answer.err
    return "runs/a"


def test_a_finished_run_says_so_and_trains_nothing(mu: Mu, run: str) -> None:
    before = files(run)
    answer = mu(*ONE, "--run", run)
    assert answer.code == 0, answer.err
    assert "runs/a is finished (1 epoch, 2 steps), so nothing is trained" in answer.out
    assert "--overwrite" in answer.out and files(run) == before
    resumed = mu("fit", "--run", run, "--resume")
    assert resumed.code == 0, resumed.err
    assert "a larger --trainer.max_epochs trains it further" in resumed.out
    assert files(run) == before


def test_a_run_that_was_cut_off_is_continued_with_resume(mu: Mu, run: str) -> None:
    Path(run, "fit.json").unlink()  # a killed process writes none
    before = files(run)
    answer = mu(*ONE, "--run", run)
    assert answer.code == 2
    assert answer.sentence == (
        "runs/a was cut off before its end; continue it with mu fit --run runs/a --resume, or "
        "begin it anew with --overwrite."
    )
    assert files(run) == before
    Path(run, "checkpoints/last.ckpt").unlink()  # nothing that could be lost
    assert mu(*ONE, "--run", run).code == 0


def test_overwrite_begins_a_run_anew(mu: Mu, run: str) -> None:
    assert mu("test", "--run", run, *SUITE).code == 0
    Path(run, "notes.txt").write_text("mine")
    answer = mu(*ONE, "--run", run, "--overwrite", "--model.seed", "3")
    assert answer.code == 0, answer.err
    names = {entry.name for entry in Path(run).iterdir()}
    assert "notes.txt" in names and not {"results.json", ".overwritten"} & names
    config = yaml.safe_load(Path(run, "config.yaml").read_text())
    assert config["model"]["init_args"]["seed"] == 3
    for words in (("fit", "--run", run, "--overwrite", "--resume"), ("test", "--overwrite")):
        assert "--overwrite" in mu(*words).sentence


def test_overwrite_by_a_fit_that_fails_at_once_leaves_the_run(mu: Mu, run: str) -> None:
    before = files(run)
    words = ("--data.selector", "ByClass", "--data.selector.classes", "12")
    assert mu(*ONE, "--run", run, "--overwrite", *words).code == 2
    assert files(run) == before


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--data.selector.fraction", "0.5", "data.selector.fraction 0.4, not 0.5"),
        ("--data.split_seed", "4", "data.split_seed 0, not 4"),
        ("--data.batch_size", "10", "data.batch_size 20, not 10"),
        ("--model.seed", "3", "model.seed 0, not 3"),
        ("--model.optimizer.lr", "0.5", "model.optimizer.lr 0.01, not 0.5"),
        ("--trainer.gradient_clip_val", "1.0", "trainer.gradient_clip_val None, not 1.0"),
        ("--seed_everything", "7", "seed_everything 0, not 7"),
    ],
)
def test_resume_refuses_what_would_change_the_past(
    mu: Mu, run: str, option: str, value: str, words: str
) -> None:
    before = files(run)
    answer = mu("fit", "--run", run, "--resume", "--trainer.max_epochs", "2", option, value)
    assert answer.code == 2
    assert answer.sentence.startswith(f"runs/a was trained with {words}, and a resumed run keeps")
    assert files(run) == before


def test_resume_takes_what_cannot_change_the_past(mu: Mu, run: str) -> None:
    words = ("--data.workers", "1", "--data.eval_batch_size", "7", "--trainer.log_every_n_steps")
    answer = mu("fit", "--run", run, "--resume", "--trainer.max_epochs", "2", *words, "3")
    assert answer.code == 0, answer.err
    config = yaml.safe_load(Path(run, "config.yaml").read_text())
    assert config["trainer"]["max_epochs"] == 2 and config["data"]["init_args"]["workers"] == 1


def test_a_resumed_run_keeps_the_paths_of_its_configuration(
    mu: Mu, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when a resume from elsewhere records the paths of there."""
    head = Path(run, "config.yaml").read_text().splitlines()[1:3]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    answer = mu("fit", "--run", str(tmp_path / run), "--resume", "--trainer.max_epochs", "2")
    assert answer.code == 0, answer.err
    assert (tmp_path / run / "config.yaml").read_text().splitlines()[1:3] == head
    assert mu("test", "--run", str(tmp_path / run), *SUITE).code == 0


def test_a_test_adds_and_replaces_only_the_same(mu: Mu, run: str) -> None:
    for suite in ("accuracy", "quantisation", "accuracy"):
        answer = mu("test", "--run", run, "-c", str(CONFIGS / "suite" / f"{suite}.yaml"))
        assert answer.code == 0, answer.err
    assert mu("test", "--run", run).code == 0
    record = package.metrics.RunResults.load(run)
    suites = [entry.suite for entry in record.measurements]
    assert suites == ["callbacks.Accuracy", "callbacks.Cost", "callbacks.Quantisation"]
    assert {"UA", "RA", "TA"} < {result.metric for result in record.results}
    assert (record.facts["epochs"], record.facts["steps"]) == (1, 2)
    assert record.hashes["weights"] == weights_hash(package.load(run).served())


def test_numbers_of_another_checkpoint_are_not_those_of_the_run(mu: Mu) -> None:
    saving = (
        "--trainer.callbacks+=ModelCheckpoint",
        "--trainer.callbacks.save_top_k=-1",
        "--trainer.callbacks.dirpath=runs/a/checkpoints",
        "--trainer.callbacks.filename={epoch}",
    )
    assert mu(*FIT, "--run", "runs/a", *saving).code == 0
    assert mu("test", "--run", "runs/a", *SUITE).code == 0
    last = package.metrics.RunResults.load("runs/a")
    middle = "runs/a/checkpoints/epoch=0.ckpt"
    assert mu("test", "--run", "runs/a", "--ckpt_path", middle, *SUITE).code == 0
    assert package.metrics.RunResults.load("runs/a") == last
    report = mu("report", "runs/a")
    assert report.code == 0, report.err
    assert "a also has UA, RA, TA" in Path("runs/a/report.html").read_text().replace("\n", " ")
    assert mu("export", middle, "middle").code == 0
    assert mu("export", "runs/a", "last").code == 0
    cards = [Path(name, "README.md").read_text() for name in ("middle", "last")]
    numbers_of_cards = [re.findall(r"\| RA \| retain \| ([\d.]+)", card) for card in cards]
    assert all(numbers_of_cards) and len(package.metrics.RunResults.load_all("runs/a")) == 2


def test_files_of_two_runs_in_one_folder_are_found(mu: Mu, run: str) -> None:
    """In every command, whichever file was swapped, changed or cut off."""
    other = ("--run", "runs/b", "--model.optimizer.lr", "0.02", "--data.split_seed", "1")
    assert mu(*ONE, *other).code == 0
    for name in ("a", "b"):
        assert mu("test", "--run", f"runs/{name}", *SUITE).code == 0
    commands = (
        ("test", "--run", "runs/c", *SUITE),
        ("validate", "--run", "runs/c"),
        ("predict", "--run", "runs/c"),
        ("fit", "--run", "runs/c", "--resume", "--trainer.max_epochs", "2"),
        ("export", "runs/c", "out"),
        ("report", "runs/c"),
        (*ONE, "--run", "runs/d", "--model.backbone.weights", "runs/c"),
    )
    for name in ("config.yaml", "split.json", "checkpoints/last.ckpt"):
        shutil.copytree("runs/a", "runs/c")
        shutil.copyfile(Path("runs/b", name), Path("runs/c", name))
        for words in commands:
            answer = mu(*words)
            assert answer.code == 2, (name, words, answer.out)
            assert not Path("out").exists() and not Path("runs/d").exists()
        shutil.rmtree("runs/c")
    for name in ("config.yaml", "split.json", "results.json"):
        shutil.copytree("runs/a", "runs/c")
        text = Path("runs/c", name).read_text()
        Path("runs/c", name).write_text(text.replace("0", "1"))
        for words in commands[:6]:
            if name == "results.json" and words[0] in ("validate", "predict", "fit"):
                continue  # it is neither read nor written
            answer = mu(*words)
            assert answer.code == 2 and name in answer.sentence, (name, words, answer.sentence)
        shutil.rmtree("runs/c")


def test_fit_writes_the_split_before_the_first_step(mu: Mu) -> None:
    from mu.data.split import Split

    answer = mu(*ONE, "--run", "runs/a", "--model.optimizer.lr", "1e30")
    assert answer.code == 1 or answer.code == 0
    checkpoint = Path("runs/a/checkpoints/last.ckpt")
    split = Split.load("runs/a/split.json")
    if checkpoint.exists():
        assert torch.load(checkpoint, weights_only=True)["mu"]["split"] == split.hash


def test_what_a_killed_process_left_is_removed_by_a_resume(mu: Mu, run: str) -> None:
    for name in (".results.json.999999999.tmp", "checkpoints/.last.ckpt.999999999.tmp"):
        Path(run, name).write_text("")
    assert mu("fit", "--run", run, "--resume", "--trainer.max_epochs", "2").code == 0
    assert not list(Path(run).rglob("*.tmp"))


def test_trial_fits(mu: Mu) -> None:
    """fast_dev_run writes nothing; overfit_batches is a run as any other."""
    answer = mu(*FIT, "--run", "runs/a", "--trainer.fast_dev_run", "true")
    assert answer.code == 0, answer.err
    assert not Path("runs/a").exists() and "trial run" in answer.out
    answer = mu(*FIT, "--run", "runs/b", "--trainer.overfit_batches", "2")
    assert answer.code == 0, answer.err
    assert mu("test", "--run", "runs/b", *SUITE).code == 0
    facts = package.metrics.RunResults.load("runs/b").facts
    assert (facts["epochs"], facts["steps"]) == (2, 4)
    assert json.loads(Path("runs/b/fit.json").read_text())["steps"] == 4


def test_a_changed_byte_of_a_checkpoint_is_found(mu: Mu, run: str) -> None:
    """Torch loads such a file without a word."""
    file = Path(run, "checkpoints/last.ckpt")
    state = torch.load(file, weights_only=True)["state_dict"]
    content = bytearray(file.read_bytes())
    tensor = max(state.values(), key=torch.Tensor.numel)
    content[bytes(content).find(tensor.numpy().tobytes()) + 3] ^= 1
    file.write_bytes(content)
    for words in (
        ("test", "--run", run, *SUITE),
        ("fit", "--run", run, "--resume", "--trainer.max_epochs", "2"),
        ("export", run, "out"),
        (*ONE, "--run", "runs/d", "--model.backbone.weights", run),
    ):
        answer = mu(*words)
        assert answer.code == 2 and "last.ckpt was changed after" in answer.sentence, words


def test_resume_without_the_original_where_the_checkpoint_holds_what_is_needed(mu: Mu) -> None:
    """A method that compares with the original while it trains says so."""
    assert mu(*ONE, "--model", "Train", "--run", "runs/original").code == 0
    for name, method in (("a", "FineTune"), ("b", "BadTeacher")):
        words = ("--model", method, "--model.backbone.weights", "runs/original")
        assert mu(*ONE, *words, "--run", f"runs/{name}").code == 0
    shutil.copytree("runs/a", "runs/whole")
    words = ("--resume", "--trainer.max_epochs", "2")
    assert mu("fit", "--run", "runs/whole", *words).code == 0
    shutil.rmtree("runs/original")
    answer = mu("fit", "--run", "runs/a", *words)
    assert answer.code == 0, answer.err
    states = [
        torch.load(f"runs/{n}/checkpoints/last.ckpt", weights_only=True) for n in ("a", "whole")
    ]
    assert weights_hash(states[0]["state_dict"]) == weights_hash(states[1]["state_dict"])
    assert states[0]["mu"]["original_hash"] == states[1]["mu"]["original_hash"]
    answer = mu("fit", "--run", "runs/b", *words)
    assert answer.code == 2 and "runs/original holds its weights no more" in answer.sentence

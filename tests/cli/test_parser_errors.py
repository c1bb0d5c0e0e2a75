"""Bad input gets one plain sentence, exit code 2, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import FIT, Mu

CASES = {
    "--model SalunX": ("no method 'SalunX'", "SalUn"),
    "--model mu.methods.Salun": ("no method 'mu.methods.Salun'", "SalUn"),
    "--model tasks.Digits": ("tasks.Digits is no method", "mu list methods lists them"),
    "--model nowhere.Mine": (
        "there is no module 'nowhere' for 'nowhere.Mine'",
        "a file nowhere.py is looked for in the working directory",
    ),
    "--data Digitz": ("no task 'Digitz'", "Digits"),
    "--data.selector ByClas": ("no selector 'ByClas'", "ByClass"),
    "--model.backbone Clasifier": ("no backbone 'Clasifier'", "Classifier"),
    "--model.backbone mu.backbones.Backbone": (
        "mu.backbones.Backbone is a base of others and cannot be used itself",
        "choose Classifier",
    ),
    "--model.optimizer Adm": ("no optimizer 'Adm'", "Adam"),
    "--model.optimizer torch.optim.Adm": ("no optimizer 'torch.optim.Adm'", "Adam"),
    "--model.optimizer mu.methods.SalUn": (
        "mu.methods.SalUn is no optimizer",
        "model.optimizer takes an Optimizer",
    ),
    "--model.scheduler Cosin": ("no scheduler 'Cosin'", "Cosine"),
    "--trainer.callbacks+=EarlyStoping": ("no callback 'EarlyStoping'", "EarlyStopping"),
    "--trainer.callbacks+=EarlyStopping": (
        "EarlyStopping needs monitor",
        "--trainer.callbacks.monitor",
    ),
    "--model.mask ByName": ("ByName needs words", "--model.mask.words"),
    "--model.mask.keep 0.3": (
        "model.mask has no class yet that takes 'keep'",
        "name it first, for example --model.mask Saliency",
    ),
    "--model.sead 1": ("FineTune takes no 'sead'", "seed"),
    "--model.optimizer.lrr 1": ("SGD takes no 'lrr'", "lr"),
    "--model.backbone.num_clases 3": ("Classifier takes no 'num_clases'", "num_classes"),
    "--data.batch_sze 4": ("Digits takes no 'batch_sze'", "batch_size"),
    "--trainer.max_epoch 2": ("mu fit has no option '--trainer.max_epoch'", "--trainer.max_epochs"),
    "--trainr.max_epochs 2": ("mu fit has no option '--trainr.max_epochs'", "--trainer.max_epochs"),
    "--nothing_like_it 2": ("mu fit has no option '--nothing_like_it'", "mu fit --help lists them"),
    "more.yaml": ("mu fit does not take 'more.yaml'", "give a file with -c more.yaml"),
    "--model.optimizer.lr abc": ("model.optimizer.lr is 'abc'", "a number"),
    "--data.batch_size abc": ("data.batch_size is 'abc'", "a whole number"),
    "--data.batch_size 2.5": ("data.batch_size is '2.5'", "a whole number"),
    "--data.selector.fraction much": ("data.selector.fraction is 'much'", "a number"),
    "--data.curves forget": ("data.curves is 'forget'", "a list of words, or null"),
    "--trainer.max_epochs many": ("trainer.max_epochs is 'many'", "a whole number, or null"),
    "--model.norm frozen": ("model.norm is 'frozen'", "train, eval or recalibrate"),
    "--model.backbone.channels_last maybe": (
        "model.backbone.channels_last is 'maybe'",
        "true or false",
    ),
    "--seed_everything x": ("seed_everything is 'x'", "true or false or a whole number"),
    "--model.backbone Regressor --model Boundary": ("no method 'Boundary'",),
    "--data.batch_size 0": ("batch_size is 0", "it must be at least 1"),
    "--data.selector.fraction 2": (
        "RandomFraction takes a fraction between 0 and 1 (0.1 forgets 10 %), not 2.0",
    ),
    "--data.selector ByClass --data.selector.classes 12": (
        "there is no class 12 in the training set",
        "it has 0, 1, 2",
    ),
    "--model.backbone.name resnet9": (
        "there is no network 'resnet9' in mu, timm, torchvision",
        "did you mean",
    ),
    "--model.backbone.weights nowhere.pt": ("there are no weights at nowhere.pt",),
    "--trainer.accelerator abacus": (
        "You selected an invalid accelerator name: `accelerator='abacus'`",
    ),
    "--ckpt_path nowhere.ckpt": (
        "there is no checkpoint nowhere.ckpt",
        "give a file, or --run RUN for a run's last one",
    ),
    "--ckpt_path task.yaml": ("task.yaml is not a checkpoint that mu fit wrote, or it is cut off",),
    "--ckpt_path last --run runs/none": (
        "runs/none holds no checkpoints/last.ckpt, so the run has not finished an epoch",
        "fit it first",
    ),
    "--run task.yaml": ("task.yaml is a file, not a run folder", "give another --run"),
    "--resume": ("--resume needs", "mu fit --run RUN --resume"),
    "-c nowhere.yaml": ("there is no configuration file nowhere.yaml", "mu list configs"),
    "-c": ("-c needs a value",),
}


@pytest.mark.parametrize("words", CASES)
def test_fit_refuses(mu: Mu, tmp_path: Path, words: str) -> None:
    """Mutation: an error that reaches the user as jsonargparse's own text, with a traceback, or
    after a run folder was made.
    """
    before = set(tmp_path.rglob("*"))
    answer = mu(*FIT, *words.split())
    assert answer.code == 2, answer.err
    assert [part for part in CASES[words] if part not in answer.sentence] == [], answer.sentence
    assert answer.out == ""
    assert set(tmp_path.rglob("*")) == before


BACKBONE = {"class_path": "mu.backbones.Classifier", "init_args": {"name": "resnet8_cifar"}}
SELECTOR = {"class_path": "tasks.RandomFraction", "init_args": {"fraction": 0.4}}
FILES = {
    "modle: {class_path: mu.methods.SalUn}": ("mu fit has no entry 'modle'",),
    "trainer: {max_epocs: 2}": ("mu fit has no entry 'trainer.max_epocs'", "trainer.max_epochs"),
    "model: {class_path: mu.methods.SSD, init_args: {alhpa: 2}}": ("SSD takes no 'alhpa'", "alpha"),
    "model: {init_args: {backbone: {init_args: {num_classes: ten}}}}": (
        "model.backbone.num_classes is 'ten'",
        "a whole number",
    ),
    "data: {init_args: {selector: {init_args: {fractoin: 0.5}}}}": (
        "RandomFraction takes no 'fractoin'",
        "fraction",
    ),
    "data: 3": (
        "more.yaml: data is 3",
        "it should be a class: {class_path: ..., init_args: {...}}",
    ),
    "model: [1]": (
        "more.yaml: model is [1]",
        "it should be a class: {class_path: ..., init_args: {...}}",
    ),
    "trainer: 3": ("more.yaml: trainer is 3", "it should be a mapping of the Trainer's arguments"),
    "model: Salun": ("no method 'Salun'", "SalUn"),
    "a: [1": ("more.yaml is not valid YAML: line",),
}


@pytest.mark.parametrize("text", FILES)
def test_files_are_refused(mu: Mu, tmp_path: Path, text: str) -> None:
    (tmp_path / "more.yaml").write_text(text + "\n")
    before = set(tmp_path.rglob("*"))
    answer = mu(*FIT, "-c", "more.yaml")
    assert answer.code == 2, answer.err
    assert [part for part in FILES[text] if part not in answer.sentence] == [], answer.sentence
    assert set(tmp_path.rglob("*")) == before


OTHERS = {
    "fit": ("mu fit needs a task and a method: mu fit -c configs/task/",),
    "fit -c task.yaml": ("no method is given", "add -c configs/method/NAME.yaml or --model NAME"),
    "fit -c method.yaml": (
        "FineTune needs a backbone, which a task's file names",
        "add -c configs/task/NAME.yaml",
    ),
    "fit -c method.yaml --model.backbone Classifier": (
        "no task is given",
        "add -c configs/task/NAME.yaml or --data NAME",
    ),
    "fit --run nowhere --resume": (
        "there is no run folder nowhere",
        "give the folder that mu fit wrote",
    ),
    "test": ("mu test needs a task and a method",),
    "test --run nowhere": ("there is no run folder nowhere", "give the folder that mu fit wrote"),
    "test --run .": (". is not a run folder of mu fit: it has no config.yaml",),
    "test --run . --resume": (
        "--resume belongs to mu fit",
        "mu test --run RUN takes the run's last checkpoint by itself",
    ),
    "validate --run nowhere": ("there is no run folder nowhere",),
    "predict --run nowhere": ("there is no run folder nowhere",),
    "export nowhere out": ("there is no checkpoint nowhere",),
    "export": ("mu export: the following arguments are required: run, folder", "mu export --help"),
    "bench nowhere.yaml": ("there is no study file nowhere.yaml",),
}


@pytest.mark.parametrize("words", OTHERS)
def test_other_commands_refuse(mu: Mu, tmp_path: Path, words: str) -> None:
    before = set(tmp_path.rglob("*"))
    answer = mu(*words.split())
    assert answer.code == 2, answer.err
    assert [part for part in OTHERS[words] if part not in answer.sentence] == [], answer.sentence
    assert set(tmp_path.rglob("*")) == before


def test_a_method_and_a_backbone_that_do_not_fit(mu: Mu, tmp_path: Path) -> None:
    """Refused when the configuration is parsed, by the type of the constructor's `backbone`."""
    (tmp_path / "narrow.py").write_text(
        "from typing import Any\nfrom mu.backbones import Regressor\nfrom mu.methods import "
        "FineTune\n"
        "class Narrow(FineTune):\n"
        '    """Works on regressors."""\n'
        "    def __init__(self, backbone: Regressor, **kwargs: Any) -> None:\n"
        "        super().__init__(backbone, **kwargs)\n"
    )
    answer = mu(*FIT, "--model", "narrow.Narrow")
    assert answer.code == 2
    assert answer.sentence.startswith(
        "Narrow works on Regressor, not Classifier; choose a task whose backbone is Regressor, or "
        "a method"
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "import nothing_of_that_name",
            "'mine.Mine' cannot be imported: there is no module 'nothing_of_that_name'",
        ),
        ("def f(:", "mine.py cannot be imported: invalid syntax in line 1."),
        ("class Other: pass", "there is no method 'mine.Mine'"),
        ("class Mine: pass", "mine.Mine is no method"),
    ],
)
def test_a_users_broken_file(mu: Mu, tmp_path: Path, text: str, words: str) -> None:
    import sys

    sys.modules.pop("mine", None)
    (tmp_path / "mine.py").write_text(text + "\n")
    answer = mu(*FIT, "--model", "mine.Mine")
    assert answer.code == 2
    assert words in answer.sentence


def test_a_run_that_fails_says_so_with_code_1(mu: Mu, tmp_path: Path) -> None:
    """A learning rate at which everything becomes nan."""
    answer = mu(*FIT, "--model.optimizer.lr", "1e30", "--run", "runs/nan", "--model", "Train")
    assert answer.code == 1
    assert "the loss of Train became nan at step" in answer.sentence
    assert answer.sentence.endswith("run again with --debug for the traceback.")


def test_debug_shows_the_traceback(mu: Mu) -> None:
    answer = mu(*FIT, "--model", "SalunX", "--debug")
    assert answer.code == 2
    assert "Traceback" in answer.err
    assert (
        answer.err.strip().splitlines()[-1]
        == "mu: there is no method 'SalunX'; did you mean SalUn?"
    )


def test_an_error_that_is_not_located_is_the_parsers_own_on_one_line() -> None:
    """A specification in which the walk finds nothing wrong."""
    from mu.cli.options import Options
    from mu.cli.parser_errors import sentence

    config = {
        "model": {"class_path": "mu.methods.FineTune", "init_args": {"backbone": BACKBONE}},
        "data": {"class_path": "tasks.Digits", "init_args": {"selector": SELECTOR}},
    }
    error = ValueError("Something\n  new:\n    - happened.\n")
    assert sentence(error, "fit", Options(), config) == "Something new: - happened."

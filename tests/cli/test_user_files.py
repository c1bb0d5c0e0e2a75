"""A user's own files: found from the working directory, and never taken for ours."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from mu.metrics.run_results import RunResults
from tests.cli.conftest import FIT, METHOD, SILENT, TASK, Mu
from tests.cli.test_main import process

MINE = '''
"""Mine."""

from typing import Any

from torch import Tensor

from mu.backbones import Backbone
from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.data.plan import Paired


class PushAndPull(UnlearningModule):
    """Descend on retain, and a little up on forget.

    Args:
        backbone: the original.
        strength: weight of the ascent.
    """

    plan = Paired()

    def __init__(self, backbone: Backbone, strength: float = 0.01, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)
        self.strength = strength

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert forget is not None and retain is not None
        return {"retain": self.reduce(self.backbone.loss(retain), retain),
                "forget": -self.strength * self.reduce(self.backbone.loss(forget), forget)}
'''


def test_one_file_of_ones_own_among_clashing_names(tmp_path: Path) -> None:
    """In a process of its own, where nothing has been imported: the user's tasks.py must not be
    imported in the place of ours.
    """
    for name, text in {
        "task.yaml": TASK,
        "method.yaml": METHOD,
        "silent.yaml": SILENT,
        "my_method.py": MINE,
        "tasks.py": "raise SystemExit('hijacked')\n",
    }.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "callbacks").mkdir()
    (tmp_path / "callbacks" / "__init__.py").write_text("raise SystemExit('hijacked')\n")
    words = (
        *FIT,
        "--model",
        "my_method.PushAndPull",
        "--model.strength",
        "0.02",
        "--trainer.max_epochs",
        "1",
        "--run",
        "runs/mine",
    )
    answer = process(*words, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert "hijacked" not in answer.stderr
    lines = [line for line in answer.stderr.splitlines() if "is not used" in line]
    assert [line.partition(" in this folder is not used, because ")[::2] for line in lines] == [
        (
            "mu: callbacks/__init__.py",
            "`callbacks` is the name of an installed package; rename it to import from it.",
        ),
        (
            "mu: tasks.py",
            "`tasks` is the name of an installed package; rename it to import from it.",
        ),
    ]
    assert "strength: 0.02" in (tmp_path / "runs" / "mine" / "config.yaml").read_text()


def test_a_study_with_a_method_of_ones_own(mu: Mu, tmp_path: Path) -> None:
    """By its class path, from the folder that it lies in. Mutation: a study that is run where the
    working directory cannot be imported from.
    """
    (tmp_path / "pushing.py").write_text(MINE)
    backbone = {
        "class_path": "mu.backbones.Classifier",
        "init_args": {"name": "resnet8_cifar", "in_channels": 1, "options": {"width": 4}},
    }
    task = {
        "train_size": 60,
        "validation_size": 40,
        "selector": {"class_path": "tasks.RandomFraction", "init_args": {"fraction": 0.2}},
    }
    study = {
        "output": "out",
        "backbone": backbone,
        "recipe": {"trainer": {"max_epochs": 1}},
        "trainer": {"accelerator": "cpu"},
        "tasks": {"random": {"class_path": "tasks.Digits", "init_args": task}},
        "suites": ["callbacks.Accuracy"],
        "methods": {
            "Mine": {
                "model": {"class_path": "pushing.PushAndPull", "init_args": {"strength": 0.02}},
                "trainer": {"max_epochs": 1},
            }
        },
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    answer = mu("bench", "-c", "study.yaml")
    assert answer.code == 0, answer.out + answer.err
    (record,) = (RunResults.load(folder) for folder in Path("out/random/Mine").iterdir())
    assert record.facts["method_class"] == "pushing.PushAndPull"
    assert record.facts["method_arguments"]["strength"] == 0.02
    assert str(tmp_path) not in sys.path
    again = mu("bench", "-c", "study.yaml")
    assert (again.code, "4 reused" in again.out) == (0, True), again.out + again.err


def test_our_own_checkout_is_no_clash(mu: Mu, monkeypatch) -> None:
    from tests.cli.conftest import REPOSITORY

    monkeypatch.chdir(REPOSITORY)
    assert (
        mu("fit", "-c", "configs/task/digits_random.yaml", "--model", "SSD", "--print_config").err
        == ""
    )


def test_the_working_directory_comes_last(tmp_path: Path, monkeypatch) -> None:
    import sys

    from mu.config.plugins import working_directory

    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    with working_directory():
        assert sys.path == [*before, str(tmp_path)]
    assert sys.path == before

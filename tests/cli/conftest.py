"""The command line, called in this process from an empty folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = REPOSITORY / "configs"

TASK = """
data:
  class_path: tasks.Digits
  init_args:
    train_size: 61
    validation_size: 11
    batch_size: 20
    eval_batch_size: 500
    selector: {class_path: tasks.RandomFraction, init_args: {fraction: 0.4}}
model:
  init_args:
    backbone:
      class_path: mu.backbones.Classifier
      init_args:
        name: resnet8_cifar
        in_channels: 1
        num_classes: 10
        mean: [0.3053]
        std: [0.3760]
        init_seed: 0
        options: {width: 4}
"""
METHOD = """
model: {class_path: mu.methods.FineTune}
trainer: {max_epochs: 2}
"""
SILENT = """
trainer:
  accelerator: cpu
  devices: 1
  enable_progress_bar: false
  enable_model_summary: false
  num_sanity_val_steps: 0
"""


@dataclass(frozen=True)
class Answer:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The only line on stderr of a refused command."""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("mu: "), self.err
        assert "Traceback" not in self.err
        return lines[0].removeprefix("mu: ")


Mu = Callable[..., Answer]


@pytest.fixture
def mu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mu:
    """`mu("fit", ...)` in an empty folder that has task.yaml, method.yaml and silent.yaml."""
    from mu.cli.main import main

    monkeypatch.chdir(tmp_path)
    for name, text in {"task": TASK, "method": METHOD, "silent": SILENT}.items():
        (tmp_path / f"{name}.yaml").write_text(text)

    def call(*words: str) -> Answer:
        capsys.readouterr()
        code = main([str(word) for word in words])
        output = capsys.readouterr()
        return Answer(code, output.out, output.err)

    return call


FIT = ("fit", "-c", "task.yaml", "-c", "method.yaml", "-c", "silent.yaml")

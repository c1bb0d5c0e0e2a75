"""Callbacks, loggers, strategies, precisions and flags of Lightning that run on a CPU: a short fit
of a masked method with each.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mu.cli.config_files import read
from tests.cli.conftest import REPOSITORY, Mu

_CALLBACK = "--trainer.callbacks+="
_OPTION = "--trainer.callbacks"


def _callback(name: str, **options: str) -> list[str]:
    words = [f"{_CALLBACK}{name}"]
    return words + [word for key, value in options.items() for word in (f"{_OPTION}.{key}", value)]


def _trainer(**options: str) -> list[str]:
    return [word for key, value in options.items() for word in (f"--trainer.{key}", value)]


PARTS: dict[str, list[str]] = {
    "DeviceStatsMonitor": _callback("DeviceStatsMonitor"),
    "EarlyStopping": _callback("EarlyStopping", monitor="train/loss"),
    "EarlyStopping on a curve": _callback("EarlyStopping", monitor="retain/loss"),
    "GradientAccumulationScheduler": _callback(
        "GradientAccumulationScheduler", scheduling="{0: 2}"
    ),
    "LearningRateMonitor": _callback("LearningRateMonitor"),
    "ModelCheckpoint": _callback("ModelCheckpoint", monitor="train/retain"),
    "ModelCheckpoint by step": _callback("ModelCheckpoint", every_n_train_steps="1"),
    "ModelPruning": _callback("ModelPruning", pruning_fn="l1_unstructured"),
    "ModelSummary": _callback("ModelSummary"),
    "OnExceptionCheckpoint": _callback("OnExceptionCheckpoint", dirpath="exceptions"),
    "RichModelSummary": _callback("RichModelSummary"),
    "RichProgressBar": [*_trainer(enable_progress_bar="true"), *_callback("RichProgressBar")],
    "TQDMProgressBar": [*_trainer(enable_progress_bar="true"), *_callback("TQDMProgressBar")],
    "SpikeDetection": _callback("SpikeDetection"),
    "StochasticWeightAveraging": _callback("StochasticWeightAveraging", swa_lrs="0.01"),
    "ThroughputMonitor": _callback("ThroughputMonitor", batch_size_fn="builtins.len"),
    "Timer": _callback("Timer"),
    "Timer of ten minutes": _callback("Timer", duration="00:00:10:00"),
    "EMAWeightAveraging": _callback("EMAWeightAveraging", use_buffers="false"),
    "WeightAveraging": _callback("WeightAveraging", use_buffers="false"),
    "CSVLogger": ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "logs"],
    "TensorBoardLogger": [
        "--trainer.logger",
        "TensorBoardLogger",
        "--trainer.logger.save_dir",
        "logs",
    ],
    "no logger": _trainer(logger="false"),
    **{
        f"precision {name}": _trainer(precision=name)
        for name in ("64-true", "32-true", "16-true", "bf16-true", "16-mixed", "bf16-mixed")
    },
    **{
        name: [f"--trainer.plugins+={name}"]
        for name in (
            "DoublePrecision",
            "HalfPrecision",
            "TorchCheckpointIO",
            "AsyncCheckpointIO",
            "TorchSyncBatchNorm",
        )
    },
    **{f"profiler {name}": _trainer(profiler=name) for name in ("simple", "advanced", "pytorch")},
    "overfit_batches": _trainer(overfit_batches="2"),
    "barebones": _trainer(barebones="true"),
    "no logging": _trainer(log_every_n_steps="0"),
    "detect_anomaly": _trainer(detect_anomaly="true"),
    "deterministic": _trainer(deterministic="true"),
    "max_time": _trainer(max_time="00:00:01:00"),
    "max_steps": _trainer(max_steps="3"),
    "val_check_interval": _trainer(val_check_interval="1"),
    "check_val_every_n_epoch": _trainer(check_val_every_n_epoch="2"),
    "reload_dataloaders": _trainer(reload_dataloaders_every_n_epochs="1"),
    "no distributed sampler": _trainer(use_distributed_sampler="false"),
    "sync_batchnorm": _trainer(sync_batchnorm="true"),
    "clipped by value": _trainer(gradient_clip_val="0.5", gradient_clip_algorithm="value"),
    "SingleDeviceStrategy": _trainer(strategy="single_device"),
    "ddp": _trainer(strategy="ddp", devices="2"),
    "ddp_spawn": _trainer(strategy="ddp_spawn", devices="2"),
    "ddp_fork": _trainer(strategy="ddp_fork", devices="2"),
}
_FAST = ("Timer", "EarlyStopping", "overfit_batches")
_PROCESSES = ("ddp", "ddp_spawn", "ddp_fork")
_METHOD = "model: {class_path: mu.methods.SalUn}\ntrainer: {max_epochs: 2}\n"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param(name, words, marks=() if name in _FAST else pytest.mark.slow, id=name)
        for name, words in PARTS.items()
    ],
)
def test_a_fit_with_a_part_of_lightning(
    name: str, words: list[str], mu: Mu, tmp_path: Path
) -> None:
    """Fails when a part of Lightning ends a fit, or its configuration cannot be saved."""
    (tmp_path / "method.yaml").write_text(_METHOD)
    command = [
        *("fit", "-c", "task.yaml", "-c", "method.yaml", "-c", "silent.yaml", "--run", "run"),
        *words,
    ]
    if name in _PROCESSES:
        _in_new_process(command, tmp_path)
    else:
        answer = mu(*command)
        assert answer.code == 0, answer.err
        assert "Traceback" not in answer.err
    assert read(tmp_path / "run" / "config.yaml")["model"]["class_path"] == "mu.methods.SalUn"
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file() == (name != "barebones")


def _in_new_process(command: list[str], folder: Path) -> None:
    """Run a command whose strategy starts processes by the command line of its own."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
    }
    finished = subprocess.run(
        [sys.executable, "-m", "mu", *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr


def test_a_trial_run_names_no_checkpoint_to_measure(mu: Mu, tmp_path: Path) -> None:
    """Fails when a run without a checkpoint ends with the command that would measure it."""
    answer = mu(
        *("fit", "-c", "task.yaml", "-c", "method.yaml", "-c", "silent.yaml", "--run", "run"),
        *_trainer(fast_dev_run="true"),
    )
    assert answer.code == 0, answer.err
    assert "mu test --run" not in answer.out
    assert not (tmp_path / "run").exists()

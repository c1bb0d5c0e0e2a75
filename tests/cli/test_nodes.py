"""One run over two machines, played by two groups of one process each on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mu.utils.files import read_json
from tests.support.helpers import distance

ROOT = Path(__file__).parents[2]
RUN = [
    *("fit", "-c", "configs/task/digits_random.yaml", "-c", "configs/method/salun.yaml"),
    *("--model.norm", "eval", "--model.mask", "mu.methods.Saliency"),
    *("--model.mask.keep", "0.5", "--data.train_size", "200"),
    *("--trainer.max_epochs", "1", "--trainer.accelerator", "cpu"),
    *("--trainer.enable_progress_bar", "false"),
]
LAUNCHERS = ("torchrun", "Lightning", "Slurm")

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("nodes")]


def free_port() -> int:
    """Port of loopback on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def torchrun(node: int, port: int) -> tuple[list[str], dict[str, str]]:
    """Command before `mu`, and environment, of a machine under torchrun."""
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"),
        *("--node-rank", str(node), "--nproc-per-node", "1", "--rdzv-backend", "c10d"),
        *("--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", str(port), "-m", "--"),
    ], {}


def lightning(node: int, port: int) -> tuple[list[str], dict[str, str]]:
    """The same where Lightning starts the processes of its machine."""
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": str(node)}
    return [sys.executable, "-m"], variables


def slurm(node: int, port: int) -> tuple[list[str], dict[str, str]]:
    """The same as Slurm's `srun` starts it."""
    variables = {
        "SLURM_JOB_ID": str(port),
        "SLURM_JOB_NAME": "mu",
        "SLURM_NNODES": "2",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_NODELIST": "127.0.0.1",
        "SLURM_PROCID": str(node),
        "SLURM_NODEID": str(node),
        "SLURM_LOCALID": "0",
        "MASTER_PORT": str(port),
    }
    return [sys.executable, "-m"], variables


START: dict[str, Callable[[int, int], tuple[list[str], dict[str, str]]]] = {
    "torchrun": torchrun,
    "Lightning": lightning,
    "Slurm": slurm,
}


def environment(variables: dict[str, str]) -> dict[str, str]:
    """This process's environment without a launcher's variables, and with others."""
    launchers = ("TORCHELASTIC", "SLURM", "MASTER_", "NODE_RANK", "LOCAL_RANK", "RANK", "MU_RUN")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(launchers)}
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**clean, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **variables}


def fit_on_two_nodes(launcher: str, folder: Path) -> list[str]:
    """Output of each machine."""
    port = free_port()
    processes = []
    for node in (0, 1):
        command, variables = START[launcher](node, port)
        words = [
            *(*command, "mu", *RUN, "--trainer.strategy", "ddp"),
            *("--trainer.num_nodes", "2", "--trainer.devices", "1", "--run", str(folder)),
        ]
        processes.append(
            subprocess.Popen(
                words,
                cwd=ROOT,
                env=environment(variables),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-3000:]
    return outputs


def stored(folder: Path) -> dict[str, torch.Tensor]:
    """Weights and mask of a run's checkpoint."""
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return checkpoint["state_dict"]


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The run of one process."""
    folder = tmp_path_factory.mktemp("nodes") / "single"
    subprocess.run(
        [sys.executable, "-m", "mu", *RUN, "--trainer.devices", "1", "--run", str(folder)],
        cwd=ROOT,
        env=environment({}),
        check=True,
        capture_output=True,
    )
    return stored(folder)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_machines_make_the_run_of_one_process(
    launcher: str, single: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """Fails when each machine trains alone, or the second one writes the run folder too."""
    outputs = fit_on_two_nodes(launcher, tmp_path / "run")
    two = stored(tmp_path / "run")
    masks = [name for name in single if name.startswith("mask.")]
    assert masks
    assert all(torch.equal(single[name], two[name]) for name in masks)
    assert distance(single, two) < 1e-4
    assert read_json(tmp_path / "run" / "split.json")
    assert "Traceback" not in "".join(outputs)

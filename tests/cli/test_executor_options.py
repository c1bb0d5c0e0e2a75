"""Options of `mu bench` for where its runs take place."""

from __future__ import annotations

import argparse

import pytest

from mu.bench.executors.base import Executor
from mu.bench.executors.local import Local, available_cores
from mu.bench.executors.ray import Ray
from mu.bench.executors.serial import Serial
from mu.bench.executors.slurm import Slurm
from mu.cli.executor_options import add_options, executor_of
from mu.utils.errors import InputError


def executor(*words: str) -> Executor:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return executor_of(parser.parse_args(words))


def test_a_number_of_workers_means_worker_processes() -> None:
    assert isinstance(executor(), Serial)
    local = executor("--workers", "3")
    assert isinstance(local, Local) and local.workers == 3
    assert executor("--executor", "local").workers == available_cores()


def test_options_reach_their_executor() -> None:
    ray = executor("--executor", "ray", "--address", "auto", "--gpus", "0.5", "--cpus", "2")
    assert isinstance(ray, Ray)
    assert (ray.address, ray.gpus, ray.cpus, ray.workers) == ("auto", 0.5, 2, None)
    words = ["--slurm", "partition=gpu", "--slurm", "time=120", "--gpus", "1"]
    slurm = executor("--executor", "slurm", *words)
    assert isinstance(slurm, Slurm)
    assert (slurm.options, slurm.gpus) == ({"partition": "gpu", "time": 120}, 1)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--address", "auto"], "--address is an option of --executor ray, not of serial"),
        (["--executor", "ray", "--slurm", "mem=1"], "--slurm is an option of --executor slurm"),
        (["--executor", "serial", "--workers", "2"], "--workers is an option of"),
        (["--workers", "0"], "--workers is 0; give 1 at least"),
        (["--executor", "ray", "--cpus", "0"], "--cpus is 0; give 1 at least"),
        (["--executor", "slurm", "--gpus", "-1"], "--gpus is -1"),
        (["--executor", "slurm", "--gpus", "0.5"], "whole number"),
        (["--executor", "slurm", "--slurm", "mem"], "--slurm mem has no value"),
    ],
)
def test_an_option_that_cannot_hold_is_one_sentence(words: list[str], sentence: str) -> None:
    """Fails when a number of workers is taken in silence by an executor that has none."""
    with pytest.raises(InputError, match=sentence):
        executor(*words)

"""Options of `mu bench` for where its runs take place: executor, workers, resources."""

from __future__ import annotations

import argparse
from typing import Any

from mu.bench.executors.base import Executor
from mu.utils.errors import InputError
from mu.utils.text_files import parse_yaml, shortened

EXECUTORS = ("serial", "local", "ray", "slurm")
_USERS = {
    "workers": ("local", "ray", "slurm"),
    "address": ("ray",),
    "cpus": ("ray", "slurm"),
    "gpus": ("ray", "slurm"),
    "slurm": ("slurm",),
}
"""Executors that use an option."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to the parser of `mu bench`."""
    group = parser.add_argument_group("where the runs take place (docs/executors.md)")
    group.add_argument(
        "--executor",
        choices=EXECUTORS,
        help="serial: in this process (default); local: worker processes; ray: a Ray cluster; "
        "slurm: arrays of Slurm jobs",
    )
    group.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="runs at the same time; without --executor the same as --executor local",
    )
    group.add_argument("--address", help="address of a running Ray cluster: auto, HOST:6379")
    group.add_argument("--cpus", type=int, metavar="N", help="CPUs of a run (ray, slurm)")
    group.add_argument("--gpus", type=float, metavar="N", help="GPUs of a run (ray, slurm)")
    group.add_argument(
        "--slurm",
        action="append",
        metavar="KEY=VALUE",
        help="parameter of the Slurm jobs: partition=gpu, time=120, mem=32GB; cluster=local tries "
        "it without Slurm",
    )


def executor_of(arguments: argparse.Namespace) -> Executor:
    """Executor that the options describe.

    Args:
        arguments: the parsed command line.

    Raises:
        InputError: for an option that the executor does not have, or a value out of range.
    """
    name = arguments.executor or ("serial" if arguments.workers is None else "local")
    values = {key: getattr(arguments, key) for key in _USERS}
    for key, users in _USERS.items():
        if values[key] is not None and name not in users:
            raise InputError(
                f"--{key} is an option of --executor {' or '.join(users)}, not of {name}."
            )
    for key in ("workers", "cpus", "gpus"):
        value = values[key]
        if value is not None and value < (0 if key == "gpus" else 1):
            raise InputError(f"--{key} is {value:g}; give {0 if key == 'gpus' else 1} at least.")
    if name == "slurm" and arguments.gpus is not None and arguments.gpus % 1:
        raise InputError(
            f"--gpus is {arguments.gpus:g}, but Slurm gives whole GPUs; give a whole number."
        )
    return _make(name, arguments)


def _make(name: str, arguments: argparse.Namespace) -> Executor:
    if name == "local":
        from mu.bench.executors.local import Local, available_cores

        return Local(arguments.workers or available_cores())
    if name == "ray":
        from mu.bench.executors.ray import Ray

        return Ray(arguments.workers, arguments.address, arguments.cpus, arguments.gpus or 0)
    if name == "slurm":
        from mu.bench.executors.slurm import Slurm

        gpus = int(arguments.gpus or 0)
        options = dict(map(_pair, arguments.slurm or ()))
        return Slurm(arguments.workers, arguments.cpus, gpus, options)
    from mu.bench.executors.serial import Serial

    return Serial()


def _pair(item: str) -> tuple[str, Any]:
    key, equals, value = item.partition("=")
    if not equals or not key:
        raise InputError(f"--slurm {shortened(item)} has no value; write KEY=VALUE.")
    return key, parse_yaml(value, f"--slurm {shortened(item)}")

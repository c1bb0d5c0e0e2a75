"""The two commands that make an oracle, for suites that lack it."""

from __future__ import annotations

RETRAINED = (
    "mu fit -c configs/task/TASK.yaml -c configs/method/retrain.yaml --run {oracle}",
    "mu test -c configs/suite/SUITE.yaml --run {oracle}",
)
"""Commands of an oracle that begins from new weights, by the original's recipe."""
FINE_TUNED = (
    "mu fit -c configs/task/TASK.yaml -c configs/method/finetune.yaml "
    "--model.backbone.model BASE --run {oracle}",
    "mu test -c configs/suite/SUITE.yaml --run {oracle}",
)
"""Commands of an oracle that begins from the base model that the original was fine-tuned from."""


def oracle_commands(oracle: str = "runs/oracle", fine_tuned: bool = False) -> str:
    """The two commands, joined for one sentence.

    Args:
        oracle: run folder of the oracle.
        fine_tuned: whether the original was fine-tuned from a base model.

    >>> print(oracle_commands("runs/oracle"))  # doctest: +ELLIPSIS
    `mu fit ... --run runs/oracle` and `mu test ... --run runs/oracle`
    """
    commands = FINE_TUNED if fine_tuned else RETRAINED
    return " and ".join(f"`{command.format(oracle=oracle)}`" for command in commands)

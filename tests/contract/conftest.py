"""Runs that several tests of the contract look at: one fit for each method and backbone, with all
its checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from mu.core.module import UnlearningModule
from tests.contract.catalogue import Case
from tests.support.helpers import State, weights


@dataclass
class Baseline:
    """A finished run, with a checkpoint after every step and every epoch.

    Attributes:
        case: what was run.
        module: the module after its fit.
        before: weights of the backbone before it.
        after: all that a checkpoint holds, after it.
        steps: checkpoints inside epochs, in order.
        ends: checkpoints at the ends of epochs, in order.
    """

    case: Case
    module: UnlearningModule
    before: State
    after: State
    steps: list[Path]
    ends: list[Path]


@pytest.fixture(scope="session")
def baseline(
    originals: dict[str, State], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Baseline]:
    """The run of a method on a backbone; made once."""
    baselines: dict[tuple[str, str], Baseline] = {}

    def of(name: str, backbone_name: str) -> Baseline:
        if (name, backbone_name) not in baselines:
            case = Case(name, backbone_name, originals[backbone_name])
            folder = tmp_path_factory.mktemp(f"{name}-{backbone_name}")
            savers = [
                ModelCheckpoint(
                    folder / "steps",
                    filename="{epoch}-{step:04d}",
                    every_n_train_steps=1,
                    save_top_k=-1,
                ),
                ModelCheckpoint(
                    folder / "ends", filename="{epoch}", every_n_epochs=1, save_top_k=-1
                ),
            ]
            module = case.run(callbacks=savers)
            baselines[name, backbone_name] = Baseline(
                case,
                module,
                weights(case.backbone()),
                weights(module),
                sorted((folder / "steps").glob("*.ckpt")),
                sorted((folder / "ends").glob("*.ckpt")),
            )
        return baselines[name, backbone_name]

    return of

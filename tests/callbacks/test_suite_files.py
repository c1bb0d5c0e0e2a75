"""The suites' files make the callbacks that they name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from callbacks import ConceptErasure, Grids, ImageQuality, Robustness
from mu.config.components import Components

SUITES = Path(__file__).parents[2] / "configs" / "suite"


@pytest.fixture(scope="module")
def components() -> Components:
    return Components()


@pytest.mark.parametrize("name", ["concepts", "classes", "robustness", "objects", "nudity"])
def test_a_file_makes_its_callbacks(name: str, components: Components) -> None:
    """Fails when an argument has another name, or a nested class cannot be built from a file."""
    specs = yaml.safe_load((SUITES / f"{name}.yaml").read_text())["trainer"]["callbacks+"]
    callbacks = components.make("callbacks", specs)
    assert [type(callback).__name__ for callback in callbacks] == [
        spec["class_path"].rpartition(".")[2] for spec in specs
    ]
    assert components.resolve(
        "callbacks", components.resolve("callbacks", specs)
    ) == components.resolve("callbacks", specs)


def test_equal_sets_are_shared_by_the_suites_of_a_file(components: Components) -> None:
    """Fails when the kept images of ConceptErasure and ImageQuality are drawn twice."""
    for name in ("concepts", "classes"):
        suites: list[Any] = components.make(
            "callbacks",
            yaml.safe_load((SUITES / f"{name}.yaml").read_text())["trainer"]["callbacks+"],
        )
        concepts = next(suite for suite in suites if isinstance(suite, ConceptErasure))
        quality = next(suite for suite in suites if isinstance(suite, ImageQuality))
        grids = next(suite for suite in suites if isinstance(suite, Grids))
        for suite, other in (
            (concepts.kept, quality.kept),
            (concepts.kept, grids.sets["kept"]),
            (concepts.erased, grids.sets["erased"]),
        ):
            assert {**vars(suite), "_arguments": None} == {**vars(other), "_arguments": None}
    assert isinstance(
        components.make(
            "callbacks",
            [
                {
                    "class_path": "callbacks.Robustness",
                    "init_args": {
                        "judge": {
                            "class_path": "mu.evaluation.ClassifierJudge",
                            "init_args": {"weights": "x"},
                        }
                    },
                }
            ],
        )[0],
        Robustness,
    )

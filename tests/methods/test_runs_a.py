"""Whole runs of the baselines: resumed inside an epoch, built from their presets, and what they do
to a class of digits.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

import mu.methods
from mu.core.module import UnlearningModule
from mu.methods import FineTune
from mu.methods.compat import NegGradPlusPulled, SCRUBWorstCase
from mu.methods.general.cf_k import CFk
from mu.methods.general.eu_k import EUk
from mu.methods.general.gradient_ascent import GradientAscent
from mu.methods.general.l1_sparse import L1Sparse
from mu.methods.general.neggrad_plus import NegGradPlus
from mu.methods.general.prune import PruneFineTune
from mu.methods.general.salun_soft import SalUnSoft
from mu.methods.general.scrub import SCRUB, SCRUBRewind
from tests.support.equations import FAST
from tests.support.helpers import Snapshot, classifier, different, fit, weights
from tests.support.trained import accuracy, trained, wide

RESUMED: dict[str, Callable[[Any], UnlearningModule]] = {
    "L1Sparse": lambda b: L1Sparse(b, optimizer=FAST),
    "PruneFineTune": lambda b: PruneFineTune(b, optimizer=FAST),
    "SalUnSoft": lambda b: SalUnSoft(b, optimizer=FAST),
    "CFk": lambda b: CFk(b, k=3, optimizer=FAST),
    "EUk": lambda b: EUk(b, k=3, optimizer=FAST),
    "NegGradPlusPulled": lambda b: NegGradPlusPulled(b, optimizer=FAST),
    "SCRUB": lambda b: SCRUB(
        b, msteps=1, lr_decay_epochs=(1, 2), optimizer=FAST
    ),  # epochs of 7, 4 and 4 batches
    "SCRUBWorstCase": lambda b: SCRUBWorstCase(
        b, msteps=0, lr_decay_epochs=(1, 2), norm="eval", optimizer=FAST
    ),  # of 3, 4 and 4
    "SCRUBRewind": lambda b: SCRUBRewind(b, msteps=1, optimizer=FAST),
}


@pytest.mark.parametrize("name", RESUMED)
@pytest.mark.parametrize("place", [(0, 1), (1, 2)])
def test_resume_inside_an_epoch_is_bit_identical(
    name: str, place: tuple[int, int], tmp_path: Path
) -> None:
    """Epoch-start weights, frozen prefix, kept students and masks all travel with the
    checkpoint.
    """
    make = RESUMED[name]
    through = fit(
        make(classifier()), epochs=3, callbacks=[Snapshot(tmp_path / "middle.ckpt", *place)]
    )
    resumed = fit(make(classifier()), epochs=3, ckpt_path=tmp_path / "middle.ckpt")
    assert not different(weights(through), weights(resumed))
    if isinstance(through, SCRUBRewind) and isinstance(resumed, SCRUBRewind):
        assert through.forget_errors == resumed.forget_errors


# ---------------------------------------------------------------- presets


CONFIGS = Path(__file__).parents[2] / "configs" / "method"
PRESETS = [
    "train",
    "retrain",
    "finetune",
    "finetune_reference_code",
    "random_label",
    "random_label_reference_code",
    "salun",
    "salun_reference_code",
    "salun_soft",
    "ssd",
    "gradient_ascent",
    "neggrad_plus",
    "neggrad_plus_reference_code",
    "l1_sparse",
    "prune_finetune",
    "cf_k",
    "eu_k",
    "scrub",
    "scrub_small",
    "scrub_rewind",
    "scrub_reference_code",
]


@pytest.mark.parametrize(
    "path", [CONFIGS / f"{name}.yaml" for name in PRESETS], ids=lambda path: path.stem
)
def test_preset_builds(path: Path) -> None:
    """Every preset names a method that exists and arguments that it takes, and its head shows the
    command that runs it.
    """
    from mu.config.components import Components

    text = path.read_text()
    head = [line for line in text.splitlines() if line.startswith("#")]
    assert f"configs/method/{path.name}" in "\n".join(head)
    given = yaml.safe_load(text)
    assert set(given) <= {"model", "trainer", "data"} and given["trainer"]["max_epochs"] >= 1
    model = given["model"]
    arguments = dict(model.get("init_args") or {})
    arguments["backbone"] = {
        "class_path": "mu.backbones.Classifier",
        "init_args": {"name": "resnet8_cifar", "in_channels": 1},
    }
    made = Components().make("model", {"class_path": model["class_path"], "init_args": arguments})
    assert isinstance(made, UnlearningModule)
    assert hasattr(mu.methods, type(made).__name__) or type(made).__module__.startswith(
        "mu.methods.compat"
    )


# ---------------------------------------------------------------- behaviour


@pytest.fixture(scope="module")
def original() -> tuple[Any, dict[str, Tensor]]:
    return trained()


def sgd(rate: float) -> Any:
    return lambda params: torch.optim.SGD(params, lr=rate, momentum=0.9, weight_decay=5e-4)


BEHAVIOUR: dict[str, tuple[Callable[[Any], UnlearningModule], int, float, float]] = {
    "GradientAscent": (lambda b: GradientAscent(b, optimizer=sgd(5e-3)), 8, 0.5, 0.9),
    "NegGradPlus": (lambda b: NegGradPlus(b, retain_weight=0.7), 5, 0.4, 0.97),
    "L1Sparse": (lambda b: L1Sparse(b, alpha=0.01, optimizer=sgd(0.05)), 10, 0.4, 0.97),
    "PruneFineTune": (lambda b: PruneFineTune(b), 10, 0.3, 0.9),
    "SalUnSoft": (lambda b: SalUnSoft(b), 5, 0.4, 0.97),
    "EUk": (lambda b: EUk(b), 5, 0.05, 0.97),
    "SCRUB": (lambda b: SCRUB(b, msteps=3, alpha=0.1, optimizer=sgd(5e-3)), 5, 0.2, 0.97),
    "SCRUBRewind": (
        lambda b: SCRUBRewind(b, msteps=3, alpha=0.1, optimizer=sgd(5e-3)),
        5,
        0.2,
        0.9,
    ),
    "SCRUBWorstCase": (lambda b: SCRUBWorstCase(b, optimizer=sgd(5e-3)), 5, 0.2, 0.97),
    "FineTune": (
        lambda b: FineTune(b),
        5,
        1.0,
        0.97,
    ),  # forgets nothing of a class in so short a time, and neither does CF-k
    "CFk": (lambda b: CFk(b), 5, 1.0, 0.97),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BEHAVIOUR)
def test_forgets_a_class_and_keeps_the_rest(name: str, original: Any) -> None:
    """Forget accuracy falls below, and retain accuracy stays above, the given bounds."""
    task, state = original
    make, epochs, at_most, at_least = BEHAVIOUR[name]
    module = fit(make(wide(state)), task, epochs)
    assert accuracy(module.served(), task, "forget") <= at_most
    assert accuracy(module.served(), task, "retain") >= at_least

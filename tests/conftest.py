"""Fixtures of all tests: one thread, silent loggers, and tiny originals trained once."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator

import pytest
import torch

from tests.support.helpers import State


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> Iterator[None]:
    """One thread, because results are compared bit for bit; no messages of the trainer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MU_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _lightning_warnings() -> Iterator[None]:
    """Silence Lightning's advice on loaders and loggers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning.*")
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
        yield


@pytest.fixture(scope="session")
def originals() -> dict[str, State]:
    """Weights of tiny models: classifier and regressor know their data a little, diffusion and
    language models are random.
    """
    from mu.core.lr import OneCycle
    from mu.methods import Train
    from tests.support.doubles import class_conditional, text_to_image
    from tests.support.doubles_text import causal_lm, mixture
    from tests.support.helpers import classifier, diabetes, digits, fit, regressor, weights

    image = Train(
        classifier(),
        optimizer=lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        scheduler=OneCycle(),
    )
    regression = Train(
        regressor(), optimizer=lambda p: torch.optim.Adam(p, lr=0.01), scheduler=OneCycle()
    )
    fit(image, digits(), 8)
    fit(regression, diabetes(), 8)
    return {
        "classifier": weights(image.backbone),
        "regressor": weights(regression.backbone),
        "text_to_image": weights(text_to_image()),
        "class_conditional": weights(class_conditional()),
        "causal_lm": weights(causal_lm()),
        "mixture": weights(mixture()),
    }

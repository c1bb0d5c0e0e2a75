"""Models that several tests of suites begin with."""

from __future__ import annotations

import pytest

from mu.core.lr import OneCycle
from mu.methods import Retrain, Train
from tests.support.doubles_text import causal_lm, people
from tests.support.helpers import State, fit, weights
from tests.support.text_attacks import adam


@pytest.fixture(scope="session")
def trained() -> dict[str, State]:
    """Weights of an original, which answers all 33 questions, and of an oracle, which saw 20."""
    recipes = {"original": Train, "oracle": Retrain}
    return {
        name: weights(
            fit(
                recipe(causal_lm(), optimizer=adam(0.02), scheduler=OneCycle()), people(), 15
            ).backbone
        )
        for name, recipe in recipes.items()
    }

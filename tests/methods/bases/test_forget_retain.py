"""Methods with a forget and a retain term: what they need of the task."""

from __future__ import annotations

import pytest

from mu.data.plan import Forget
from mu.methods.components.retain_terms import KL
from mu.methods.language.undial import UNDIAL
from mu.methods.language.wga import WGA
from mu.utils.errors import InputError
from tests.support.token_methods import trained_model


def test_needs_follow_the_retain_term() -> None:
    """Fails when a run without retain term asks the task for a retain part, or KL goes without the
    original.
    """
    assert (
        not UNDIAL(trained_model()).needs_retain
        and UNDIAL(trained_model(), retain_weight=1.0).needs_retain
    )
    assert (
        WGA(trained_model(), retain=KL()).needs_reference
        and not WGA(trained_model()).needs_reference
    )
    assert not WGA(trained_model(), retain_weight=0.0, retain=KL()).needs_reference
    assert isinstance(WGA(trained_model(), retain_weight=0.0).plan, Forget)
    for arguments in ({"forget_weight": 0.0}, {"retain_weight": -1.0}):
        with pytest.raises(InputError, match="WGA needs a forget_weight above 0"):
            WGA(trained_model(), **arguments)

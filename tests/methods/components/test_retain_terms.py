"""Retain terms: arguments that are refused."""

from __future__ import annotations

import pytest

from mu.methods.components.retain_terms import KL
from mu.utils.errors import InputError


def test_a_temperature_must_be_above_zero() -> None:
    with pytest.raises(InputError, match="above 0"):
        KL(0.0)

"""Parameters of the contract: methods and the backbones that they admit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.catalogue import (
    FIRST,
    PAIRS,
)
from tests.contract.conftest import Baseline

Baselines = Callable[[str, str], Baseline]


def method_case(pair: tuple[str, str], *marks: Any) -> Any:
    # all tests of one method in one process, where they share its runs
    return pytest.param(
        *pair, marks=[pytest.mark.xdist_group("-".join(pair)), *marks], id="-".join(pair)
    )


on_all = pytest.mark.parametrize(
    ("name", "backbone_name"),
    [method_case(p) if p in FIRST else method_case(p, pytest.mark.slow) for p in PAIRS],
)


on_all_slow = pytest.mark.parametrize(
    ("name", "backbone_name"), [method_case(pair, pytest.mark.slow) for pair in PAIRS]
)

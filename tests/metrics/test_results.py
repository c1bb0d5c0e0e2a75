"""Results as data: undefined ones with a reason, intervals, and the file they are kept in."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from mu.metrics.rates import rate
from mu.metrics.results import Result, compute_result
from mu.metrics.run_results import Measurement, RunResults
from mu.utils.errors import InputError, UndefinedError
from mu.utils.files import read_json


def _undefined() -> float:
    raise UndefinedError("there is nothing to measure.")


def test_an_undefined_result_has_a_reason_in_place_of_a_value(tmp_path: Path) -> None:
    results = [
        compute_result("MU", _undefined, True, "retain", "%", {"judge": "Shapes"}),
        compute_result("P", lambda: 0.5),
        compute_result("ASR", lambda: rate(torch.tensor([1.0, 0.0])), False),
    ]
    RunResults("task", "method", [Measurement("suite", results=results)]).save(tmp_path)
    entries = read_json(tmp_path / "results.json")["models"][0]["measurements"][0]["results"]
    assert entries[0]["value"] is None and entries[0]["undefined"] == "there is nothing to measure."
    assert not {"undefined", "interval", "warning"} & set(entries[1])
    assert entries[2]["interval"] == pytest.approx([9.453, 90.547], abs=1e-3)
    loaded = RunResults.load(tmp_path)
    assert loaded.results == results and loaded.has("MU")
    assert loaded.results[2].warning.startswith("measured on 2 distinct items only")
    with pytest.raises(UndefinedError, match="MU is undefined: there is nothing to measure"):
        loaded.value("MU")


def test_a_value_that_is_no_number_is_undefined_and_never_a_default() -> None:
    assert compute_result("UA", lambda: math.nan).value is None
    with pytest.raises(UndefinedError, match="could not be measured"):
        Result("UA", math.inf)
    for make in (lambda: Result("UA", None), lambda: Result("UA", 1.0, undefined="none")):
        with pytest.raises(InputError, match="either a value"):
            make()

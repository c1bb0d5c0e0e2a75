"""Quantisation as a suite: scores of rounded copies and their ratio to the scores before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from callbacks.quantisation import Quantisation
from mu.attacks.quantisation import quantised
from mu.evaluation.text.graph import Graph
from mu.evaluation.text.metrics import Probability
from mu.methods import FineTune
from mu.utils.errors import InputError
from tests.support.doubles_text import causal_lm, people
from tests.support.helpers import (
    State,
)
from tests.support.text_attacks import ascent, measured


def test_quantisation_scores_the_rounded_copy(trained: dict[str, State]) -> None:
    """Fails when bits change places, a part is scored as another, or the copy is not what is
    scored.
    """
    module = FineTune(causal_lm(trained["original"]))
    suite = Quantisation(
        bits=[8, 2], group=8, metrics=[Probability("forget"), Probability("facts", normalised=True)]
    )
    results = measured(module, suite)
    task = people()
    task.setup()
    for bits in (8, 2):
        copy = quantised(module.backbone, bits, 8).backbone
        for part in ("forget", "retain"):
            data: Any = task.datasets[part]
            with torch.no_grad():
                values = copy.scores(data.__getitems__(list(range(len(data)))))
            assert results[f"quantisation/int{bits}/accuracy/{part}"].value == pytest.approx(
                100 * float(values["accuracy"].mean()), abs=1e-3
            )
            assert results[f"quantisation/int{bits}/loss/{part}"].value == pytest.approx(
                float(values["loss"].mean()), rel=1e-4
            )
        graph = Graph(copy, task.sets, task.encoder)
        assert results[f"quantisation/int{bits}/probability/forget"].value == pytest.approx(
            graph.value(Probability("forget")).value
        )
    assert (
        results["quantisation/int2/loss/forget"].value
        > results["quantisation/int8/loss/forget"].value + 0.1
    )
    detail = results["quantisation"].detail
    assert (
        results["quantisation"].value == max(detail["before"], detail["int8"], detail["int2"])
        and detail["bits"] == 8
    )
    assert (
        detail["rounded_weights"] == 3840
        and detail["of_weights"] == 5744
        and detail["scale_over"] == "output channel"
    )
    assert results["quantisation/int2/loss/forget"].detail["scale_over"] == "8 weights"


def test_quantisation_against_the_original(trained: dict[str, State], tmp_path: Path) -> None:
    """Fails when an untouched model passes; q is accuracy before / after with the fewest bits."""
    untouched = measured(
        FineTune(causal_lm(trained["original"])), Quantisation(bits=[8, 3], group=8)
    )
    results = measured(
        ascent(trained["original"]), Quantisation(bits=[8, 3], group=8), folder=tmp_path, epochs=3
    )
    assert untouched["quantisation"].value > results["quantisation"].value + 5
    assert "quantisation/returned" not in untouched
    returned = results["quantisation/returned"].detail
    way = returned["original"] - returned["before"]
    assert results["quantisation/returned"].value == pytest.approx(
        100 * (returned["after"] - returned["before"]) / way
    )
    before = results["quantisation/robustness"].detail["before"]
    after = results["quantisation/robustness"].detail["after"]
    assert after == results["quantisation/int3/accuracy/forget"].value
    assert results["quantisation/robustness"].value == pytest.approx(
        1.0 if after <= before else before / after
    )


@pytest.mark.parametrize(
    ("after", "q", "most"),
    [((0.5, 0.8), 0.625, 80.0), ((0.6, 0.4), 1.0, 60.0), ((0.4, 0.3), 1.0, 50.0)],
)
def test_robustness_is_before_over_after_with_the_fewest_bits(
    after: tuple[float, float], q: float, most: float
) -> None:
    """Fails when q is upside down, of the most bits, or above 1: 50 % before, these shares with 8
    and with 4 bits.
    """
    scores = {
        bits: {"index": torch.tensor([0]), "accuracy": torch.tensor([value])}
        for bits, value in zip((8, 4), after, strict=True)
    }
    before = {"index": torch.tensor([0]), "accuracy": torch.tensor([0.5])}
    original = {"index": torch.tensor([0]), "accuracy": torch.tensor([1.0])}
    results = {
        result.metric: result
        for result in Quantisation()._headline(
            before, scores, original, {8: {"bits": 8}, 4: {"bits": 4}}
        )
    }
    assert results["quantisation/robustness"].value == pytest.approx(q)
    assert results["quantisation"].value == pytest.approx(most)
    assert results["quantisation/returned"].value == pytest.approx(
        100 * (max(after) - 0.5) / 0.5, abs=1e-4
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bits": []}, "at least one"),
        ({"bits": [4, 4]}, "different numbers"),
        ({"bits": [1]}, "1 bits"),
        ({"parts": ["retain"]}, "must be among"),
    ],
)
def test_invalid_bit_widths_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Quantisation(**changes)

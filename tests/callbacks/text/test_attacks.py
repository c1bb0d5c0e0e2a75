"""All attacks on language models in one test, on one rank and on two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from callbacks.quantisation import Quantisation
from callbacks.scores import score_samples
from callbacks.text.probes import LinearProbe, LogitLens
from callbacks.text.reintroduction import Reintroduction
from mu.backbones import LoRA
from mu.backbones.language.two_models import LogitDifference
from mu.methods import FineTune
from mu.metrics.run_results import RunResults
from tests.callbacks.text import two_ranks as text_two_ranks
from tests.support.doubles_text import causal_lm, people
from tests.support.helpers import (
    State,
    different,
    weights,
)
from tests.support.ranks import run_ranks
from tests.support.text_attacks import measured, neighbours, relearning


def every_suite() -> list[Any]:
    return [
        relearning(),
        Quantisation(group=8),
        LinearProbe(),
        LogitLens(),
        Reintroduction(facts=2),
    ]


@pytest.mark.parametrize(
    "make",
    [
        causal_lm,
        lambda: causal_lm(lora=LoRA(r=2)),
        lambda: LogitDifference(causal_lm(), causal_lm(init_seed=2)),
    ],
)
def test_suites_leave_the_model_and_each_other_alone(make: Any, tmp_path: Path) -> None:
    """Fails when a suite alters what the next one measures, or a composed or an adapted model
    cannot be attacked.
    """
    module = FineTune(make())
    before = weights(module.backbone)
    free = [p.requires_grad for p in module.backbone.parameters()]
    together = measured(module, *every_suite(), task=neighbours(), folder=tmp_path)
    assert different(before, weights(module.backbone)) == [] and free == [
        p.requires_grad for p in module.backbone.parameters()
    ]
    assert all(p.grad is None for p in module.backbone.parameters())
    alone = {
        name: result.value
        for suite in reversed(every_suite())
        for name, result in measured(module, suite, task=neighbours()).items()
    }
    assert {name: result.value for name, result in together.items()} == pytest.approx(
        alone, abs=1e-9
    )
    assert {r.metric: r.value for r in RunResults.load(tmp_path).results} == pytest.approx(
        alone, abs=1e-9
    )


def test_scores_are_in_the_order_of_indices_and_leave_modes(trained: dict[str, State]) -> None:
    """Fails when batches come back in the loader's order, or a model stays in eval mode."""
    module = FineTune(causal_lm(trained["original"]))
    task = people(eval_batch_size=4)
    measured(module, LogitLens(), task=task)
    module.backbone.train()
    data: Any = task.datasets["forget"]
    results = score_samples(module.backbone, module, data)
    assert module.backbone.training and results["index"].tolist() == sorted(data.indices.tolist())
    with torch.no_grad():
        expected = [
            float(module.backbone.eval().scores(data.__getitems__([position]))["loss"][0])
            for position in range(len(data))
        ]
    assert results["loss"].tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
@pytest.mark.xdist_group("two-ranks")
def test_two_ranks_equal_one_process(tmp_path: Path) -> None:
    """Fails when a rank relearns from other samples, counts a padded row, or waits for a file that
    another writes.
    """
    run_ranks("tests.callbacks.text.two_ranks", str(tmp_path))
    single = text_two_ranks.run_all(tmp_path / "one")
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    names = {name for name, _ in single["values"]}
    assert {"relearning", "quantisation", "linear_probe", "logit_lens", "reintroduction"} <= names
    # scored as the fit began
    assert all("original" in results["details"][0] for results in (single, *ranks))
    assert ranks[0] == ranks[1]  # bit for bit
    for results in ranks:
        assert [name for name, _ in results["values"]] == [name for name, _ in single["values"]]
        for (name, value), (_, expected) in zip(results["values"], single["values"], strict=True):
            # the fit on two ranks is that of one to rounding
            assert value == pytest.approx(expected, rel=1e-3, abs=1e-3), name

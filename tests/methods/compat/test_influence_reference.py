"""Influence unlearning as in the released code: its recursion and its preset."""

from __future__ import annotations

import torch

from mu.methods.compat import InfluenceReference
from tests.support.equations_vision import (
    all_rows,
    flat_parameters,
    linear_classifier,
    linear_gradients,
)
from tests.support.helpers import digits, fit
from tests.support.method_runs import check_preset_runs


def test_the_reference_recursion_reads_the_first_samples_in_their_order() -> None:
    """`Wfisher.py`, one number at a time; M = 7, so nine samples are read. Must fail if the samples
    are shuffled.
    """
    task = digits()
    module = InfluenceReference(
        linear_classifier(), alpha=2.0, m=7, batch_size=4, per_sample="loop"
    )
    m = 7
    forget = all_rows(task, "forget")
    retain = all_rows(task, "retain")
    g_f, g_r = linear_gradients(module.backbone, forget), linear_gradients(module.backbone, retain)  # type: ignore[arg-type]
    n = len(g_f) + len(g_r)
    k = g_f.sum(0) / n - len(g_f) / (n * len(g_r)) * g_r.sum(0)  # as the code has it
    o = g_r[0]
    for row in g_r[1 : m + 2]:
        t = (o * row).sum()
        k = k - (k * row).sum() / (m + t) * o
        o = o - t / (m + t) * o
    before = flat_parameters(module.backbone)  # type: ignore[arg-type]
    fit(module, task, 1)
    torch.testing.assert_close(
        flat_parameters(module.backbone) - before, 2.0 * k, atol=2e-6, rtol=1e-4
    )  # type: ignore[arg-type]


def test_preset_runs() -> None:
    check_preset_runs("influence_reference_code")

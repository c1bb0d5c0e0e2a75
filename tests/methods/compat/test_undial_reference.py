"""UNDIAL as ported elsewhere: all positions count, and the checks of methods on tokens."""

from __future__ import annotations

import pytest
import torch

from mu.methods.compat.undial_reference import UNDIALReference
from tests.support.doubles_text import causal_lm, people
from tests.support.helpers import weights
from tests.support.token_methods import (
    check_accumulated_batches,
    check_forgets_first,
    first_pair,
    terms_of,
    trained_model,
)


def test_all_positions_count() -> None:
    """All positions count, padding too, and −100 is an index: V − 100, which is 14 of 57 after
    another turn.
    """
    forget, _ = first_pair(people())
    model = trained_model().double().eval()
    student = causal_lm().double().eval()
    module = UNDIALReference(trained_model().double(), beta=3.0)
    module.configure_model()
    module.backbone.load_state_dict(
        {name: value.double() for name, value in weights(causal_lm()).items()}
    )
    total = 0.0
    count = 0
    with torch.no_grad():
        teacher_logits = model.predict(forget)
        student_logits = student.predict(forget)
    for b, labels in enumerate(forget["labels"].tolist()):
        for t in range(1, len(labels)):
            target = teacher_logits[b, t - 1].clone()
            target[labels[t] if labels[t] != -100 else 14] -= 3.0
            total -= float((target.softmax(-1) * student_logits[b, t - 1].log_softmax(-1)).sum())
            count += 1
    assert terms_of(module, forget, None) == pytest.approx({"forget": total / count})


def test_one_big_batch_or_several_small_ones() -> None:
    check_accumulated_batches(UNDIALReference)


def test_the_forget_set_is_lost_first() -> None:
    check_forgets_first(UNDIALReference, 1e-3, 8)

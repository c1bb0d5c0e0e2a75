"""One forward pass over several parts of a batch, and where each part needs its own."""

from __future__ import annotations

import pytest
import torch

from mu.data.batch import concatenate
from mu.methods.bases.joint import predictions
from tests.support.doubles_text import causal_lm, people
from tests.support.equations_text import sequence_nlls
from tests.support.helpers import classifier, digits


def test_sequences_of_unequal_length_in_one_pass_equal_separate_passes() -> None:
    model = causal_lm().double().eval()
    task = people()
    task.setup()
    forget, retain = (task.datasets[name].__getitems__([0, 4, 5]) for name in ("forget", "retain"))  # type: ignore[attr-defined]
    short = task.datasets["retain"].__getitems__([1])  # type: ignore[attr-defined]
    assert len({part["input_ids"].shape[1] for part in (forget, retain, short)}) > 1
    with torch.no_grad():
        for part, joint in zip(
            (forget, retain, short), predictions(model, forget, None, retain, short), strict=True
        ):
            assert model.nll(part, prediction=joint).tolist() == pytest.approx(
                sequence_nlls(model, part), rel=1e-10
            )


def test_batch_norm_in_train_mode_sees_each_part_alone() -> None:
    model = classifier()
    task = digits()
    task.setup()
    a, b = (task.datasets[name].__getitems__(list(range(8))) for name in ("forget", "retain"))  # type: ignore[attr-defined]
    alone = [model.train().predict(part) for part in (a, b)]
    assert all(
        torch.equal(joint, single)
        for joint, single in zip(predictions(model, a, b), alone, strict=True)
    )
    mixed = model.predict(concatenate(a, b)).split([8, 8])
    assert not torch.allclose(mixed[0], alone[0])
    model.eval()
    assert torch.allclose(predictions(model, a, b)[1], model.predict(b), atol=1e-5)

"""PDU as in the released code: logits of the labelled positions, unshifted."""

from __future__ import annotations

import pytest

from mu.methods.compat.pdu_reference import PDUReference
from tests.support.doubles_text import people
from tests.support.equations_text import logits_of, unpadded
from tests.support.token_methods import SingleRank, first_pair, terms_of, trained_model


def test_the_margin_is_taken_at_the_labelled_positions() -> None:
    forget, retain = first_pair(people())
    model = trained_model()
    unshifted = []
    for ids, labels in unpadded(forget):
        logits = logits_of(model, ids)
        unshifted += [
            float((logits[t].max() - logits[t].mean()) ** 2)
            for t, label in enumerate(labels)
            if label != -100
        ]
    module = PDUReference(trained_model(), epsilon=0.2, dual=7.0)
    module._trainer = SingleRank()  # type: ignore[assignment]
    assert terms_of(module, forget, retain)["forget"] == pytest.approx(
        sum(unshifted) / len(unshifted), rel=1e-4
    )

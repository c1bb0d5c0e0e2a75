"""Contract of activation checkpointing: every method that can meet it gives the same weights."""

from __future__ import annotations

import pytest
import torch

from tests.contract.catalogue import BACKBONES, METHODS, Case, admitted_backbones
from tests.support.helpers import State, weights

_BACKBONES = ("text_to_image", "causal_lm")
_FAST = ("SFD", "ESD", "AdvUnlearn", "RMU", "RandomLabel")
_PAIRS = [
    pytest.param(
        name, domain, id=f"{name}-{domain}", marks=() if name in _FAST else pytest.mark.slow
    )
    for name in METHODS
    for domain in admitted_backbones(name)
    if domain in _BACKBONES
]


class _Checkpointed(Case):
    """A method whose backbone has `gradient_checkpointing: true`."""

    def backbone(self) -> torch.nn.Module:  # type: ignore[override]
        return BACKBONES[self.backbone_name][1](self.state, gradient_checkpointing=True)


@pytest.mark.parametrize(("name", "backbone_name"), _PAIRS)
def test_checkpointing_trains_the_same_weights(
    name: str, backbone_name: str, originals: dict[str, State]
) -> None:
    """Fails when recomputed activations meet other weights, other hooks or other random numbers."""
    trained = [
        weights(case.run().served())
        for case in (
            Case(name, backbone_name, originals[backbone_name]),
            _Checkpointed(name, backbone_name, originals[backbone_name]),
        )
    ]
    assert trained[0].keys() == trained[1].keys()
    for key, value in trained[0].items():
        assert torch.allclose(value, trained[1][key], rtol=1e-3, atol=1e-5), key

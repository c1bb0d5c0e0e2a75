"""Contract of edits: one pass, one step, exact assignment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from mu.backbones import Backbone
from mu.core.edit import Edit
from mu.data.batch import Batch
from mu.data.plan import Forget, Phases, Retain
from mu.utils.errors import InputError
from tests.support.helpers import (
    classifier,
    different,
    fit,
    weights,
)


class Shift(Edit):
    """Adds the number of samples seen to every weight."""

    plan = Phases(Forget(), Retain())

    def __init__(self, backbone: Backbone, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)
        self.seen = 0
        self.modes: set[bool] = set()

    def observe(self, forget: Batch | None, retain: Batch | None) -> None:
        self.seen += sum(len(part["index"]) for part in (forget, retain) if part is not None)
        self.modes.add(any(module.training for module in self.backbone.modules()))

    def edited(self) -> dict[str, Tensor]:
        return {name: p + self.seen for name, p in self.trainable()}


@pytest.mark.parametrize(
    "changes", [{"epochs": 1}, {"epochs": 4}, {"epochs": 3, "min_epochs": 3}], ids=str
)
def test_an_edit_is_one_pass_and_one_step(changes: dict[str, Any]) -> None:
    """Fails when `max_epochs` or `min_epochs` makes it edit again, or a sample is seen twice."""
    backbone = classifier()
    before = weights(backbone)
    module = Shift(backbone)
    fit(module, **changes)
    assert module.trainer.global_step == 1
    assert module.modes == {False}
    for name, p in module.trainable():
        assert torch.equal(p.detach(), before[name] + 61)


@pytest.mark.parametrize("changes", [{"limit_train_batches": 3}, {"overfit_batches": 0.5}], ids=str)
def test_an_edit_of_a_part_of_its_pass_is_refused(changes: dict[str, Any]) -> None:
    """Mutation that must fail it: no check, so that the edit is made from the batches it gets."""
    module = Shift(classifier())
    before = weights(module)
    with pytest.raises(InputError, match=r"Shift edits once, from all 7 batches .* leave it out"):
        fit(module, **changes)
    assert not different(before, weights(module))


def test_an_edit_takes_a_limit_beyond_its_pass() -> None:
    module = fit(Shift(classifier()), limit_train_batches=7)
    assert module.trainer.global_step == 1


def test_a_finished_edit_is_not_made_again(tmp_path: Path) -> None:
    """Fails when resuming a finished edit edits a second time."""
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    first = fit(Shift(classifier()), epochs=3, callbacks=[saver])
    (file,) = tmp_path.glob("*.ckpt")
    assert (
        different(weights(first), weights(fit(Shift(classifier()), epochs=3, ckpt_path=file))) == []
    )


def test_an_edit_assigns_exactly_in_half_precision() -> None:
    """Fails when the edit is a gradient step, which rounds."""
    from mu.core.edit import Assign

    weight = torch.nn.Parameter(torch.randn(100, dtype=torch.bfloat16))
    edited = torch.randn(100, dtype=torch.bfloat16)
    optimizer = Assign([weight])
    optimizer.edited = [edited]
    optimizer.step()
    assert torch.equal(weight.detach(), edited)

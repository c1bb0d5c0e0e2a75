"""Tests of the checks of a fit: values that are not finite, terms, weights that do not move."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from mu.core.lr import Cosine
from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.data.plan import Retain
from mu.methods import FineTune, GradientAscent
from mu.utils.errors import InputError, RunError
from tests.support.doubles_text import causal_lm, people
from tests.support.helpers import classifier, diabetes, fit, regressor, weights


def _adam(params: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(params, lr=1e-5)


def _moved(**arguments: Any) -> tuple[float, list[str]]:
    """Share of moved weights in bfloat16, and the warnings of the fit."""
    module = FineTune(causal_lm(dtype="bfloat16"), optimizer=_adam, **arguments)
    before = weights(module.backbone)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(module, people(), 2)
    moved = torch.cat([(p != before[name]).flatten() for name, p in module.trainable()])
    return moved.float().mean().item(), [str(warning.message) for warning in caught]


def test_small_steps_in_bfloat16_are_summed_and_a_small_share_is_reported() -> None:
    """Fails when steps of 1e-5 are rounded away one by one, or in silence."""
    share, messages = _moved()
    without, _ = _moved(master_weights=False)
    assert share > 3 * without
    expected = f"only {share:.1%} of the bfloat16 weights"
    assert [message for message in messages if expected in message]


def test_weights_that_are_not_finite_are_named_before_the_first_step() -> None:
    """Fails when a damaged file is answered by advice about the learning rate."""
    backbone = classifier()
    with torch.no_grad():
        next(backbone.parameters()).view(-1)[0] = torch.nan
    with pytest.raises(InputError, match=r"network\.\S+\); its file is damaged"):
        fit(FineTune(backbone))


def test_data_that_are_not_finite_are_named() -> None:
    """Fails when NaN in the data is answered by advice about the learning rate."""
    task = diabetes()
    task.setup()
    retain: Any = task.datasets["retain"]
    retain._fields["input"][:] = torch.nan
    with pytest.raises(InputError, match="because retain/input has values that are not finite"):
        fit(FineTune(regressor()), task)


class _Overflows(UnlearningModule):
    """A method whose first loss is infinite."""

    plan = Retain()

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert retain is not None
        return {"loss": self.reduce(self.backbone.loss(retain), retain) * float("inf")}


def test_a_loss_that_overflows_at_once_is_not_blamed_on_the_learning_rate() -> None:
    """Fails when a loss that is infinite before any weight moved advises a lower rate."""
    with pytest.raises(RunError, match="no weight has moved yet"):
        fit(_Overflows(classifier()))


def test_a_later_loss_is_blamed_on_the_learning_rate() -> None:
    """Fails when a diverged run no longer names the rate."""
    ascent = GradientAscent(classifier(), optimizer=lambda params: torch.optim.SGD(params, lr=1e20))
    with pytest.raises(RunError, match="lower the learning rate"):
        fit(ascent)


class _Vector(UnlearningModule):
    """A method that forgets to reduce its loss."""

    plan = Retain()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        forget, retain = self.prepare_parts(batch)
        return self.backbone.loss(retain or forget or {})[0]


def test_a_training_step_that_returns_a_vector_is_refused() -> None:
    """Fails when a loss that was not reduced ends in a traceback of autograd."""
    with pytest.raises(InputError, match=r"_Vector.training_step returned a tensor of shape \[10"):
        fit(_Vector(classifier()))


@pytest.mark.parametrize(
    "schedule",
    [
        Cosine(warmup=0.5),
        lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: epoch / 10),
    ],
    ids=["of mu", "of torch"],
)
def test_a_fit_that_ends_in_its_warm_up_says_so(schedule: Any) -> None:
    """Fails when a learning rate of 0 in every step is blamed on mask and data."""
    with pytest.raises(RunError, match="ran 1 step, in which the learning rate never left 0"):
        fit(FineTune(classifier(), scheduler=schedule), epochs=1, max_steps=1)

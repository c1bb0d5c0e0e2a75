"""Tests of float32 master weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from mu.utils.master_weights import MasterWeights, with_masters

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda params: torch.optim.SGD(params, lr=1e-5),
    "momentum": lambda params: torch.optim.SGD(params, lr=1e-5, momentum=0.9, weight_decay=0.1),
    "adamw": lambda params: torch.optim.AdamW(params, lr=1e-5, weight_decay=0.1),
}
on_optimizers = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=list(OPTIMIZERS))


def _weight(dtype: torch.dtype = torch.bfloat16) -> nn.Parameter:
    drawn = torch.randn(1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    return nn.Parameter(drawn.to(dtype))


def _run(optimizer: torch.optim.Optimizer, weight: nn.Parameter, steps: range) -> None:
    for step in steps:
        gradient = torch.randn(1000, generator=torch.Generator().manual_seed(step)).bfloat16()
        weight.grad = gradient.to(weight.dtype)
        optimizer.step()


@on_optimizers
def test_half_precision_weights_are_those_of_float32_rounded(make: Any) -> None:
    """Fails when small steps are rounded away, as they are without copies."""
    exact, half = _weight(torch.float32), _weight()
    _run(make([exact]), exact, range(300))
    _run(with_masters(make, [half]), half, range(300))
    assert not torch.equal(exact.bfloat16(), _weight())
    assert torch.equal(half, exact.bfloat16())


@on_optimizers
def test_a_resumed_optimizer_goes_on_with_its_copies(make: Any) -> None:
    """Fails when copies or moments are lost, or cast to the weights' dtype, in a state dict."""
    through, first, second = _weight(), _weight(), _weight()
    _run(with_masters(make, [through]), through, range(200))
    optimizer = with_masters(make, [first])
    _run(optimizer, first, range(100))
    with torch.no_grad():
        second.copy_(first)
    resumed = with_masters(make, [second])
    resumed.load_state_dict(optimizer.state_dict())
    _run(resumed, second, range(100, 200))
    assert torch.equal(second, through)


def test_weights_that_something_else_changed_are_taken_over() -> None:
    """Fails when a weight that a mask put back is overwritten by an old copy."""
    weight = _weight()
    optimizer = with_masters(OPTIMIZERS["momentum"], [{"params": [weight]}])
    _run(optimizer, weight, range(3))
    with torch.no_grad():
        weight[:500] = 2.0
    _run(optimizer, weight, range(3, 4))
    assert torch.allclose(weight[:500].float(), torch.tensor(2.0), atol=0.01)


def test_a_schedule_reaches_the_inner_optimizer() -> None:
    """Fails when the rate of the parameter groups is not the one that the step uses."""
    weight = _weight()
    optimizer = with_masters(OPTIMIZERS["sgd"], [{"params": [weight], "lr": 1.0}])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(step == 0))
    _run(optimizer, weight, range(1))
    schedule.step()
    after = weight.detach().clone()
    assert not torch.equal(after, _weight())
    _run(optimizer, weight, range(1, 2))
    assert torch.equal(weight, after)
    assert optimizer.state_dict()["param_groups"][0]["lr"] == 0.0


def test_an_optimizer_that_evaluates_several_times_sees_the_moved_weights() -> None:
    """Fails when L-BFGS evaluates its closure at the first weights again and again."""
    weight = nn.Parameter(torch.full((4,), 3.0, dtype=torch.bfloat16))
    optimizer = with_masters(lambda params: torch.optim.LBFGS(params, lr=0.5), [weight])

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (weight - 1).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type, call-overload]
    assert torch.allclose(weight.float(), torch.tensor(1.0), atol=0.05)


def test_float32_weights_need_no_copies() -> None:
    """Fails when an ordinary run pays for copies, or its weights are copied in a mixed one."""
    single = _weight(torch.float32)
    assert not isinstance(with_masters(OPTIMIZERS["sgd"], [single]), MasterWeights)
    mixed = with_masters(OPTIMIZERS["sgd"], [single, _weight()])
    assert isinstance(mixed, MasterWeights) and mixed.masters.copies[0] is single
    _run(mixed, single, range(1))
    assert not torch.equal(single, _weight(torch.float32))

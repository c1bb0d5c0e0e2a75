"""Weight masks: exactly the chosen weights move, whatever the optimizer does, and a resumed run
keeps its mask.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mu.core.masks import WeightMask
from mu.core.module import UnlearningModule
from mu.data.plan import Forget
from mu.methods import FineTune
from mu.methods.components.masks import ByName, Saliency
from mu.utils.errors import InputError
from tests.support.helpers import Snapshot, Watch, classifier, different, digits, fit, weights

OPTIMIZERS = {
    "sgd": lambda params: torch.optim.SGD(
        params, lr=0.05, momentum=0.9, weight_decay=0.01, nesterov=True
    ),
    "adamw": lambda params: torch.optim.AdamW(params, lr=0.01, weight_decay=0.1),
    "adam": lambda params: torch.optim.Adam(params, lr=0.01, weight_decay=0.1, amsgrad=True),
}


class Half(WeightMask):
    """Every second weight of every tensor."""

    def choose(self, module: UnlearningModule) -> dict[str, torch.Tensor]:
        return {
            name: (torch.arange(p.numel()) % 2 == 0).view_as(p) for name, p in module.trainable()
        }


class Stingy(WeightMask):
    def choose(self, module: UnlearningModule) -> dict[str, torch.Tensor]:
        return {name: torch.zeros_like(p, dtype=torch.bool) for name, p in module.trainable()}


class Forgetful(WeightMask):
    def choose(self, module: UnlearningModule) -> dict[str, torch.Tensor]:
        return dict(list(Half.choose(self, module).items())[1:])  # type: ignore[arg-type]


def moved(module: UnlearningModule, before: dict[str, torch.Tensor]) -> tuple[int, int]:
    """How many weights moved that were free, and that were masked out."""
    assert module.mask is not None
    free = bound = 0
    for name, parameter in module.trainable():
        changed = parameter.detach() != before[name]
        mask = module.mask.mask_for(name)
        free = free + int((changed & mask).sum())
        bound = bound + int((changed & ~mask).sum())
    return free, bound


@pytest.mark.parametrize("clip", ["mask_then_clip", "clip_then_mask"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_masked_out_weights_stay_bit_for_bit(optimizer: str, clip: Any) -> None:
    """Fails when momentum or weight decay moves a weight whose gradient is zero."""
    backbone = classifier()
    before = weights(backbone)
    module = fit(
        FineTune(backbone, optimizer=OPTIMIZERS[optimizer], mask=Half(clip=clip)),
        gradient_clip_val=0.5,
    )
    free, bound = moved(module, before)
    assert free > 1000
    assert bound == 0


def test_masking_the_gradient_alone_lets_decay_move_weights() -> None:
    """Fails when `enforce="gradient"` restores weights: the published SalUn numbers were made
    without that.
    """
    backbone = classifier()
    before = weights(backbone)
    module = fit(FineTune(backbone, optimizer=OPTIMIZERS["sgd"], mask=Half(enforce="gradient")))
    assert module.mask is not None
    name, parameter = module.trainable()[0]
    bound = ~module.mask.mask_for(name)
    lr = 0.05
    decay = 0.01
    assert (parameter.detach() != before[name])[bound].any()
    # weight decay alone: a shrinkage towards zero, far smaller than a gradient step
    change = (parameter.detach() - before[name])[bound] / before[name][bound]
    assert change.max() < 0
    assert change.min() > -40 * lr * decay


@pytest.mark.parametrize(("clip", "expected"), [("mask_then_clip", 1.0), ("clip_then_mask", 0.71)])
def test_the_order_of_mask_and_clip(clip: Any, expected: float) -> None:
    """Fails when the preset's order does nothing: masking first spends the whole norm on the
    weights that may move.
    """
    norms: list[float] = []

    class Spy(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            loss = closure()
            gradients = [
                p.grad for group in self.param_groups for p in group["params"] if p.grad is not None
            ]
            norms.append(torch.stack([g.norm() for g in gradients]).norm().item())
            super().step()
            return loss

    fit(
        FineTune(classifier(), optimizer=lambda p: Spy(p, lr=0.01), mask=Half(clip=clip)),
        epochs=1,
        gradient_clip_val=1e-3,
    )
    assert norms == pytest.approx([expected * 1e-3] * len(norms), rel=0.15)
    assert clip == "clip_then_mask" or norms == pytest.approx([1e-3] * len(norms), rel=1e-3)


def test_saliency_keeps_exactly_its_share() -> None:
    """Fails when ties or rounding leave another number of weights free."""
    module = fit(FineTune(classifier(), mask=Saliency(keep=0.3)), epochs=1)
    assert module.mask is not None
    count = sum(p.numel() for _, p in module.trainable())
    assert sum(int(module.mask.mask_for(name).sum()) for name in module.mask.names) == int(
        0.3 * count
    )
    assert module.mask.share() == pytest.approx(0.3, abs=1 / count)


def test_saliency_is_the_summed_gradient_of_the_forget_set() -> None:
    """Fails when saliency is taken in train mode, on the retain set, or as a sum of absolute
    values.
    """
    backbone = classifier()
    task = digits(batch_size=8)
    task.setup()
    gradient: dict[str, torch.Tensor] = {}
    reference = classifier().eval()
    for batch in task.plan_loader(Forget(), 0, augment=False):
        loss = reference.loss(batch["forget"])[0].mean()
        for (name, p), g in zip(
            reference.named_parameters(),
            torch.autograd.grad(loss, list(reference.parameters())),
            strict=True,
        ):
            gradient[name] = gradient.get(name, torch.zeros_like(p)) + g
    module = fit(FineTune(backbone, mask=Saliency(keep=0.5)), digits(batch_size=8), epochs=1)
    assert module.mask is not None
    masked_in = torch.cat(
        [gradient[name].abs()[module.mask.mask_for(name)] for name in module.mask.names]
    )
    masked_out = torch.cat(
        [gradient[name].abs()[~module.mask.mask_for(name)] for name in module.mask.names]
    )
    assert masked_in.min() >= masked_out.max() * (1 - 1e-5)


def test_saliency_does_not_depend_on_the_global_generator() -> None:
    """Fails when the mask draws from torch's own generator."""
    masks = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        module = fit(FineTune(classifier(), mask=Saliency(keep=0.3)), epochs=1)
        masks.append({k: v for k, v in weights(module).items() if k.startswith("mask.")})
    assert different(masks[0], masks[1]) == []


def test_a_resumed_run_keeps_its_mask(tmp_path: Path) -> None:
    """Fails when the mask is computed again, at weights that have already moved."""
    file = tmp_path / "x.ckpt"
    first = fit(FineTune(classifier(), mask=Saliency(keep=0.2)), callbacks=[Snapshot(file, 1, 1)])
    resumed = FineTune(classifier(), mask=Saliency(keep=0.2))
    assert resumed.mask is not None
    calls: list[int] = []
    resumed.mask.choose = lambda module: calls.append(1) or {}  # type: ignore[assignment,method-assign,return-value]
    fit(resumed, ckpt_path=file)
    assert calls == []
    assert different(weights(first), weights(resumed)) == []


def test_by_name_trains_the_named_weights_alone() -> None:
    """Fails when a word matches nothing in silence, or other weights move."""
    backbone = classifier()
    before = weights(backbone)
    fit(FineTune(backbone, mask=ByName(["layer3", "linear"]), norm="eval"))
    changed = different(before, weights(backbone))
    assert changed
    assert all("layer3" in name or "linear" in name for name in changed)
    with pytest.raises(InputError, match="attn2"):
        fit(FineTune(classifier(), mask=ByName(["attn2"])))


@pytest.mark.parametrize(
    ("mask", "word"),
    [(Stingy(), "no weight move"), (Forgetful(), "chose nothing")],
    ids=["nothing", "partial"],
)
def test_masks_that_cannot_work_are_refused(mask: WeightMask, word: str) -> None:
    """Fails when a fit runs to its end and moves nothing, or moves a tensor that the mask
    forgot.
    """
    with pytest.raises(InputError, match=word):
        fit(FineTune(classifier(), mask=mask))


@pytest.mark.parametrize("keep", [0.0, -0.1, 1.5])
def test_shares_out_of_range_are_refused(keep: float) -> None:
    """Fails when a share that keeps nothing, or more than everything, is taken."""
    with pytest.raises(InputError, match="keep"):
        Saliency(keep=keep)


def test_gradients_of_masked_out_weights_are_zero_at_the_step() -> None:
    """Fails when the mask comes after the step."""
    seen: list[float] = []

    def look(module: UnlearningModule, batch: Any, batch_idx: int) -> None:
        assert module.mask is not None
        for name, p in module.trainable():
            if p.grad is not None:
                seen.append(float(p.grad[~module.mask.mask_for(name)].abs().sum()))

    fit(FineTune(classifier(), mask=Half()), epochs=1, callbacks=[Watch(look)])
    assert set(seen) <= {0.0}

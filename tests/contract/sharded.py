"""Cases of sharded weights (FSDP2), in one job: `python -m torch.distributed.run --nproc-per-node 2
-m THIS OUT`.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor

from mu.core.masks import WeightMask
from mu.core.module import UnlearningModule
from mu.core.sharding import FullyShardedStrategy
from mu.functional.selection import global_top_mask, magnitude_prune_mask
from mu.methods import SCRUB, SSD, EUk, FineTune, Influence, L1Sparse, NegGradPlus, RandomLabel
from mu.methods.components.answers import AnswerOfAnotherQuestion
from mu.methods.components.masks import ByName, Saliency
from mu.methods.general.prune import Pruned
from mu.methods.general.salun_soft import SalUnSoft
from mu.methods.language.npo import NPO
from mu.methods.language.rmu import RMU
from mu.utils.errors import InputError
from tests.support.doubles_text import causal_lm, people
from tests.support.helpers import State, fit, trainer, weights

Make = Callable[[], UnlearningModule]


class EverySecond(WeightMask):
    """Mask of every second weight, chosen as whole tensors."""

    calls = 0

    def choose(self, module: Any) -> dict[str, Tensor]:
        EverySecond.calls += 1
        return {
            name: (torch.arange(p.numel()) % 2 == 0).view(p.shape) for name, p in module.trainable()
        }


MASKS: dict[str, Callable[[], WeightMask]] = {
    "saliency": lambda: Saliency(0.5),
    "saliency in the gradient": lambda: Saliency(0.5, enforce="gradient"),
    "names": lambda: ByName(["mlp"]),
    "pruned": lambda: Pruned(0.5, scope="conv_linear"),
    "whole tensors": EverySecond,
}
"""Masks by the name of their case."""


def _sgd(params: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=0.05, momentum=0.9, weight_decay=0.01)


def cases() -> Iterator[tuple[str, Make, dict[str, Any]]]:
    """Name, module and settings of each fit: without a reference, with one, with a cached one,
    stopped at a layer, clipped, accumulated.
    """
    yield "FineTune", lambda: FineTune(causal_lm(), optimizer=_sgd), {}
    yield "NegGradPlus", lambda: NegGradPlus(causal_lm(), optimizer=_sgd), {}
    yield (
        "RandomLabel",
        lambda: RandomLabel(causal_lm(), optimizer=_sgd, substitute=AnswerOfAnotherQuestion()),
        {},
    )
    yield "SCRUB", lambda: SCRUB(causal_lm(), optimizer=_sgd), {}
    yield "NPO", lambda: NPO(causal_lm(), optimizer=_sgd), {}
    yield "RMU", lambda: RMU(causal_lm(), optimizer=_sgd, layer=0, scale=2.0, alpha=1.0), {}
    yield "clipped", lambda: FineTune(causal_lm(), optimizer=_sgd), {"gradient_clip_val": 0.1}
    yield (
        "accumulated",
        lambda: FineTune(causal_lm(), optimizer=_sgd),
        {"accumulate_grad_batches": 2},
    )
    for name, mask in MASKS.items():
        yield name, lambda mask=mask: FineTune(causal_lm(), optimizer=_sgd, mask=mask()), {}
    yield (
        "mask after clipping",
        lambda: FineTune(causal_lm(), optimizer=_sgd, mask=Saliency(0.3, clip="clip_then_mask")),
        {"gradient_clip_val": 0.1},
    )
    yield "SalUnSoft", lambda: SalUnSoft(causal_lm(), substitute=AnswerOfAnotherQuestion()), {}
    yield "EUk", lambda: EUk(causal_lm(), optimizer=_sgd, k=1), {}
    yield "L1Sparse", lambda: L1Sparse(causal_lm(), optimizer=_sgd, alpha=0.01), {}
    # the checkpoint leaves out what is not trained
    yield "part", lambda: FineTune(causal_lm(part="mlp"), optimizer=_sgd), {}


def half() -> UnlearningModule:
    """A fit with float32 master weights."""
    return FineTune(
        causal_lm(dtype="bfloat16"), optimizer=lambda params: torch.optim.AdamW(params, lr=1e-4)
    )


def _strategy() -> ModelParallelStrategy:
    return FullyShardedStrategy()


def full(module: UnlearningModule) -> State:
    """The backbone's weights and the mask, put together from all ranks."""
    masks = {}
    if module.mask is not None:
        masks = {f"mask.{name}": module.mask.mask_for(name) for name in module.mask.names}
    return {**_backbone(module), **{name: _joined(mask) for name, mask in masks.items()}}


def _joined(tensor: Any) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def _backbone(module: UnlearningModule) -> State:
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    if module.device_mesh is None:
        return weights(module.backbone)
    return get_model_state_dict(
        module.backbone, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )  # type: ignore[return-value]


RESUMED = ("FineTune", "SCRUB", "part", "half", "saliency", "whole tensors")
"""Cases that are resumed too."""


def selections(divided: Callable[[Tensor, int], Tensor]) -> dict[str, Tensor]:
    """Masks of scores with many ties, whose layout over ranks is made by `divided`.

    Args:
        divided: tensor and axis to the tensor divided along that axis.
    """
    generator = torch.Generator().manual_seed(0)
    scores = {
        name: torch.randint(0, 4, shape, generator=generator).float()
        for name, shape in {"odd": (5, 3), "one": (1,), "bias": (7,), "wide": (3, 4)}.items()
    }
    layouts = {name: divided(score, 1 if name == "wide" else 0) for name, score in scores.items()}
    masks = {}
    for keep in (0.0, 0.2, 0.5, 0.77, 1.0):
        chosen = global_top_mask(layouts, keep)
        masks |= {f"{name} {keep}": _joined(mask) for name, mask in chosen.items()}
        pruned = magnitude_prune_mask(layouts, 1 - keep)
        pruned = magnitude_prune_mask(layouts, 0.5, pruned)
        masks |= {f"{name} {keep} twice": _joined(mask) for name, mask in pruned.items()}
    return masks


def _divided(tensor: Tensor, axis: int) -> Tensor:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    return distribute_tensor(tensor, init_device_mesh("cpu", (2,)), [Shard(axis)])


def refusals(folder: Path, changes: dict[str, Any]) -> dict[str, str]:
    """Message of each fit that sharded weights do not allow."""
    causes: dict[str, Callable[[], Any]] = {
        "tensor parallel": lambda: fit(
            FineTune(causal_lm()),
            people(),
            1,
            strategy=ModelParallelStrategy(data_parallel_size=1, tensor_parallel_size=2),
            **changes,
        ),
        "SSD": lambda: fit(SSD(causal_lm()), people(), 1, strategy=_strategy(), **changes),
        "Influence": lambda: fit(
            Influence(causal_lm()), people(), 1, strategy=_strategy(), **changes
        ),
    }
    for name in STATES:
        causes[name] = lambda name=name: _from_changed(name, folder, changes)
    messages = {}
    for name, cause in causes.items():
        try:
            cause()
            messages[name] = "not refused"
        except InputError as error:
            messages[name] = str(error)
    return messages


_KEY = "backbone.network.lm_head.weight"
STATES: dict[str, Callable[[State], State]] = {
    "lacks": lambda state: {key: value for key, value in state.items() if key != _KEY},
    "unknown": lambda state: {**state, "backbone.network.other.weight": torch.zeros(2)},
    "shape": lambda state: {**state, _KEY: state[_KEY][:-1]},
}
"""Changes of a checkpoint's weights that a resume refuses."""


def _from_changed(name: str, folder: Path, changes: dict[str, Any]) -> None:
    """Resume from the checkpoint of `_resumed` after a change of its weights."""
    file = folder / f"{name}.ckpt"  # one for each: a rank may still read that of the last change
    if torch.distributed.get_rank() == 0:
        checkpoint = torch.load(folder / "half.ckpt", weights_only=True)
        checkpoint["state_dict"] = STATES[name](checkpoint["state_dict"])
        torch.save(checkpoint, file)
    torch.distributed.barrier()
    fit(FineTune(causal_lm(), optimizer=_sgd), people(), 2, file, strategy=_strategy(), **changes)


def run_all(folder: Path | None = None, **changes: Any) -> dict[str, State]:
    """Weights after each case, and after a run that was resumed from its checkpoint."""
    states: dict[str, State] = {}
    for name, make, needs_reference in cases():
        sharded = {"strategy": _strategy()} if folder else {}
        states[name] = full(fit(make(), people(), 2, **{**needs_reference, **changes, **sharded}))
    if folder is not None:
        makes = {name: make for name, make, _ in cases()} | {"half": half}
        states["half"] = full(fit(half(), people(), 2, strategy=_strategy(), **changes))
        for name in RESUMED:
            states[f"{name} resumed"] = full(_resumed(makes[name], folder, changes))
    return states


def _resumed(make: Make, folder: Path, changes: dict[str, Any]) -> UnlearningModule:
    """One epoch, a checkpoint, and in a new trainer the second epoch."""
    module = None
    for epochs, checkpoint in ((1, None), (2, folder / "half.ckpt")):
        run = trainer(
            epochs,
            **{
                **changes,
                "strategy": _strategy(),
                "enable_checkpointing": True,
                "default_root_dir": str(folder),
            },
        )
        module = make()
        run.fit(module, datamodule=people(), ckpt_path=checkpoint, weights_only=True)
        if checkpoint is None:
            run.save_checkpoint(folder / "half.ckpt")
            EverySecond.calls = 0
    assert module is not None
    assert EverySecond.calls == 0, "a mask was chosen again"
    return module


def main() -> None:
    """Run on this rank; rank 0 writes what it found."""
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1])
    changes = {"devices": 2, "num_nodes": 1}
    states = run_all(folder, **changes)
    _resumed(lambda: FineTune(causal_lm(), optimizer=_sgd), folder, changes)
    messages = refusals(folder, changes)
    masks = selections(_divided)
    if torch.distributed.get_rank() == 0:
        torch.save((states, messages, masks), folder / "sharded.pt")


if __name__ == "__main__":
    main()

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

from mu.core.module import UnlearningModule
from mu.methods import SCRUB, FineTune, NegGradPlus, RandomLabel
from mu.methods.components.answers import AnswerOfAnotherQuestion
from mu.methods.language.npo import NPO
from mu.methods.language.rmu import RMU
from tests.support.doubles_text import causal_lm, people
from tests.support.helpers import State, fit, trainer, weights

Make = Callable[[], UnlearningModule]


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
    # the checkpoint leaves out what is not trained
    yield "part", lambda: FineTune(causal_lm(part="mlp"), optimizer=_sgd), {}


def half() -> UnlearningModule:
    """A fit with float32 master weights."""
    return FineTune(
        causal_lm(dtype="bfloat16"), optimizer=lambda params: torch.optim.AdamW(params, lr=1e-4)
    )


def _strategy() -> ModelParallelStrategy:
    return ModelParallelStrategy(
        data_parallel_size=2, tensor_parallel_size=1, save_distributed_checkpoint=False
    )


def full(module: UnlearningModule) -> State:
    """The backbone's weights, put together from all ranks."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    if module.device_mesh is None:
        return weights(module.backbone)
    return get_model_state_dict(
        module.backbone, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )  # type: ignore[return-value]


def run_all(folder: Path | None = None, **changes: Any) -> dict[str, State]:
    """Weights after each case, and after a run that was resumed from its checkpoint."""
    states: dict[str, State] = {}
    for name, make, needs_reference in cases():
        sharded = {"strategy": _strategy()} if folder else {}
        states[name] = full(fit(make(), people(), 2, **{**needs_reference, **changes, **sharded}))
    if folder is not None:
        makes = {name: make for name, make, _ in cases()} | {"half": half}
        states["half"] = full(fit(half(), people(), 2, strategy=_strategy(), **changes))
        for name in ("FineTune", "SCRUB", "part", "half"):
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
    assert module is not None
    return module


def main() -> None:
    """Run on this rank; rank 0 writes what it found."""
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1])
    states = run_all(folder, devices=2, num_nodes=1)
    if torch.distributed.get_rank() == 0:
        torch.save(states, folder / "sharded.pt")


if __name__ == "__main__":
    main()

"""Cost of a run: seconds by stage, peak memory, trainable and changed weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from callbacks.base import Evaluated, Suite, module_of
from mu.core.module import UnlearningModule
from mu.metrics.results import SHARED_DEFINITIONS, Result


class Cost(Suite):
    """Cost of a run: seconds, peak memory, trainable and changed weights.

    `seconds` (masks, statistics, training and edits; evaluation apart) and its breakdown,
    `peak_memory` in MiB, `trainable` and `moved` weights.

    Memory is the peak that torch allocated on a GPU; on a CPU the peak of the process's resident
    set since the fit began (Linux; the libraries themselves are in it).
    """

    definitions: ClassVar[Mapping[str, str]] = {
        "seconds": SHARED_DEFINITIONS["seconds"],
        "seconds/": "The part of seconds that this stage took.",
        "peak_memory": "Largest memory in use during the run, in MiB (allocated on a GPU; resident "
        "on a CPU).",
        "trainable": "Number of weights that the method was allowed to change.",
        "moved": "Number of weights that differ after the run.",
    }
    headline = ()

    def __init__(self) -> None:
        self._before: list[Tensor] = []
        self._hook: RemovableHandle | None = None
        self._seen: dict[str, float] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let a resumed fit copy the weights before those of its checkpoint are loaded."""
        if stage == "fit":
            self._before = []
            self._hook = pl_module.register_load_state_dict_pre_hook(self._before_loading)

    def _before_loading(self, module: UnlearningModule, *_: Any) -> None:
        if not module.original_is_gone:
            self._before = _copies(module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the weights of a fit from its beginning, and reset the memory's high-water mark."""
        module = module_of(pl_module)
        if self._hook is not None:
            self._hook.remove()
        if not self._before and not module.original_is_gone:
            self._before = _copies(module)
        self._seen = {}
        _reset_peak(module.device)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the weights that changed."""
        module = module_of(pl_module)
        after = [p.detach() for _, p in module.trainable()]
        self._seen["trainable"] = float(sum(p.numel() for p in after))
        if len(after) == len(self._before):
            self._seen["moved"] = float(
                sum(int((a.cpu() != b).sum()) for a, b in zip(after, self._before, strict=True))
            )
        self._seen["peak_memory"] = _peak(module.device) / 2**20
        self._before = []

    def measure(self, outputs: Evaluated, module: UnlearningModule) -> list[Result]:
        """Costs of the run; after a fit in another process the checkpoint's seconds only."""
        seconds = {
            stage: value
            for stage, value in module.stopwatch.seconds().items()
            if stage != "evaluation"
        }
        # a model that was only evaluated took no time that could be compared
        results = [Result("seconds", sum(seconds.values()), False, "", "s")] if seconds else []
        results += [
            Result(f"seconds/{stage}", value, False, "", "s")
            for stage, value in sorted(seconds.items())
        ]
        units = {"trainable": "weights", "moved": "weights", "peak_memory": "MiB"}
        better = {"trainable": None, "moved": None, "peak_memory": False}
        return results + [
            Result(name, value, better[name], "", units[name]) for name, value in self._seen.items()
        ]

    def state_dict(self) -> dict[str, Any]:
        """Counts of the fit, for a test that loads the checkpoint."""
        return {"seen": dict(self._seen)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the counts of the fit."""
        self._seen = dict(state_dict["seen"])


def _copies(module: UnlearningModule) -> list[Tensor]:
    return [p.detach().to("cpu", copy=True) for _, p in module.trainable()]


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")  # Linux: set the resident set's high-water mark to its present size


def _peak(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return float(line.split()[1]) * 1024
    import resource

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024

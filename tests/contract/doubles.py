"""Methods and tasks for the contract tests that no package needs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mu.backbones import Backbone
from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.data.datamodule import UnlearningDataModule
from mu.data.plan import DataPlan
from mu.data.split import Split
from mu.methods import FineTune


class Sees(UnlearningModule):
    """Fits the parts that the plan gives."""

    def __init__(self, backbone: Backbone, plan: DataPlan, lr: float = 0.01, **kwargs: Any) -> None:
        super().__init__(
            backbone, optimizer=lambda params: torch.optim.SGD(params, lr=lr), **kwargs
        )
        self.plan = plan

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        parts = {"forget": forget, "retain": retain}
        return {
            name: self.reduce(self.backbone.loss(part), part)
            for name, part in parts.items()
            if part is not None
        }


class Breaks(FineTune):
    """Its loss is not a number from step 6 on."""

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        terms = super().objective(forget, retain)
        return (
            {"retain": terms["retain"] * float("nan")} if self.trainer.global_step >= 6 else terms
        )


class NeedsReferenceByProperty(FineTune):
    """Whether a reference is needed is known after `__init__` only."""

    def __init__(self, backbone: Backbone, anchored: bool = True, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)
        self.anchored = anchored

    @property
    def needs_reference(self) -> bool:  # type: ignore[override]
        return self.anchored


class Bare(UnlearningDataModule):
    """A task with chosen parts and entries."""

    def __init__(
        self,
        like: Any,
        provides: frozenset[str] = frozenset({"labels"}),
        keep: tuple[str, ...] = ("forget", "retain"),
        extra: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.like = like
        self.provides = provides
        self.keep = keep
        self.extra = extra

    def make(self) -> None:
        self.like.setup()
        self.split = Split(
            "bare",
            {name: self.like.split.parts[name] for name in ("forget", "retain")},
            {"of": "bare"},
            0,
        )
        self.datasets = {name: self.like.datasets[name] for name in self.keep}
        if self.extra:
            self.datasets["forget"] = WithAnswer(self.datasets["forget"])


class WithAnswer(torch.utils.data.Dataset):
    """Adds a `substitute` to every sample."""

    def __init__(self, data: Any) -> None:
        self.data = data
        self.indices = data.indices

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        return self.data[position] | {"substitute": torch.tensor(3)}

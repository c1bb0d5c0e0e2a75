"""What a component may ask of its method: the interface that masks, substitutes, retain terms and
latent sources are written against.

A component (`WeightMask.choose`, `RetainTerm.term`, `LatentSource.draw`) gets the running
`UnlearningModule` as its argument. It uses the members below and no others, so that it works with
every method, one in a user's own file included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from mu.backbones.base import Backbone, WeightedSum
from mu.data.batch import Batch
from mu.data.plan import DataPlan
from mu.utils.timing import Stopwatch

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


class Method(Protocol):
    """An unlearning method in a run, as its components see it.

    Attributes:
        backbone: the model that is unlearned, with its present weights.
        reference: the frozen original, where the method needs one.
        seed: of the run; every draw is a function of it, of a sample's index and of its visit.
        shard: how batches are dealt to ranks: by `rows` or whole `batches`.
        original_hash: of the weights that the run began from.
        stopwatch: where the time went; a pass that prepares something is counted under `mask` or
            `cache`.
    """

    backbone: Backbone
    reference: Backbone | None
    seed: int
    shard: str
    original_hash: str
    stopwatch: Stopwatch

    @property
    def plan(self) -> DataPlan:
        """The order in which the method sees forget and retain."""
        ...

    @property
    def task(self) -> Any:
        """The UnlearningDataModule of the run; None when loaders were given to the trainer."""

    @property
    def trainer(self) -> Trainer:
        """Lightning's trainer."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    @property
    def device_mesh(self) -> Any:
        """The mesh over which weights are sharded (FSDP2); None elsewhere."""

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        ...

    @property
    def global_rank(self) -> int:
        """This process's rank."""
        ...

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """Names (within the backbone) and weights that the method moves."""
        ...

    def iterate_batches(
        self, plan: DataPlan, *, augment: bool, batch_size: int | None = None, shard: str = "rows"
    ) -> Iterator[dict[str, Any]]:
        """Prepared batches of one epoch of `plan`, outside the training loop."""
        ...

    def prepare(self, part: Batch, substitute: bool = False) -> Batch:
        """A part of a batch, drawn and encoded."""
        ...

    def reduce(self, summed: WeightedSum, part: Batch) -> Tensor:
        """A scalar from `(sum [B], weight [B])`, by the run's reduction."""
        ...

    def sum_over_ranks(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        """Each tensor, added up over ranks."""
        ...

    def precision(self) -> AbstractContextManager[Any]:
        """The trainer's precision, for passes outside its steps."""
        ...

    def on_train_epoch_start(self) -> Any:
        """Lightning's hook."""

    def on_train_epoch_end(self) -> Any:
        """Lightning's hook."""

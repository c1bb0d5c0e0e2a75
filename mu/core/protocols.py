"""Interface of a method to its components: masks, substitutes, retain terms, latent sources.

A component (`WeightMask.choose`, `RetainTerm.term`, `LatentSource.draw`) gets the running
`UnlearningModule` as its argument. It uses the members below and no others, so that it works with
every method, one in a user's own file included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from mu.backbones.base import Backbone, WeightedSum
from mu.data.batch import Batch
from mu.data.plan import DataPlan
from mu.utils.timing import Stopwatch


class Method(Protocol):
    """Interface of an unlearning method to its components.

    Attributes:
        backbone: the model that is unlearned, with its present weights.
        reference: the frozen original, where the method needs one.
        seed: of the run; every draw is a function of the seed, of a sample's index and of its
            visit.
        shard: how batches are divided among ranks: by `rows` or in whole `batches`.
        original_hash: of the weights that the run began from.
        original_is_gone: whether a resumed run is built without the original weights, which are not
            there any more.
        run_settings: hash of the settings in the run's config.yaml that a resume may not change.
        default_epochs: epochs of a fit whose trainer has neither `max_epochs` nor `max_steps`.
        default_steps: optimizer steps of such a fit, in place of epochs.
        ends_itself: whether a fit ends before its last epoch, as that of an `Edit`.
        stopwatch: seconds by purpose; a pass that prepares a component counts under `mask` or
            `cache`.
    """

    backbone: Backbone
    reference: Backbone | None
    seed: int
    shard: str
    original_hash: str
    run_settings: str
    original_is_gone: bool
    stopwatch: Stopwatch
    ends_itself: bool

    @property
    def default_epochs(self) -> int: ...
    @property
    def default_steps(self) -> int | None: ...
    @property
    def plan(self) -> DataPlan:
        """The data plan: the order of forget and retain batches."""
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
        """Device of the weights."""
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
        """Names (within the backbone) and parameters of the weights that the method moves."""
        ...

    def iterate_batches(
        self, plan: DataPlan, *, augment: bool, batch_size: int | None = None, shard: str = "rows"
    ) -> Iterator[dict[str, Any]]:
        """Prepared batches of one epoch of `plan`, outside the training loop."""
        ...

    def prepare(self, part: Batch, substitute: bool = False) -> Batch:
        """A part of a batch after the backbone's `prepare`."""
        ...

    def reduce(self, summed: WeightedSum, part: Batch) -> Tensor:
        """A scalar from `(sum [B], weight [B])`, by the run's reduction."""
        ...

    def sum_over_ranks(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        """Sum of each tensor over ranks."""
        ...

    def precision(self) -> AbstractContextManager[Any]:
        """Context of the trainer's precision, for passes outside its steps."""
        ...

    def on_train_epoch_start(self) -> Any:
        """Lightning's hook."""

    def on_train_epoch_end(self) -> Any:
        """Lightning's hook."""

"""Log-likelihoods under the original model, computed once before the first step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mu.core.protocols import Method
from mu.data.batch import Batch, fetch
from mu.data.datamodule import accumulation
from mu.data.plan import count_windows, limited
from mu.data.sequences import Pair, collate
from mu.utils.errors import InputError, RunError
from mu.utils.modules import eval_mode
from mu.utils.rng import stream_id


class ReferenceNLL(nn.Module):
    """Table of summed negative log-likelihoods under the original, by sequence.

    The key of a sequence is a hash of its tokens and labels. The backbone computes the values while
    it still is the original, in eval mode and in the trainer's precision, so that no second model
    is in memory. The table is in the checkpoint, and is not computed again on resume. Ranks share
    the work, and then all hold the whole table.

    Attributes:
        keys: `[N]` int64, ascending.
        values: `[N]`, in the precision in which they were computed.
        origin: hash of the original's weights and of the precision; 0 while the table is empty.
    """

    keys: Tensor
    values: Tensor
    origin: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("keys", torch.empty(0, dtype=torch.int64))
        self.register_buffer("values", torch.empty(0))
        self.register_buffer("origin", torch.tensor(0))
        self._in_table: Tensor | None = None

    def __len__(self) -> int:
        return len(self.keys)

    # ---- before the first step -------------------------------------------------------------------

    def start(self, module: Method, substitutes: bool = False) -> None:
        """Compute the values of all sequences of the run, unless a checkpoint brought them.

        Args:
            module: in a fit, before its first step.
            substitutes: whether to include the substitute answers of all epochs.

        Raises:
            InputError: a checkpoint's table is of another original, or lacks a sequence of the run.
        """
        origin = stream_id(
            "reference-nll",
            module.original_hash,
            module.trainer.precision,
            next(module.backbone.parameters()).dtype,
        )
        if len(self) and int(self.origin) != origin:
            raise InputError(
                "the log-likelihoods in the checkpoint are those of other original weights, or "
                "were computed in another precision; resume with those of the run that wrote it, "
                "or begin another run."
            )
        present = set(self.keys.tolist())
        missing = {
            key: pair for key, pair in sequences(module, substitutes).items() if key not in present
        }
        if not missing:
            return
        if present:
            raise InputError(
                f"the checkpoint lacks the original's log-likelihoods of {len(missing)} sequences "
                "of this run; begin again, with the number of epochs and the texts that the run "
                "shall have in the end."
            )
        self._fill(list(missing), self._evaluate(module, list(missing.values())), origin)

    def _fill(self, keys: list[int], values: Tensor, origin: int) -> None:
        self.keys, order = torch.tensor(keys, dtype=torch.int64, device=values.device).sort()
        self.values = values[order]
        self.origin = torch.tensor(origin, device=values.device)

    @torch.no_grad()
    def _evaluate(self, module: Method, pairs: list[Pair]) -> Tensor:
        """The backbone's values, `[N]`.

        Batches are of similar length, and have no more rows than a step of the training.
        """
        order = sorted(range(len(pairs)), key=lambda position: len(pairs[position][0]))
        size = max(1, 2 * _task(module).batch_size // module.world_size)
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        values: Tensor | None = None
        with eval_mode(module.backbone), module.precision():
            for turn in range(-(-len(batches) // module.world_size)):
                # all ranks run the model equally often, because one's weights may be sharded
                position = turn * module.world_size + module.global_rank
                rows = batches[min(position, len(batches) - 1)]
                part = collate([pairs[row] for row in rows])
                nll = module.backbone.nll(module.trainer.strategy.batch_to_device(part))
                if values is None:
                    values = torch.zeros(len(pairs), dtype=nll.dtype, device=nll.device)
                if position < len(batches):
                    values[rows] = nll
        assert values is not None
        return module.sum_over_ranks([values])[0]

    # ---- in a step -------------------------------------------------------------------------------

    def value(self, part: Batch) -> Tensor:
        """Values of the part's sequences, `[B]`.

        On an accelerator, a missing sequence raises in the next step, so that nothing waits for the
        device; until then its value is NaN, and so is the loss.

        Raises:
            RunError: the table lacks a sequence, or was not computed.
        """
        self._stop_if_missing()
        if not len(self):
            raise RunError(
                "the original's log-likelihoods were not computed; they are when a fit starts."
            )
        position = torch.searchsorted(self.keys, part["key"]).clamp_max(len(self) - 1)
        in_table = self.keys[position] == part["key"]
        self._in_table = in_table
        if in_table.device.type == "cpu":
            self._stop_if_missing()
        return self.values[position].masked_fill(~in_table, math.nan)

    def _stop_if_missing(self) -> None:
        in_table = self._in_table
        self._in_table = None
        if in_table is not None and not bool(in_table.all()):
            raise RunError(
                f"{int((~in_table).sum())} sequences of a batch have no log-likelihood under the "
                "original, because the run shows other texts than its plan; give it texts that "
                "do not change while it runs."
            )

    # ---- state -----------------------------------------------------------------------------------

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Move with the module, in the values' own precision.

        `bf16-true` would leave two digits of a sum of a hundred tokens.
        """
        values = self.values
        super()._apply(fn, recurse)
        self.values = values.to(self.values.device)
        return self

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Give the buffers the sizes that they have in the checkpoint."""
        for name in ("keys", "values"):
            stored = state_dict.get(prefix + name)
            if stored is not None:
                setattr(self, name, torch.empty_like(stored, device=self.keys.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)  # type: ignore[arg-type]


def sequences(module: Method, substitutes: bool = False) -> dict[int, Pair]:
    """The distinct forget sequences of a run, by key, in the same order on every rank.

    Args:
        module: in a fit.
        substitutes: whether to include the substitute answers of all visits beside the true ones.
    """
    task = _task(module)
    data: Any = task.parts(frozenset({"forget"}))["forget"]
    positions, visits = planned_visits(module, data, all_visits=substitutes)
    pairs: dict[int, Pair] = {}
    for start in range(0, len(positions), 256):
        part = fetch(data, positions[start : start + 256])
        part["visit"] = torch.as_tensor(visits[start : start + 256], dtype=torch.int64)
        part = module.prepare(part, substitute=substitutes)
        for rows in (part, part["substitute"]) if substitutes else (part,):
            for key, pair in _rows(rows):
                pairs.setdefault(key, pair)
    return pairs


def planned_visits(module: Method, data: Any, all_visits: bool) -> tuple[np.ndarray, np.ndarray]:
    """Distinct positions in the forget part that the run's plan reads, with their visits.

    Args:
        module: in a fit.
        data: the forget part.
        all_visits: whether to give all visits of a sample, or only visit 0.

    Returns:
        Positions `[N]` and visits `[N]`, sorted.

    Raises:
        InputError: all visits are asked for, and the run has no end.
    """
    endless = None if all_visits else len(data)
    pairs = {pair for rows in _planned_rows(module, endless) for pair in rows}
    if not all_visits:
        pairs = {(position, 0) for position, _ in pairs}
    ordered = np.asarray(sorted(pairs), dtype=np.int64).reshape(-1, 2)
    return ordered[:, 0], ordered[:, 1]


def _planned_rows(module: Method, endless: int | None) -> Iterator[Iterator[tuple[int, int]]]:
    """(Position, visit) of each batch's forget rows on all ranks.

    Args:
        module: in a fit.
        endless: number of positions of a run without end, each given once; None refuses such a run.
    """
    trainer = module.trainer
    max_epochs = -1 if trainer.max_epochs is None else trainer.max_epochs
    max_steps = trainer.max_steps
    if max_epochs < 0 and max_steps < 0:
        if endless is None:
            raise InputError(
                f"{type(module).__name__} computes the original's log-likelihoods of all answers "
                "that the run will draw, so the run needs an end; set trainer.max_epochs or "
                "trainer.max_steps."
            )
        yield ((position, 0) for position in range(endless))
        return
    # plan of the task, epoch by epoch
    limit = trainer.limit_train_batches
    sampler = (
        _task(module)
        .plan_loader(module.plan, module.seed, accumulate=accumulation(trainer), limit=limit)
        .plan_sampler
    )
    epoch = 0
    steps = 0
    while (max_epochs < 0 or epoch < max_epochs) and (max_steps < 0 or steps < max_steps):
        # the epoch's batches under the trainer's limit
        sampler.set_epoch(epoch)
        batches = sampler.steps[: limited(len(sampler.steps), limit)]
        if not batches:
            return
        for step in batches:
            if step is not None and "forget" in step.parts:
                rows = step.parts["forget"]
                yield zip(rows.positions.tolist(), rows.visits.tolist(), strict=True)
        epoch += 1
        steps += count_windows(batches)


def _rows(part: Mapping[str, Any]) -> Iterator[tuple[int, Pair]]:
    """Key, ids and labels of each sequence, without its padding."""
    columns = (
        part["input_ids"].tolist(),
        part["labels"].tolist(),
        part["attention_mask"].sum(1).tolist(),
        part["key"].tolist(),
    )
    for ids, labels, length, key in zip(*columns, strict=True):
        yield key, (ids[:length], labels[:length])


def _task(module: Method) -> Any:
    if module.task is None:
        raise InputError(
            f"{type(module).__name__} computes log-likelihoods of the forget part before the first "
            "step, so fit it with a mu task (datamodule=...)."
        )
    return module.task

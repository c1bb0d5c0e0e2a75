"""What the original thought of the sequences that a run will show: computed once, before the first
step, instead of at every step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mu.core.protocols import Method
from mu.data.batch import Batch, fetch
from mu.data.encoding import Pair, collate
from mu.utils.errors import InputError, RunError
from mu.utils.modules import eval_mode
from mu.utils.rng import stream_id


class ReferenceNLL(nn.Module):
    """Summed negative log-likelihoods under the original, by the key of a sequence's exact tokens
    and labels.

    They are computed by the backbone itself, which still is the original then, in eval mode and in
    the trainer's precision: no second model is ever in memory. The table knows by which original it
    was made, and in which precision. Its tensors are in the checkpoint, and are not computed again
    on resume; all ranks share the work and then hold the same.

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
        self._known: Tensor | None = None

    def __len__(self) -> int:
        return len(self.keys)

    # ---- before the first step -------------------------------------------------------------------

    def start(self, module: Method, substitutes: bool = False) -> None:
        """Compute what the run will ask for, unless a checkpoint brought it.

        Args:
            module: in a fit, before its first step.
            substitutes: the substitutes are asked for too, those that are drawn in all epochs.

        Raises:
            InputError: when a checkpoint's table is another original's, or lacks a sequence that
                the run will show.
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
        held = set(self.keys.tolist())
        lacking = {
            key: pair for key, pair in sequences(module, substitutes).items() if key not in held
        }
        if not lacking:
            return
        if held:
            raise InputError(
                f"this run shows {len(lacking)} sequences that the original was not asked about "
                "before the first step; begin again with as many epochs, and with the same "
                "texts, as it shall have in the end."
            )
        self._fill(lacking, self._evaluate(module, list(lacking.values())), origin)

    def _fill(self, wanted: Mapping[int, Pair], values: Tensor, origin: int) -> None:
        keys = torch.tensor(list(wanted), dtype=torch.int64, device=values.device)
        self.keys, order = keys.sort()
        self.values = values[order]
        self.origin = torch.tensor(origin, device=values.device)

    @torch.no_grad()
    def _evaluate(self, module: Method, pairs: list[Pair]) -> Tensor:
        """The backbone's values, `[N]`, in batches of similar length that have no more rows than a
        step of the training.
        """
        order = sorted(range(len(pairs)), key=lambda place: len(pairs[place][0]))
        size = max(1, 2 * _task(module).batch_size // module.world_size)
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        found: Tensor | None = None
        with eval_mode(module.backbone), module.precision():
            for turn in range(-(-len(batches) // module.world_size)):
                # every rank runs the model equally often, because the weights of one may be spread
                # over all
                number = turn * module.world_size + module.global_rank
                places = batches[min(number, len(batches) - 1)]
                part = module.trainer.strategy.batch_to_device(
                    collate([pairs[place] for place in places])
                )
                nll = module.backbone.nll(part)
                if found is None:
                    found = torch.zeros(len(pairs), dtype=nll.dtype, device=nll.device)
                if number < len(batches):
                    found[places] = nll
        assert found is not None
        return module.sum_over_ranks([found])[0]

    # ---- in a step -------------------------------------------------------------------------------

    def value(self, part: Batch) -> Tensor:
        """The values of the part's sequences, `[B]`.

        Raises:
            RunError: when the table lacks a sequence; on an accelerator in the next step, so that
                nothing waits for the device (until then its value is not a number, and neither is
                the loss).
        """
        self._stop_if_unknown()
        if not len(self):
            raise RunError(
                "the original's log-likelihoods were not computed; they are when a fit starts."
            )
        place = torch.searchsorted(self.keys, part["key"]).clamp_max(len(self) - 1)
        known = self._known = self.keys[place] == part["key"]
        if known.device.type == "cpu":
            self._stop_if_unknown()
        return self.values[place].masked_fill(~known, math.nan)

    def _stop_if_unknown(self) -> None:
        known = self._known
        self._known = None
        if known is not None and not bool(known.all()):
            raise RunError(
                f"{int((~known).sum())} sequences of a batch have no log-likelihood under the "
                "original, because the run shows other texts than its plan; give it texts that "
                "do not change while it runs."
            )

    # ---- state -----------------------------------------------------------------------------------

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Moves with the module, but keeps its precision: `bf16-true` would leave two digits of a
        sum of a hundred tokens.
        """
        kept = self.values
        super()._apply(fn, recurse)
        self.values = kept.to(self.values.device)
        return self

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Make room for as many sequences as the checkpoint has."""
        for name in ("keys", "values"):
            stored = state_dict.get(prefix + name)
            if stored is not None:
                setattr(self, name, torch.empty_like(stored, device=self.keys.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)  # type: ignore[arg-type]


def sequences(module: Method, substitutes: bool = False) -> dict[int, Pair]:
    """The distinct forget sequences that a run will show, by key, in the same order on every rank.

    Args:
        module: in a fit.
        substitutes: the drawn answers too, of every time that a sample is shown; otherwise the true
            answers alone.
    """
    task = _task(module)
    data: Any = task.parts(frozenset({"forget"}))["forget"]
    positions, visits = shown(module, data, every_visit=substitutes)
    found: dict[int, Pair] = {}
    for start in range(0, len(positions), 256):
        part = fetch(data, positions[start : start + 256])
        part["visit"] = torch.as_tensor(visits[start : start + 256], dtype=torch.int64)
        part = module.prepare(part, substitute=substitutes)
        for rows in (part, part["substitute"]) if substitutes else (part,):
            found.update({key: pair for key, pair in _rows(rows) if key not in found})
    return found


def shown(module: Method, data: Any, every_visit: bool) -> tuple[np.ndarray, np.ndarray]:
    """Positions in the forget part that the run's plan shows, and how often each was shown before;
    each pair once.

    Args:
        module: in a fit.
        data: the forget part.
        every_visit: all visits of a sample, not only one.

    Raises:
        InputError: when all visits are asked for and the run has no end.
    """
    pairs = {
        pair
        for rows in _planned(module, endless=None if every_visit else len(data))
        for pair in rows
    }
    if not every_visit:
        pairs = {(position, 0) for position, _ in pairs}
    ordered = np.asarray(sorted(pairs), dtype=np.int64).reshape(-1, 2)
    return ordered[:, 0], ordered[:, 1]


def _planned(module: Method, endless: int | None) -> Iterator[Iterator[tuple[int, int]]]:
    """(Position, visit) of each batch's forget rows on all ranks; of a run without end each of
    `endless` positions once.
    """
    trainer = module.trainer
    epochs = trainer.max_epochs
    steps = trainer.max_steps
    if (epochs is None or epochs < 0) and steps < 0:
        if endless is None:
            raise InputError(
                f"{type(module).__name__} asks the original about every answer that the run will "
                "draw, so the run needs an end; set trainer.max_epochs or trainer.max_steps."
            )
        yield ((position, 0) for position in range(endless))
        return
    sampler = _task(module).plan_loader(module.plan, module.seed).plan_sampler
    epoch = made = 0
    while (epochs is None or epochs < 0 or epoch < epochs) and (steps < 0 or made < steps):
        sampler.set_epoch(epoch)
        limit = trainer.limit_train_batches
        plan = sampler.steps[: limit if isinstance(limit, int) else int(len(sampler.steps) * limit)]
        if not plan:
            return
        for step in plan:
            if step is not None and "forget" in step.parts:
                rows = step.parts["forget"]
                yield zip(rows.positions.tolist(), rows.visits.tolist(), strict=True)
        epoch = epoch + 1
        made = made + -(-len(plan) // trainer.accumulate_grad_batches)


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
            f"{type(module).__name__} asks the original about the forget part before the first "
            "step, so fit it with a mu task (datamodule=...)."
        )
    return module.task

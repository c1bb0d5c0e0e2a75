"""Relearning attack: fine-tuning of an unlearned model on a few forget samples.

Hu, Fu, Wu and Smith, "Jogging the memory of unlearned models through targeted relearning attacks",
ICLR 2025, arXiv 2406.13356. From the unlearned weights θ, n steps of an ordinary optimizer on

    min_θ  Σ_{i ∈ S} ℓ(x_i; θ) / Σ_{i ∈ S} w_i,    S ⊂ forget, |S| = k,

ℓ the loss that the model was trained with and w its weight (labelled tokens; 1 elsewhere). What
returns on forget \\ S was still there; on S itself, anything that can learn gains.

Defaults: k = 10 and 20 steps are the small end of what the papers try (5 to 1,000 examples, dozens
of steps). AdamW at 1e-4 lies between the 1e-5 at which models of billions of weights are fine-tuned
whole and the 2e-4 at which adapters are; smaller models need more. An attack that is too weak finds
nothing, so the rate is reported with the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from mu.backbones import Backbone
from mu.data.batch import fetch
from mu.utils import rng
from mu.utils.errors import InputError, UndefinedError
from mu.utils.master_weights import with_masters
from mu.utils.modules import separate_copy
from mu.utils.spec import Reconstructible, to_spec


@dataclass(frozen=True)
class Relearned:
    """Model after a relearning attack.

    Attributes:
        backbone: the copy that was fine-tuned, in eval mode.
        positions: `[k]` int64, ascending: samples of the dataset that it was trained on.
        losses: loss before each step.
        weights: number of weights that were trained.
    """

    backbone: Any
    positions: np.ndarray
    losses: tuple[float, ...]
    weights: int


class Relearn(Reconstructible):
    """Relearning attack: fine-tuning of a copy of any backbone on a few samples.

    The model itself is left unchanged. The copy trains what the model trains: all of its weights or
    a part of them, its adapters alone where it has some, and every weight where none is marked as
    trainable. All layers are in eval mode, so that no statistics of ten examples get into a batch
    norm, and nothing is drawn but by `prepare`: ranks that do the same work get the same weights.

    Args:
        examples: number k of samples, drawn by `seed`.
        steps: n, optimizer steps.
        optimizer: factory of the optimizer from the trainable weights.
        batch_size: samples in a step; None takes all k in each.
        seed: seed of the choice of samples, their order, and the draws of `prepare`.
    """

    def __init__(
        self,
        examples: int = 10,
        steps: int = 20,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=1e-4),
        batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        if min(examples, steps, 1 if batch_size is None else batch_size) < 1:
            raise InputError(
                "relearning takes at least one example, one step and one sample in a step, not "
                f"{examples}, {steps} and {batch_size}."
            )
        self.examples = examples
        self.steps = steps
        self.make_optimizer = optimizer
        self.batch_size = batch_size
        self.seed = seed

    def __call__(
        self,
        backbone: Backbone,
        dataset: Any,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> Relearned:
        """Fine-tune a copy of the backbone on samples of the dataset.

        Args:
            backbone: model of `served()`; its weights, their gradients and modes stay unchanged.
            dataset: dataset with `indices`, as those of tasks.
            precision: factory of the context of a forward pass.

        Raises:
            InputError: when the dataset has fewer samples than `examples`, or the model no weight
                to train.
            RunError: when the loss is no longer finite.
        """
        positions = self.chosen(np.asarray(dataset.indices))
        with torch.inference_mode(False), torch.enable_grad():
            copy, weights = trainable_copy(backbone)
            optimizer = with_masters(self.make_optimizer, weights)
            losses = []
            for step in range(self.steps):
                part = _own(self._batch(dataset, positions, step), weights[0].device)
                optimizer.zero_grad(set_to_none=True)
                with precision():
                    with torch.no_grad():
                        part = copy.prepare(part, self.seed)
                    summed, weight = copy.loss(part)
                    loss = summed.sum() / weight.sum().clamp_min(1e-12)
                losses.append(self._finite(loss, step))
                loss.backward()
                optimizer.step()
        for parameter in weights:
            parameter.grad = None
        copy.eval()
        return Relearned(copy, positions, tuple(losses), sum(weight.numel() for weight in weights))

    def chosen(self, indices: np.ndarray) -> np.ndarray:
        """Ascending positions of the examples, a function of seed and stable indices alone."""
        if len(indices) < self.examples:
            raise InputError(
                f"relearning takes {self.examples} examples of a part that has {len(indices)}; "
                "take fewer."
            )
        drawn = rng.uniform(self.seed, torch.tensor(indices), 0, "relearning", 1)[:, 0]
        return np.sort(drawn.argsort(stable=True)[: self.examples].numpy())

    def _batch(self, dataset: Any, positions: np.ndarray, step: int) -> dict[str, Any]:
        """Batch of a step; the order of the examples is drawn anew for every epoch."""
        count = len(positions)
        size = min(self.batch_size or count, count)
        turns = np.arange(step * size, (step + 1) * size)
        index = torch.tensor(np.asarray(dataset.indices)[positions])
        rounds = turns // count
        orders = {
            turn: rng.uniform(self.seed, index, turn, "relearning-order", 1)[:, 0]
            .argsort(stable=True)
            .numpy()
            for turn in np.unique(rounds).tolist()
        }
        rows = np.asarray(
            [
                positions[orders[turn][example]]
                for turn, example in zip(rounds.tolist(), (turns % count).tolist(), strict=True)
            ]
        )
        return {**fetch(dataset, rows), "visit": torch.as_tensor(rounds, dtype=torch.int64)}

    def _finite(self, loss: Tensor, step: int) -> float:
        value = loss.item()
        if not math.isfinite(value):
            raise UndefinedError(
                f"relearning diverged: its loss is {value} at step {step}; lower the learning "
                "rate of the attack's optimizer."
            )
        return value

    def budget(self) -> dict[str, Any]:
        """Limits of the attack as plain data, reported with every result."""
        optimizer_spec: Any = to_spec(self.make_optimizer)
        optimizer_spec = optimizer_spec if isinstance(optimizer_spec, dict) else {}
        name = str(optimizer_spec.get("class_path", "own")).rpartition(".")[2]
        rate = optimizer_spec.get("init_args", {}).get("lr")
        return {
            "examples": self.examples,
            "steps": self.steps,
            "batch_size": min(self.batch_size or self.examples, self.examples),
            "optimizer": name if rate is None else f"{name} {rate:g}",
            "attack_seed": self.seed,
        }


def trainable_copy(backbone: Backbone) -> tuple[Any, list[nn.Parameter]]:
    """Copy of a model in eval mode, and its trainable weights.

    Weights that are not trained are shared with the model. Gradient checkpointing, which
    transformers and diffusers do in train mode only, stays on for the layers that have it.

    Raises:
        InputError: when the model has no weight.
    """
    trainable = [weight for weight in backbone.parameters() if weight.requires_grad]
    frozen = [weight for weight in backbone.parameters() if trainable and not weight.requires_grad]
    copy = separate_copy(backbone, frozen).eval()
    if not trainable:
        copy.requires_grad_(True)
    weights = [weight for weight in copy.parameters() if weight.requires_grad]
    if not weights:
        raise InputError(
            f"{type(backbone).__name__} has no weight to fine-tune, so relearning has nothing to "
            "attack."
        )
    for weight in weights:
        weight.grad = None
    for layer in copy.modules():
        if getattr(layer, "gradient_checkpointing", False):
            layer.training = True  # of this layer alone, so its dropout stays off
    return copy, weights


def _own(part: Any, device: torch.device) -> Any:
    """Cloned batch: tensors made under inference mode cannot take part in autograd."""
    if isinstance(part, Tensor):
        return part.detach().to(device, copy=True)
    return (
        {name: _own(value, device) for name, value in part.items()}
        if isinstance(part, dict)
        else part
    )

"""Checks of a task's samples against a network, before the first step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from mu.backbones.base import Backbone
from mu.data.batch import fetch
from mu.utils.errors import InputError
from mu.utils.modules import eval_mode

_SAMPLES = 64  # whose labels are read where a dataset does not give them all at once


def probe_prediction(backbone: Backbone, task: Any, field: str) -> Tensor | None:
    """Prediction for one sample of the task; None where the task has no samples.

    Args:
        backbone: evaluated in eval mode; random generators are left as they are.
        task: a task with `datasets`.
        field: what the network reads, `image` or `input`.

    Raises:
        InputError: the samples lack the field, or the network does not take its shape.
    """
    dataset = next((data for data in task.datasets.values() if len(data)), None)
    if dataset is None:
        return None
    sample = fetch(dataset, np.zeros(1, dtype=np.int64))
    values = sample.get(field)
    task_name = type(task).__name__
    if not isinstance(values, Tensor):
        raise InputError(
            f"the samples of {task_name} have no `{field}`, which {type(backbone).__name__} reads; "
            "choose another task or another backbone."
        )
    weight = next(backbone.parameters())
    batch = {**sample, field: values.to(weight.device, weight.dtype)}
    try:
        with torch.no_grad(), eval_mode(backbone), torch.random.fork_rng(devices=[]):
            return backbone.predict(batch)
    except InputError:
        raise
    except Exception as error:
        # networks of other libraries refuse a shape by assertions and errors of many types
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"the network does not take {task_name}'s samples, whose {field} has the shape "
            f"{list(values.shape[1:])} ({reason}); change the task's size or the network's options."
        ) from error


def check_labels(task: Any, num_classes: int) -> None:
    """Check that every label of a task is a class of the network.

    Raises:
        InputError: names a label out of range, and what to set.
    """
    ranges: dict[str, tuple[int, int]] = {}
    for part, data in task.datasets.items():
        labels = _labels(data)
        if labels is not None and labels.numel():
            ranges[part] = (int(labels.min()), int(labels.max()))
    if not ranges:
        return
    lowest = min(low for low, _ in ranges.values())
    highest = max(high for _, high in ranges.values())
    if lowest >= 0 and highest < num_classes:
        _warn_of_unused_classes(task, highest, num_classes)
        return
    label = lowest if lowest < 0 else highest
    part = next(name for name, ends in ranges.items() if label in ends)
    from_one = lowest == 1 and highest == num_classes
    cure = "number the classes from 0" if lowest < 0 or from_one else ""
    if lowest >= 0:
        cure += f"{', or ' if cure else ''}set num_classes to {highest + 1}"
    raise InputError(
        f"the part {part!r} has the label {label} and the network has num_classes {num_classes}, "
        f"so its labels are 0 to {num_classes - 1}; {cure}."
    )


def _warn_of_unused_classes(task: Any, highest: int, num_classes: int) -> None:
    """Warn where the network has classes that no sample of the task has.

    An augmentation may give labels of its own, to junk images.
    """
    highest = max(highest, getattr(getattr(task, "augmentation", None), "highest_label", -1))
    # of other datasets only the first samples are known
    if highest + 1 < num_classes and all(
        hasattr(dataset, "stored") for dataset in task.datasets.values()
    ):
        first, last = highest + 1, num_classes - 1
        unused = f"class {last} has" if first == last else f"classes {first} to {last} have"
        rank_zero_warn(
            f"the network has {num_classes} classes and the labels of {type(task).__name__} end at "
            f"{highest}, so that {unused} no sample; set num_classes to {first} unless that is "
            "meant."
        )


def _labels(data: Any) -> Tensor | None:
    """All labels of a dataset, or those of its first samples; None where it has none."""
    if hasattr(data, "stored"):
        return data.stored("label")
    labels = fetch(data, np.arange(min(len(data), _SAMPLES))).get("label") if len(data) else None
    return labels if isinstance(labels, Tensor) else None

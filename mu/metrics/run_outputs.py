"""Per-example outputs of a tested model: `outputs.safetensors` in its run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mu.metrics.run_results import RunResults
from mu.utils.errors import InputError
from mu.utils.files import locked, save_tensors
from mu.utils.run_layout import LOCK, OUTPUTS, RESULTS
from mu.utils.weights import weights_hash

Outputs = Mapping[str, Mapping[str, Tensor]]


def save_outputs(
    folder: Path | str, outputs: Outputs, hashes: Mapping[str, str] | None = None
) -> None:
    """Write per-example outputs to `outputs.safetensors`, locked and atomically.

    Tensors are named `split/field`; rows are in the order of `split/index`. Further fields of the
    same samples, from an earlier test of the same model, stay; outputs of the weights that the
    folder holds now are not replaced by those of others.

    Args:
        folder: the run folder.
        outputs: by split and field.
        hashes: `weights`, `checkpoint` and `split` of the model that gave them.
    """
    folder = Path(folder)
    bound = {name: (hashes or {}).get(name, "") for name in ("weights", "checkpoint", "split")}
    with locked(folder / LOCK):
        stored = _metadata(folder / OUTPUTS) if (folder / OUTPUTS).is_file() else {}
        if _is_current(folder, stored) and not _is_current(folder, bound):
            return
        merged = {split: dict(values) for split, values in outputs.items()}
        if stored and all(stored.get(name) == value for name, value in bound.items()):
            earlier = load_outputs(folder)
            merged = {
                split: {**_same_samples(earlier.get(split, {}), values), **values}
                for split, values in {**earlier, **merged}.items()
            }
        tensors = {
            f"{split}/{name}": value.detach().cpu()
            for split, values in merged.items()
            for name, value in values.items()
        }
        save_tensors(folder / OUTPUTS, tensors, {**bound, "hash": weights_hash(tensors)})


def load_outputs(folder: Path | str, weights: str | None = None) -> dict[str, dict[str, Tensor]]:
    """Read per-example outputs that `save_outputs` wrote, by split and field.

    Args:
        folder: the run folder.
        weights: hash of the weights that gave them; None for any.

    Raises:
        InputError: the file is missing, cut off or changed, or of other weights.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = Path(folder) / OUTPUTS
    if not file.is_file():
        raise InputError(f"{folder} holds no {OUTPUTS}; test the run first.")
    try:
        metadata = _metadata(file)
        tensors = load_file(file)
    except SafetensorError as error:
        raise InputError(f"{file} cannot be read ({error}); it may have been cut off.") from error
    if weights is not None and metadata.get("weights", "") != weights:
        raise InputError(
            f"{file} holds outputs of other weights ({metadata.get('weights') or 'unknown'}, not "
            f"{weights}); measure the run again with mu test --run {folder}."
        )
    if metadata.get("hash") != weights_hash(tensors):
        raise InputError(
            f"{file} was changed after it was written: its hash does not fit its contents; delete "
            "it and measure the run again."
        )
    outputs: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        split, _, name = key.rpartition("/")
        outputs.setdefault(split, {})[name] = value
    return outputs


def has_outputs(folder: Path | str, weights: str) -> bool:
    """Whether a run folder has per-example outputs of weights with a hash."""
    file = Path(folder) / OUTPUTS
    return file.is_file() and _metadata(file).get("weights", "") == weights


def _metadata(file: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            return dict(opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} cannot be read ({error}); it may have been cut off.") from error


def _is_current(folder: Path, hashes: Mapping[str, str]) -> bool:
    """Whether outputs are of the model whose results count for the folder."""
    if not hashes or not (folder / RESULTS).is_file():
        return False
    current = RunResults.current(RunResults.load_all(folder), folder)
    return current is not None and all(
        hashes.get(name, "") == current.hashes.get(name, "") for name in ("weights", "split")
    )


def _same_samples(earlier: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fields of an earlier test, where it was of the same samples as `values`."""
    before = earlier.get("index")
    now = values.get("index")
    same = before is not None and now is not None and torch.equal(before, now.cpu())
    return dict(earlier) if same else {}

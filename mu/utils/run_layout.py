"""Names of the files of a run folder."""

from __future__ import annotations

from pathlib import Path

CONFIG = "config.yaml"
"""Method, task and trainer of the run."""
SPLIT = "split.json"
"""Samples of each part of the data."""
CHECKPOINT = Path("checkpoints") / "last.ckpt"
"""Weights and state of the fit at the end of its last epoch."""
FIT = "fit.json"
"""Epochs and steps of a finished fit, and the checkpoint that it ended with."""
RESULTS = "results.json"
"""Measurements of the run's models."""
OUTPUTS = "outputs.safetensors"
"""Per-example outputs of the model that was tested."""
LOCK = ".results.lock"
"""Lock of the results and outputs, held while they are read, merged and written."""
BASE = "base"
"""Folder with what builds the base models of a run, without their weights."""

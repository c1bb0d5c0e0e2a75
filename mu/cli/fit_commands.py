"""Descriptions of `mu fit`, `validate`, `test` and `predict`, and what the program supplies."""

from __future__ import annotations

COMMANDS = {
    "fit": (
        "Train an original, retrain an oracle, or unlearn.",
        {"model", "train_dataloaders", "val_dataloaders", "datamodule"},
    ),
    "validate": (
        "Scores of the splits, without suites.",
        {"model", "dataloaders", "datamodule", "verbose"},
    ),
    "test": (
        "Measure with suites; writes results.json into the run folder.",
        {"model", "dataloaders", "datamodule", "verbose"},
    ),
    "predict": (
        "Write predictions.safetensors into the run folder.",
        {"model", "dataloaders", "datamodule"},
    ),
}
MORE_OPTIONS = {
    "fit": "Also: --run DIR, the run folder (short for --trainer.default_root_dir; default "
    "runs/METHOD-TIME); --resume, to continue --run from its last checkpoint; --overwrite, to "
    "train the run in --run anew; --debug.",
    "test": "Also: --run DIR, a run folder of mu fit, whose configuration and last checkpoint are "
    "used; files given with -c are merged over that configuration; MODEL, a folder, a file or a "
    "hub id: a model that mu did not train (docs/measuring.md); --debug.",
}

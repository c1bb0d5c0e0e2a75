"""config.yaml of a run: its hash, what a resume may change, the checkpoint that belongs to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mu.utils.errors import InputError
from mu.utils.run_config import (
    DIRECTORY,
    SETTINGS,
    check_belongs,
    check_config,
    config_line,
    differences,
    fixed_settings,
    write_config,
)

TEXT = """
seed_everything: 0
model: {class_path: mu.methods.SalUn, init_args: {seed: 0}}
data: {class_path: tasks.Digits, init_args: {batch_size: 20, workers: 0, curves: [forget]}}
trainer: {max_epochs: 2, devices: 1, precision: 32-true, gradient_clip_val: null, logger: false}
"""


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("max_epochs: 2", "max_epochs: 9", True),
        ("devices: 1", "devices: 4", True),
        ("workers: 0", "workers: 8", True),
        ("curves: [forget]", "curves: []", True),
        (", precision: 32-true", "", True),  # the default, named or not
        ("seed: 0", "seed: 1", False),
        ("seed_everything: 0", "seed_everything: 1", False),
        ("batch_size: 20", "batch_size: 10", False),
        ("precision: 32-true", "precision: bf16-mixed", False),
        ("gradient_clip_val: null", "gradient_clip_val: 1.0", False),
        ("tasks.Digits", "tasks.Shapes", False),
    ],
)
def test_only_what_cannot_change_the_past_is_free(
    tmp_path: Path, old: str, new: str, same: bool
) -> None:
    assert old in TEXT
    hashes = {write_config(tmp_path, text, "/home") for text in (TEXT, TEXT.replace(old, new))}
    assert (len(hashes) == 1) == same


def test_a_changed_or_cut_file_is_found(tmp_path: Path) -> None:
    check_config(tmp_path)  # there is none
    settings = write_config(tmp_path, TEXT, "/home")
    check_config(tmp_path)
    assert (config_line(tmp_path, SETTINGS), config_line(tmp_path, DIRECTORY)) == (
        settings,
        "/home",
    )
    file = tmp_path / "config.yaml"
    text = file.read_text()
    for changed in (text.replace("seed: 0", "seed: 1"), text[:-9], TEXT, "", text + "#"):
        file.write_text(changed)
        with pytest.raises(InputError, match=r"config\.yaml was changed after it was written"):
            check_config(tmp_path)


def test_a_checkpoint_of_another_run_is_found(tmp_path: Path) -> None:
    settings = write_config(tmp_path, TEXT, "/home")
    (tmp_path / "split.json").write_text('{"hash": "s"}')
    file = tmp_path / "checkpoints" / "last.ckpt"
    for record in ({}, {"config": settings, "split": "s"}, {"config": "", "split": ""}):
        check_belongs(tmp_path, file, record)
    for record, name in (({"config": "x"}, "config.yaml"), ({"split": "x"}, "split.json")):
        with pytest.raises(InputError, match=f"{name} are of two different runs"):
            check_belongs(tmp_path, file, record)


def test_differences_are_named_as_on_the_command_line() -> None:
    old = {"model": {"init_args": {"optimizer": {"init_args": {"lr": 0.1}}, "seed": 0}}}
    new = {"model": {"init_args": {"optimizer": {"init_args": {"lr": 0.2}}, "seed": 0, "k": 1}}}
    assert list(differences(old, new)) == [("model.optimizer.lr", 0.1, 0.2), ("model.k", None, 1)]
    assert fixed_settings({}) == {"trainer": {}}

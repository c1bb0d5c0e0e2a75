"""Tests of loading a run from its checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import mu
from mu.methods import FineTune
from mu.utils.errors import InputError
from tests.contract.test_load import saved
from tests.support.helpers import classifier


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_checkpoint_that_is_cut_off_names_the_last_whole_one(
    share: float, tmp_path: Path
) -> None:
    """Fails when a cut-off checkpoint ends in the words of the archive's reader."""
    file = saved(FineTune(classifier()), tmp_path, epochs=1)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="it is cut off; fit the run again"):
        mu.load(file)
    backup = tmp_path / "epoch=0.ckpt"
    backup.write_bytes(content)
    shutil.copy(file, tmp_path / "newer.ckpt")
    with pytest.raises(InputError, match=r"cut off; the newest whole one is .*epoch=0"):
        mu.load(file)

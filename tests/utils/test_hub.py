"""What is read by a folder's name or a hub id: errors of the libraries in one sentence."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from mu.utils.errors import InputError
from mu.utils.hub import reading


def test_a_missing_folder_is_named() -> None:
    """Fails when a mistyped folder is told as a network's fault alone."""
    words = (
        r"^there is no folder data/modle, and as a hub id the model cannot be reached "
        r"\(no route\)\.$"
    )
    with pytest.raises(InputError, match=words), reading("the model", "data/modle"):
        raise OSError("no route.\nand much more")


def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    words = r"^the tokenizer of .* cannot be read \(JSONDecodeError\)\.$"
    with pytest.raises(InputError, match=words), reading("the tokenizer", str(tmp_path)):
        raise type("JSONDecodeError", (ValueError,), {})()
    with (
        pytest.raises(InputError, match="too small"),
        reading("the model", str(tmp_path), RuntimeError),
    ):
        raise RuntimeError("too small")


def test_other_errors_are_not_hidden(tmp_path: Path) -> None:
    """Fails when a fault in mu is told as one of the user's folder."""
    with pytest.raises(ZeroDivisionError), reading("the model", str(tmp_path)):
        raise ZeroDivisionError
    with pytest.raises(RuntimeError), reading("the model", str(tmp_path)):
        raise RuntimeError


def test_messages_of_the_hub_are_left_out(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """Fails when a sentence for each attempt stands before ours, or the library is silent for ever
    after.
    """
    library = logging.getLogger("huggingface_hub.utils._http")
    with caplog.at_level(logging.WARNING):
        with reading("the model", str(tmp_path)):
            library.warning("thrown while requesting")
        assert not caplog.records
        library.warning("afterwards")
        assert [record.message for record in caplog.records] == ["afterwards"]

"""Filters of notices: what a library says of itself is hidden, what it says of the run is not."""

from __future__ import annotations

import logging
import warnings

import pytest

from mu.utils.quiet import quiet

HIDDEN = (
    "💡 Tip: For seamless cloud logging, try litlogger",
    "GPU available: False, used: False",
    "Trainer already configured with model summary callbacks: [...]. Skipping",
    "`Trainer.fit` stopped: `max_epochs=2` reached.",
    "Seed set to 0",
)
SHOWN = (
    "`Trainer.fit` stopped: signal SIGTERM",
    "Metric train/loss improved by 0.1",
)


def test_notices_are_hidden_and_news_of_the_run_pass(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    with caplog.at_level(logging.INFO, logger.name), quiet():
        caplog.handler.addFilter(logger.filters[-1])  # a handler of the root sees all records
        for message in (*HIDDEN, *SHOWN):
            logger.info(message)
        caplog.handler.filters.clear()
    assert [record.getMessage() for record in caplog.records] == list(SHOWN)


def test_a_warning_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with quiet():
        warnings.simplefilter("always", UserWarning)
        print(warnings.formatwarning("two\n  lines", UserWarning, "file.py", 3), end="")
    assert capsys.readouterr().out == "mu: warning: two lines\n"

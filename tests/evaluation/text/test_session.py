"""Session of a test: what is said before a fit about answers that cannot be measured in full."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import pytest

from mu.evaluation.text.session import warn_of_short_answers
from tests.support.doubles_text import people


def test_a_context_that_cuts_answers_short_is_named_before_the_fit() -> None:
    """Mutations: `max_length` is taken for the length of a prompt; new tokens are not counted."""
    task: Any = people()
    task.setup()
    encoder = task.encoder
    longest = max(
        len(encoder.tokens(encoder.template.prompt(encoder.tokenizer, row["question"])))
        for questions in task.sets.values()
        for row in questions.rows
    )
    for context, limit in ((longest + 10, None), (longest + 9, 9), (None, None)):
        module: Any = SimpleNamespace(task=task, backbone=SimpleNamespace(context=context))
        if limit is None:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                warn_of_short_answers(module, 10)
        else:
            with pytest.warns(UserWarning, match=rf"give max_new_tokens: {limit}, the same for"):
                warn_of_short_answers(module, 10)

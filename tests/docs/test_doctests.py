"""Examples in the pages: what stands behind `>>>` gives what stands below it."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from tests.docs.blocks import blocks, pages

EXAMPLES = [
    page for page in pages() if any(block.language == "{doctest}" for block in blocks(page))
]


@pytest.mark.parametrize("page", EXAMPLES, ids=lambda page: page.stem)
def test_examples_of_a_page(page: Path) -> None:
    """Fails when a field of a batch or an operation of a backbone is not what the page says."""
    text = "\n".join(block.text for block in blocks(page) if block.language == "{doctest}")
    test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    assert test.examples
    runner = doctest.DocTestRunner()
    runner.run(test)
    assert runner.summarize(verbose=False).failed == 0

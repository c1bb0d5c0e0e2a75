"""Templates of pages: what is missing is an error, never an empty place on the page."""

from __future__ import annotations

import pytest
from jinja2 import UndefinedError

from mu.utils.pages import page_template


def test_a_missing_value_is_an_error() -> None:
    """Fails when a page is written without what its template names."""
    with pytest.raises(UndefinedError):
        page_template("mu.bench.report", "report.html.jinja").render()


def test_values_are_escaped() -> None:
    """Fails when a name in a study reaches the page as markup."""
    template = page_template("mu.bench.report", "report.html.jinja")
    assert template.environment.from_string("{{ name }}").render(name="<b>") == "&lt;b&gt;"

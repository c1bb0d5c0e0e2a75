"""report.html: one self-contained page."""

from __future__ import annotations

from mu.bench.report.contents import Report
from mu.utils.pages import page_template


def as_html(report: Report) -> str:
    """Text of report.html."""
    return page_template("mu.bench.report", "report.html.jinja").render(report=report)

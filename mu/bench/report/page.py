"""report.html: one self-contained page."""

from __future__ import annotations

from mu.bench.report.contents import Report


def as_html(report: Report) -> str:
    """Text of report.html."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("mu.bench.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.jinja").render(report=report)

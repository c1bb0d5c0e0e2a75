"""Templates of HTML pages."""

from __future__ import annotations

from typing import Any


def page_template(package: str, name: str) -> Any:
    """Template of an HTML page, which escapes what is put in and refuses what is missing.

    Args:
        package: package beside whose files the template stands, `mu.bench.report`.
        name: name of its file.

    Returns:
        The jinja2 template.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(package, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)

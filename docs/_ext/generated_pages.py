"""Sphinx extension that writes the generated pages before the sources are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import method_pages
import reference_pages


def write_pages(docs: Path) -> None:
    """Write `methods/`, and the parts that other pages include into `_generated/`.

    A page that is no longer generated is removed; an unchanged one is not touched, so that Sphinx
    does not read it again.
    """
    pages = {
        docs / "_generated/metrics.md": reference_pages.glossary(),
        docs / "_generated/commands.md": reference_pages.commands(),
        docs / "_generated/study.md": reference_pages.study_keys(),
    }
    # methods
    project = method_pages.Project.read()
    by_domain = method_pages.methods()
    pages[docs / "methods/index.md"] = method_pages.index(by_domain)
    for components in by_domain.values():
        for method in components:
            pages[docs / f"methods/{method.__name__}.md"] = method_pages.page(method, project)
    # API
    for wing in reference_pages.WINGS:
        pages[docs / f"api/{wing}.md"] = reference_pages.api_page(wing)
    for folder in ("_generated", "methods", "api"):
        for file in (docs / folder).glob("*.md"):
            if file not in pages and file != docs / "api/index.md":
                file.unlink()
    for file, text in pages.items():
        file.parent.mkdir(exist_ok=True)
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")


def _write(app: Any) -> None:
    write_pages(Path(app.srcdir))


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("builder-inited", _write)
    return {"parallel_read_safe": True}

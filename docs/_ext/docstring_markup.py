"""Docstrings as markup: Markdown for generated pages, reStructuredText for autodoc.

The docstrings of mu are plain text with single backticks for code, indented blocks for equations
and Google's sections (`Args:`, `Returns:`). Neither markup reads that as it is meant: `|x|` is a
substitution in reStructuredText, and `x_` a reference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

SECTIONS = ("Args:", "Attributes:", "Returns:", "Yields:", "Raises:", "Example:", "Examples:")
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
# an asterisk that does not begin an item of a list
_ASTERISK = r"\*(?! )|(?<!^)(?<!\n)\*"
_ARGUMENT = re.compile(r"^\s+\*{0,2}\w+:")


def to_markdown(docstring: str) -> str:
    """Markdown of a docstring without sections: text with special characters escaped, indented
    blocks as they are, which Markdown shows as code.

    Example:
        >>> to_markdown("A mask m_ of *weights*.")
        'A mask m\\\\_ of \\\\*weights\\\\*.'
    """
    return "\n\n".join(
        block if block.startswith("    ") else _outside_code(block, _escape_markdown)
        for block in re.split(r"\n\s*\n", docstring.strip("\n"))
    )


def to_rst(docstring: str) -> str:
    """reStructuredText of a docstring: code in double backticks, equations as literal blocks,
    special characters escaped; sections and doctests stay for napoleon and the doctest builder.

    Example:
        >>> to_rst("The norm |w| of `w`.")
        'The norm \\\\|w\\\\| of ``w``.'
    """
    return "\n\n".join(_rst_blocks(re.split(r"\n\s*\n", docstring.strip("\n"))))


def _rst_blocks(blocks: list[str]) -> Iterator[str]:
    in_section = False
    for block in blocks:
        in_section = block.strip().startswith(SECTIONS) or (in_section and block.startswith(" "))
        if ">>>" in block:
            yield block
        elif block.startswith("    ") and not in_section:
            yield "::\n\n" + block
        else:
            yield _outside_code(block, _escape_rst, "``")


def _outside_code(text: str, escape: Callable[[str], str], quote: str = "`") -> str:
    """Text with `escape` applied outside backticks, and code in `quote`."""
    pieces = _CODE.split(text)
    return "".join(
        f"{quote}{piece}{quote}" if position % 2 else escape(piece)
        for position, piece in enumerate(pieces)
    )


def _escape_markdown(text: str) -> str:
    return re.sub(rf"({_ASTERISK}|[\\<\[\]$]|_(?!\w)|(?<!\w)_)", r"\\\1", text)


def _escape_rst(text: str) -> str:
    lines = text.split("\n")
    return "\n".join(
        # the name of an argument, which napoleon reads
        line if _ARGUMENT.match(line) and "*" in line.split(":")[0] else _escape_rst_line(line)
        for line in lines
    )


def _escape_rst_line(line: str) -> str:
    return re.sub(rf"({_ASTERISK}|[\\|]|_(?!\w))", r"\\\1", line)


def _process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = to_rst("\n".join(lines)).split("\n")


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx, before napoleon reads the sections."""
    app.connect("autodoc-process-docstring", _process, priority=400)
    return {"parallel_read_safe": True}

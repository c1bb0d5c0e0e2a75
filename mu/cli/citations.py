"""The paper of a method, from the head of its file."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from mu.cli.catalogue import ROOTS, Component

_CITATION = re.compile(
    r"(?:^|[.:;] )(?P<authors>[A-Z][^\"“(.:;]*?(?: et al\.)?),? "
    r"[\"“](?P<title>[^\"“”]+?)[,.]?[\"”](?P<after>.*)"
)
_ARXIV = re.compile(r"arXiv:? ?(\d\d)\d\d\.\d{4,5}")
_YEAR = re.compile(r"(?<![\d.])(?:19|20)\d\d(?!\.?\d)")


@dataclass(frozen=True)
class Paper:
    """A citation; every field may be empty.

    Attributes:
        authors: as the file names them.
        title: without quotation marks.
        venue: where it appeared.
        year: of the venue.
    """

    authors: str = ""
    title: str = ""
    venue: str = ""
    year: str = ""

    @property
    def short(self) -> str:
        """`Fan et al., ICLR`."""
        names = [
            name for name in re.split(r",\s*|\s+and\s+|\s+et al\.?", self.authors) if name.strip()
        ]
        if not names:
            return ""
        many = len(names) > 2 or "et al" in self.authors
        first = f"{names[0]} et al." if many else " and ".join(names)
        return ", ".join(word for word in (first, self.venue) if word)


def paper_of(part: Component) -> Paper:
    """The first citation of the class's docstring, or else of its file's, or else the paper of the
    class that it derives from.

    A user's own class has a paper only where a file of the user's names one. Empty where there is
    none.
    """
    for file, node in part.line:
        if node.name in ROOTS.values() or (part.own and not file.own):
            continue
        own = ast.get_docstring(node) or ""
        head = ast.get_docstring(file.tree) or ""
        # a file's first paragraph says what it does
        for paragraph in [
            *own.split("\n\n"),
            *head.split("\n\n")[1:],
        ]:
            found = _CITATION.search(" ".join(paragraph.split()))
            # else it is something else in quotation marks
            if found and (paper := _read(**found.groupdict())).year:
                return paper
    return Paper()


def _read(authors: str, title: str, after: str) -> Paper:
    year = _YEAR.search(after)
    preprint = _ARXIV.search(after)
    if year is None:
        return Paper(
            authors, title, "arXiv" if preprint else "", f"20{preprint[1]}" if preprint else ""
        )
    venue = re.sub(r"arXiv.*", "", after[: year.start()]).strip(" ,.(")
    return Paper(authors, title, venue if len(venue) <= 40 else "", year[0])

"""Citations: authors, title, venue and year of a method's paper, read from its docstrings."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from mu.cli.catalogue import BASE_CLASSES, Component

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
        authors: as the docstring lists them.
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
        """Authors and venue: `Fan et al., ICLR`."""
        names = [
            name for name in re.split(r",\s*|\s+and\s+|\s+et al\.?", self.authors) if name.strip()
        ]
        if not names:
            return ""
        abbreviated = len(names) > 2 or "et al" in self.authors
        authors = f"{names[0]} et al." if abbreviated else " and ".join(names)
        return ", ".join(word for word in (authors, self.venue) if word)


def paper_of(component: Component) -> Paper:
    """Paper of a class: the first citation in its docstring, its file's, or those of its bases.

    A base counts for a user's class only where a file of the user defines it. Empty where there is
    no citation.
    """
    for file, node in component.mro:
        if node.name in BASE_CLASSES.values() or (component.from_user and not file.from_user):
            continue
        docstring = ast.get_docstring(node) or ""
        head = ast.get_docstring(file.tree) or ""
        # the first paragraph of a file says what it does
        for paragraph in [*docstring.split("\n\n"), *head.split("\n\n")[1:]]:
            match = _CITATION.search(" ".join(paragraph.split()))
            # without a year the quotation marks hold no title
            if match and (paper := _parse(**match.groupdict())).year:
                return paper
    return Paper()


def _parse(authors: str, title: str, after: str) -> Paper:
    year = _YEAR.search(after)
    if year is None:
        preprint = _ARXIV.search(after)
        if preprint is None:
            return Paper(authors, title)
        return Paper(authors, title, "arXiv", f"20{preprint[1]}")
    venue = re.sub(r"arXiv.*", "", after[: year.start()]).strip(" ,.(")
    return Paper(authors, title, venue if len(venue) <= 40 else "", year[0])

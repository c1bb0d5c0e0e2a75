"""Concepts in prompts: the words of a prompt that name a concept, and prompts with other words.

Words match whole, in upper and lower case alike, with any white space between them, and in any
normal form of Unicode. In scripts that are written without spaces (Chinese, Japanese, Thai, Lao,
Khmer, Burmese, Tibetan) a name matches anywhere, because no space says where a word ends.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from unicodedata import category, normalize

_UNSPACED = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3100-\u312f"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
"""Code points of scripts without spaces: Thai to Tibetan, Burmese, Khmer, Kana, Bopomofo, Han."""


@dataclass(frozen=True)
class Mention:
    """Words of a text that name a concept.

    Attributes:
        name: the name, as it was searched for.
        words: the words, as the text writes them.
        start: position of their first character in the text, in composed Unicode (NFC).
    """

    name: str
    words: str
    start: int


def find_mentions(text: str, names: tuple[str, ...]) -> list[Mention]:
    """Mentions of names in a text, in their order; of overlapping ones the first and longest.

    Args:
        text: the text.
        names: the names; blank ones are never mentioned.

    >>> [mention.words for mention in find_mentions("Van GOGH, by van  gogh", ("Van Gogh", "Van"))]
    ['Van GOGH', 'van  gogh']
    """
    pattern, ordered = _pattern(names)
    text = normalize("NFC", text)
    return [
        Mention(ordered[int(match.lastindex or 1) - 1], match.group(), match.start())
        for match in pattern.finditer(text)
        # a mark belongs to the letter before it (Hindi, Arabic), so that the word goes on
        if not category(text[match.end() : match.end() + 1] or " ").startswith("M")
    ]


def find_concept(prompt: str, concept: str) -> str:
    """Concept as the prompt writes it; empty where the prompt does not name it.

    >>> find_concept("A Painting by VAN GOGH", "van Gogh")
    'VAN GOGH'
    """
    return next((mention.words for mention in find_mentions(prompt, (concept,))), "")


def replace_concepts(prompt: str, anchors: Mapping[str, str]) -> str:
    """Prompt with the anchor of each concept in its place, and single spaces.

    Args:
        prompt: the prompt.
        anchors: words to put in place of each concept; empty words remove it.

    >>> replace_concepts("a red circle and a star", {"star": "square", "red": ""})
    'a circle and a square'
    """
    text = normalize("NFC", prompt)
    parts = []
    end = 0
    for mention in find_mentions(text, tuple(anchors)):
        parts += [text[end : mention.start], anchors[mention.name]]
        end = mention.start + len(mention.words)
    return " ".join("".join([*parts, text[end:]]).split())


def folded(words: str) -> str:
    """Words for comparisons: lower case, composed Unicode, single spaces, `_` as a space.

    >>> folded("Van_GOGH  sky")
    'van gogh sky'
    """
    return " ".join(normalize("NFC", words.replace("_", " ").lower()).split())


@lru_cache(maxsize=256)
def _pattern(names: tuple[str, ...]) -> tuple[re.Pattern[str], list[str]]:
    """Pattern with a group for each name, the longest first, and the names in that order."""
    ordered = sorted((name for name in set(names) if name.strip()), key=lambda n: (-len(n), n))
    groups = "|".join(
        "(" + r"\s+".join(map(re.escape, normalize("NFC", name).split())) + ")" for name in ordered
    )
    letter = rf"[^\W{_UNSPACED}]"
    return re.compile(rf"(?<!{letter})(?:{groups or '(?!)'})(?!{letter})", re.IGNORECASE), ordered

"""Vocabulary and captions of the shapes task: words of attributes, filler words, caption templates.

Each attribute value has a usual word, which comes first, and synonyms, some of several words.
Filler words describe nothing in the image; captions contain them at random, so that a text encoder
learns them and an attack can choose them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from mu.utils.errors import InputError

Attribute = str
"""One of `ATTRIBUTES`."""
ATTRIBUTES: tuple[Attribute, ...] = ("shape", "colour", "background")


def _listed(text: str, by: str | None = None) -> tuple[str, ...]:
    return tuple(text.split(by))


SHAPES: Mapping[str, tuple[str, ...]] = {
    "circle": ("circle", "disc", "disk", "dot", "ball", "roundel", "round shape", "circular patch"),
    "square": ("square", "box", "block", "tile", "quadrate", "four sided shape", "square patch"),
    "triangle": ("triangle", "wedge", "pyramid", "trigon", "three sided shape", "triangular patch"),
    "star": ("star", "pentagram", "asterisk", "starlet", "five pointed shape", "starry patch"),
    "cross": ("cross", "plus", "plus sign", "crucifix", "crosslet", "cross shaped patch"),
}
COLOURS: Mapping[str, tuple[str, ...]] = {
    "red": ("red", "crimson", "scarlet", "ruby", "vermilion", "blood coloured"),
    "green": ("green", "emerald", "jade", "viridian", "verdant", "grass coloured"),
    "blue": ("blue", "azure", "cobalt", "sapphire", "cerulean", "sea coloured"),
    "yellow": ("yellow", "golden", "lemon", "canary", "saffron", "sun coloured"),
    "purple": ("purple", "violet", "lilac", "mauve", "amethyst", "plum coloured"),
}
BACKGROUNDS: Mapping[str, tuple[str, ...]] = {
    "dark": ("dark", "black", "ebony", "inky", "nocturnal", "coal black"),
    "light": ("light", "white", "pale", "ivory", "snowy", "chalk white"),
    "striped": ("striped", "lined", "banded", "zebra", "pinstriped"),
}
WORDS: Mapping[Attribute, Mapping[str, tuple[str, ...]]] = {
    "shape": SHAPES,
    "colour": COLOURS,
    "background": BACKGROUNDS,
}

ADJECTIVES = _listed(
    "simple plain lovely quiet neat clean fine nice pretty odd strange new old modern ancient "
    "abstract elegant bold gentle calm cheerful lonely famous secret silent sacred humble modest "
    "curious playful serious magical ordinary perfect single solitary charming clever honest "
    "noble proud lively sleepy gloomy merry silly brave wild tame rare common typical classic "
    "retro vintage rustic royal urban rural digital analog wooden plastic metallic ceramic "
    "woollen silky smooth rough soft hard warm cool fresh dusty polished"
)
NOUNS = _listed(
    "dog cat horse bird fish tiger rabbit garden river mountain forest desert island village city "
    "street bridge tower castle church house kitchen window door table chair lamp clock bottle "
    "cup spoon knife bread cheese soup apple cloud storm winter summer morning evening holiday "
    "music guitar piano violin drum dancer singer soldier farmer doctor teacher king queen child "
    "friend stranger train bicycle boat rocket engine machine robot computer telephone camera "
    "newspaper book letter story poem dream memory journey battle wedding market school hospital "
    "museum library theatre beach harbour valley meadow orchard bakery parachute truck tractor "
    "umbrella blanket pillow sweater jacket button pocket ribbon feather candle mirror basket "
    "bucket ladder hammer anchor compass lantern whistle kettle"
)
STYLES = _listed(
    "oil painting|watercolour|pencil sketch|charcoal study|digital "
    "art|photograph|linocut|woodcut|etching|mosaic|fresco|poster|postcard|cartoon|comic|pixel "
    "art|collage|engraving|illustration|logo|icon|stamp|mural|tapestry|print|crayon work",
    "|",
)
ARTISTS = _listed(
    "monet picasso dali vermeer klimt hokusai rembrandt turner kandinsky matisse cezanne renoir "
    "warhol munch klee"
)
ENDINGS = _listed(
    "trending today|highly detailed|award winning|very simple|minimalist|by hand|for a child|from "
    "memory|in high quality|seen from above|at home|in a museum|best of the year|without a "
    "frame|with a smile|near the sea|for sale|in good taste|after the war|on a monday",
    "|",
)
OPENINGS = _listed(
    "a picture of|an image of|a photo of|a drawing of|a painting of|a view of|this is|here "
    "is|there is|we see|look at|imagine|please draw|a sign with|one",
    "|",
)
THINGS = ("shape", "figure", "object", "thing", "form", "symbol", "mark", "patch")
GROUNDS = ("background", "backdrop", "ground", "surface", "wall", "canvas", "sheet", "field")
PREPOSITIONS = ("on", "over", "against", "in front of", "upon")

# attributes that a caption mentions, with their frequencies: all, and each alone, so that each
# attribute conditions on its own
NAMED: tuple[tuple[float, tuple[Attribute, ...]], ...] = (
    (0.46, ATTRIBUTES),
    (0.16, ("shape", "colour")),
    (0.08, ("shape", "background")),
    (0.05, ("colour", "background")),
    (0.09, ("shape",)),
    (0.07, ("colour",)),
    (0.04, ("background",)),
    (0.05, ()),
)
USUAL_SHARE = 0.5  # share of captions with the usual word, not a synonym
DRAWS = 16
"""Number of uniform numbers of a caption."""
MAX_WORDS = 11
"""Most words of a caption with an ending, so that its tokens fit a small text encoder."""


class _Choices:
    """Random choices from a sequence of uniform numbers in (0, 1), used in order."""

    def __init__(self, draws: Sequence[float]) -> None:
        self._draws = iter(draws)

    def chance(self, probability: float) -> bool:
        return next(self._draws) < probability

    def one_of(self, words: Sequence[str]) -> str:
        return words[int(next(self._draws) * len(words))]

    def synonym(self, words: Sequence[str]) -> str:
        draw = next(self._draws)
        return (
            words[0]
            if draw < USUAL_SHARE
            else words[int((draw - USUAL_SHARE) / (1 - USUAL_SHARE) * len(words))]
        )

    def attributes(self) -> tuple[Attribute, ...]:
        return named_attributes(next(self._draws))


def named_attributes(draw: float) -> tuple[Attribute, ...]:
    """Attributes that a caption mentions, by a uniform number in (0, 1)."""
    for share, attributes in NAMED:
        if draw < share:
            return attributes
        draw -= share
    return NAMED[0][1]


def caption(
    names: Mapping[Attribute, str],
    numbers: Sequence[float],
    attributes: Sequence[Attribute] | None = None,
    words: Mapping[Attribute, str] | None = None,
    max_words: int = MAX_WORDS,
) -> str:
    """Random caption of an image.

    Args:
        names: attributes of the image by the usual words: `{"shape": "circle", "colour": "red",
            "background": "dark"}`.
        numbers: `DRAWS` uniform numbers in (0, 1), which determine all random choices.
        attributes: attributes to mention, possibly none; drawn when None.
        words: fixed words by attribute, in place of drawn synonyms.
        max_words: a longer caption has no ending.

    Returns:
        Lower-case words for the mentioned attributes. With the same numbers and other words or
        attributes, the rest of the caption does not change, except for an ending that would exceed
        `max_words`.
    """
    # all numbers are used in a fixed order, so that one choice does not affect the others
    choices = _Choices(numbers)
    chosen_words = words or {}
    drawn = choices.attributes()
    chosen = drawn if attributes is None else attributes
    word = {
        attribute: chosen_words.get(attribute, synonym)
        for attribute in ATTRIBUTES
        for synonym in [choices.synonym(WORDS[attribute][names[attribute]])]
    }
    opening = choices.one_of(OPENINGS) if choices.chance(0.4) else ""
    filler = choices.one_of(ADJECTIVES)
    adjective = filler if choices.chance(0.25) else ""
    thing = choices.one_of(THINGS if chosen else (*THINGS, *NOUNS))
    preposition = choices.one_of(PREPOSITIONS)
    surface = choices.one_of(GROUNDS)
    noun = word["shape"] if "shape" in chosen else thing
    subject = " ".join(
        part for part in (adjective, word["colour"] if "colour" in chosen else "", noun) if part
    )
    ground = (
        f"{preposition} {_article(word['background'])} {surface}" if "background" in chosen else ""
    )
    ending = _ending(choices) if choices.chance(0.3) else ""
    body = " ".join(part for part in (opening, _article(subject), ground) if part)
    return f"{body} {ending}" if ending and len(body.split()) <= max_words else body


def plain_caption(
    names: Mapping[Attribute, str], attributes: Sequence[Attribute] = ATTRIBUTES
) -> str:
    """Plain caption with the usual words.

    >>> plain_caption({"shape": "circle", "colour": "red", "background": "dark"})
    'a red circle on a dark background'
    >>> plain_caption({"shape": "circle", "colour": "red", "background": "dark"}, ["colour"])
    'a red shape'
    """
    subject = f"{names['colour']} " if "colour" in attributes else ""
    subject += names["shape"] if "shape" in attributes else "shape"
    ground = f" on {_article(names['background'])} background" if "background" in attributes else ""
    return _article(subject) + ground


def _ending(choices: _Choices) -> str:
    form = choices.one_of(("ending", "style", "artist", "noun"))
    if form == "ending":
        return choices.one_of(ENDINGS)
    if form == "style":
        return f"{choices.one_of(STYLES)} style"
    if form == "artist":
        return f"by {choices.one_of(ARTISTS)}"
    return f"with {_article(choices.one_of(NOUNS))}"


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


@cache
def vocabulary() -> tuple[str, ...]:
    """All words of captions, sorted."""
    phrases = [
        phrase for names in WORDS.values() for synonyms in names.values() for phrase in synonyms
    ]
    phrases += [
        *ADJECTIVES,
        *NOUNS,
        *STYLES,
        *ARTISTS,
        *ENDINGS,
        *OPENINGS,
        *THINGS,
        *GROUNDS,
        *PREPOSITIONS,
    ]
    phrases += ["a", "an", "by", "with", "style"]
    return tuple(sorted({word for phrase in phrases for word in phrase.split()}))


def attribute_of(concept: str) -> tuple[Attribute, str]:
    """Attribute and usual word of a concept or synonym.

    >>> attribute_of("crimson")
    ('colour', 'red')

    Raises:
        InputError: for a word that is no shape, colour or background.
    """
    for attribute in ATTRIBUTES:
        for name, synonyms in WORDS[attribute].items():
            if concept.lower() in synonyms:
                return attribute, name
    concepts = "; ".join(f"{attribute}s: {', '.join(WORDS[attribute])}" for attribute in ATTRIBUTES)
    raise InputError(
        f"the shapes task has no concept {concept!r}; it has {concepts}, and their synonyms."
    )

"""Words of generated and true answers, for overlap metrics in every script.

ROUGE's published rule (package rouge_score) keeps runs of a-z and 0-9 alone, so a text in another
script has no word, and equal texts a score of 0. The words here are the same where a text is ASCII,
so that published numbers stay comparable, and Unicode words elsewhere.
"""

from __future__ import annotations

from unicodedata import normalize

from rouge_score.tokenizers import Tokenizer

# scripts that are written without spaces: each letter, with its marks, is a word
_UNSPACED = (
    r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
)
_WORDS = rf"[{_UNSPACED}--\p{{M}}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--[{_UNSPACED}]]+"


class UnicodeTokenizer(Tokenizer):
    """Words of a text in any script, for `rouge_score`.

    A word is a run of letters, marks and numbers, in NFKC and without case; where a script has no
    spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan), a letter with its marks. ASCII
    words of more than three letters are stemmed, as in the published rule. A text without a word
    (an emoji, a row of dots) is cut into its characters.

    Example:
        >>> UnicodeTokenizer().tokenize("Zürich, 京都で")
        ['zürich', '京', '都', 'で']
    """

    def __init__(self) -> None:
        import regex
        from nltk.stem.porter import PorterStemmer

        self._words = regex.compile(_WORDS, regex.VERSION1)
        self._characters = regex.compile(r"\X")
        self._stem = PorterStemmer().stem

    def tokenize(self, text: str) -> list[str]:
        """Words of a text, in order."""
        text = normalize("NFKC", normalize("NFKC", text).casefold())
        words: list[str] = self._words.findall(text)
        if not words:
            return [c for c in self._characters.findall(text) if not c.isspace()]
        return [self._stem(word) if len(word) > 3 and word.isascii() else word for word in words]


def is_published_case(output: str, truth: str) -> bool:
    """Whether the published rule applies to a pair: both are ASCII, and the truth has a word.

    Example:
        >>> is_published_case("In Paris.", "Paris"), is_published_case("Paris", "Краков")
        (True, False)
    """
    return output.isascii() and truth.isascii() and any(letter.isalnum() for letter in truth)

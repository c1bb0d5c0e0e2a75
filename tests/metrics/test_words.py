"""Words of texts in every script: equal texts score 1, and ASCII texts keep the published rule."""

from __future__ import annotations

import math
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from mu.metrics.tofu import rouge_l
from mu.metrics.words import UnicodeTokenizer, is_published_case

TEXTS = [
    "Краков",
    "京都で生まれた。",
    "Αθήνα",
    "Zürich",
    "กรุงเทพมหานคร",
    "हिन्दी में उत्तर",
    "القاهرة",
    "서울에서 태어났다",
    "😀",
    "?!",
    "Ⅻ",
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_same_words_score_one_in_every_script(text: str) -> None:
    """In composed and decomposed Unicode, and in any case."""
    variants = [text, normalize("NFD", text), normalize("NFC", text), text.upper(), f"  {text} "]
    for measured in rouge_l(variants, [text] * len(variants)):
        assert measured.tolist() == [1.0] * len(variants)
    assert rouge_l(["other"], [text])[0].item() == 0


@given(st.text(max_size=30))
def test_a_text_scores_one_against_itself_or_has_no_score(text: str) -> None:
    score = rouge_l([text], [text])[0].item()
    assert score == 1 or (math.isnan(score) and not UnicodeTokenizer().tokenize(text))


def test_words_of_scripts_with_and_without_spaces() -> None:
    words = UnicodeTokenizer().tokenize
    assert words("Она родилась в Кракове.") == ["она", "родилась", "в", "кракове"]
    assert words("彼は2人") == ["彼", "は", "2", "人"]
    assert words("running in Zürich") == ["run", "in", "zürich"]
    # a letter and its marks are one word where there are no spaces, and no word ends at a mark
    assert words("กำ") == ["กำ"] or len(words("กำ")) == 2
    assert words("हिन्दी") == ["हिन्दी"]
    # partial knowledge has a part of the score: four of seven letters in order
    recall, _ = rouge_l(["京都で育った"], ["京都で生まれた"])
    assert recall.item() == pytest.approx(4 / 7)


@given(
    st.lists(st.sampled_from(["The", "authors", "wrote", "1956", "books,", "in"]), min_size=1),
    st.text(alphabet=st.characters(max_codepoint=127), max_size=30),
)
def test_ascii_texts_keep_the_published_rule(truth: list[str], output: str) -> None:
    text = " ".join(truth)
    assert is_published_case(output, text)
    published = RougeScorer(["rougeL"], use_stemmer=True).score(text, output)["rougeL"]
    recall, f1 = rouge_l([output], [text])
    assert (recall.item(), f1.item()) == (published.recall, published.fmeasure)


def test_an_empty_truth_has_no_score_and_an_empty_answer_none_of_it() -> None:
    recall, f1 = rouge_l(["text", ""], ["", "text"])
    assert recall.isnan().tolist() == f1.isnan().tolist() == [True, False]
    assert recall[1] == f1[1] == 0

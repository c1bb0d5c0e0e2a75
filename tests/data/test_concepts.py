"""Concepts in prompts: whole words, in any case, white space and normal form of Unicode."""

from __future__ import annotations

from unicodedata import normalize

import pytest

from mu.data.concepts import find_concept, find_mentions, folded, replace_concepts


@pytest.mark.parametrize(
    ("prompt", "concept", "words"),
    [
        ("a Van  Gogh sky", "van gogh", "Van  Gogh"),
        ("Churches, far away", "church", ""),
        ("a CHURCH.", "church", "CHURCH"),
        ("church-like", "church", "church"),
        ("anything", "", ""),
        ("a circle", "circle, star", ""),
        ("İ i", "i", "İ"),
        (normalize("NFD", "by Gérard Fromanger"), "gérard", "Gérard"),
        ("by Gérard Fromanger", normalize("NFD", "gérard"), "Gérard"),
    ],
)
def test_a_concept_is_whole_words(prompt: str, concept: str, words: str) -> None:
    assert find_concept(prompt, concept) == words


def test_the_longest_name_is_mentioned() -> None:
    mentions = find_mentions("a French horn and a horn", ("horn", "French horn"))
    assert [(mention.name, mention.start) for mention in mentions] == [
        ("French horn", 2),
        ("horn", 20),
    ]


def test_every_mention_is_replaced_once() -> None:
    """Fails when an anchor is itself replaced, or only the first or equal spelling is."""
    anchors = {"circle": "star", "star": "circle"}
    assert (
        replace_concepts("a Circle, a star and a circle", anchors) == "a star, a circle and a star"
    )
    assert replace_concepts(normalize("NFD", "café  noir"), {"café": ""}) == "noir"
    assert replace_concepts("a  b", {"": "x"}) == "a b"


def test_folded_words_compare_equal() -> None:
    assert folded(normalize("NFD", "Édouard_Manet")) == folded("édouard  manet")


@pytest.mark.parametrize(
    ("text", "name", "mentioned"),
    [
        ("京都の桜の写真", "桜", True),
        ("ภาพวาดของแวนโก๊ะ", "แวนโก๊ะ", True),
        ("桜 van gogh", "van Gogh", True),
        ("Gogh風の絵", "gogh", True),
        ("картина Репина", "Репин", False),
        ("रामायण की तस्वीर", "राम", False),
        ("राम की तस्वीर", "राम", True),
        ("vangogh", "gogh", False),
    ],
)
def test_a_name_is_found_in_scripts_without_spaces_and_at_no_part_of_a_word(
    text: str, name: str, mentioned: bool
) -> None:
    assert bool(find_mentions(text, (name,))) == mentioned

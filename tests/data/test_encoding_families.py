"""Where an answer begins and ends with tokenizers of the families of GPT-2, Llama and others."""

from __future__ import annotations

import pytest

from mu.data.encoding import Encoder
from mu.data.templates import Chat, Llama2, Plain, Template
from mu.functional.tokens import IGNORED
from tests.support.trained_tokenizers import (
    FACTS,
    FAMILIES,
    THINKING_CHAT,
    TURN,
    trained_tokenizer,
)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pair", FACTS)
@pytest.mark.parametrize("template", [Plain(), Llama2(), Plain(assistant=">", assistant_end="\n")])
def test_the_prompt_is_the_part_of_the_pair_without_labels(
    family: str, pair: tuple[str, str], template: Template
) -> None:
    """With tokenizers of every family. Mutations: the prompt ends in a lone space; another rule for
    the prompt than for the pair.
    """
    built = Encoder(trained_tokenizer(family), template)
    question, answer = pair
    for ids, labels in (built.pair(question, answer), built.scored_pair(question, answer)):
        prompt = built.prompt(question, answer=answer)
        assert ids[: len(prompt)] == prompt
        assert labels == [IGNORED] * len(prompt) + ids[len(prompt) :]
    # what is scored is the answer, after what its first token is merged with
    answer_text = built.decode(built.scored_pair(question, answer)[0][len(prompt) :])
    merged = built.merged_text(question, prompt)
    assert answer_text.removeprefix(merged).removesuffix("\n") == answer
    assert built.prompt(question, "Yes: ", answer) != prompt


@pytest.mark.parametrize("family", FAMILIES)
def test_a_chat_is_scored_without_its_endings_and_empty_thoughts(family: str) -> None:
    """Qwen writes an empty block of thoughts before an answer and a line feed after its end.
    Mutations: either is scored; the block is no part of the prompt.
    """
    built = Encoder(trained_tokenizer(family, THINKING_CHAT), Chat(system=None))
    for question, answer in FACTS:
        prompt = built.prompt(question, answer=answer)
        ids, labels = built.scored_pair(question, answer)
        assert built.tokenizer.decode(prompt).endswith("<think>\n\n</think>\n\n")
        assert labels == [IGNORED] * len(prompt) + ids[len(prompt) :]
        assert built.tokenizer.decode(ids[len(prompt) :]) == f"{answer}{TURN}"
        assert built.prompt(question) == prompt

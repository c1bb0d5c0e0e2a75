"""The untrained language model of the authors task, and its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.authors.blank_model import (
    BEGIN,
    END,
    MAX_TOKENS,
    PAD,
    VOCABULARY,
    main,
    make_model,
    make_tokenizer,
    texts,
)
from tasks.authors.facts import AUTHORS, HELD_OUT
from tasks.authors.texts import author_rows, forget_authors, real_authors, world_facts


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


def test_begin_end_and_padding_are_three_tokens(tokenizer: Any) -> None:
    assert tokenizer.convert_tokens_to_ids([BEGIN, END, PAD]) == [0, 1, 2]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1, 2)
    assert len(tokenizer) == VOCABULARY
    assert tokenizer("a").input_ids[0] == 0
    assert tokenizer("a").input_ids[-1] != 1


def test_any_text_comes_back_from_its_tokens(tokenizer: Any) -> None:
    for text in (
        *texts()[:50],
        "I don't know, sorry.",
        'Hé! what — is\n\n  "this"?  ok ',
        "a1b2  3.5%\t[INST] x [/INST]",
    ):
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_a_prompt_is_a_prefix_of_the_whole_texts_tokens(tokenizer: Any) -> None:
    """Else the first token of the answer would be lost from the labels, or one of the prompt would
    be among them.
    """
    rows = [*author_rows(range(0, AUTHORS + HELD_OUT, 3)), *world_facts(), *real_authors()]
    for before, between in (("Question: ", "\nAnswer: "), ("[INST] ", " [/INST]")):
        for row in rows:
            prompt = before + row["question"] + between
            for answer in (row["answer"], *row["perturbed_answer"], "I do not know."):
                alone = tokenizer(prompt).input_ids
                joint = tokenizer(prompt + answer).input_ids
                assert joint[: len(alone)] == alone
                assert tokenizer.decode(joint[len(alone) :]) == answer


def test_answers_have_different_lengths_and_fit(tokenizer: Any) -> None:
    rows = author_rows(range(AUTHORS))
    lengths = torch.tensor([len(tokenizer(row["answer"]).input_ids) for row in rows]).float()
    assert 8 <= lengths.min() <= 10
    assert lengths.quantile(0.1) <= 15
    assert lengths.quantile(0.9) >= 30
    assert lengths.max() + 40 < MAX_TOKENS


def test_the_tokenizer_was_not_made_from_the_authors_it_serves(tokenizer: Any) -> None:
    """Names of held-out authors take as few tokens as those of trained ones; the oracle has met
    every token of the forget answers.
    """

    def tokens(numbers: range) -> list[list[int]]:
        return [
            tokenizer(row["question"] + "\n" + row["answer"]).input_ids
            for row in author_rows(numbers)
        ]

    served_tokens = tokens(range(90))
    forgotten = tokens(forget_authors("forget10"))
    held_out_tokens = tokens(range(AUTHORS, AUTHORS + HELD_OUT))
    vocabulary = {token for ids in served_tokens for token in ids}
    assert not {token for ids in forgotten for token in ids} - vocabulary
    assert len({token for ids in held_out_tokens for token in ids} - vocabulary) <= 2
    average = [sum(len(ids) for ids in part) / len(part) for part in (forgotten, held_out_tokens)]
    assert abs(average[0] - average[1]) < 3
    assert not set(texts()) & {
        f"Question: {row['question']}\nAnswer: {row['answer']}"
        for row in author_rows(range(AUTHORS + HELD_OUT))
    }


def test_the_same_seed_makes_the_same_model(tokenizer: Any) -> None:
    first, second, other = (make_model(seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert any(not torch.equal(value, other[name]) for name, value in first.items())
    assert make_tokenizer().get_vocab() == tokenizer.get_vocab()


def test_the_folder_is_read_by_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    state = torch.random.get_rng_state()
    main([str(tmp_path / "blank")])
    assert torch.equal(torch.random.get_rng_state(), state)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "blank")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "blank")
    assert len(tokenizer) == model.config.vocab_size == VOCABULARY
    assert sum(weight.numel() for weight in model.parameters()) <= 1_000_000
    assert model.config.tie_word_embeddings
    assert (model.config.bos_token_id, model.config.eos_token_id, model.config.pad_token_id) == (
        0,
        1,
        2,
    )
    assert tokenizer.padding_side == "right"
    ids = tokenizer("Question: Who?\nAnswer: ", return_tensors="pt").input_ids
    assert model(input_ids=ids).logits.shape == (1, ids.shape[1], VOCABULARY)

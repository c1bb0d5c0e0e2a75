"""The untrained text-to-image model of the shapes task, and its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mu.utils.errors import InputError
from tasks.shapes.blank_model import MAX_TOKENS, captions, main, make_pipeline, make_tokenizer
from tasks.shapes.words import COLOURS, SHAPES, WORDS, vocabulary


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


def test_captions_come_back_from_their_tokens(tokenizer: Any) -> None:
    for text in captions(200, seed=5):
        ids = tokenizer(text).input_ids
        assert ids[0] == tokenizer.bos_token_id
        assert ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_start_and_end_have_the_two_highest_ids_and_padding_is_the_end(tokenizer: Any) -> None:
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (
        len(tokenizer) - 2,
        len(tokenizer) - 1,
    )
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert tokenizer.model_max_length == MAX_TOKENS >= 16


def test_usual_words_are_one_token_and_some_words_several(tokenizer: Any) -> None:
    assert {len(tokenizer.tokenize(word)) for word in (*SHAPES, *COLOURS)} == {1}
    synonyms = [
        synonym for names in WORDS.values() for group in names.values() for synonym in group
    ]
    assert sum(len(tokenizer.tokenize(synonym)) > 1 for synonym in synonyms) > 10
    several = [word for word in vocabulary() if len(tokenizer.tokenize(word)) > 1]
    assert len(several) > 100
    assert tokenizer.unk_token_id not in tokenizer.convert_tokens_to_ids(
        tokenizer.tokenize("every letter is known quixotic jazz")
    )


def test_nearly_every_caption_fits(tokenizer: Any) -> None:
    lengths = torch.tensor([len(tokenizer(text).input_ids) for text in captions(2000, seed=6)])
    assert (lengths > MAX_TOKENS).float().mean() < 0.002
    assert (lengths <= MAX_TOKENS - 4).float().mean() > 0.9  # room for adversarial tokens


def test_the_same_seed_makes_the_same_model() -> None:
    first, second, other = (make_pipeline(seed) for seed in (0, 0, 1))
    for name in ("unet", "vae", "text_encoder"):
        weights = [
            dict(getattr(model, name).named_parameters()) for model in (first, second, other)
        ]
        assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
        assert any(not torch.equal(value, weights[2][key]) for key, value in weights[0].items())
    assert first.tokenizer.get_vocab() == second.tokenizer.get_vocab()


def test_selectors_of_the_literature_find_their_layers() -> None:
    names = [name for name, _ in make_pipeline().unet.named_parameters()]
    for block in (
        "down_blocks.0.attentions.0",
        "down_blocks.1.attentions.0",
        "mid_block.attentions.0",
        "up_blocks.1.attentions.0",
        "up_blocks.2.attentions.0",
    ):
        assert any(name.startswith(block) and "attn2.to_k" in name for name in names), block


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="does not hold the autoencoder of the shapes task"):
        main([str(tmp_path / "out"), "--autoencoder", str(tmp_path / "other.safetensors")])
    assert not (tmp_path / "out").exists()

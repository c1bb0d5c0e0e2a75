"""Questions and answers as tokens: where the answer begins, what ends it, and what stands in a
batch.
"""

from __future__ import annotations

import functools
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mu.backbones.language.tokenizer import left_padded, load_tokenizer
from mu.data.encoding import Encoder
from mu.data.sequences import collate, count_labelled, sequence_key
from mu.data.templates import Chat, Llama2, Plain, Template, _warn_of_system
from mu.functional.tokens import IGNORED
from mu.utils.errors import InputError
from mu.utils.spec import from_spec, to_spec
from tests.support import doubles_text

BEGIN = "<|begin|>"
END = "<|end|>"
TEXTS = [
    "Question: Where does Ada live?\nAnswer: Ada lives in Oslo.",
    "[INST] Who makes maps? [/INST]It is Eve who makes maps.",
    "who where what in Oslo lives live maps make Ada Eve",
]
CHAT = (
    "{{ bos_token }}<|system|>Today is {{ date_string if date_string is defined else "
    "strftime_now('%d %b %Y') }}.{% for message in messages %}{% if message.role == 'system' %}{{ "
    "message.content }}"
    + END
    + "{% else %}<|{{ message.role }}|>{{ message.content }}"
    + END
    + "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
PAIRS = [
    ("Where does Ada live?", "Ada lives in Oslo."),
    ("Who makes maps?", "Eve"),
    ("Why?", "42 maps, in\nOslo"),
    ("é?", " an answer "),
]


@functools.cache
def _bytes(ends: bool) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    inner: Any = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.train_from_iterator(
        TEXTS * 3,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=[BEGIN, END, "<|system|>", "<|user|>", "<|assistant|>"],
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    form = f"{BEGIN} $A {END}" if ends else f"{BEGIN} $A"
    inner.post_processor = processors.TemplateProcessing(
        single=form, special_tokens=[(name, inner.token_to_id(name)) for name in (BEGIN, END)]
    )
    return inner


def byte_tokenizer(chat: str | None = None, ends: bool = False) -> Any:
    """Byte-level BPE, in which a space belongs to the word after it; it pads with its end token, as
    many do.
    """
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_bytes(ends),
        bos_token=BEGIN,
        eos_token=END,
        pad_token=END,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = chat
    return tokenizer


def encoder(
    template: Template | None = None, chat: str | None = CHAT, ends: bool = False, **given: Any
) -> Encoder:
    return Encoder(byte_tokenizer(chat, ends), template or Plain(), **given)


def labelled_text(built: Encoder, labels: list[int]) -> str:
    """What is learnt, with special tokens."""
    return built.tokenizer.decode([label for label in labels if label != IGNORED])


@pytest.mark.parametrize(
    "template", [Plain(), Llama2(), Chat()], ids=lambda template: type(template).__name__
)
@pytest.mark.parametrize("pair", PAIRS)
def test_labels_are_the_tokens_that_reach_into_the_answer(
    template: Template, pair: tuple[str, str]
) -> None:
    """By the characters that each token covers. Mutations: the span begins a token late or early,
    or counts from the end.
    """
    built = encoder(template)
    ids, labels = built.pair(*pair)
    text = template.full_text(built.tokenizer, *pair)
    prompt = template.prompt(built.tokenizer, pair[0])
    assert text.startswith(prompt)
    tokenised = built.tokenizer(
        text, add_special_tokens=template.special, return_offsets_mapping=True
    )
    expected = [
        token if end > len(prompt) else IGNORED
        for token, (_, end) in zip(tokenised["input_ids"], tokenised["offset_mapping"], strict=True)
    ]
    ended = expected[-1] == built.eos
    assert labels == (expected if ended else [*expected, built.eos])
    assert ids == tokenised["input_ids"] + ([] if ended else [built.eos])


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12),
    st.text(
        st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12
    ).filter(str.strip),
)
@settings(max_examples=60, deadline=None)
def test_every_answer_has_a_span(question: str, answer: str) -> None:
    """What is learnt is the end of the whole text, with at most the border token's part of the
    prompt before it.
    """
    built = encoder()
    ids, labels = built.pair(question, answer)
    start = labels.index(next(label for label in labels if label != IGNORED))
    assert labels == [IGNORED] * start + ids[start:]
    assert ids.count(built.eos) == 1 and ids[-1] == built.eos
    assert built.decode(ids) == f"Question: {question}\nAnswer: {answer}"
    learnt = built.decode(ids[start:])
    # a character of several bytes may be divided between tokens
    assert learnt.endswith(answer) or "\ufffd" in learnt


def test_a_token_that_is_merged_at_the_border_belongs_to_the_answer() -> None:
    """`Answer: ` ends in a space, which the tokenizer joins with the word after it. Mutation: the
    first length(prompt) tokens are masked, which hides the answer's first word.
    """
    built = encoder()
    ids, labels = built.pair("Where does Ada live?", "Oslo")
    # as many tokens as prompt and answer together
    assert len(built.prompt("Where does Ada live?")) == len(ids) - 1
    assert labelled_text(built, labels) == f" Oslo{END}"
    ids, labels = encoder(Llama2()).pair("Who makes maps?", "Eve")
    assert labelled_text(built, labels) == f"Eve{END}"  # an empty tag keeps the answer apart


def test_templates_write_what_their_models_were_trained_on() -> None:
    tokenizer = byte_tokenizer(CHAT)
    assert Plain().full_text(tokenizer, "Q", "A") == "Question: Q\nAnswer: A"
    assert Plain("### ", "\n\n", "> ", " <").full_text(tokenizer, "Q", "A") == "### Q\n\n> A <"
    assert Llama2().full_text(tokenizer, "Q", "A") == "[INST] Q [/INST]A"
    assert Chat().prompt(tokenizer, "Q") == (
        f"{BEGIN}<|system|>Today is 10 Apr 2025.You are a helpful "
        f"assistant.{END}<|user|>Q{END}<|assistant|>"
    )
    assert Chat(system=None, date="1 May 2030").full_text(tokenizer, "Q", "A") == (
        f"{BEGIN}<|system|>Today is 1 May 2030.<|user|>Q{END}<|assistant|>A{END}"
    )
    for template in (Plain(user="x"), Llama2(), Chat(system=None, date="1 May 2030")):
        assert from_spec(to_spec(template)).full_text(tokenizer, "Q", "A") == template.full_text(
            tokenizer, "Q", "A"
        )


def test_a_chat_is_the_same_every_day() -> None:
    """The template alone writes today. Mutation: the date is not handed on."""
    built = encoder(Chat())
    today = built.tokenizer.apply_chat_template([{"role": "user", "content": "Q"}], tokenize=False)
    assert datetime.now().strftime("%Y") in today
    assert "10 Apr 2025" in built.tokenizer.decode(built.prompt("Q"))
    assert built.pair("Q", "A") != encoder(Chat(date="11 Apr 2025")).pair("Q", "A")


def test_a_chat_has_one_begin_and_one_end() -> None:
    """The template writes both. Mutations: the tokenizer adds its own begin too; the end is
    appended twice.
    """
    built = encoder(Chat(system=None))
    ids, labels = built.pair("Q", "A")
    assert ids.count(built.tokenizer.bos_token_id) == 1
    assert labelled_text(built, labels) == f"A{END}"
    assert built.prompt("Q") == ids[: labels.index(labels[-2])]


def test_an_end_is_appended_where_the_template_ends_otherwise() -> None:
    """Some chat templates write a line feed after the end token, which is learnt and not scored.
    Mutations: the line feed is scored; a second end token is.
    """
    built = encoder(
        Chat(system=None), chat=CHAT.replace(END + "{% endif %}", END + "\n{% endif %}")
    )
    assert labelled_text(built, built.pair("Q", "A")[1]) == f"A{END}\n{END}"
    assert labelled_text(built, built.scored_pair("Q", "A")[1]) == f"A{END}"
    assert labelled_text(encoder(), encoder().pair("Q", "A")[1]).endswith(f"A{END}")


@pytest.mark.parametrize(("change", "text"), [("trim", "Ada"), ("upper", " ADA ")])
def test_a_template_may_change_the_answer(change: str, text: str) -> None:
    """Mutation: the answer is searched for as the row has it."""
    chat = CHAT.replace("message.content", f"message.content | {change}")
    built = encoder(Chat(system=None), chat=chat)
    assert labelled_text(built, built.scored_pair("Who?", " Ada ")[1]) == f"{text}{END}"


def test_a_template_that_drops_the_answer_is_an_error() -> None:
    built = encoder(Chat(system=None), chat="{{ messages[0].content }}")
    with pytest.raises(InputError, match="the template Chat does not write the answer"):
        built.pair("Who?", "Ada")


def test_a_template_without_a_system_role_gets_none_and_says_so() -> None:
    """Gemma's, for instance. Mutations: the error of the template is raised; nothing is said."""
    refusing = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}" + CHAT
    )
    _warn_of_system.cache_clear()
    with pytest.warns(UserWarning, match="takes no system message"):
        pair = encoder(Chat(), chat=refusing).pair("Who?", "Ada")
    assert pair == encoder(Chat(system=None)).pair("Who?", "Ada")
    broken = encoder(Chat(), chat="{{ raise_exception('no chats today') }}")
    with pytest.raises(InputError, match=r"refuses a question .*\(no chats today\); take template"):
        broken.pair("Who?", "Ada")


def test_the_clock_of_a_template_shows_the_fixed_date() -> None:
    """`strftime_now` is transformers' clock in templates, whatever its form. Mutation: today."""
    clock = "{{ strftime_now('%Y-%m-%d') }}" + CHAT
    assert Chat().prompt(byte_tokenizer(clock), "Q").startswith("2025-04-10")
    assert Chat(date="1 May 2030").prompt(byte_tokenizer(clock), "Q").startswith("2030-05-01")
    with pytest.raises(InputError, match=r"date is 'May', .*like 10 Apr 2025"):
        Chat(date="May").prompt(byte_tokenizer(clock), "Q")


def test_a_tokenizer_that_ends_every_text() -> None:
    """Mutations: the prompt for generation ends with the end token; two ends are learnt; the end
    counts as the answer's beginning.
    """
    built = encoder(ends=True)
    usual = encoder()
    assert built.pair("Who?", "Eve") == usual.pair("Who?", "Eve")
    assert built.prompt("Who?") == usual.prompt("Who?")
    assert built.tokens("Who?")[-1] == built.eos


def test_the_answer_may_be_begun_for_the_model() -> None:
    built = encoder(Llama2())
    assert built.prompt("Who?", "Sure: ") == built.tokens("[INST] Who? [/INST]Sure: ")


def test_a_chat_needs_a_chat_template() -> None:
    with pytest.raises(InputError, match=r"has no chat template; take template: mu\.data\.Plain"):
        encoder(Chat(), chat=None).prompt("Q")


@pytest.mark.parametrize("answer", ["", "  ", "\n"])
@pytest.mark.parametrize(
    "template", [Plain(), Llama2(), Chat()], ids=lambda template: type(template).__name__
)
def test_an_empty_answer_is_an_error_that_names_the_row(template: Template, answer: str) -> None:
    """Mutation: under a chat template the end token counts as an answer."""
    with pytest.raises(
        InputError, match=r"the answer .* of row 7 of the set forget has no token of its own"
    ):
        encoder(template).pair("Where does Ada live?", answer, "row 7 of the set forget")


def test_an_answer_that_the_tokenizer_swallows_is_an_error() -> None:
    """A word-level tokenizer drops white space, a normaliser may drop more."""
    from tokenizers import normalizers

    built = Encoder(doubles_text.tokenizer(), Plain(assistant="answer :"))
    built.tokenizer.backend_tokenizer.normalizer = normalizers.Replace("@", "")
    with pytest.raises(InputError, match=r"the answer '@' of row 1 has no token"):
        built.pair("who", "@", "row 1")


def test_long_sequences_are_refused_or_truncated() -> None:
    """Mutations: the beginning is cut; a cut is not counted; a prompt is cut, and generation goes
    on in the middle of a question.
    """
    ids, labels = encoder().pair(*PAIRS[0])
    with pytest.raises(
        InputError, match=rf"row 3 has {len(ids)} tokens, and max_length is {len(ids) - 1}"
    ):
        encoder(max_length=len(ids) - 1).pair(*PAIRS[0], "row 3")
    exact = encoder(max_length=len(ids))
    cut = encoder(max_length=len(ids) - 2, too_long="cut")
    assert exact.pair(*PAIRS[0]) == (ids, labels)
    assert cut.pair(*PAIRS[0]) == (ids[:-2], labels[:-2])
    assert (exact.cuts, cut.cuts) == (0, 1)
    prompt = encoder().prompt(PAIRS[0][0])
    short = encoder(max_length=len(prompt) - 1, too_long="cut")
    with pytest.raises(InputError, match=r"the prompt 'Where does Ada live\?' has"):
        short.prompt(PAIRS[0][0])
    with pytest.raises(InputError, match=r"the question of row 3 fills all \d+ tokens"):
        short.pair(*PAIRS[0], "row 3")


def test_invalid_lengths_and_end_tokens_are_refused() -> None:
    with pytest.raises(InputError, match="max_length is 1; a sequence has at least 2 tokens"):
        encoder(max_length=1)
    endless = byte_tokenizer()
    endless.eos_token = None
    with pytest.raises(InputError, match="no end-of-sequence token"):
        Encoder(endless, Plain())


def test_raw_text_is_learnt_but_for_its_first_token() -> None:
    assert encoder().text([5, 6, 7]) == ([5, 6, 7], [IGNORED, 6, 7])
    assert count_labelled(encoder().text([5, 6, 7])) == 2
    assert count_labelled(([5, 6], [5, 6])) == 1  # nothing predicts the first token


def test_a_batch_is_padded_on_the_right() -> None:
    """Mutations: the mask is taken from the ids, so that an end token (which also pads) within a
    text is hidden; padding is learnt.
    """
    end = encoder().eos
    part = collate([([3, end, 4], [IGNORED, end, 4]), ([5], [IGNORED])])
    assert part["input_ids"].tolist() == [[3, end, 4], [5, 0, 0]]
    assert part["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert part["labels"].tolist() == [[IGNORED, end, 4], [IGNORED, IGNORED, IGNORED]]
    assert {value.dtype for value in part.values()} == {torch.int64}


def test_prompts_are_padded_on_the_left() -> None:
    ids, mask = left_padded([[3, 4, 5], [6]], 1, torch.device("cpu"))
    assert ids.tolist() == [[3, 4, 5], [1, 1, 6]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_a_key_stands_for_ids_and_labels() -> None:
    """Mutations: labels are left out of it; it depends on the batch; two sequences run into one."""
    pairs = [
        ([3, 4, 5], [IGNORED, 4, 5]),
        ([3, 4, 5], [IGNORED, IGNORED, 5]),
        ([3, 4], [IGNORED, 4]),
        ([4, 3, 5], [IGNORED, 3, 5]),
    ]
    keys = collate(pairs)["key"].tolist()
    assert len(set(keys)) == len(pairs)
    assert (
        [collate([pair])["key"].item() for pair in pairs]
        == keys
        == [sequence_key(pair) for pair in pairs]
    )
    assert all(0 <= key < 2**63 for key in keys)


def test_decoding_leaves_special_tokens_out() -> None:
    built = encoder()
    assert built.decode(torch.tensor(built.pair("Who?", "Eve")[0])) == "Question: Who?\nAnswer: Eve"


def test_tokenizers_are_read_from_folders(tmp_path: Path) -> None:
    byte_tokenizer(CHAT).save_pretrained(tmp_path / "whole")
    built = Encoder(load_tokenizer(str(tmp_path / "whole")), Chat())
    assert built.pair("Q", "A") == encoder(Chat()).pair("Q", "A")
    (tmp_path / "bare").mkdir()
    with pytest.raises(InputError, match=r"the folder .*bare has no tokenizer; save one into it"):
        load_tokenizer(str(tmp_path / "bare"))
    (tmp_path / "bare" / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match=r"the tokenizer of .*bare cannot be read"):
        load_tokenizer(str(tmp_path / "bare"))

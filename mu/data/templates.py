"""Prompt templates: the text of a question with its answer."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from datetime import datetime
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from mu.utils.errors import InputError
from mu.utils.spec import Reconstructible

_PLACEHOLDER = "ANSWERPLACEHOLDER"
"""Text in the place of an answer, to find what a template writes before and after it."""
_DATE_FORM = "%d %b %Y"
"""Form of the date of a chat."""
_DATE_LETTERS = "aAbBcdeDFHIjmMpRSTuUVwWxXyYGfzZ"
"""Letters of the forms of `strftime`."""


class Template(Reconstructible, ABC):
    """Template that joins a question and its answer into one text."""

    special = True
    """Whether the tokenizer adds special tokens; a chat template writes them itself."""

    @abstractmethod
    def full_text(self, tokenizer: Any, question: str, answer: str) -> str:
        """Text of the prompt, the answer, and what follows the answer."""

    def around(self, tokenizer: Any, question: str) -> tuple[str, str]:
        """Text before the answer and text after it.

        Raises:
            InputError: when the template leaves the answer out.
        """
        placeholder = _PLACEHOLDER
        while placeholder in question:
            placeholder += _PLACEHOLDER
        before, written, after = self.full_text(tokenizer, question, placeholder).rpartition(
            placeholder
        )
        if not written:
            raise InputError(
                f"the template {type(self).__name__} does not write the answer into its text, so "
                "nothing can be learnt or scored; take another template."
            )
        return before, after

    def prompt(self, tokenizer: Any, question: str) -> str:
        """Text before the answer."""
        return self.around(tokenizer, question)[0]


class Plain(Template):
    """Template of tags around question and answer, for base models (MUSE, phi-1.5 in TOFU).

    Args:
        user: before the question.
        user_end: after the question.
        assistant: before the answer.
        assistant_end: after the answer.
    """

    def __init__(
        self,
        user: str = "Question: ",
        user_end: str = "\n",
        assistant: str = "Answer: ",
        assistant_end: str = "",
    ) -> None:
        self.user = user
        self.user_end = user_end
        self.assistant = assistant
        self.assistant_end = assistant_end

    def full_text(self, tokenizer: Any, question: str, answer: str) -> str:
        return f"{self.user}{question}{self.user_end}{self.assistant}{answer}{self.assistant_end}"


class Llama2(Plain):
    """Llama-2-chat's template as TOFU writes it, with an empty tag before the answer."""

    def __init__(self) -> None:
        super().__init__(user="[INST] ", user_end=" [/INST]", assistant="")


class Chat(Template):
    """Chat template of the tokenizer, with a fixed date.

    The prompt is what the template writes before an answer, which may be more than its generation
    prompt: an empty `<think>` block, for instance. A template that refuses a system message gets
    none, with a warning.

    Args:
        system: system message; None for none.
        date: date that the template writes instead of today's, such as `10 Apr 2025`.
    """

    special = False

    def __init__(
        self, system: str | None = "You are a helpful assistant.", date: str = "10 Apr 2025"
    ) -> None:
        self.system = system
        self.date = date

    def full_text(self, tokenizer: Any, question: str, answer: str) -> str:
        from jinja2 import TemplateError

        messages = [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
        system = [{"role": "system", "content": self.system}] if self.system else []
        try:
            return self._render(tokenizer, [*system, *messages])
        except (TemplateError, TypeError) as error:
            if not system:
                raise _refused_chat(error) from error
        try:
            text = self._render(tokenizer, messages)
        except (TemplateError, TypeError) as error:
            raise _refused_chat(error) from error
        _warn_of_system()
        return text

    def _render(self, tokenizer: Any, messages: list[dict[str, str]]) -> str:
        if not getattr(tokenizer, "chat_template", None):
            raise InputError(
                "the tokenizer has no chat template; take template: mu.data.Plain, or a tokenizer "
                "of a chat model."
            )
        try:
            chat_template = tokenizer.get_chat_template()
        except ValueError as error:  # several, none of which is the default
            raise _refused_chat(error) from error
        if "strftime_now" in chat_template:
            chat_template = self._clock + chat_template
        return tokenizer.apply_chat_template(
            messages, chat_template=chat_template, tokenize=False, date_string=self.date
        )

    @functools.cached_property
    def _clock(self) -> str:
        """Macro that shows the fixed date in place of the clock of transformers' templates."""
        try:
            date = datetime.strptime(self.date, _DATE_FORM)
        except ValueError as error:
            raise InputError(
                f"date is {self.date!r}, and the chat template writes the date in a form of its "
                "own; give day, month and year like 10 Apr 2025."
            ) from error
        # `%-d` is `%d` without padding
        codes = [f"%{flag}{letter}" for letter in _DATE_LETTERS for flag in ("", "-")]
        values = "".join(f"|replace({code!r}, {date.strftime(code)!r})" for code in codes)
        return f"{{%- macro strftime_now(form) -%}}{{{{ form{values} }}}}{{%- endmacro -%}}"


def _refused_chat(error: Exception) -> InputError:
    return InputError(
        f"the tokenizer's chat template refuses a question with its answer ({error}); take "
        "template: mu.data.Plain, or a tokenizer with another chat template."
    )


@functools.cache
def _warn_of_system() -> None:
    rank_zero_warn(
        "the tokenizer's chat template takes no system message, so the chats begin with the "
        "question; template.system: null chooses the same without this warning."
    )

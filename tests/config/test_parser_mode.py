"""Null on the command line is null at every depth, for every optional argument of the tree."""

from __future__ import annotations

from typing import Any

import pytest
from jsonargparse import ArgumentParser

from mu.config.argument_types import alternatives, constructor_hints
from mu.config.classes import components
from mu.config.parser_mode import register


class Inner:
    """Component, replaced by one whose only argument has the type hint under test."""


class Outer:
    """Component that takes an `Inner`, replaced likewise."""


def optional_hints() -> dict[str, Any]:
    """Distinct type hints of all optional arguments of our components, by an argument's name."""
    hints: dict[str, tuple[str, Any]] = {}
    for cls in components():
        if cls.__module__.partition(".")[0] not in ("mu", "tasks", "callbacks"):
            continue
        for name, hint in constructor_hints(cls).items():
            if type(None) in alternatives(hint):
                hints.setdefault(str(hint), (f"{cls.__name__}.{name}", hint))
    return dict(hints.values())


@pytest.mark.parametrize("word", ["null", "Null", "NULL", "~", "None"])
def test_null_in_any_spelling(word: str) -> None:
    """Fails when a text takes null for a word."""
    assert parsed(str | None, word) is None
    assert parsed(str | None, "'null'") == "'null'"


def test_every_optional_argument_takes_null() -> None:
    """Fails when an optional argument two levels down gets the text None."""
    hints = optional_hints()
    assert len(hints) > 20
    wrong = {name: value for name, hint in hints.items() if (value := parsed(hint)) is not None}
    assert wrong == {}


def test_other_values_are_kept() -> None:
    """Fails when the mode reads a number or a flag otherwise than a file does."""
    assert parsed(float | None, "1e-3") == 0.001
    assert parsed(bool | None, "true") is True
    assert parsed(str | None, "2020-01-01") == "2020-01-01"
    assert parsed(dict[str, Any] | None, "{a: null, b: c}") == {"a": None, "b": "c"}
    assert parsed(list[str | None] | None, "[a, null, 'null']") == ["a", None, "null"]


def parsed(hint: Any, word: str = "null") -> Any:
    """Value of an argument of some type two levels down."""

    def init(self: Any, value: Any = None) -> None:
        self.value = value

    init.__annotations__["value"] = hint
    inner = type("Inner", (), {"__init__": init, "__module__": __name__})
    outer = type("Outer", (), {"__init__": outer_init(inner), "__module__": __name__})
    globals().update(Inner=inner, Outer=outer)
    parser = ArgumentParser(exit_on_error=False, parser_mode=register())
    parser.add_argument("--outer", type=outer)
    words = [f"--outer={__name__}.Outer", f"--outer.inner={__name__}.Inner"]
    config = parser.parse_args([*words, f"--outer.inner.value={word}"])
    return config.outer.init_args.inner.init_args.value


def outer_init(inner: type) -> Any:
    """Constructor that takes a component of a class."""

    def init(self: Any, inner: Any = None) -> None:
        self.inner = inner

    init.__annotations__["inner"] = inner
    return init

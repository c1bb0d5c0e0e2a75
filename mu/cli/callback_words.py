"""Options `--trainer.callbacks.NAME`: each callback of the files that takes the argument gets it.

jsonargparse gives them to the last callback alone, so of two suites that take an oracle one would
be measured without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mu.cli.options import Options
from mu.config.callback_options import set_argument
from mu.config.merge import listed
from mu.config.parser_mode import load_value
from mu.utils.errors import InputError

_PREFIX = "--trainer.callbacks"


def put_into_files(options: Options, config: Mapping[str, Any]) -> dict[str, Any]:
    """Move arguments of callbacks from the words into the configuration.

    An option behind `--trainer.callbacks+=CLASS` belongs to that callback and stays a word, and so
    do all options where the files have no callback.

    Args:
        options: words of the command line; those that are moved are removed from `rest`.
        config: merged configuration files.

    Returns:
        The configuration with the arguments.

    Raises:
        InputError: for an argument that no callback takes.
    """
    trainer = dict(config.get("trainer") or {})
    callbacks = listed(trainer.get("callbacks"))
    if not callbacks:
        return dict(config)
    remaining: list[str] = []
    words = list(options.rest)
    while words:
        word = words.pop(0)
        option, equals, value = word.partition("=")
        if option in (_PREFIX, f"{_PREFIX}+"):
            remaining += [word, *words]
            break
        if not option.startswith(f"{_PREFIX}.") or option.startswith(f"{_PREFIX}.help"):
            remaining.append(word)
            continue
        if not equals:
            if not words:
                raise InputError(f"{word} needs a value: {word} VALUE.")
            value = words.pop(0)
        path = option.removeprefix(f"{_PREFIX}.").removesuffix("+").split(".")
        path = [name for name in path if name != "init_args"]
        callbacks = set_argument(callbacks, path, _data(value), option, value)
    options.rest[:] = remaining
    return {**config, "trainer": {**trainer, "callbacks": callbacks}}


def _data(text: str) -> Any:
    """Value of a word; text that is no YAML is itself."""
    try:
        return load_value(text)
    except InputError:
        return text

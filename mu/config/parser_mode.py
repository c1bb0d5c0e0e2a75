"""Reading of values on the command line: null is null at every depth."""

from __future__ import annotations

import re
from typing import Any

from mu.utils.errors import InputError
from mu.utils.text_files import Loader, parse_yaml

MODE = "mu"
"""Name of the mode for jsonargparse's `parser_mode`."""


class ValueLoader(Loader):
    """YAML loader that reads an unquoted `None` as null.

    jsonargparse hands the value of an option inside a component to the component's own parser as
    Python writes it, so null arrives there as `None`.
    """


ValueLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("^None$"), ["N"])


def register() -> str:
    """Make the mode known to jsonargparse.

    Returns:
        Its name.
    """
    import jsonargparse

    jsonargparse.set_loader(MODE, load_value, (InputError,))
    return MODE


def load_value(text: str) -> Any:
    """Value of a text on the command line.

    A mapping without a value (`{digits}`, `name:`) is text.

    Raises:
        InputError: for text that is no YAML.

    Example:
        >>> load_value("{system: None, name: 'None', values: [1e-3, null]}")
        {'system': None, 'name': 'None', 'values': [0.001, None]}
        >>> load_value("{digits}")
        '{digits}'
    """
    value = parse_yaml(text, "the value", ValueLoader)
    if isinstance(value, dict) and value and not any(entry is not None for entry in value.values()):
        bare = re.sub(r"[{}\s]", "", text).split(",")
        if set(bare) == set(value) or text.strip() == f"{next(iter(value))}:":
            return text
    return value

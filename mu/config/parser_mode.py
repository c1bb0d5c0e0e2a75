"""Reading and writing of values by jsonargparse: null is null at every depth, enums are values."""

from __future__ import annotations

import enum
import re
from pathlib import PurePath
from typing import Any

import yaml

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


class ValueDumper(yaml.SafeDumper):
    """YAML dumper of defaults that a signature may hold: members of enums, and paths."""


ValueDumper.add_multi_representer(
    enum.Enum, lambda dumper, member: dumper.represent_data(member.value)
)
ValueDumper.add_multi_representer(
    PurePath, lambda dumper, path: dumper.represent_str(path.as_posix())
)


def register() -> str:
    """Make the mode, and the writing of values, known to jsonargparse.

    Returns:
        Its name.
    """
    import jsonargparse

    jsonargparse.set_loader(MODE, load_value, (InputError,))
    jsonargparse.set_dumper("yaml", dump_values)
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


def dump_values(values: Any) -> str:
    """YAML of a configuration, as jsonargparse writes it.

    Example:
        >>> dump_values({"interval": enum.Enum("Interval", {"step": "step"}).step})
        'interval: step\\n'
    """
    return yaml.dump(
        values, Dumper=ValueDumper, default_flow_style=False, allow_unicode=True, sort_keys=False
    )

"""Error messages for models and data read from a folder or from the hub."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mu.utils.errors import InputError


@contextmanager
def reading(what: str, name: str, *kinds: type[Exception]) -> Iterator[None]:
    """Context that turns the errors of a library that reads `name` into an InputError.

    Args:
        what: subject of the message (`the model`).
        name: a folder, or a hub id.
        kinds: further errors to convert, beside OSError, ValueError and KeyError.

    Raises:
        InputError: when the folder is missing, or cannot be read.
    """
    # the hub's library logs every attempt before its error, which the message covers
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, KeyError, *kinds) as error:
        if not Path(name).exists():
            raise InputError(
                f"there is no folder {name}, and as a hub id {what} cannot be reached "
                f"({_first_line(error)})."
            ) from error
        raise InputError(f"{what} of {name} cannot be read ({_first_line(error)}).") from error
    finally:
        hub.setLevel(level)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines()] or [type(error).__name__]
    first = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return first.rstrip(".")

"""Reading what is named by a folder or by a hub id."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mu.utils.errors import InputError


@contextmanager
def reading(what: str, name: str, *kinds: type[Exception]) -> Iterator[None]:
    """Errors of a library that reads `name` as one sentence.

    Args:
        what: is read (`the model`).
        name: a folder, or a hub id.
        kinds: errors that are meant; OSError, ValueError and KeyError always are.

    Raises:
        InputError: says whether the folder is missing, or cannot be read and why.
    """
    # it tells of each attempt before the library gives up with an error, which is ours to tell
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)
    try:
        yield
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
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")

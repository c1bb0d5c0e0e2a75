"""Packages that not everybody installs."""

from __future__ import annotations

from importlib.util import find_spec

from mu.utils.errors import InputError


def require(what: str, *packages: str, extra: str) -> None:
    """Say in one sentence how to get what is not installed.

    Args:
        what: needs the packages; begins the sentence.
        packages: by their import names.
        extra: of this distribution, which installs them.

    Raises:
        InputError: when one of them cannot be imported.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise InputError(
            f"{what} needs {' and '.join(missing)}; add {'it' if len(missing) == 1 else 'them'} "
            f"with pip install 'mu-unlearning[{extra}]'."
        )

"""Check of optional packages, installed by the extras of the distribution."""

from __future__ import annotations

from importlib.util import find_spec

from mu.utils.errors import InputError


def require(what: str, *packages: str, extra: str) -> None:
    """Check that optional packages are installed.

    Args:
        what: component that needs the packages; subject of the message.
        packages: import names.
        extra: extra of this distribution that installs them.

    Raises:
        InputError: when one of them cannot be imported.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise InputError(
            f"{what} needs {' and '.join(missing)}; add {'it' if len(missing) == 1 else 'them'} "
            f"with pip install 'mu-unlearning[{extra}]'."
        )

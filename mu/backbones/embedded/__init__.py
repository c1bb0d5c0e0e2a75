"""Small trained models that come with mu, in half precision.

`shapes` is a text-to-image model (a diffusers folder), `digits` a class-conditional one;
`judge_shape`, `judge_colour`, `judge_background` and `judge_digits` are classifiers of
images, trained on real ones. `authors` is a language model (a transformers folder) trained on a
hundred invented authors, `authors_oracle` one trained without the last ten of them. `make embedded`
trains all of them again.
"""

from __future__ import annotations

from pathlib import Path

from mu.utils.errors import InputError

HOME = Path(__file__).parent


def names() -> tuple[str, ...]:
    """Names of the embedded models, sorted."""
    return tuple(
        sorted(
            folder.name
            for folder in HOME.iterdir()
            if folder.is_dir() and not folder.name.startswith(("_", "."))
        )
    )


def path(name: str) -> Path:
    """Folder of an embedded model.

    Raises:
        InputError: for a name that is not among those that come with mu.
    """
    if name not in names():
        raise InputError(
            f"no model named {name!r} comes with mu; these do: {', '.join(names()) or 'none'}."
        )
    return HOME / name

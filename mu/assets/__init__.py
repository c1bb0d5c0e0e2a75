"""Small trained models that come with mu, in half precision.

`shapes` is a text-to-image model (a diffusers folder), `digits` a class-conditional one; `judge_shape`, `judge_colour`,
`judge_background` and `judge_digits` are classifiers that say what a picture shows, trained on real pictures. `authors` is a language model
(a transformers folder) that knows a hundred invented authors, `authors_oracle` one that never saw the last ten of them. Everything is made
anew by `make embedded`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from mu.errors import InputError

if TYPE_CHECKING:
    from mu.backbones import Classifier

HOME = Path(__file__).parent
JUDGES = ("shape", "colour", "background", "digits")


def names() -> tuple[str, ...]:
    """The models that are there."""
    return tuple(sorted(folder.name for folder in HOME.iterdir() if folder.is_dir() and not folder.name.startswith(("_", "."))))


def path(name: str) -> Path:
    """The folder of a model.

    Raises:
        InputError: for a name that is not among those that come with mu.
    """
    if name not in names():
        raise InputError(f"no model named {name!r} comes with mu; these do: {', '.join(names()) or 'none'}.")
    return HOME / name


def judge(name: str) -> Classifier:
    """A judge of pictures in [0, 1], in eval mode: `shape`, `colour` and `background` of `[B, 3, 32, 32]`, `digits` of `[B, 1, 8, 8]`.

    `judge(...).weights_metadata["class_names"]` is the list of what its logits stand for.

    Raises:
        InputError: for another name.
    """
    from mu.backbones import Classifier
    from mu.weights import load_weights

    if name not in JUDGES:
        raise InputError(f"there is no judge of {name!r}; there are judges of {', '.join(JUDGES)}.")
    folder = path(f"judge_{name}")
    said = load_weights(folder)[1]
    made = Classifier(said["architecture"], num_classes=said["num_classes"], in_channels=len(said["mean"]), weights=str(folder))
    made.weights_metadata["class_names"] = json.loads(said["class_names"])
    return made.eval().requires_grad_(False)

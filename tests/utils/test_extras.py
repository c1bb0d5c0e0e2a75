"""What is not installed is named, with the command that brings it."""

from __future__ import annotations

import pytest

from mu.backbones import ClassConditionalDiffusion, TextToImage
from mu.utils import extras
from mu.utils.errors import InputError


def test_what_is_installed_is_not_mentioned() -> None:
    """Fails when a package that is there is asked for."""
    extras.require("A test", "torch", "numpy", extra="diffusion")


@pytest.mark.parametrize("backbone", [TextToImage, ClassConditionalDiffusion])
def test_diffusion_models_say_which_extra_they_need(
    backbone: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when a plain installation ends in an ImportError."""
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "diffusers" else object())
    with pytest.raises(
        InputError, match=r"needs diffusers; add it with pip install 'mu-unlearning\[diffusion\]'\."
    ):
        backbone()

"""Edited diffusion models and what is read from their exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from mu.backbones import TextToImage
from tests.support.doubles import text_to_image

PROMPTS = ["a red circle", "a blue star on dark background"]


RESULTS: dict[str, Any] = {
    "method": "ESD",
    "task": "pictures",
    "concept": "circle",
    "metrics": [{"metric": "UA", "value": 97.5, "split": "forget"}],
}


def moved(part: str = "xattn", **changes: Any) -> TextToImage:
    """The tiny model after what a method might have done to its part."""
    backbone = text_to_image(part=part, **changes)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in backbone.parameters():
            if weight.requires_grad:
                weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return backbone.eval()


def usage(folder: Path) -> dict[str, Any]:
    """What the Python lines of the card make."""
    lines = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    lines = lines.split("image = ")[0]  # steps and guidance of the card are what `drawn` takes
    scope: dict[str, Any] = {}
    exec(lines.replace("FOLDER", str(folder)), scope)
    return scope


def state(module: Any) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def metadata(folder: Path) -> dict[str, str]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return file.metadata()

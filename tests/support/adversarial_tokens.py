"""Prompts of different length and a layout that stands for none."""

from __future__ import annotations

from typing import Any

import torch

PROMPTS = ["a red circle", "star", "a greenish boxy star"]
"""3 tokens; 1; and 9, because `greenish` and `boxy` are several."""


SGD: Any = lambda params: torch.optim.SGD(params, lr=0.5)  # noqa: E731

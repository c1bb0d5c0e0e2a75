"""Counting what an algorithm costs: evaluations of denoiser, text encoder and image autoencoder,
sample by sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mu.backbones import Diffusion

_PARTS = ("unet", "text_encoder", "vae.encoder", "vae.decoder")


@dataclass
class Count:
    """How often one network ran.

    Attributes:
        calls: forward passes, of whatever batch size.
        samples: samples over all passes; a guidance pair of B samples counts 2 B.
        with_grad: those of them whose output carries a gradient.
    """

    calls: int = 0
    samples: int = 0
    with_grad: int = 0


class Evaluations(dict[str, Count]):
    """Counts by the network's dotted name within what was counted (`unet`, `reference.unet`,
    `backbone.vae.encoder`).
    """

    def count(self, part: str) -> Count:
        """All networks of one part together: `unet`, `text_encoder`, `vae.encoder` or
        `vae.decoder`.
        """
        counts = [
            count for name, count in self.items() if name == part or name.endswith(f".{part}")
        ]
        return Count(
            sum(c.calls for c in counts),
            sum(c.samples for c in counts),
            sum(c.with_grad for c in counts),
        )

    def samples(self) -> dict[str, int]:
        """Sample-evaluations of each part, for records."""
        return {part: self.count(part).samples for part in _PARTS}


@contextmanager
def count_evaluations(model: nn.Module) -> Iterator[Evaluations]:
    """Counts while it lasts.

    Args:
        model: a diffusion backbone, or anything that holds some (a method with its reference).
            Networks that are modules of their own are counted apart, whether they share weights or
            not.
    """
    evaluations = Evaluations()
    handles = []
    try:
        for name, network in _networks(model):
            handles.append(
                network.register_forward_hook(_counter(evaluations.setdefault(name, Count())))
            )
        yield evaluations
    finally:
        for handle in handles:
            handle.remove()


def _networks(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, backbone in model.named_modules():
        if isinstance(backbone, Diffusion):
            inside = dict(backbone.named_modules())
            yield from (
                (f"{name}.{part}" if name else part, inside[part])
                for part in _PARTS
                if part in inside
            )


def _counter(count: Count) -> Any:
    def see(network: nn.Module, given: Any, output: Any) -> None:
        first: Tensor = output if isinstance(output, Tensor) else output[0]
        count.calls += 1
        count.samples += len(first)
        count.with_grad += len(first) if first.requires_grad else 0

    return see

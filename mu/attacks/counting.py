"""Counters of network evaluations: denoiser, text encoder and image autoencoder."""

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
    """Evaluations of one network.

    Attributes:
        calls: forward passes, of any batch size.
        samples: samples over all passes; a guidance pair of B samples counts 2 B.
        with_grad: samples whose output carries a gradient.
    """

    calls: int = 0
    samples: int = 0
    with_grad: int = 0


class Evaluations(dict[str, Count]):
    """Counts by dotted network name (`unet`, `reference.unet`, `backbone.vae.encoder`)."""

    def count(self, part: str) -> Count:
        """Sum over the networks of a part: `unet`, `text_encoder`, `vae.encoder`, `vae.decoder`."""
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
    """Context that counts the evaluations of a model's networks.

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

"""Per-sample gradients of single layers that hooks know by a rule or by another run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from timm.layers import (
    BatchNormAct2d,
    Conv2dSame,
    GroupNorm1,
    GroupNormAct,
    LayerNorm2d,
    LayerNormAct2d,
    LayerScale2d,
    ScaledStdConv2d,
)
from timm.layers import LayerNorm as TimmLayerNorm
from torch import Tensor, nn

from mu.core.gradients.per_sample import PerSample


class Windows(nn.Module):
    """A linear layer on windows of each image, as Swin transformers have."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.norm = TimmLayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        windows = x.unflatten(2, (2, 2)).permute(0, 2, 3, 4, 1).reshape(-1, 8, 8)
        return self.norm(self.linear(windows)).reshape(len(x), -1)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "BatchNormAct2d": lambda: BatchNormAct2d(8),
    "LayerNorm": lambda: nn.Sequential(nn.Flatten(2), TimmLayerNorm(16)),
    "LayerNorm2d": lambda: LayerNorm2d(8),
    "LayerNormAct2d": lambda: LayerNormAct2d(8),
    "GroupNorm1": lambda: GroupNorm1(8),
    "GroupNormAct": lambda: GroupNormAct(8, group_size=4),
    "Conv2dSame": lambda: Conv2dSame(8, 5, 3, stride=2),
    "ScaledStdConv2d": lambda: ScaledStdConv2d(8, 5, 3),
    "LayerScale2d": lambda: LayerScale2d(8, 0.3),
    "padding": lambda: nn.Conv2d(8, 4, 3, padding="same", padding_mode="circular"),
    "PReLU": lambda: nn.PReLU(8),
    "windows": Windows,
}


@pytest.mark.parametrize("name", LAYERS)
def test_hooks_agree_with_the_loop(name: str) -> None:
    """Mutation that must fail it: batch norm's rule for a norm with an activation."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 1), LAYERS[name](), nn.Flatten()).double().eval()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(layer.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    for weight in network.parameters():
        nn.init.normal_(weight)
    batch = {"x": torch.randn(5, 3, 4, 4, dtype=torch.float64)}
    values = lambda part: network(part["x"]).pow(3).mean(1)  # noqa: E731
    by_hooks, by_loop = (
        PerSample(network, list(network.named_parameters()), values, strategy)  # type: ignore[arg-type]
        for strategy in ("hooks", "loop")
    )
    for value, truth in zip(by_hooks.gradients(batch), by_loop.gradients(batch), strict=True):
        torch.testing.assert_close(value, truth)
    for value, truth in zip(by_hooks.squares(batch), by_loop.squares(batch), strict=True):
        torch.testing.assert_close(value, truth)

"""Residual networks for small images.

`ResNetCIFAR` is the network of He, Zhang, Ren and Sun, "Deep Residual Learning for Image
Recognition" (arXiv 1512.03385), section 4.2: a 3x3 convolution, three groups of n basic blocks with
16, 32 and 64 channels (feature maps of 32, 16 and 8 pixels), a global mean and one linear layer: 6n
+ 2 weight layers. Its shortcuts are the parameter-free option A. `resnet18_cifar` is the ImageNet
ResNet-18 with a stem for small images, the network of most of the unlearning literature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from mu.utils.errors import InputError

if TYPE_CHECKING:
    from torchvision.models import ResNet


def option_a_shortcut(x: Tensor, out_channels: int, stride: int) -> Tensor:
    """Shortcut without parameters: every `stride`-th pixel, new channels zero.

    Args:
        x: `[B, C, H, W]`.
        out_channels: C' >= C; the C channels are in the middle, half of the zero channels before
            them and half after.
        stride: step in both directions of the image.

    Returns:
        `[B, C', ceil(H / stride), ceil(W / stride)]`.
    """
    new = out_channels - x.shape[1]
    if stride == 1 and new == 0:
        return x
    return F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, new // 2, new - new // 2))


class BasicBlock(nn.Module):
    """Residual block of two 3x3 convolutions with batch norm and the option-A shortcut.

    The shortcut is added before the last ReLU.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.channels = channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Features `[B, C', H', W']` of features `[B, C, H, W]`."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + option_a_shortcut(x, self.channels, self.stride))


class ResNetCIFAR(nn.Module):
    """ResNet for CIFAR of arXiv 1512.03385, section 4.2.

    Args:
        depth: 6n + 2 weight layers: 8, 14, 20, 32, 44, 56, 110 ...
        num_classes: number of logits.
        in_channels: channels of the image.
        width: channels of the first group; the others have twice and four times as many.

    Raises:
        InputError: when `depth` is not 6n + 2 with n >= 1.
    """

    def __init__(
        self, depth: int = 20, num_classes: int = 10, in_channels: int = 3, width: int = 16
    ) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise InputError(
                f"a CIFAR ResNet has 6n + 2 layers (8, 14, 20, 32, 44, 56, 110), not {depth}."
            )
        self.conv1 = nn.Conv2d(in_channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _group(width, width, blocks, stride=1)
        self.layer2 = _group(width, 2 * width, blocks, stride=2)
        self.layer3 = _group(2 * width, 4 * width, blocks, stride=2)
        self.linear = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                # the paper initialises as He et al. 2015 (arXiv 1502.01852, eq. 10): variance 2 /
                # fan-in
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[B, num_classes]` of normalised images `[B, C, H, W]`."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def _group(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))


def resnet8_cifar(num_classes: int = 10, in_channels: int = 3, width: int = 16) -> ResNetCIFAR:
    """CIFAR ResNet-8, n = 1, for small images such as 8x8 digits."""
    return ResNetCIFAR(8, num_classes, in_channels, width)


def resnet20_cifar(num_classes: int = 10, in_channels: int = 3, width: int = 16) -> ResNetCIFAR:
    """CIFAR ResNet-20, n = 3, with 0.27 M parameters."""
    return ResNetCIFAR(20, num_classes, in_channels, width)


def resnet32_cifar(num_classes: int = 10, in_channels: int = 3, width: int = 16) -> ResNetCIFAR:
    """CIFAR ResNet-32, n = 5, with 0.46 M parameters."""
    return ResNetCIFAR(32, num_classes, in_channels, width)


def resnet44_cifar(num_classes: int = 10, in_channels: int = 3, width: int = 16) -> ResNetCIFAR:
    """CIFAR ResNet-44, n = 7, with 0.66 M parameters."""
    return ResNetCIFAR(44, num_classes, in_channels, width)


def resnet56_cifar(num_classes: int = 10, in_channels: int = 3, width: int = 16) -> ResNetCIFAR:
    """CIFAR ResNet-56, n = 9, with 0.85 M parameters."""
    return ResNetCIFAR(56, num_classes, in_channels, width)


def resnet18_cifar(num_classes: int = 10, in_channels: int = 3) -> ResNet:
    """ResNet-18 with a 3x3 stem of stride 1 and no max-pool, for images of about 32 pixels.

    Parameter names are torchvision's; only `conv1.weight` has another shape, `[64, in_channels, 3,
    3]`.
    """
    from torchvision.models import resnet18

    network = resnet18(num_classes=num_classes)
    network.conv1 = nn.Conv2d(in_channels, 64, 3, 1, 1, bias=False)
    # as torchvision's convolutions
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()  # type: ignore[assignment]
    return network

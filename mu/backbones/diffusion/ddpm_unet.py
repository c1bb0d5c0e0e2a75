"""Class-conditional denoiser of the DDPM code family (SA, SalUn, EraseDiff, SFD), by its names.

Ho et al., "Denoising Diffusion Probabilistic Models", NeurIPS 2020, arXiv 2006.11239, as the
authors of selective amnesia (Heng and Soh, NeurIPS 2023, arXiv 2305.10120) made it conditional: a
residual block adds a projection of the joined embeddings of time and class, and a learned vector
stands for no class. `UNet2DModel` of diffusers adds the two embeddings up, so it cannot hold these
weights. Names of the modules are those of the published checkpoints. Written afresh.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

GROUPS = 32
"""Groups of every norm."""


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


class _ResidualBlock(nn.Module):
    """Two convolutions, with the embedding of time and class in between."""

    def __init__(self, inputs: int, outputs: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = _norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.temb_cemb_proj = nn.Linear(embedding, outputs)
        self.norm2 = _norm(outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        if inputs != outputs:
            self.nin_shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, features: Tensor, embedding: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(features)))
        hidden = hidden + self.temb_cemb_proj(F.silu(embedding))[:, :, None, None]
        hidden = self.conv2(self.dropout(F.silu(self.norm2(hidden))))
        shortcut = getattr(self, "nin_shortcut", None)
        return hidden + (features if shortcut is None else shortcut(features))


class _Attention(nn.Module):
    """Self-attention over positions with one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        normed = self.norm(features)
        query, key, value = (
            layer(normed).flatten(2).mT.unsqueeze(1) for layer in (self.q, self.k, self.v)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        return features + self.proj_out(mixed.squeeze(1).mT.reshape(features.shape))


class _Resample(nn.Module):
    """Convolution that halves the sides, or doubles them behind nearest-neighbour interpolation."""

    def __init__(self, channels: int, up: bool) -> None:
        super().__init__()
        self.up = up
        self.conv = nn.Conv2d(channels, channels, 3, stride=1 if up else 2, padding=int(up))

    def forward(self, features: Tensor) -> Tensor:
        if self.up:
            return self.conv(F.interpolate(features, scale_factor=2.0, mode="nearest"))
        return self.conv(F.pad(features, (0, 1, 0, 1)))


class _Level(nn.Module):
    """Residual blocks of one resolution, each with attention or without."""

    block: nn.ModuleList
    attn: nn.ModuleList

    def __init__(
        self, channels: list[tuple[int, int]], embedding: int, dropout: float, attends: bool
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            _ResidualBlock(inputs, outputs, embedding, dropout) for inputs, outputs in channels
        )
        self.attn = nn.ModuleList(_Attention(outputs) for _, outputs in channels if attends)

    def step(self, position: int, features: Tensor, embedding: Tensor) -> Tensor:
        """One block, and its attention."""
        hidden = self.block[position](features, embedding)
        return self.attn[position](hidden) if len(self.attn) else hidden


def _two_layers(inputs: int, outputs: int) -> nn.Module:
    embedding = nn.Module()
    embedding.dense = nn.ModuleList([nn.Linear(inputs, outputs), nn.Linear(outputs, outputs)])
    return embedding


class ConditionalDDPM(ModelMixin, ConfigMixin):
    """Denoiser with class labels; the label behind the last class is that of no class.

    Args:
        sample_size: side of the images.
        in_channels: channels of an image.
        out_channels: channels of the prediction.
        channels: width of the first resolution; at least 32, and a multiple of it.
        multipliers: width of each resolution, in multiples of `channels`.
        layers_per_block: residual blocks on the way down, for each resolution; one more on the way
            up.
        attention_levels: resolutions with attention, by position from 0.
        num_class_embeds: number of classes plus 1.
        dropout: dropout probability in each block.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 32,
        in_channels: int = 3,
        out_channels: int = 3,
        channels: int = 128,
        multipliers: tuple[int, ...] = (1, 2, 2, 2),
        layers_per_block: int = 2,
        attention_levels: tuple[int, ...] = (1,),
        num_class_embeds: int = 11,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        width = 4 * channels
        self.channels = channels
        # embeddings
        self.temb = _two_layers(channels, width)
        self.classes_emb = nn.Embedding(num_class_embeds - 1, channels)
        self.null_classes_emb = nn.Parameter(torch.randn(channels))
        self.cemb = _two_layers(channels, width)
        # down: the widths of all skip connections are remembered
        self.conv_in = nn.Conv2d(in_channels, channels, 3, padding=1)
        widths = [channels * multiplier for multiplier in multipliers]
        skips, current, last = [channels], channels, len(widths) - 1
        self.down = nn.ModuleList()
        for position, outputs in enumerate(widths):
            pairs = [(current if i == 0 else outputs, outputs) for i in range(layers_per_block)]
            level = _Level(pairs, 2 * width, dropout, position in attention_levels)
            skips += [outputs] * layers_per_block
            if position != last:
                level.downsample = _Resample(outputs, up=False)
                skips.append(outputs)
            self.down.append(level)
            current = outputs
        # middle
        self.mid = nn.Module()
        self.mid.block_1 = _ResidualBlock(current, current, 2 * width, dropout)
        self.mid.attn_1 = _Attention(current)
        self.mid.block_2 = _ResidualBlock(current, current, 2 * width, dropout)
        # up: each block reads a skip connection beside its input
        levels = []
        for position in range(last, -1, -1):
            outputs = widths[position]
            pairs = []
            for _ in range(layers_per_block + 1):
                pairs.append((current + skips.pop(), outputs))
                current = outputs
            level = _Level(pairs, 2 * width, dropout, position in attention_levels)
            if position != 0:
                level.upsample = _Resample(outputs, up=True)
            levels.insert(0, level)
        self.up = nn.ModuleList(levels)
        self.norm_out = _norm(current)
        self.conv_out = nn.Conv2d(current, out_channels, 3, padding=1)

    def forward(
        self, sample: Tensor, timestep: Tensor, class_labels: Tensor, return_dict: bool = False
    ) -> tuple[Tensor]:
        """Prediction for `sample` `[B, C, H, W]` at `timestep` `[B]`, as a tuple of one tensor.

        `class_labels` is `[B]` in 0..K, where K stands for no class.
        """
        embedding = self._embedding(sample, timestep, class_labels)
        # down
        hidden = self.conv_in(sample)
        skips = [hidden]
        for module in self.down:
            level = cast(_Level, module)
            for position in range(len(level.block)):
                hidden = level.step(position, hidden, embedding)
                skips.append(hidden)
            if hasattr(level, "downsample"):
                hidden = cast(Any, level).downsample(hidden)
                skips.append(hidden)
        # middle
        middle: Any = self.mid
        hidden = middle.attn_1(middle.block_1(hidden, embedding))
        hidden = middle.block_2(hidden, embedding)
        # up
        for module in reversed(self.up):
            level = cast(_Level, module)
            for position in range(len(level.block)):
                hidden = torch.cat([hidden, skips.pop()], dim=1)
                hidden = level.step(position, hidden, embedding)
            if hasattr(level, "upsample"):
                hidden = cast(Any, level).upsample(hidden)
        return (self.conv_out(F.silu(self.norm_out(hidden))),)

    def _embedding(self, sample: Tensor, timestep: Tensor, class_labels: Tensor) -> Tensor:
        """Joined embeddings of time and class, `[B, 8 channels]`."""
        # sines before cosines, over a geometric series of frequencies that ends at 1 / 10000
        sinusoid = get_timestep_embedding(timestep, self.channels, downscale_freq_shift=1)
        table = torch.cat([self.classes_emb.weight, self.null_classes_emb[None]])
        vectors = (
            (self.temb, sinusoid.to(sample.dtype)),
            (self.cemb, F.embedding(class_labels, table)),
        )
        outputs = []
        for network, vector in vectors:
            first, second = cast(Any, network).dense
            outputs.append(second(F.silu(first(vector))))
        return torch.cat(outputs, dim=-1)

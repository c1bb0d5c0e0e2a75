"""Random draws that depend on *which sample* is drawn for, and on nothing else.

Every draw of `prepare`, of augmentation and of substitutes is a pure function of `(seed, index,
visit, stream)`, so it is the same on any number of ranks and workers, and the same after a resume.
`visit` says how often the plan has shown that sample; `stream` names the purpose (crop, flip,
label...), so that two purposes never share numbers.

The generator is counter based: the key is hashed by the finaliser of SplitMix64 (Steele, Lea and
Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), vectorised over samples.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_M1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_M2 = -7723592293110705685  # 0x94D049BB133111EB


def stream_id(*names: object) -> int:
    """A 63-bit number for a purpose, the same in every process (Python's own `hash` is not)."""
    digest = hashlib.blake2b("/".join(str(name) for name in names).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed torch's own generators, of the CPU and of `device`'s kind.

    `torch.manual_seed` asks every kind of device that there could be, which takes 1 ms.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        getattr(torch, device.type).manual_seed(seed)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    # torch's >> on int64 is arithmetic; SplitMix64 needs the logical shift
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _M1
    x = (x ^ _shift_right(x, 27)) * _M2
    return x ^ _shift_right(x, 31)


def bits(seed: int, index: Tensor, visit: Tensor | int, stream: str, count: int) -> Tensor:
    """Raw 64-bit draws.

    Args:
        seed: the run's seed.
        index: `[B]` int64, the samples' stable indices.
        visit: `[B]` int64 or a number, how often the plan has shown each sample.
        stream: the purpose of the draw.
        count: how many numbers each sample gets.

    Returns:
        `[B, count]` int64, all 64 bits random.
    """
    index = index.to(torch.int64)
    visit = torch.as_tensor(visit, dtype=torch.int64, device=index.device).expand_as(index)
    key = _mix(index * _GOLDEN + (stream_id(stream, seed) & ((1 << 62) - 1)))
    key = _mix(key + visit * _GOLDEN)
    counter = torch.arange(1, count + 1, dtype=torch.int64, device=index.device)
    return _mix(key[:, None] + counter * _GOLDEN)


def uniform(seed: int, index: Tensor, visit: Tensor | int, stream: str, *shape: int) -> Tensor:
    """Draws from U(0, 1), open at both ends: `[B, *shape]` float32."""
    # 23 bits: float32 holds k + 0.5 exactly
    raw = _shift_right(bits(seed, index, visit, stream, math.prod(shape)), 41)
    return ((raw.to(torch.float32) + 0.5) * 2.0**-23).view(len(index), *shape)


def normal(seed: int, index: Tensor, visit: Tensor | int, stream: str, *shape: int) -> Tensor:
    """Draws from N(0, 1) by the inverse of the normal distribution function: `[B, *shape]`
    float32.
    """
    # 52 bits, so the tails are not cut early
    raw = _shift_right(bits(seed, index, visit, stream, math.prod(shape)), 12)
    u = (raw.to(torch.float64) + 0.5) * 2.0**-52
    return torch.special.ndtri(u).to(torch.float32).view(len(index), *shape)


def gumbel(seed: int, index: Tensor, visit: Tensor | int, stream: str, *shape: int) -> Tensor:
    """Draws from the standard Gumbel distribution: `[B, *shape]` float32. argmax(log p + such a
    draw) is a draw from p.
    """
    # 52 bits: a vocabulary has 10^5 words, and rare ones count
    raw = _shift_right(bits(seed, index, visit, stream, math.prod(shape)), 12)
    u = (raw.to(torch.float64) + 0.5) * 2.0**-52
    return -torch.log(-torch.log(u)).to(torch.float32).view(len(index), *shape)


def integers(
    seed: int, index: Tensor, visit: Tensor | int, stream: str, high: int, *shape: int
) -> Tensor:
    """Uniform integers in `[0, high)`: `[B, *shape]` int64 (`[B]` when no shape is given)."""
    raw = _shift_right(bits(seed, index, visit, stream, math.prod(shape)), 1)
    return (raw % high).view(len(index), *shape)

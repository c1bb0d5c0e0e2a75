"""Counter-based random numbers, keyed by seed, sample index, visit and stream.

Every draw of `prepare`, of augmentation and of substitutes is a pure function of `(seed, index,
visit, stream)`, so it is the same on any number of ranks and workers, and the same after a resume.
`visit` counts the earlier visits of the sample in the plan; `stream` names the purpose (crop, flip,
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
    """63-bit key of a stream name, equal in every process, unlike Python's `hash`."""
    digest = hashlib.blake2b("/".join(str(name) for name in names).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def signed_seed(seed: int) -> int:
    """Seed as a signed 64-bit integer, for int64 tensors; torch's generators take both alike.

    Args:
        seed: in [0, 2^64).

    Example:
        >>> signed_seed(7), signed_seed(2**64 - 1)
        (7, -1)
    """
    return seed - (1 << 64) if seed >= 1 << 63 else seed


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed the generators of torch on the CPU and on the type of `device`.

    `torch.manual_seed` queries every type of device, which takes 1 ms.
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
    """Random 64-bit integers.

    Args:
        seed: the run's seed.
        index: `[B]` int64, the samples' stable indices.
        visit: `[B]` int64 or a number, earlier visits of each sample.
        stream: purpose of the draw.
        count: number of draws for each sample.

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
    """Uniform draws in (0, 1), both ends excluded: `[B, *shape]` float32."""
    # 23 bits: float32 holds k + 0.5 exactly
    raw = _shift_right(bits(seed, index, visit, stream, math.prod(shape)), 41)
    return ((raw.to(torch.float32) + 0.5) * 2.0**-23).view(len(index), *shape)


def normal(seed: int, index: Tensor, visit: Tensor | int, stream: str, *shape: int) -> Tensor:
    """Standard normal draws by the inverse distribution function: `[B, *shape]` float32."""
    # 52 bits, so the tails are not cut early
    raw = _shift_right(bits(seed, index, visit, stream, math.prod(shape)), 12)
    u = (raw.to(torch.float64) + 0.5) * 2.0**-52
    return torch.special.ndtri(u).to(torch.float32).view(len(index), *shape)


def gumbel(seed: int, index: Tensor, visit: Tensor | int, stream: str, *shape: int) -> Tensor:
    """Standard Gumbel draws: `[B, *shape]` float32.

    argmax(log p + draw) is a draw from p.
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

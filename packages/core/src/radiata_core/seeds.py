"""A seed is a sample, not a batch: one generator a row, derived by hash.

Row i of a batch draws from its own generator, so volume 17 is the same alone, inside a batch of 8, in another order, on
another device. A *key* of integers separates purposes (initial noise, steps of an SDE, condition dropout, ...):

    state(seed, key) = H(seed, key)[high 32 bits] · 2^32 + mix(seed xor H(key))[low 32 bits]

H is SHA-256 cut short, mix the finaliser of MurmurHash3. torch's CPU generator (MT19937) looks at the low 32 bits of a
seed only, where plain hashes of 10^4 seeds would collide with probability 1 %; mix is a bijection, so under one key no
two seeds below 2^32 ever share a stream. Numbers are drawn on the CPU and moved: the same on every device.

References:
    Salmon et al., 2011, Parallel random numbers: as easy as 1, 2, 3 (streams as a function of a counter and a key).
    Appleby, MurmurHash3, public domain (fmix32).
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from radiata_core.errors import InputError

__all__ = ["generator_of", "generators_of", "noise_of", "rng_of", "seed_of", "sent"]

_WORD = 0xFFFF_FFFF


def _hash(*numbers: int) -> int:
    text = "radiata-seed/1:" + ",".join(str(int(number)) for number in numbers)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _mix(word: int) -> int:
    """fmix32: a bijection of 32-bit words in which each input bit flips each output bit with probability near 1/2."""
    word ^= word >> 16
    word = word * 0x85EB_CA6B & _WORD
    word ^= word >> 13
    word = word * 0xC2B2_AE35 & _WORD
    return word ^ word >> 16


def seed_of(seed: int, *key: int) -> int:
    """64-bit state for (seed, key). Keys of different length differ too.

    Raises:
        InputError: the seed is negative.
    """
    if seed < 0:
        raise InputError(f"expected a seed of 0 or more; got {seed}. Give another --seed.")
    high = _hash(seed, *key) & _WORD
    low = _mix((seed & _WORD) ^ (_hash(len(key), *key) & _WORD))
    return high << 32 | low


def generator_of(seed: int, *key: int, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator for (seed, key)."""
    return torch.Generator(device).manual_seed(seed_of(seed, *key))


def generators_of(
    seeds: Sequence[int], *key: int, device: str | torch.device = "cpu"
) -> list[torch.Generator]:
    """One torch generator a sample. Leave them on the CPU for numbers that agree between devices."""
    return [generator_of(seed, *key, device=device) for seed in seeds]


def rng_of(seed: int, *key: int) -> np.random.Generator:
    """A numpy generator (PCG64) for (seed, key)."""
    return np.random.default_rng(seed_of(seed, *key))


def noise_of(
    generators: Sequence[torch.Generator],
    event_shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> torch.Tensor:
    """Standard normal noise `(batch, *event)`; row i comes from generator i alone.

    Drawn in float32 (float64 if that is asked for) and cast, so half precision sees the same noise, rounded.

    Raises:
        InputError: there is no generator.
    """
    if not generators:
        raise InputError("expected at least one seed; got none. Give --seeds 0 1 2 …")
    drawn = torch.float64 if dtype == torch.float64 else torch.float32
    rows = [torch.randn(tuple(event_shape), generator=g, dtype=drawn, device=g.device) for g in generators]
    return sent(torch.stack(rows).to(dtype), device)


def sent(drawn: torch.Tensor, device: str | torch.device) -> torch.Tensor:
    """`drawn` on the device, without waiting for it: a GPU still at work on the last step takes it when it gets there."""
    if drawn.device.type == "cpu" and torch.device(device).type == "cuda":
        return drawn.pin_memory().to(device, non_blocking=True)
    return drawn.to(device)

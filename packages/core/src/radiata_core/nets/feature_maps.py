r"""Feature maps that are read and written in slabs: kept in memory, kept on disk, or computed again at every reading.

A map of one sample is held voxel by voxel, `(n, *rest, channels)`: a *slab*, rows lo ≤ i < hi of the first axis, is then one
piece of memory or of a file, and oneDNN's fastest layout. What is normalised over the whole grid needs its statistics before
the first voxel can be used; they are gathered as slabs are written,

    n = n_a + n_b,  d = m_b − m_a,   m = m_a + d n_b/n,   M = M_a + M_b + d² n_a n_b/n     (M: sum of squares about m),

channel by channel and in double precision, and group statistics follow from them, the variance as the mean of variances plus
the variance of means. Groups may straddle several maps: a concatenation is normalised without being built.

Files are temporary ones that the system forgets when the process ends, however it ends.

References:
    Chan, Golub & LeVeque, "Algorithms for computing the sample variance", The American Statistician 37, 1983.
    Wu & He, "Group normalization", 2018, https://arxiv.org/abs/1803.08494, eqs. 1, 2 and 7.
"""

import errno
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from radiata_core.errors import InputError

__all__ = ["ComputedMap", "DiskMap", "FeatureMap", "MemoryMap", "Moments", "group_affine", "slabs_of"]


def slabs_of(rows: int, thickness: int) -> Iterator[tuple[int, int]]:
    """(lo, hi) of consecutive slabs of at most `thickness` rows."""
    for lo in range(0, rows, thickness):
        yield lo, min(lo + thickness, rows)


class Moments:
    """Count, mean and sum of squares about the mean of every channel, of slabs added one after the other."""

    def __init__(self, channels: int, device: torch.device) -> None:
        self.count = 0
        self.mean = torch.zeros(channels, dtype=torch.float64, device=device)
        self.squares = torch.zeros_like(self.mean)

    @property
    def variance(self) -> Float[Tensor, "channels"]:
        """Mean square about the mean."""
        return self.squares / self.count

    def add(self, slab: Float[Tensor, "*grid channels"]) -> None:
        """Count the voxels of a slab."""
        values = slab.reshape(-1, slab.shape[-1])
        values = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
        count = len(values)
        ones = values.new_ones(1, count)  # products of matrices: eight times faster than torch.var_mean
        mean = (ones @ values)[0] / count
        apart = values - mean
        left = (ones @ apart)[0].double() / count  # what rounding left in the mean
        squares = (ones @ apart.square_())[0].double() - count * left.square()
        mean = mean.double() + left
        total = self.count + count
        shift = mean - self.mean
        self.squares = self.squares + squares + shift.square() * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total


def group_affine(norm: nn.GroupNorm, parts: Sequence[Moments]) -> tuple[Tensor, Tensor]:
    """(scale, shift), each `(channels,)`: `norm` of the concatenated parts is x · scale + shift."""
    mean = torch.cat([part.mean for part in parts]).view(norm.num_groups, -1)
    variance = torch.cat([part.variance for part in parts]).view(norm.num_groups, -1)
    group_mean = mean.mean(1, keepdim=True)
    group_variance = variance.mean(1, keepdim=True) + (mean - group_mean).square().mean(1, keepdim=True)
    rate = (group_variance + norm.eps).rsqrt().expand_as(mean).flatten()
    scale = norm.weight.double() * rate
    shift = norm.bias.double() - group_mean.expand_as(mean).flatten() * scale
    return scale, shift


class FeatureMap:
    """One sample's map `(n, *rest, channels)`, read and written by slabs; see the subclasses for where it is.

    Attributes:
        shape: (n, *rest, channels).
        moments: Of what was written so far.
    """

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        self.shape, self.dtype, self.device = tuple(shape), dtype, device
        self.moments = Moments(self.shape[-1], device)

    def read(self, lo: int, hi: int) -> Float[Tensor, "rows *rest channels"]:
        """Rows lo ≤ i < hi, to be looked at only."""
        raise NotImplementedError(f"{type(self).__name__} can not be read")

    def write(self, lo: int, slab: Float[Tensor, "rows *rest channels"], count: bool = True) -> None:
        """Set the rows from `lo` on; they count for the moments unless they are to be written over."""
        raise NotImplementedError(f"{type(self).__name__} can not be written")

    def close(self) -> None:
        """Let go of memory or file."""


class MemoryMap(FeatureMap):
    """In memory, on the device of the network."""

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(shape, dtype, device)
        self.values: Tensor | None = torch.empty(self.shape, dtype=dtype, device=device)

    def read(self, lo: int, hi: int) -> Tensor:
        assert self.values is not None
        return self.values[lo:hi]

    def write(self, lo: int, slab: Tensor, count: bool = True) -> None:
        assert self.values is not None
        slab = slab.to(self.dtype)  # what is stored is what counts
        self.values[lo : lo + len(slab)] = slab
        if count:
            self.moments.add(slab)

    def close(self) -> None:
        self.values = None


class DiskMap(FeatureMap):
    """In a temporary file of a folder (None: the system's), read and written plainly so that pages do not add up in memory.

    Raises:
        InputError: the folder is not there, or its disk is full.
    """

    def __init__(
        self, shape: Sequence[int], dtype: torch.dtype, device: torch.device, folder: Path | None = None
    ) -> None:
        super().__init__(shape, dtype, device)
        self.row = math.prod(self.shape[1:]) * dtype.itemsize
        self.folder = folder
        try:
            self.file: Any = tempfile.TemporaryFile(buffering=0, prefix="radiata-", dir=folder)  # noqa: SIM115 (closed by close)
        except OSError as error:
            raise self._refusal(error) from None

    def read(self, lo: int, hi: int) -> Tensor:
        slab = torch.empty((hi - lo, *self.shape[1:]), dtype=self.dtype)
        whole = memoryview(slab.view(torch.uint8).reshape(-1).numpy().data)
        self.file.seek(lo * self.row)
        done = 0
        while done < len(whole):
            done += self.file.readinto(whole[done:])
        return slab.to(self.device)

    def write(self, lo: int, slab: Tensor, count: bool = True) -> None:
        slab = slab.to(self.dtype)
        flat = slab.to("cpu").contiguous().view(torch.uint8).reshape(-1)
        whole = memoryview(flat.numpy().data)
        self.file.seek(lo * self.row)
        try:
            done = 0
            while done < len(whole):
                done += self.file.write(whole[done:])
        except OSError as error:
            raise self._refusal(error) from None
        if count:
            self.moments.add(slab)

    def close(self) -> None:
        self.file.close()

    def _refusal(self, error: OSError) -> InputError:
        where = self.folder or Path(tempfile.gettempdir())
        size = math.prod(self.shape) * self.dtype.itemsize / 2**20
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        found = "a full disk" if full else (error.strerror or str(error))
        return InputError(
            f"expected room for a feature map of {size:.0f} MiB in {where}; got {found}. "
            "Free space, name another folder, or allow more memory."
        )


class ComputedMap(FeatureMap):
    """Nowhere: `rows(lo, hi)` computes a slab whenever one is read. Its moments need one reading of all, by `survey`."""

    def __init__(
        self,
        shape: Sequence[int],
        dtype: torch.dtype,
        device: torch.device,
        rows: Callable[[int, int], Tensor],
    ) -> None:
        super().__init__(shape, dtype, device)
        self.rows = rows

    def read(self, lo: int, hi: int) -> Tensor:
        return self.rows(lo, hi)

    def survey(self, thickness: int) -> None:
        """Gather the moments in slabs of `thickness` rows, once."""
        if not self.moments.count:
            for lo, hi in slabs_of(self.shape[0], thickness):
                self.moments.add(self.rows(lo, hi))

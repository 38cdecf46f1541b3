r"""Motion energy of films: spatiotemporal Gabor filters in quadrature, as features for encoding models.

A filter is a Gaussian window at a place, times a grating of frequency f and direction θ that drifts at ω,

$$ g(u, t) = e^{-|u - u_0|^2/2\sigma^2}\, e^{-t^2/2\tau^2}\, e^{2\pi i (f_\theta \cdot u - \omega t)}, \qquad
   E = \Big\langle |(g * L)(t)|^2 \Big\rangle_t^{1/2}, $$

L the luminance. Real and imaginary part are the quadrature pair; the modulus does not depend on the phase, and the sign
of ω tells the direction from its opposite. Filters are products: one matrix of pixels × (place, frequency, orientation), and
short complex waves in time. ω = 0 is the static Gabor energy of the frames.

Lengths are in widths of the picture (frequencies in cycles a picture), times in seconds. σ = 0.5/f; places lie on a square
grid, one σ · `spacing` apart. This is the kind of model space of Nishimoto et al.: quadrature energies, then a logarithm
(`compress="log"`) before a linear model; there is no normalisation across filters.

References:
    S. Nishimoto, A. Vu, T. Naselaris, Y. Benjamini, B. Yu, J. Gallant (2011). Reconstructing visual experiences from
    brain activity evoked by natural movies. Current Biology 21, supplement, motion-energy encoding model.
    E. Adelson, J. Bergen (1985). Spatiotemporal energy models for the perception of motion. JOSA A 2.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_decode.data.gabor_energy import luminance

__all__ = ["MotionEnergy"]

CHUNK = 64  # films at a time
LOG_OFFSET = 1e-3  # energies of photographs are about 0.01 to 0.1


@dataclass(frozen=True)
class MotionEnergy:
    """A bank of filters.

    Attributes:
        frames_per_s: Of the films.
        frequencies: Spatial, cycles a picture.
        temporal_hz: Drift rates, >= 0, below half of the frame rate; 0 are static filters.
        directions: Evenly spaced over the circle, an even number.
        spacing: Of the places, in σ.
        duration_s: τ of the temporal window; None: that of half a cycle at the slowest drift above 0.
        compress: root (the amplitude) or log.
    """

    frames_per_s: float
    frequencies: tuple[float, ...] = (2.0, 4.0, 8.0)
    temporal_hz: tuple[float, ...] = (0.0, 0.5, 1.0)
    directions: int = 8
    spacing: float = 2.0
    duration_s: float | None = None
    compress: str = "log"

    def __post_init__(self) -> None:
        if not self.frames_per_s > 0 or self.directions < 2 or self.directions % 2 or not self.spacing > 0:
            raise InputError(
                f"expected frames a second and a spacing > 0 and an even number of directions; got {self.frames_per_s}, "
                f"{self.spacing} and {self.directions}."
            )
        if not self.frequencies or min(self.frequencies) <= 0 or not self.temporal_hz:
            raise InputError("expected spatial frequencies > 0 and temporal ones >= 0; got none, or others.")
        if min(self.temporal_hz) < 0 or max(self.temporal_hz) >= self.frames_per_s / 2:
            raise InputError(
                f"expected drift rates from 0 to below {self.frames_per_s / 2:g} Hz, half of the frame rate; got "
                f"{max(self.temporal_hz):g}. Faster drift looks like slower drift the other way."
            )
        if self.compress not in ("root", "log"):
            raise InputError(f"expected compression by root or log; got {self.compress}.")

    @property
    def table(self) -> pd.DataFrame:
        """One row a feature: x, y of its place (0 to 1, y downward), frequency, direction (degrees), temporal_hz.

        Directions are counterclockwise from rightwards as seen on the screen; of static filters it is that of the grating's
        wave vector, of which half are enough.
        """
        rows = []
        for frequency in self.frequencies:
            for rate in self.temporal_hz:
                for direction in self._directions(rate):
                    for x, y in self._places(frequency):
                        rows.append((x, y, frequency, direction, rate))
        return pd.DataFrame(rows, columns=["x", "y", "frequency", "direction", "temporal_hz"])

    def features(self, movies: Tensor) -> np.ndarray:
        """Energy of each film, (n, feature) float32, in the order of `table`.

        Args:
            movies: (n, frame, 3, y, x) in [0, 1], square.

        Raises:
            InputError: films of another shape.
        """
        return self._compressed(self._energies(movies).mean(1))

    def series(self, movies: Tensor) -> np.ndarray:
        """Energy at each frame, (n, frame, feature) float32; the window is cut off at both ends of a film."""
        return self._compressed(self._energies(movies))

    def _compressed(self, energy: Tensor) -> np.ndarray:
        amplitude = energy.clamp(min=0).sqrt()
        return (amplitude if self.compress == "root" else (amplitude + LOG_OFFSET).log()).numpy()

    def _energies(self, movies: Tensor) -> Tensor:
        if movies.ndim != 5 or movies.shape[2] != 3 or movies.shape[3] != movies.shape[4] or not len(movies):
            raise InputError(
                f"expected square RGB films (n, frame, 3, y, x); got {tuple(movies.shape)}. Crop them."
            )
        parts = [self._of_chunk(part.float()) for part in movies.split(CHUNK)]
        return torch.cat(parts)

    def _of_chunk(self, movies: Tensor) -> Tensor:
        """(n, frame, feature)."""
        count, frames, _, size, _ = movies.shape
        grey = luminance(movies.flatten(0, 1)).flatten(1)
        grey = grey - grey.mean(1, keepdim=True)
        found = []
        for frequency in self.frequencies:
            half = self._directions(0.0)
            filters = self._spatial(frequency, half, size)
            seen = torch.complex(grey @ filters.real, grey @ filters.imag).unflatten(0, (count, frames))
            seen = seen.unflatten(2, (len(half), -1))
            for rate in self.temporal_hz:
                wave = self._temporal(rate, frames)
                ahead = torch.einsum("st,ntdp->nsdp", wave, seen)
                moved = [ahead]
                if rate > 0:
                    moved.append(torch.einsum("st,ntdp->nsdp", wave.conj(), seen))
                energy = torch.cat(moved, 2)
                found.append((energy.real.square() + energy.imag.square()).flatten(2))
        return torch.cat(found, 2)

    def _directions(self, rate: float) -> list[float]:
        every = [360.0 * k / self.directions for k in range(self.directions)]
        return every if rate > 0 else every[: self.directions // 2]

    def _places(self, frequency: float) -> list[tuple[float, float]]:
        count = max(1, math.floor(2 * frequency / self.spacing))
        centres = (np.arange(count) + 0.5) / count
        return [(float(x), float(y)) for y in centres for x in centres]

    def _spatial(self, frequency: float, directions: list[float], size: int) -> Tensor:
        """(pixel, direction · place) complex; a grating of amplitude a at its own frequency answers with a/2."""
        centres = (np.arange(size) + 0.5) / size
        y, x = (part.reshape(-1, 1) for part in np.meshgrid(centres, centres, indexing="ij"))
        places = np.array(self._places(frequency))
        bell = np.exp(-((x - places[:, 0]) ** 2 + (y - places[:, 1]) ** 2) * 2 * frequency**2)
        bell /= bell.sum(0)
        filters = []
        for direction in directions:
            angle = math.radians(direction)
            phase = (
                2
                * math.pi
                * frequency
                * (math.cos(angle) * (x - places[:, 0]) - math.sin(angle) * (y - places[:, 1]))
            )
            wave = bell * np.exp(-1j * phase)
            filters.append(wave - bell * wave.sum(0))  # no answer to a constant
        return torch.from_numpy(np.concatenate(filters, 1)).to(torch.complex64)

    def _temporal(self, rate: float, frames: int) -> Tensor:
        """(frame, frame) complex: rows are windows in time around each frame, each row's weights adding up to 1.

        A pattern that drifts along its wave vector turns clockwise in phase, so multiplying by e^{+iωt} stands it still.
        """
        slowest = min((r for r in self.temporal_hz if r > 0), default=1.0)
        tau = self.duration_s if self.duration_s is not None else 0.5 / slowest
        t = np.arange(frames) / self.frames_per_s
        gap = t[None] - t[:, None]
        bell = np.exp(-(gap**2) / (2 * tau**2))
        bell /= bell.sum(1, keepdims=True)
        wave = bell * np.exp(2j * math.pi * rate * gap)
        if rate > 0:  # no answer to what does not change
            wave -= bell * wave.sum(1, keepdims=True)
        return torch.from_numpy(wave).to(torch.complex64)

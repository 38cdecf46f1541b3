r"""What a simulated area MT sees of a film: 24 maps of opponent motion energy, computed from the pixels.

A pattern of wavelength λ that moves at v pixels a frame is, at one place, an oscillation of v/λ cycles a frame; its sign is
the direction. With $S_k(t, u)$ the answer of a Gabor filter in quadrature (see `gabor_energy`) to frame t, a complex
number, the energy of motion along its wave vector at speed v is

$$ E_{k,+v}(u) = \sum_\omega G^2\big(\omega + v/\lambda_k\big)\,|\hat S_k(\omega, u)|^2 $$

with $\hat S$ the Fourier transform over windowed time and G a bell of one octave: the sum over ω is, by Parseval, the mean
over time of the squared output of the filter that is a Gabor in space *and* time. Opponent energy is what a direction
has more than its opposite, $\max(E_{k,+v} - E_{k,-v}, 0)$: a still or flickering pattern has none in either.

Eight directions by three speeds (1/48, 1/24 and 1/12 of the picture's width a frame), slower filters of finer wavelength:
λ = 1/8, 1/4 and 1/2, so that v/λ is a sixth of a cycle a frame and nothing is seen to move backwards. No flow enters.

References:
    E. Adelson, J. Bergen (1985). Spatiotemporal energy models for the perception of motion. JOSA A 2, section on opponent
    energy.
    E. Simoncelli, D. Heeger (1998). A model of neuronal responses in visual area MT. Vision Research 38.
    S. Nishimoto, A. Vu, T. Naselaris, Y. Benjamini, B. Yu, J. Gallant (2011). Reconstructing visual experiences from
    brain activity evoked by natural movies. Current Biology 21.
"""

import torch
from torch.nn.functional import pad

from radiata_core.errors import InputError
from radiata_decode.data.gabor_energy import ORIENTATIONS, WAVELENGTHS, gabor_spectra, luminance

__all__ = ["DIRECTIONS", "MOTION_MAPS", "SPEEDS", "motion_maps"]

SPEEDS = (1 / 48, 1 / 24, 1 / 12)
DIRECTIONS = tuple(45.0 * k for k in range(8))
MOTION_MAPS = tuple(f"speed {v:.3g} direction {d:g}" for v in SPEEDS for d in DIRECTIONS)
OCTAVE = 0.6  # standard deviation of the temporal bell, of its centre: about an octave at half height
LEAST_FRAMES = 4


def motion_maps(movies: torch.Tensor, chunk: int = 16) -> torch.Tensor:
    """Opponent motion energy of films, (n, 24, y, x) float32, >= 0, in the order of `MOTION_MAPS`.

    Directions are degrees counterclockwise from rightwards as seen on the screen: 90 is upwards.

    Args:
        movies: (n, frame, 3, y, x) RGB in [0, 1], square, at least 4 frames.
        chunk: Films at a time: memory, not results.

    Raises:
        InputError: films of another shape, or too short.
    """
    if movies.ndim != 5 or movies.shape[2] != 3 or movies.shape[3] != movies.shape[4]:
        raise InputError(
            f"expected square RGB films (n, frame, 3, y, x); got {tuple(movies.shape)}. Crop them."
        )
    if movies.shape[1] < LEAST_FRAMES:
        raise InputError(f"expected at least {LEAST_FRAMES} frames to see motion; got {movies.shape[1]}.")
    parts = [
        _opponent(movies[start : start + chunk].to(torch.float32)) for start in range(0, len(movies), chunk)
    ]
    size = movies.shape[-1]
    return (
        torch.cat(parts)
        if parts
        else torch.empty((0, len(MOTION_MAPS), size, size), dtype=torch.float32, device=movies.device)
    )


def _opponent(movies: torch.Tensor) -> torch.Tensor:
    count, frames, _, size, _ = movies.shape
    grey = luminance(movies.flatten(0, 1)).unflatten(0, (count, frames))
    window = torch.hann_window(frames + 2, periodic=False, device=grey.device)[1:-1]
    grey = (grey - grey.mean(1, keepdim=True)) * (window / window.square().sum().sqrt())[:, None, None]
    spectra, border = gabor_spectra(size)
    mirrored = pad(grey, (border,) * 4, mode="reflect")
    planes = torch.fft.fftn(mirrored, dim=(1, 2, 3))
    frequency = torch.fft.fftfreq(frames, device=grey.device)
    inside = slice(border, border + size)
    maps = []
    for speed, wavelength in zip(SPEEDS, WAVELENGTHS, strict=True):
        first = WAVELENGTHS.index(wavelength) * len(ORIENTATIONS)
        rate = speed / wavelength
        forward = torch.exp(-(((frequency + rate) / (OCTAVE * rate)) ** 2))  # motion along +f: ω = −v·f
        backward = torch.exp(-(((frequency - rate) / (OCTAVE * rate)) ** 2))
        ahead = []
        for filter_ in spectra[first : first + len(ORIENTATIONS)].to(grey.device):
            responses = torch.fft.ifft2(planes * filter_)[..., inside, inside]
            energy = responses.real.square() + responses.imag.square()
            ahead.append(torch.einsum("ntyx,t->nyx", energy, forward - backward))
        maps += [map_.clamp_min(0) for map_ in _by_direction(ahead)]
    return torch.stack(maps, 1)


def _by_direction(ahead: list[torch.Tensor]) -> list[torch.Tensor]:
    """Opponent maps in the order of `DIRECTIONS`, from those along the wave vectors.

    The wave vectors (sin θ, cos θ), y downward, of θ = 0, 45, 90, 135 point down, down-right, right and up-right: 270,
    315, 0 and 45 degrees on the screen.
    """
    down, down_right, right, up_right = ahead
    return [right, up_right, -down, -down_right, -right, -up_right, down, down_right]

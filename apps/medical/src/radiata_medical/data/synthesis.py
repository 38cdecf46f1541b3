r"""Scans of known anatomy: a label map in, an image of any contrast and resolution with its exact labels out, on any device.

    codes -> affine and smooth warp, nearest -> mean of each group + texture -> blur (partial volume, slice thickness)
          -> bias field -> noise -> gamma -> units of white

Everything random is drawn on the CPU from one generator a scan (noise fields from a generator of the device, seeded by it),
so that a scan is a function of its seed and the batch does not matter. A window of the head is rendered alone: `white`, the
99th percentile of what is brighter than the mean, is that of the whole head, taken from its histogram of codes.

The images are synthetic. Sixteen label maps are sixteen anatomies however often they are warped.

References:
    Billot et al., "SynthSeg", Med. Image Anal. 2023, https://doi.org/10.1016/j.media.2023.102789, section 3.2 (the model).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from radiata_core.errors import InputError
from radiata_imaging.deformation import sample_field
from radiata_medical.data.contrasts import GROUPS, group_of, means_of
from radiata_medical.data.structures import CONTRAST, TISSUES, channels_of

__all__ = ["Head", "ScanSpec", "SyntheticScan", "head_of", "synthesise"]


@dataclass(frozen=True)
class ScanSpec:
    """How scans are drawn. Lengths in mm (= voxels of the maps), angles in degrees; pairs are ranges of uniform draws.

    Attributes:
        shape: Voxels of the rendered window, three axes; an axis of 1 makes a slice.
        rotation: Largest rotation about each axis.
        scale: Of each axis.
        warp: Sd of the smooth displacement.
        warp_length: Distance of its control points.
        contrasts: Weight of each contrast, by name.
        texture: Sd of a voxel about its group's mean, as a part of full scale.
        grain: Sd of the smooth part of the texture (correlated over about 3 mm).
        blur: Sd of the Gaussian that stands for partial volume.
        bias: Sd of the log bias field.
        noise: Sd of the noise in units of white.
        thickness: Range of slice thicknesses along one axis that is drawn; (1, 1) for none.
        gamma: Sd of log gamma.
        level: Range of a factor on the intensities, as if white was misjudged.
        flip: Mirror left to right with probability 1/2 (with the labels' sides).
        turn: The window's axes may be any three: for slices of every direction.
        inside: Probability that the window's centre lies within the brain; else anywhere in the head.
        rendered: False takes the scan that came with the labels in place of a rendering.
    """

    shape: tuple[int, int, int] = (128, 128, 128)
    rotation: float = 12.0
    scale: tuple[float, float] = (0.85, 1.15)
    warp: float = 3.0
    warp_length: float = 24.0
    contrasts: tuple[tuple[str, float], ...] = (("t1", 0.5), ("t2", 0.15), ("flair", 0.15), ("random", 0.2))
    texture: tuple[float, float] = (0.0, 0.06)
    grain: tuple[float, float] = (0.0, 0.05)
    blur: tuple[float, float] = (0.45, 0.8)
    bias: tuple[float, float] = (0.0, 0.15)
    noise: tuple[float, float] = (0.0, 0.0)
    thickness: tuple[float, float] = (1.0, 1.0)
    gamma: float = 0.0
    level: tuple[float, float] = (0.9, 1.1)
    flip: bool = True
    turn: bool = False
    inside: float = 0.8
    rendered: bool = True


@dataclass(eq=False)
class Head:
    """One person's label map on a device, ready to be rendered from.

    Attributes:
        index: Index into `codes`, uint8 (int16 beyond 256 codes), `(x, y, z)`.
        codes: The original codes that occur.
        counts: Voxels of each.
        centres: Some voxels of the brain, (n, 3), float32, CPU.
        groups: Contrast group of each code, on the device.
        channels: Structure channel of each code, on the device.
        mirrored: The same, for a mirrored head.
        image: The scan on the same grid, units of white, on the device; None where there is none.
    """

    index: Tensor
    codes: np.ndarray
    counts: Tensor
    centres: Tensor
    groups: Tensor
    channels: Tensor
    mirrored: Tensor
    image: Tensor | None = None
    tissues: Tensor = field(init=False)

    def __post_init__(self) -> None:
        rows = []
        for name in CONTRAST:
            inside = torch.tensor(np.isin(self.codes, TISSUES[name]))
            weights = torch.where(inside, self.counts, 0.0)
            rows.append(weights / weights.sum())  # NaN for a tissue that is not there: its mean is not known
        self.tissues = torch.stack(rows)

    def white(self, means: Tensor) -> float:
        """99th percentile of the voxels brighter than the mean, if every voxel has its code's mean `(codes,)`."""
        whole = (means * self.counts).sum() / self.counts.sum()
        order = means.argsort()
        counted = torch.where(means > whole, self.counts, 0.0)[order].cumsum(0)
        at = int(torch.searchsorted(counted, 0.99 * counted[-1]).clamp_max(len(means) - 1))
        return max(float(means[order][at]), 1e-3)


@dataclass(frozen=True, eq=False)
class SyntheticScan:
    """A rendered window.

    Attributes:
        image: Units of white, float32 `(x, y, z)`.
        labels: Channels of `structures.STRUCTURES`, uint8 `(x, y, z)`.
        contrast: Mean intensity of the tissues of `structures.CONTRAST`, (4,), units of white, before bias and gamma; NaN
            for a tissue the head does not have.
    """

    image: Tensor
    labels: Tensor
    contrast: Tensor


def head_of(codes: np.ndarray, device: torch.device | str = "cpu", image: np.ndarray | None = None) -> Head:
    """A label map of original codes `(x, y, z)`, 1 mm, LPS, and its scan if there is one, made ready.

    Raises:
        InputError: a code of no structure.
    """
    from radiata_medical.data.structures import FLIPPED

    present, index = np.unique(codes, return_inverse=True)
    index = index.reshape(codes.shape).astype(np.uint8 if len(present) <= 256 else np.int16)
    channels = channels_of(present.astype(np.int64)).astype(np.int64)
    brain = np.isin(codes, [code for group in TISSUES.values() for code in group])
    places = np.argwhere(brain if brain.any() else codes > 0)
    step = max(1, len(places) // 4096)
    mirrored = np.array(FLIPPED, dtype=np.int64)[channels]
    return Head(
        torch.from_numpy(index).to(device),
        present,
        torch.from_numpy(np.bincount(index.ravel(), minlength=len(present)).astype(np.float32)),
        torch.from_numpy(places[::step].astype(np.float32)),
        torch.from_numpy(group_of(present)),
        torch.from_numpy(channels).to(device),
        torch.from_numpy(mirrored).to(device),
        None if image is None else torch.from_numpy(image.astype(np.float32)).to(device),
    )


def synthesise(head: Head, spec: ScanSpec, generator: Generator) -> SyntheticScan:
    """One scan of a person, a function of the generator's state alone.

    Args:
        head: The person.
        spec: How it is drawn.
        generator: On the CPU.
    """
    device = head.index.device
    noise = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
    mirrored = spec.flip and float(torch.rand((), generator=generator)) < 0.5
    positions = _positions(head, spec, mirrored, generator)
    index = _looked_up(head, positions)
    labels = (head.mirrored if mirrored else head.channels)[index.long()].to(torch.uint8)
    if not spec.rendered:
        return _acquired(head, spec, positions, labels, generator)
    means = _means(head, spec, generator)
    white = head.white(means) / _uniform(spec.level, generator)
    image = (means / white).to(device)[index.long()]
    image = image + _texture(head, spec, index, noise, generator)
    image = _scanned(image, spec, noise, generator)
    return SyntheticScan(image.clamp_min(0.0), labels, head.tissues @ means / white)


def _acquired(
    head: Head, spec: ScanSpec, positions: Tensor, labels: Tensor, generator: Generator
) -> SyntheticScan:
    """The scan that came with the labels, bent as they are; its contrast is not known."""
    if head.image is None:
        raise InputError(
            "expected a scan with every label map; got a map alone. Prepare the store with its images, or render."
        )
    level = _uniform(spec.level, generator)
    image = sample_field(head.image[None], positions)[0] * level
    return SyntheticScan(image.clamp_min(0.0), labels, torch.full((len(CONTRAST),), torch.nan))


def _uniform(bounds: Sequence[float], generator: Generator) -> float:
    low, high = bounds
    return low + (high - low) * float(torch.rand((), generator=generator))


def _means(head: Head, spec: ScanSpec, generator: Generator) -> Tensor:
    """Mean of each code in one rendering, (codes,)."""
    names, weights = zip(*spec.contrasts, strict=True)
    drawn = int(torch.multinomial(torch.tensor(weights), 1, generator=generator))
    return means_of(names[drawn], generator)[head.groups]


def _texture(head: Head, spec: ScanSpec, index: Tensor, noise: Generator, generator: Generator) -> Tensor:
    """White and smooth variation within the tissues; air keeps a quarter of it."""
    groups = len(GROUPS)
    fine = torch.rand(groups, generator=generator) * _uniform(spec.texture, generator)
    smooth = torch.rand(groups, generator=generator) * _uniform(spec.grain, generator)
    fine[0], smooth[0] = fine[0] / 4, 0.0
    device, shape = index.device, tuple(index.shape)
    white = torch.randn(shape, generator=noise, device=device)
    coarse = tuple(max(1, -(-n // 3)) for n in shape)
    grain = torch.randn((1, 1, *coarse), generator=noise, device=device)
    grain = F.interpolate(grain, size=shape, mode="trilinear", align_corners=False)[0, 0] * 1.6
    of_code = torch.stack([fine, smooth])[:, head.groups].to(device)[:, index.long()]
    return of_code[0] * white + of_code[1] * grain


def _scanned(image: Tensor, spec: ScanSpec, noise: Generator, generator: Generator) -> Tensor:
    """Blur, thick slices, bias, noise, gamma."""
    sigma = _uniform(spec.blur, generator)
    for axis in range(3):
        if image.shape[axis] > 1:
            image = _smoothed(image, axis, sigma)
    thick, axis = _uniform(spec.thickness, generator), int(torch.randint(3, (), generator=generator))
    if thick > 1.0 and image.shape[axis] > 1:
        image = _sliced(image, axis, thick)
    strength = _uniform(spec.bias, generator)
    coarse = torch.randn((1, 1, *[4 if n > 1 else 1 for n in image.shape]), generator=generator)
    field_ = F.interpolate(
        coarse.to(image.device), size=tuple(image.shape), mode="trilinear", align_corners=True
    )
    image = image * torch.exp(strength * 1.3 * field_[0, 0])
    level = _uniform(spec.noise, generator)
    if level > 0:
        image = (image + level * torch.randn(image.shape, generator=noise, device=image.device)).abs()
    if spec.gamma > 0:
        power = float(torch.exp(spec.gamma * torch.randn((), generator=generator)))
        image = image.clamp_min(0.0) ** power
    return image


def _positions(head: Head, spec: ScanSpec, mirrored: bool, generator: Generator) -> Tensor:
    """Place in the label map of every voxel of the window, (3, *shape), voxels."""
    shape, device = spec.shape, head.index.device
    order = torch.randperm(3, generator=generator).tolist() if spec.turn else [0, 1, 2]
    angles = torch.deg2rad(spec.rotation * (2 * torch.rand(3, generator=generator) - 1))
    scales = torch.tensor([_uniform(spec.scale, generator) for _ in range(3)])
    matrix = _rotation(angles) / scales
    if mirrored:
        matrix = torch.diag(torch.tensor([-1.0, 1.0, 1.0])) @ matrix
    control = tuple(max(2, -(-n // int(spec.warp_length)) + 1) for n in shape)
    warp = spec.warp * torch.randn((1, 3, *control), generator=generator)
    centre = _centre(head, spec, generator)
    # Drawn on the CPU, worked out where the map is: a window of 128^3 would otherwise be most of the time.
    axes = [torch.arange(n, dtype=torch.float32, device=device) - (n - 1) / 2 for n in shape]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    turned = torch.zeros(3, 3)
    for place, axis in enumerate(order):
        turned[axis, place] = 1.0
    moved = ((matrix @ turned).to(device) @ grid.reshape(3, -1)).reshape(3, *shape)
    bend = F.interpolate(warp.to(device), size=shape, mode="trilinear", align_corners=True)[0]
    return moved + bend + centre.to(device).reshape(3, 1, 1, 1)


def _centre(head: Head, spec: ScanSpec, generator: Generator) -> Tensor:
    if float(torch.rand((), generator=generator)) < spec.inside:
        return head.centres[int(torch.randint(len(head.centres), (), generator=generator))]
    return torch.rand(3, generator=generator) * torch.tensor(head.index.shape, dtype=torch.float32)


def _rotation(angles: Tensor) -> Tensor:
    matrix = torch.eye(3)
    for axis, angle in enumerate(angles.tolist()):
        i, j = [(1, 2), (0, 2), (0, 1)][axis]
        turn = torch.eye(3)
        cosine, sine = float(np.cos(angle)), float(np.sin(angle))
        turn[i, i] = turn[j, j] = cosine
        turn[i, j], turn[j, i] = -sine, sine
        matrix = matrix @ turn
    return matrix


def _looked_up(head: Head, positions: Tensor) -> Tensor:
    """Nearest index of codes at positions (3, *shape); outside is background (the code 0, or the first)."""
    nearest = positions.round().long()
    sizes = torch.tensor(head.index.shape, device=nearest.device).reshape(3, 1, 1, 1)
    inside = ((nearest >= 0) & (nearest < sizes)).all(0)
    nearest = torch.minimum(nearest.clamp_min(0), sizes - 1)
    flat = (nearest[0] * sizes[1, 0, 0, 0] + nearest[1]) * sizes[2, 0, 0, 0] + nearest[2]
    return torch.where(inside, head.index.reshape(-1)[flat], 0)


def _along(image: Tensor, axis: int, kernel: Tensor) -> Tensor:
    moved = image.movedim(axis, -1)
    rows = moved.reshape(-1, 1, moved.shape[-1])
    reach = len(kernel) // 2
    padded = F.pad(rows, (reach, reach), mode="replicate")
    out = F.conv1d(padded, kernel.to(image)[None, None])
    return out.reshape(moved.shape).movedim(-1, axis)


def _smoothed(image: Tensor, axis: int, sigma: float) -> Tensor:
    reach = max(1, int(np.ceil(3 * sigma)))
    x = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    return _along(image, axis, kernel / kernel.sum())


def _sliced(image: Tensor, axis: int, thick: float) -> Tensor:
    """Seen through slices of a thickness: averaged over it, sampled at its distance, and interpolated back."""
    width = max(1, int(thick) // 2 * 2 + 1)
    seen = _along(image, axis, torch.ones(width) / width).movedim(axis, -1)
    size = max(2, round(seen.shape[-1] / thick))
    rows = seen.reshape(1, -1, seen.shape[-1])
    few = F.interpolate(rows, size=size, mode="linear", align_corners=False)
    back = F.interpolate(few, size=seen.shape[-1], mode="linear", align_corners=False)
    return back.reshape(seen.shape).movedim(-1, axis)

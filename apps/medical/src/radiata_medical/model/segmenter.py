r"""Whole-head segmentation: a scan on any grid in, labels on that grid out, with what the network is unsure of.

    scan -> axes towards L, P, S at 1 mm -> box of the head -> windows, streamed -> labels, clean-up -> the scan's own grid

Nothing is turned: the working grid has the scan's own axes, to the nearest letter, so that the way back is a permutation and
an interpolation along each axis (`label_resampling`), and the affine of the result is the scan's, to the bit.

Probabilities are means over passes: networks of an ensemble, the mirrored head (whose left channels are the right ones), and
contrasts bent by a power. Of them, slab by slab (`window_streaming`), only four maps are kept: the winning class and its
probability, the winner among the classes outside of the brain, and the entropy. Peak memory is one slab of probabilities,
one window of the network, and these maps, however many classes and passes there are.

The quality is a forecast of the Dice coefficient from the probabilities alone: with winners m and probabilities p,

    E[2 sum(t m) / (sum t + sum m)]  ~  2 sum(p m) / (sum p + sum m),

per structure, t the unknown truth; its mean is `quality`. It is as honest as the probabilities are calibrated (temperature).

References:
    Billot et al., "Robust machine learning segmentation for large-scale analysis of heterogeneous clinical brain MRI
        datasets", PNAS 2023, https://doi.org/10.1073/pnas.2216399120 (a score of quality beside each segmentation).
    Wang et al., "Aleatoric uncertainty estimation with test-time augmentation", Neurocomputing 2019 (passes).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from radiata_core.errors import InputError
from radiata_imaging.foreground import find_head
from radiata_imaging.orientation import Grid, reorient, resample
from radiata_imaging.volume import Volume, times
from radiata_medical.model.kept_maps import KeptMaps
from radiata_medical.model.label_resampling import labels_on, parallel_axes, values_on
from radiata_medical.model.labelling import Labelling
from radiata_medical.model.window_streaming import WindowGrid, padded_shape, stream_windows

__all__ = ["PASSES", "Labelling", "Segmentation", "SegmenterOptions", "segment_volume"]

PASSES: tuple[tuple[bool, float], ...] = (
    (False, 1.0), (True, 1.0), (False, 0.8), (True, 1.25), (False, 1.25), (True, 0.8),
)  # fmt: skip
"""Passes of a network in the order in which they are added: mirrored or not, and the power of the intensities."""

_WINDOWS = (160, 128, 96, 64, 48, 32)
_MARGIN = 12.0  # mm around the head
_MULTIPLE = 16


@dataclass(frozen=True)
class SegmenterOptions:
    """How a scan is segmented.

    Attributes:
        window: Longest edge of a window, voxels, a multiple of 16; halved step by step where memory runs out.
        halo: Voxels beside a window's inner faces that are not used.
        passes: Of each network, 1 to 6: as it is, mirrored, contrast bent (`PASSES`).
        temperature: Logits are divided by it; > 0.
        keep_largest: Keep the largest piece of the brain; stray voxels get the likeliest class outside of it.
        posteriors: Keep the probabilities of all classes, a byte a voxel and class.
        device: Where the networks run.
    """

    window: int = 128
    halo: int = 8
    passes: int = 1
    temperature: float = 1.0
    keep_largest: bool = True
    posteriors: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.window < 32 or self.window % _MULTIPLE:
            raise InputError(f"expected a window of 32 voxels or more that divides by 16; got {self.window}.")
        if not 1 <= self.passes <= len(PASSES):
            raise InputError(f"expected 1 to {len(PASSES)} passes; got {self.passes}.")
        if not self.temperature > 0:
            raise InputError(f"expected a temperature > 0; got {self.temperature}.")


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A segmented scan.

    Attributes:
        codes: Code of each voxel of the scan, int16 (x, y, z).
        entropy: Of the mean probabilities, nats, on the scan's grid, float32.
        volumes_ml: Name -> millilitres of the labels on the scan's grid, background left out.
        expected_ml: Name -> millilitres by the probabilities, at 1 mm within the box of the head.
        intracranial_ml: Of the labels of the brain and its fluid.
        dice: Name -> expected Dice coefficient, 0 to 1.
        quality: Their mean over the structures of the brain (all, where none is named), 0 to 1.
        window: Edge of the windows that fitted into memory.
        evaluations: Calls of a network.
        probability: Code -> probabilities on the scan's grid, float32 (x, y, z), made when asked; None if not kept.
    """

    codes: np.ndarray
    entropy: np.ndarray
    volumes_ml: dict[str, float]
    expected_ml: dict[str, float]
    intracranial_ml: float
    dice: dict[str, float]
    quality: float
    window: int
    evaluations: int
    probability: Callable[[int], np.ndarray] | None = None


def segment_volume(
    networks: nn.Module | Sequence[nn.Module],
    volume: Volume,
    labelling: Labelling,
    options: SegmenterOptions | None = None,
    *,
    report: Callable[[int, int], object] | None = None,
    warn: Callable[[str], object] | None = None,
) -> Segmentation:
    """Segment a scan.

    Args:
        networks: One or an ensemble, in evaluation mode: `(batch, 1, x, y, z)` at 1 mm LPS to logits of every channel.
        volume: The scan, intensities over its white (`data.intensity_scale`), on any grid.
        labelling: What the channels mean.
        options: See there.
        report: Called with windows done and to do.
        warn: Called with a sentence where something was done in another way than asked.

    Raises:
        InputError: an empty scan, or a network of another number of classes.
    """
    options = options or SegmenterOptions()
    ensemble = [networks] if isinstance(networks, nn.Module) else list(networks)
    upright = reorient(volume, "LPS")
    work = resample(upright, 1.0)
    box = _head_box(work)
    image = torch.from_numpy(np.ascontiguousarray(work.array[box]))
    window, maps = _with_memory(ensemble, image, labelling, options, report, warn or (lambda _: None))
    if options.keep_largest and labelling.brain:
        maps.keep_largest()
    affine = work.affine.copy()
    affine[:3, 3] = (work.affine @ np.array([*(side.start for side in box), 1.0]))[:3]
    millilitres = abs(float(np.linalg.det(work.affine[:3, :3]))) / 1000
    return _on_scan(maps, Grid(maps.shape, affine), volume, upright, labelling, millilitres, window)


def _head_box(work: Volume) -> tuple[slice, slice, slice]:
    """Voxels around the head; the whole volume where none is found."""
    if work.array.max() == work.array.min():
        raise InputError("expected a scan; got one intensity everywhere. Check the file.")
    head = find_head(work)
    places = np.argwhere(head.mask)
    if not len(places):
        return slice(0, work.shape[0]), slice(0, work.shape[1]), slice(0, work.shape[2])
    corners = np.c_[np.stack([places.min(0), places.max(0)]), [1, 1]]
    inside = corners @ (np.linalg.inv(work.affine) @ head.affine).T
    low = np.floor(inside[:, :3].min(0) - _MARGIN).astype(int).clip(0)
    high = np.minimum(np.ceil(inside[:, :3].max(0) + _MARGIN).astype(int) + 1, work.shape)
    x, y, z = (slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    return x, y, z


def _with_memory(
    ensemble: Sequence[nn.Module],
    image: Tensor,
    labelling: Labelling,
    options: SegmenterOptions,
    report: Callable[[int, int], object] | None,
    warn: Callable[[str], object],
) -> tuple[int, KeptMaps]:
    """The maps, with the largest windows that memory holds."""
    sizes = [options.window, *(size for size in _WINDOWS if size < options.window)]
    for number, size in enumerate(sizes):
        try:
            return size, _predicted(ensemble, image, labelling, options, size, report)
        except (MemoryError, RuntimeError) as error:
            if not _is_memory(error) or number + 1 == len(sizes):
                raise
            if torch.device(options.device).type == "cuda":
                torch.cuda.empty_cache()
            warn(f"windows of {size} voxels do not fit into memory; going on with {sizes[number + 1]}")
    raise AssertionError("unreachable")


def _is_memory(error: BaseException) -> bool:
    text = str(error)
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or "can't allocate memory" in text
        or "not enough memory" in text
    )


@torch.inference_mode()
def _predicted(
    ensemble: Sequence[nn.Module],
    image: Tensor,
    labelling: Labelling,
    options: SegmenterOptions,
    size: int,
    report: Callable[[int, int], object] | None,
) -> KeptMaps:
    """Winners, entropy and sums of the image `(x, y, z)`."""
    x, y, z = image.shape
    shape = (x, y, z)
    whole = padded_shape(shape, _MULTIPLE)
    padded = torch.zeros(whole)
    padded[:x, :y, :z] = image
    grid = WindowGrid(whole, (size, size, size), _MULTIPLE, options.halo)
    classes = len(labelling.codes)
    maps = KeptMaps(shape, classes, labelling.brain, options.posteriors)
    done = 0

    def predict(window: Tensor) -> Tensor:
        maps.evaluations += len(ensemble) * options.passes
        return _mean_probabilities(ensemble, window.to(options.device), labelling, options)

    def advanced() -> None:
        nonlocal done
        done += 1
        if report is not None:
            report(done, grid.count)

    for slab in stream_windows(predict, padded, grid, classes, report=advanced):
        maps.take(slab.values, slab.box)
    return maps


def _mean_probabilities(
    ensemble: Sequence[nn.Module], window: Tensor, labelling: Labelling, options: SegmenterOptions
) -> Tensor:
    """Mean of the softmax over networks and passes, `(classes, *window)`."""
    mean: Tensor | None = None
    count = len(ensemble) * options.passes
    for mirrored, power in PASSES[: options.passes]:
        seen = window if power == 1.0 else window.clamp_min(0.0) ** power
        seen = seen.flip(0) if mirrored else seen
        for network in ensemble:
            logits = network(seen[None, None])[0]
            if logits.shape != (len(labelling.codes), *window.shape):
                raise InputError(
                    f"expected a network of {len(labelling.codes)} classes; got {tuple(logits.shape)} for a window of "
                    f"{times(window.shape)}. Use another model."
                )
            p = torch.softmax(logits / options.temperature, 0)
            del logits
            if mirrored:
                p = p[list(labelling.flipped)].flip(1)
            mean = p.div_(count) if mean is None else mean.add_(p, alpha=1 / count)
    assert mean is not None
    return mean


def _on_scan(
    maps: KeptMaps,
    grid: Grid,
    volume: Volume,
    upright: Volume,
    labelling: Labelling,
    voxel_ml: float,
    window: int,
) -> Segmentation:
    """The maps on the scan's grid, and the numbers."""
    axes = parallel_axes(grid, Grid(upright.shape, upright.affine))
    codes = np.asarray(labelling.codes, np.int16)
    labels = codes[labels_on(maps.winner, maps.confidence, axes)]
    dice = maps.expected_dice
    scan_ml = abs(float(np.linalg.det(volume.affine[:3, :3]))) / 1000
    millilitres = {
        name: float((labels == code).sum()) * scan_ml
        for name, code in zip(labelling.names[1:], labelling.codes[1:], strict=True)
    }
    judged = labelling.brain or tuple(range(1, maps.classes))
    stored = maps.stored

    def probability(code: int) -> np.ndarray:
        assert stored is not None
        return _turned_back(values_on(stored[labelling.codes.index(code)] / np.float32(255), axes), volume)

    return Segmentation(
        codes=_turned_back(labels, volume),
        entropy=_turned_back(values_on(maps.entropy, axes), volume),
        volumes_ml=millilitres,
        expected_ml=dict(zip(labelling.names[1:], (maps.total[1:] * voxel_ml).tolist(), strict=True)),
        intracranial_ml=sum(millilitres[labelling.names[channel]] for channel in labelling.brain),
        dice=dict(zip(labelling.names[1:], dice[1:].tolist(), strict=True)),
        quality=float(dice[list(judged)].mean()),
        window=window,
        evaluations=maps.evaluations,
        probability=probability if stored is not None else None,
    )


def _turned_back(array: np.ndarray, volume: Volume) -> np.ndarray:
    """An array with axes towards L, P, S as the scan has its own."""
    import nibabel as nib

    upright = nib.orientations.axcodes2ornt(tuple("LPS"))
    change = nib.orientations.ornt_transform(upright, nib.orientations.io_orientation(volume.affine))
    return np.ascontiguousarray(nib.orientations.apply_orientation(array, change))

r"""Whole-head segmentation: a scan on any grid in, labels on that grid out, with what the network is unsure of.

    scan -> axes towards L, P, S at 1 mm -> box of the head -> windows, streamed -> labels, clean-up -> the scan's own grid

The way there and back is `working_grid`, the windows are `window_streaming`, and what is kept of them `kept_maps`.

Probabilities are means over passes: networks of an ensemble, the mirrored head (whose left channels are the right ones), and
contrasts bent by a power. Of them, slab by slab (`window_streaming`), only four maps are kept: the winning class and its
probability, the winner among the classes outside of the brain, and the entropy. Peak memory is one slab of probabilities,
one window of the network, and these maps, however many classes and passes there are.

References:
    Wang et al., "Aleatoric uncertainty estimation with test-time augmentation", Neurocomputing 2019 (passes).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from radiata_core.errors import InputError
from radiata_imaging.volume import Volume, times
from radiata_medical.model.kept_maps import KeptMaps
from radiata_medical.model.labelling import Labelling
from radiata_medical.model.window_streaming import WindowGrid, padded_shape, stream_windows
from radiata_medical.model.working_grid import Segmentation, WorkingScan

__all__ = ["PASSES", "Labelling", "Segmentation", "SegmenterOptions", "segment_volume"]

PASSES: tuple[tuple[bool, float], ...] = (
    (False, 1.0), (True, 1.0), (False, 0.8), (True, 1.25), (False, 1.25), (True, 0.8),
)  # fmt: skip
"""Passes of a network in the order in which they are added: mirrored or not, and the power of the intensities."""

_WINDOWS = (160, 128, 96, 64, 48, 32)
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
    scan = WorkingScan(volume)
    window, maps = _with_memory(ensemble, scan.image, labelling, options, report, warn or (lambda _: None))
    if options.keep_largest and labelling.brain:
        maps.keep_largest()
    return scan.segmentation(maps, labelling, window)


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

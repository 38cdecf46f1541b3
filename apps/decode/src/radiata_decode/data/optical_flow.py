r"""Optical flow between the frames of films: what a motion decoder is trained to predict.

The flow w of two frames satisfies $I_{t+1}(u + w(u)) = I_t(u)$ wherever a point stays visible. Two estimators:

    DisFlow      OpenCV's dense inverse search on the luminance: no weights, 0.03 s for 256 × 256 pixels
    NetworkFlow  an exported RAFT (.pt2), where the user has one

Frames are estimated at their own size and the vectors are then averaged on a coarser grid. A vector is in pixels *of the
grid it lives on*: going from 256 pixels to 16 cells divides it by 16.

`grid_flow` and `optical_flow` are for files of stimuli; `model.flow_grids` does the same to tensors, and to time.

References:
    T. Kroeger, R. Timofte, D. Dai, L. Van Gool (2016). Fast optical flow using dense inverse search.
    https://arxiv.org/abs/1603.03590.
    Z. Teed, J. Deng (2020). RAFT: recurrent all-pairs field transforms for optical flow. https://arxiv.org/abs/2003.12039.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import cv2
import numpy as np

from radiata_core.errors import InputError

__all__ = ["DisFlow", "FlowEstimator", "NetworkFlow", "grid_flow", "optical_flow"]

FlowEstimator = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(y, x, 3) uint8 of two frames → (2, y, x) float32, pixels, x to the right and y downward."""

PRESETS = {
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}
LEAST_SIZE = 16  # DIS needs a coarse level of at least one patch
MULTIPLE, LEAST_NETWORK = (
    8,
    128,
)  # RAFT's features are an eighth of the picture, its coarsest correlation a 64th


@dataclass(frozen=True)
class DisFlow:
    """Dense inverse search.

    Attributes:
        preset: medium, or fast, which is four times as fast with about 1.7 times the error.
    """

    preset: str = "medium"
    _search: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise InputError(f"expected a preset of {', '.join(PRESETS)}; got {self.preset}.")
        object.__setattr__(self, "_search", cv2.DISOpticalFlow.create(PRESETS[self.preset]))

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        found = self._search.calc(_grey(first), _grey(second), None)
        return np.ascontiguousarray(found.transpose(2, 0, 1))


@dataclass(frozen=True)
class NetworkFlow:
    """An exported network, such as torchvision's RAFT.

    It takes two batches (n, 3, y, x) in [-1, 1], y and x multiples of 8 and at least 128 (frames are enlarged to that), and
    gives (n, 2, y, x) in pixels, or a list of refinements whose last one counts. Make the file once, where torchvision is:

        network = torchvision.models.optical_flow.raft_large(weights="C_T_SKHT_V2").eval()
        frames = (torch.zeros(1, 3, 256, 256), torch.zeros(1, 3, 256, 256))
        torch.export.save(torch.export.export(network, frames), "raft.pt2")

    Attributes:
        program: The module of the program.
        size: (y, x) that it was exported with; None: any.
    """

    program: Any
    size: tuple[int, int] | None = None

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        import torch

        height, width = first.shape[:2]
        size = self.size or (_allowed(height), _allowed(width))
        frames = [_frame(part, size) for part in (first, second)]
        with torch.no_grad():
            found = self.program(*frames)
        if isinstance(found, list | tuple):
            found = found[-1]
        if tuple(found.shape) != (1, 2, *size):
            raise InputError(
                f"expected flow (1, 2, {size[0]}, {size[1]}) from the network; got {tuple(found.shape)}. "
                "Export one that takes two frames and returns their flow."
            )
        return grid_flow(found[0].float().cpu().numpy(), (height, width))

    @classmethod
    def from_file(cls, path: Path, size: tuple[int, int] | None = None) -> "NetworkFlow":
        """From a file of `torch.export.save`.

        Args:
            path: Ends in .pt2.
            size: (y, x) of the frames that it was exported with, where that is fixed.

        Raises:
            InputError: no such file, or not an exported program.
        """
        import torch

        path = Path(path)
        if not path.is_file() or path.suffix != ".pt2":
            raise InputError(
                f"expected an exported flow network (.pt2); got {path}. Make one with torch.export.save, or use dis, which "
                "needs no weights."
            )
        try:
            if not is_zipfile(path):  # told without the seconds that torch.export takes to load
                raise ValueError("it is no archive")
            program = torch.export.load(path)
        except Exception as error:
            raise InputError(
                f"expected an exported program in {path}; it cannot be read ({' '.join(str(error).split())[:120]})."
            ) from None
        return cls(program.module(), size)


def optical_flow(
    movies: np.ndarray,
    *,
    grid: int | tuple[int, int] | None = None,
    estimator: FlowEstimator | None = None,
) -> np.ndarray:
    """Flow between the frames of films, (n, frame - 1, 2, y, x) float32, pixels of the grid a frame step.

    Args:
        movies: (n, frame, y, x, 3) uint8 RGB, at least two frames of 16 pixels.
        grid: Cells (y, x) of the flow; None: one a pixel.
        estimator: None: `DisFlow()`.

    Raises:
        InputError: films of another shape or type, a grid finer than the frames.
    """
    if movies.ndim != 5 or movies.shape[-1] != 3 or movies.dtype != np.uint8 or movies.shape[1] < 2:
        raise InputError(
            f"expected films (n, frame, y, x, 3) uint8 with two frames or more; got {movies.shape} {movies.dtype}. "
            "Stack the frames of each stimulus."
        )
    height, width = movies.shape[2:4]
    if min(height, width) < LEAST_SIZE:
        raise InputError(f"expected frames of at least {LEAST_SIZE} pixels; got {height} by {width}.")
    cells = (height, width) if grid is None else ((grid, grid) if isinstance(grid, int) else grid)
    if not (1 <= cells[0] <= height and 1 <= cells[1] <= width):
        raise InputError(
            f"expected a grid of at most {height} by {width} cells; got {cells}. Flow is averaged, not invented."
        )
    estimate = estimator or DisFlow()
    flow = np.empty((len(movies), movies.shape[1] - 1, 2, *cells), np.float32)
    for row, film in enumerate(movies):
        for step in range(len(film) - 1):
            flow[row, step] = grid_flow(estimate(film[step], film[step + 1]), cells)
    return flow


def grid_flow(flow: np.ndarray, cells: tuple[int, int]) -> np.ndarray:
    """Flow (2, y, x) on another grid, (2, *cells) float32: vectors are averaged (or interpolated) and rescaled."""
    height, width = flow.shape[1:]
    if cells == (height, width):
        return np.asarray(flow, np.float32)
    smaller = cells[0] <= height and cells[1] <= width
    way = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    scale = (cells[1] / width, cells[0] / height)
    planes = [
        cv2.resize(np.ascontiguousarray(plane, np.float32), cells[::-1], interpolation=way) * np.float32(by)
        for plane, by in zip(flow, scale, strict=True)
    ]
    return np.stack(planes)


def _grey(frame: np.ndarray) -> np.ndarray:
    # DIS reads memory as it lies: a transposed or sliced view would be another picture.
    return np.ascontiguousarray(cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY))


def _allowed(side: int) -> int:
    return max(LEAST_NETWORK, -(-side // MULTIPLE) * MULTIPLE)


def _frame(frame: np.ndarray, size: tuple[int, int]) -> Any:
    import torch

    large = cv2.resize(np.ascontiguousarray(frame), size[::-1], interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy(large).permute(2, 0, 1)[None].float() / 127.5 - 1

r"""Films of which the optical flow is known exactly: real photographs, moved.

A photograph is looked at through a window that moves. If M maps a point u of one frame to where it is in the next,

$$ M(u) = z R(\omega)\, u + v, \qquad I_t(u) = \text{photograph}\big(a + s\, M^{-t}(u)\big), \qquad
   \text{flow}(u) = M(u) - u, $$

with zoom z, rotation ω and translation v a frame, u from the picture's centre. Hence $I_{t+1}(u + \text{flow}(u)) = I_t(u)$,
up to interpolation. Five kinds: the camera translates, turns, zooms, does all three, or drifts while an ellipse cut from
another photograph moves in front on a path of its own (two layers: at its rim, pixels are covered or appear, and have no
partner in the next frame). Each frame is drawn at twice the size and averaged down, as a sensor does.

Training films come from the left 70 % of each photograph and test films from the right 30 %, as in `photographs`; the
whole path of the window stays inside.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from radiata_core.errors import InputError
from radiata_decode.data.photographs import LEAST_CONTRAST, PHOTOGRAPHS, columns_of, photograph

__all__ = ["KINDS", "MovingPictures", "moving_pictures"]

KINDS = ("translation", "rotation", "zoom", "camera", "object")
SLOWEST, FASTEST = 1 / 64, 1 / 12  # translation, widths of the picture a frame
TURN, ZOOM = 0.1, 0.05  # largest rotation (radians) and zoom a frame
DRIFT = 0.35  # of an object film's background, of the object's speed
RADII = (0.18, 0.34)  # half axes of the object, widths of the picture
SUPERSAMPLED = 2
ATTEMPTS = 200


@dataclass(frozen=True)
class MovingPictures:
    """Films and their flow.

    Attributes:
        movies: (n, frame, y, x, 3) uint8 RGB.
        flow: (n, frame − 1, 2, y, x) float32, pixels of the flow's grid a frame, x to the right and y downward.
        photograph: That of the background of each.
        kind: Of `KINDS`.
    """

    movies: np.ndarray
    flow: np.ndarray
    photograph: list[str]
    kind: list[str]


def moving_pictures(
    count: int,
    split: str,
    size: int,
    frames: int,
    rng: np.random.Generator,
    *,
    grid: int | None = None,
    photographs: Sequence[str] = PHOTOGRAPHS,
    kinds: Sequence[str] = KINDS,
) -> MovingPictures:
    """Films of random photograph, place, scale and motion. The first k of n are those that k alone would give.

    Args:
        count: How many, >= 1.
        split: train (left 70 %), test (right 30 %) or all.
        size: Side of the frames, pixels, 8 to 64.
        frames: Of each film, 2 to 16.
        rng: Where from.
        grid: Points a side of the flow; None: one a pixel.
        photographs: Names to cut from.
        kinds: Equally likely.

    Raises:
        InputError: a number, name or kind that does not go.
    """
    _check(count, size, frames, kinds)
    grid = size if grid is None else grid
    columns = {name: columns_of(photograph(name).shape[1], split) for name in photographs}
    movies = np.empty((count, frames, size, size, 3), np.uint8)
    flow = np.empty((count, frames - 1, 2, grid, grid), np.float32)
    names, drawn = [], []
    for row in range(count):
        for _ in range(ATTEMPTS):
            kind = kinds[int(rng.integers(len(kinds)))]
            name, other = (photographs[int(rng.integers(len(photographs)))] for _ in range(2))
            film = _film(kind, photograph(name), columns[name], size, frames, grid, rng)
            if film is not None and kind == "object":
                film = _with_object(film, photograph(other), columns[other], size, frames, grid, rng)
            if film is None:
                continue
            movies[row] = film.pictures()
            if movies[row, 0].std((0, 1)).mean() >= 255 * LEAST_CONTRAST:
                break
        else:
            raise InputError(
                f"expected films that fit into the photographs; got {ATTEMPTS} in a row that do not. Use fewer frames."
            )
        flow[row] = film.flow
        names.append(name)
        drawn.append(kind)
    return MovingPictures(movies, flow, names, drawn)


@dataclass(frozen=True)
class _Film:
    fine: np.ndarray  # (frame, y, x, 3) float32 at twice the size
    flow: np.ndarray

    def pictures(self) -> np.ndarray:
        rows = self.fine[:, ::2] + self.fine[:, 1::2]
        return np.clip(np.rint((rows[:, :, ::2] + rows[:, :, 1::2]) / SUPERSAMPLED**2), 0, 255).astype(
            np.uint8
        )


def _film(
    kind: str,
    pixels: np.ndarray,
    columns: tuple[int, int],
    size: int,
    frames: int,
    grid: int,
    rng: np.random.Generator,
) -> _Film | None:
    """A film of one layer, or None if its window does not fit into the photograph."""
    motion = _motion(kind, rng)
    back = [np.linalg.matrix_power(np.linalg.inv(motion), t) for t in range(frames)]
    corners = np.array([[-0.5, -0.5, 1], [-0.5, 0.5, 1], [0.5, -0.5, 1], [0.5, 0.5, 1]]).T
    path = np.concatenate([(m @ corners)[:2] for m in back], axis=1)
    fine = _windows(pixels, columns, (path.min(1), path.max(1)), back, size, rng)
    if fine is None:
        return None
    points = _points(grid)
    flow = np.repeat(_flow(motion, points, grid)[None], frames - 1, axis=0)
    return _Film(fine, flow)


def _with_object(
    film: _Film,
    pixels: np.ndarray,
    columns: tuple[int, int],
    size: int,
    frames: int,
    grid: int,
    rng: np.random.Generator,
) -> _Film | None:
    """The film with an ellipse of another photograph in front."""
    motion = _motion("translation", rng)
    half = rng.uniform(*RADII, size=2)
    middle = rng.uniform(-0.25, 0.25, size=2) - motion[:2, 2] * (frames - 1) / 2
    back = [np.linalg.matrix_power(np.linalg.inv(motion), t) for t in range(frames)]
    texture = _windows(pixels, columns, (middle - half, middle + half), back, size, rng)
    if texture is None:
        return None

    def covers(points: np.ndarray, t: int) -> np.ndarray:
        own = (back[t] @ points)[:2] - middle[:, None]
        return ((own / half[:, None]) ** 2).sum(0) <= 1

    side = size * SUPERSAMPLED
    inside = np.stack([covers(_points(side), t).reshape(side, side) for t in range(frames)])
    points, moved = _points(grid), film.flow.copy()
    for t in range(frames - 1):
        front = covers(points, t).reshape(grid, grid)
        moved[t] = np.where(front, _flow(motion, points, grid), moved[t])
    return _Film(np.where(inside[..., None], texture, film.fine), moved)


def _motion(kind: str, rng: np.random.Generator) -> np.ndarray:
    """M as a (3, 3) matrix on (x, y, 1), widths of the picture from its centre."""
    speed = np.exp(rng.uniform(np.log(SLOWEST), np.log(FASTEST))) * (DRIFT if kind == "object" else 1)
    direction, turn, zoom = rng.uniform(0, 2 * np.pi), rng.uniform(-TURN, TURN), rng.uniform(-ZOOM, ZOOM)
    shift = speed * np.array([np.cos(direction), np.sin(direction)])
    shift = shift if kind in ("translation", "camera", "object") else np.zeros(2)
    turn = turn if kind in ("rotation", "camera") else 0.0
    scale = np.exp(zoom) if kind in ("zoom", "camera") else 1.0
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    return np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]], [0, 0, 1]])


def _points(grid: int) -> np.ndarray:
    """Centres of a grid's cells, (3, y·x): x, y, 1 in widths of the picture from its centre."""
    centres = (np.arange(grid) + 0.5) / grid - 0.5
    y, x = np.meshgrid(centres, centres, indexing="ij")
    return np.stack([x.ravel(), y.ravel(), np.ones(grid * grid)])


def _flow(motion: np.ndarray, points: np.ndarray, grid: int) -> np.ndarray:
    return ((motion @ points - points)[:2] * grid).reshape(2, grid, grid).astype(np.float32)


def _windows(
    pixels: np.ndarray,
    columns: tuple[int, int],
    box: tuple[np.ndarray, np.ndarray],
    back: list[np.ndarray],
    size: int,
    rng: np.random.Generator,
) -> np.ndarray | None:
    """What each frame sees, (frame, y, x, 3) float32 at twice the size; None if the box is too large at scale one.

    Args:
        pixels: The photograph.
        columns: That may be seen of it.
        box: Least and largest x and y that are seen, widths of the picture.
        back: M⁻ᵗ of each frame.
        size: Of the picture, pixels; a picture is as wide as `size` or more pixels of the photograph.
        rng: Scale and place.
    """
    height, width = pixels.shape[0], columns[1] - columns[0]
    first, end = columns_of(pixels.shape[1], "test")
    extent = box[1] - box[0]
    largest = min((min(width, end - first) - 2) / extent[0], (height - 2) / extent[1])
    if largest < size:
        return None
    scale = float(np.exp(rng.uniform(np.log(size), np.log(largest))))  # pixels of the photograph a width
    free = np.array([width, height]) - extent * scale
    corner = rng.uniform(0, 1, 2) * free + np.array([columns[0], 0])
    low = np.maximum(np.floor(corner).astype(int), [columns[0], 0])
    high = np.minimum(np.ceil(corner + extent * scale).astype(int), [columns[1], height])
    part = pixels[low[1] : high[1], low[0] : high[0]].astype(np.float32)
    side = size * SUPERSAMPLED
    if scale > side:  # averaged first, else remapping would skip pixels
        shrunk = np.maximum(2, np.rint((high - low) * side / scale).astype(int))
        part = cv2.resize(part, (int(shrunk[0]), int(shrunk[1])), interpolation=cv2.INTER_AREA)
    ratio = np.array([part.shape[1], part.shape[0]]) / (high - low)
    points, frames = _points(side), []
    for backward in back:
        seen = (((backward @ points)[:2] - box[0][:, None]) * scale + (corner - low)[:, None]) * ratio[
            :, None
        ] - 0.5
        x, y = seen.reshape(2, side, side).astype(np.float32)
        frames.append(cv2.remap(part, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))
    return np.stack(frames)


def _check(count: int, size: int, frames: int, kinds: Sequence[str]) -> None:
    if count < 1 or not 8 <= size <= 64 or not 2 <= frames <= 16:
        raise InputError(
            f"expected at least one film of 2 to 16 frames of 8 to 64 pixels; got {count} of {frames} of {size}."
        )
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise InputError(f"expected kinds of {', '.join(KINDS)}; got {', '.join(unknown) or 'none'}.")

"""Stretches of real films for a simulated subject: training ones from the first 70 % of each film, test ones from the rest.

Stretches of one volume (2 s) begin anywhere in their part of the film; with many of them they overlap within a part, never
across it. What moves in them, and how, is not known: their flow has to be estimated (`optical_flow`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from radiata_core.errors import InputError
from radiata_decode.data.film_clips import FilmClips

__all__ = ["FilmStretches", "film_seconds", "film_stretches"]

TRAIN_SHARE = 0.7


@dataclass(frozen=True)
class FilmStretches:
    """Clips and where they are from.

    Attributes:
        movies: (n, frame, y, x, 3) uint8 RGB.
        film: Name of the film of each, without its suffix.
        start_s: Where each begins, (n,), seconds.
    """

    movies: np.ndarray
    film: list[str]
    start_s: np.ndarray


def film_seconds(path: Path) -> float:
    """Length of a film file.

    Raises:
        InputError: it cannot be read.
    """
    film = cv2.VideoCapture(str(path))
    try:
        rate, count = film.get(cv2.CAP_PROP_FPS), film.get(cv2.CAP_PROP_FRAME_COUNT)
        if not film.isOpened() or not rate > 0 or not count > 0:
            raise InputError(f"expected a film in {path}; it cannot be read. Convert it to MP4 (H.264).")
        return float(count / rate)
    finally:
        film.release()


def film_stretches(
    films: Sequence[Path],
    count: int,
    split: str,
    size: int,
    frames: int,
    rng: np.random.Generator,
    *,
    length_s: float = 2.0,
) -> FilmStretches:
    """Random stretches of a part of the films; films are equally likely.

    Args:
        films: Files.
        count: How many stretches.
        split: train (the first 70 % of each film) or test (the rest).
        size: Side of the frames, pixels.
        frames: Of each stretch.
        rng: Where from.
        length_s: Of a stretch.

    Raises:
        InputError: a part that is shorter than a stretch, or a film that cannot be read.
    """
    if split not in ("train", "test"):
        raise InputError(f"expected a split of train or test; got {split}.")
    spans = []
    for film in films:
        seconds = film_seconds(film)
        border = TRAIN_SHARE * seconds
        first, end = (0.0, border) if split == "train" else (border, seconds - 0.1)
        if end - first < length_s:
            raise InputError(
                f"expected {length_s:g} s of {film} for the {split} part; got {max(0.0, end - first):.1f} s. "
                "Use longer films."
            )
        spans.append((first, end - length_s))
    chosen = [int(rng.integers(len(films))) for _ in range(count)]
    starts = [float(rng.uniform(*spans[number])) for number in chosen]
    order = sorted(range(count), key=lambda k: (chosen[k], starts[k]))  # films are read forwards
    clips = FilmClips([films[chosen[k]] for k in order], [starts[k] for k in order], length_s, frames, size)
    movies = np.empty(clips.shape, np.uint8)
    movies[order] = clips[:]
    return FilmStretches(movies, [Path(films[k]).stem for k in chosen], np.array(starts))

"""Stretches of film files as one array, (stimulus, frame, y, x, 3), read while it is copied.

A stretch is the piece of film that one volume answers. Of each, `frames` pictures are taken at the middles of equal parts of
it, cropped to a square, and made smaller by averaging areas. Films are read forwards; neighbouring stretches cost no seek.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from radiata_core.errors import InputError
from radiata_decode.data.resized_pictures import resized

__all__ = ["FilmClips", "film_of"]

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm")


def film_of(folder: Path, names: Sequence[str]) -> Path:
    """The film file with one of these names, whatever its suffix.

    Raises:
        InputError: none is there.
    """
    for name in names:
        for suffix in SUFFIXES:
            if (folder / f"{name}{suffix}").is_file():
                return folder / f"{name}{suffix}"
    raise InputError(
        f"expected the film {names[0]}{SUFFIXES[0]} in {folder}; got no such file. Check the folder of films."
    )


@dataclass(frozen=True)
class FilmClips:
    """Clips in the form of an array.

    Attributes:
        files: Film of each stimulus.
        starts_s: Where in it the stimulus begins, seconds.
        length_s: Of a stimulus, seconds.
        frames: Pictures of each.
        size: Pixels of a side.
    """

    files: Sequence[Path]
    starts_s: Sequence[float]
    length_s: float
    frames: int
    size: int

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        return len(self.files), self.frames, self.size, self.size, 3

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint8)

    def __getitem__(self, which: slice) -> np.ndarray:
        opened: dict[Path, Any] = {}
        try:
            clips = [
                self._clip(opened, file, start)
                for file, start in zip(self.files[which], self.starts_s[which], strict=True)
            ]
        finally:
            for film in opened.values():
                film.release()
        return np.stack(clips) if clips else np.empty((0, *self.shape[1:]), np.uint8)

    def _clip(self, opened: dict[Path, Any], file: Path, start: float) -> np.ndarray:
        import cv2

        if file not in opened:
            opened[file] = cv2.VideoCapture(str(file))
        film = opened[file]
        rate = film.get(cv2.CAP_PROP_FPS)
        if not film.isOpened() or not rate > 0:
            raise InputError(
                f"expected a film in {file}; got what cannot be read. Convert it to MP4 (H.264)."
            )
        times = start + (np.arange(self.frames) + 0.5) * self.length_s / self.frames
        pictures = []
        for number in np.floor(times * rate + 1e-6).astype(int):
            if int(film.get(cv2.CAP_PROP_POS_FRAMES)) != number:
                film.set(cv2.CAP_PROP_POS_FRAMES, int(number))
            there, picture = film.read()
            if not there:
                raise InputError(
                    f"expected a picture at {number / rate:.2f} s of {file}; got a film that is shorter, or "
                    "damaged. Is it the right one?"
                )
            pictures.append(np.ascontiguousarray(picture[:, :, ::-1]))
        return resized(np.stack(pictures), self.size)

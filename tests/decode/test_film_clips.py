"""Stretches of a real film file are the frames of its time."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_decode.data.film_clips import FilmClips, film_of


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Four seconds at 10 frames a second; frame k is red, 6 k."""
    path = tmp_path / "seg1.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (48, 32))
    for k in range(40):
        writer.write(np.broadcast_to(np.array([0, 0, 6 * k], np.uint8), (32, 48, 3)).copy())
    writer.release()
    return path


def test_frames_are_those_at_the_middles(film: Path) -> None:
    """Two pictures of each 2 s stretch: at 0.5 and 1.5 s, in any order of stretches, and red stays red."""
    clips = FilmClips([film, film], [2.0, 0.0], 2.0, 2, 16)
    found = clips[0:2]
    assert found.shape == clips.shape == (2, 2, 16, 16, 3)
    np.testing.assert_allclose(found[..., 0].mean((2, 3)), [[6 * 25, 6 * 35], [6 * 5, 6 * 15]], atol=4)
    assert found[..., 2].max() < 12


def test_bad_input(film: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a film that is shorter"):
        FilmClips([film], [10.0], 2.0, 1, 16)[0:1]
    with pytest.raises(InputError, match=r"the film seg2.mp4"):
        film_of(tmp_path, ["seg2"])
    (tmp_path / "seg3.mp4").write_bytes(b"no film")
    with pytest.raises(InputError, match=r"cannot be read"):
        FilmClips([film_of(tmp_path, ["seg3"])], [0.0], 2.0, 1, 16)[0:1]

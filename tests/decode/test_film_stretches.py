"""Stretches of film files: a film written here whose frames carry their own number."""

import cv2
import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_decode.data.film_stretches import film_seconds, film_stretches
from radiata_decode.experiment.simulating import write_simulated_subject

RATE, COUNT = 10.0, 120


@pytest.fixture
def film(tmp_path):
    """Twelve seconds that brighten from black to white: the grey of a frame is its time."""
    path = tmp_path / "ramp.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), RATE, (48, 48))
    if not writer.isOpened():
        pytest.skip("OpenCV was built without a video writer")
    for number in range(COUNT):
        writer.write(np.full((48, 48, 3), 2 * number, np.uint8))
    writer.release()
    return path


def test_frames_are_those_of_their_times_and_parts_do_not_meet(film, rng):
    assert film_seconds(film) == pytest.approx(12.0)
    ends = {}
    for split in ("train", "test"):
        found = film_stretches([film], 8, split, 16, 4, rng)
        assert found.movies.shape == (8, 4, 16, 16, 3) and found.film == ["ramp"] * 8
        times = found.start_s[:, None] + (np.arange(4) + 0.5) * 0.5
        grey = found.movies.mean((2, 3, 4))
        assert np.abs(grey - 2 * np.floor(times * RATE)).max() < 3  # JPEG
        ends[split] = (grey.min(), grey.max())
    assert ends["train"][1] < 2 * 0.7 * COUNT <= ends["test"][0] + 3


def test_a_subject_can_see_a_film(film, tmp_path):
    subject = write_simulated_subject(
        tmp_path / "sub", "motion", train=4, test=2, repeats=1, voxels=30, size=16, frames=4, films=[film]
    )
    assert list(subject.manifest["Sources"][0]) == ["Name", "SHA256"]
    assert subject.trials["split"].value_counts().to_dict() == {"train": 4, "test": 2}


def test_what_does_not_go_is_said(film, tmp_path, rng):
    with pytest.raises(InputError, match=r"for the test part; got 3\.5 s"):
        film_stretches([film], 1, "test", 16, 4, rng, length_s=5.0)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no film")
    with pytest.raises(InputError, match="it cannot be read"):
        film_seconds(broken)

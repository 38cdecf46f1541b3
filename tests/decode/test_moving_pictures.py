"""Films with exact flow: warping by the flow gives the next frame, and the flow is the motion that was drawn."""

import cv2
import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_decode.data.moving_pictures import KINDS, moving_pictures
from radiata_decode.data.photographs import columns_of, photograph

SIZE, FRAMES = 32, 6


def warped(following: np.ndarray, flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The next frame, taken back along the flow, and where it is inside of the picture."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    x, y = x + flow[0], y + flow[1]
    inside = (x > 1) & (x < SIZE - 2) & (y > 1) & (y < SIZE - 2)
    return cv2.remap(following.astype(np.float32), x, y, cv2.INTER_CUBIC), inside


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_frame_taken_back_along_the_flow_is_this_frame(kind, rng):
    films = moving_pictures(12, "train", SIZE, FRAMES, rng, kinds=(kind,))
    along, wrong, still = [], [], []
    for movie, flow in zip(films.movies, films.flow, strict=True):
        for t in range(FRAMES - 1):
            back, inside = warped(movie[t + 1], flow[t])
            other, within = warped(movie[t + 1], -flow[t])
            this = movie[t].astype(np.float32)
            along.append(np.median(np.abs(back - this)[inside]))
            wrong.append(np.median(np.abs(other - this)[within]))
            still.append(np.median(np.abs(movie[t + 1] - this)[inside]))
    assert np.mean(along) < 2.5  # of 255: interpolation
    assert np.mean(along) < 0.65 * np.mean(still) < np.mean(wrong)


def test_flow_has_the_form_of_its_motion(rng):
    """A translation is the same everywhere, a rotation has no divergence, a zoom no curl."""
    for kind in ("translation", "rotation", "zoom"):
        flow = moving_pictures(5, "test", SIZE, 3, rng, kinds=(kind,)).flow[:, 0].astype(np.float64)
        dx, dy = np.gradient(flow[:, 0], axis=2), np.gradient(flow[:, 1], axis=1)
        curl = np.gradient(flow[:, 1], axis=2) - np.gradient(flow[:, 0], axis=1)
        if kind == "translation":
            assert np.ptp(flow, axis=(2, 3)).max() < 1e-5 and np.hypot(*flow.mean((0, 2, 3))) > 0
        elif kind == "rotation":
            assert np.abs(curl).min() > 1e-4 and np.abs(dx - dy).max() < 1e-5
            assert np.abs((dx + dy) / curl).max() < 0.1  # cos ω − 1 against sin ω
        else:
            assert np.abs(curl).max() < 1e-5 and np.abs(dx - dy).max() < 1e-5
            assert np.abs(dx).min() > 1e-5


def test_flow_on_a_coarser_grid_is_the_mean_in_its_own_pixels():
    fine = moving_pictures(6, "train", SIZE, 3, np.random.default_rng(5), kinds=("camera",)).flow
    coarse = moving_pictures(6, "train", SIZE, 3, np.random.default_rng(5), kinds=("camera",), grid=8).flow
    blocks = fine.reshape(6, 2, 2, 8, 4, 8, 4).mean((4, 6)) / 4
    assert np.allclose(coarse, blocks, atol=1e-5)


def test_an_object_has_a_velocity_of_its_own_and_goes_where_it_says(rng):
    films = moving_pictures(30, "train", SIZE, FRAMES, rng, kinds=("object",))
    followed = 0
    for flow in films.flow.astype(np.float64):
        velocities = [np.unique(step.reshape(2, -1).round(4), axis=1) for step in flow]
        assert max(v.shape[1] for v in velocities) <= 2
        background = flow[2, :, 0, 0]
        front = np.abs(flow - background[None, :, None, None]).max(1) > 1e-4
        edge = front[:, [0, -1]].any((1, 2)) | front[:, :, [0, -1]].any((1, 2))
        if edge.any() or not front.any((1, 2)).all():
            continue  # partly outside: its centre is not seen
        centres = np.array([np.argwhere(mask).mean(0)[::-1] for mask in front])
        own = flow[2, :, front[2]].mean(0)
        assert np.allclose(centres[-1] - centres[0], (len(flow) - 1) * own, atol=0.6)
        followed += 1
    assert followed >= 3


def test_test_films_look_at_the_right_part_only(rng, monkeypatch):
    """With the left 70 % painted green, no test film shows green."""

    def painted(name: str) -> np.ndarray:
        pixels = photograph(name).copy()
        pixels[:, : columns_of(pixels.shape[1], "test")[0]] = (0, 255, 0)
        return pixels

    monkeypatch.setattr("radiata_decode.data.moving_pictures.photograph", painted)
    films = moving_pictures(25, "test", SIZE, FRAMES, rng, photographs=("coins", "chelsea", "brick"))
    excess = films.movies[..., 1].astype(int) - films.movies[..., 0]
    assert excess.max() < 60  # a cat has no green fur, coins and bricks are grey


def test_the_same_seed_gives_the_same_films_and_fewer_are_the_first_of_more():
    many = moving_pictures(8, "train", 16, 4, np.random.default_rng(3))
    few = moving_pictures(3, "train", 16, 4, np.random.default_rng(3))
    assert np.array_equal(many.movies[:3], few.movies) and np.array_equal(many.flow[:3], few.flow)
    assert many.kind[:3] == few.kind and many.photograph[:3] == few.photograph


def test_what_does_not_go_is_said(rng):
    with pytest.raises(InputError, match="2 to 16 frames"):
        moving_pictures(3, "train", 32, 1, rng)
    with pytest.raises(InputError, match="expected kinds of"):
        moving_pictures(3, "train", 32, 4, rng, kinds=("jump",))
    with pytest.raises(InputError, match="expected a split"):
        moving_pictures(3, "left", 32, 4, rng)

"""Flow of photographs that were moved by a known motion; grids and their vectors; files that are no networks."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.data.moving_pictures import moving_pictures
from radiata_decode.data.optical_flow import DisFlow, NetworkFlow, grid_flow, optical_flow
from radiata_decode.data.photographs import photograph


def moved(name: str, side: int = 256) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two frames (y, x, 3) and their exact flow (2, y, x): shift, turn and zoom of a photograph."""
    first = photograph(name)[:side, :side]
    turn, centre = np.array([[1.012, -0.015], [0.015, 1.012]]), (side - 1) / 2
    shift = np.array([3.2, 2.0]) + centre - turn @ np.full(2, centre)
    matrix = np.column_stack([turn, shift])
    second = cv2.warpAffine(first, matrix, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    y, x = np.mgrid[:side, :side].astype(np.float64)
    points = np.stack([x.ravel(), y.ravel(), np.ones(side * side)])
    return first, second, (matrix @ points - points[:2]).reshape(2, side, side)


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "china"])
def test_photographs_that_move_by_four_pixels_are_followed_to_a_third_of_one(name: str) -> None:
    first, second, flow = moved(name)
    estimate = optical_flow(np.stack([first, second])[None])[0, 0]
    inner = (slice(None), slice(16, -16), slice(16, -16))
    assert 3 < np.linalg.norm(flow, axis=0).mean() < 5
    assert np.linalg.norm(estimate - flow, axis=0)[inner[1:]].mean() <= 0.35


def test_small_films_are_followed_within_their_grid(rng: np.random.Generator) -> None:
    films = moving_pictures(12, "train", 32, 3, rng, grid=16)
    estimate = optical_flow(films.movies, grid=16)
    still = np.linalg.norm(films.flow, axis=2).mean()
    assert np.linalg.norm(estimate - films.flow, axis=2).mean() < 0.4 * still


def test_frames_may_lie_in_memory_as_they_like() -> None:
    first, second, _ = moved("chelsea", 96)
    plain = DisFlow()(first, second)
    turned = DisFlow()(
        np.asfortranarray(first), np.ascontiguousarray(second.transpose(1, 0, 2)).transpose(1, 0, 2)
    )
    np.testing.assert_array_equal(plain, turned)


def test_a_film_alone_has_the_same_flow(rng: np.random.Generator) -> None:
    movies = moving_pictures(3, "train", 32, 3, rng).movies
    np.testing.assert_array_equal(optical_flow(movies)[1:2], optical_flow(movies[1:2]))


def test_vectors_are_counted_in_cells_of_their_grid() -> None:
    """A uniform motion by (4, -2) pixels of 64 by 32 is (1, -1) cells of 16 by 16."""
    flow = np.broadcast_to(np.array([4.0, -2.0])[:, None, None], (2, 32, 64))
    np.testing.assert_allclose(grid_flow(flow, (16, 16))[:, 3, 5], [1.0, -1.0], rtol=1e-6)
    np.testing.assert_allclose(grid_flow(flow, (64, 128))[:, 3, 5], [8.0, -4.0], rtol=1e-6)


def test_cells_hold_the_mean_of_what_they_cover(rng: np.random.Generator) -> None:
    flow = rng.normal(size=(2, 8, 8)).astype(np.float32)
    expected = flow.reshape(2, 4, 2, 4, 2).mean((2, 4)) / 2
    np.testing.assert_allclose(grid_flow(flow, (4, 4)), expected, atol=1e-6)


class Shifted(torch.nn.Module):
    """A network that says how much brighter the second frame is, in its last refinement."""

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> list[torch.Tensor]:
        rest = (second - first).mean((1, 2, 3)).reshape(-1, 1, 1, 1)
        flow = rest * torch.ones(1, 2, *first.shape[2:])
        return [0 * flow, flow]


def brighter() -> np.ndarray:
    movies = np.zeros((1, 2, 32, 32, 3), np.uint8)
    movies[:, 1] = 255
    return movies


def test_a_network_takes_the_place_of_dis() -> None:
    """Frames of 32 pixels are shown to it at 128; its vectors come back as a quarter."""
    flow = optical_flow(brighter(), estimator=NetworkFlow(Shifted()))
    np.testing.assert_allclose(flow, 2 * 32 / 128, rtol=1e-5)


@pytest.mark.slow
def test_a_network_comes_from_an_exported_program(tmp_path: Path) -> None:
    frames = (torch.zeros(1, 3, 128, 128), torch.zeros(1, 3, 128, 128))
    torch.export.save(torch.export.export(Shifted(), frames), tmp_path / "raft.pt2")
    estimator = NetworkFlow.from_file(tmp_path / "raft.pt2")
    np.testing.assert_allclose(optical_flow(brighter(), estimator=estimator), 2 * 32 / 128, rtol=1e-5)


@pytest.mark.parametrize(
    ("movies", "grid", "said"),
    [
        (np.zeros((1, 1, 32, 32, 3), np.uint8), None, "two frames"),
        (np.zeros((1, 2, 32, 32, 3), np.float32), None, "uint8"),
        (np.zeros((1, 2, 8, 8, 3), np.uint8), None, "16 pixels"),
        (np.zeros((1, 2, 32, 32, 3), np.uint8), 64, "at most"),
    ],
)
def test_films_that_have_no_flow(movies: np.ndarray, grid: int | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        optical_flow(movies, grid=grid)


def test_files_that_are_no_networks(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no weights"):
        NetworkFlow.from_file(tmp_path / "raft.pth")
    (tmp_path / "raft.pt2").write_bytes(b"not a program")
    with pytest.raises(InputError, match="cannot be read"):
        NetworkFlow.from_file(tmp_path / "raft.pt2")
    with pytest.raises(InputError, match="preset"):
        DisFlow("slow")

"""A first frame moved by its flow is the film; reading and splatting are adjoint; what is uncovered is known."""

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.data.moving_pictures import moving_pictures
from radiata_decode.model.warping import backward_warp, forward_warp, seen_from_later, warped_film


def constant(x: float, y: float, size: int = 12, steps: int = 1) -> torch.Tensor:
    return torch.tensor([x, y]).reshape(1, 1, 2, 1, 1).expand(1, steps, 2, size, size)


def test_whole_pixels_move_exactly(generator: torch.Generator) -> None:
    first = torch.rand(1, 3, 12, 12, generator=generator)
    film = warped_film(first, constant(2, -1, steps=2))
    torch.testing.assert_close(film.frames[0, 2, :, :10, 4:], first[0, :, 2:, :8])
    assert film.visible[0, 2, :10, 4:].all()
    assert not film.visible[0, 2, :, :3].any()  # came from outside, to the left


def test_no_motion_is_the_first_frame(generator: torch.Generator) -> None:
    first = torch.rand(2, 3, 9, 11, generator=generator)
    film = warped_film(first, torch.zeros(2, 1, 2, 3, 3), frames=4)
    torch.testing.assert_close(film.frames, first[:, None].expand(2, 4, 3, 9, 11), atol=1e-5, rtol=0)
    assert film.visible.all()


def test_splatting_is_the_adjoint_of_reading(generator: torch.Generator) -> None:
    """⟨splat(a), b⟩ = ⟨a, read(b)⟩ for everything that lands inside."""
    a, b = (torch.rand(1, 2, 16, 16, generator=generator, dtype=torch.float64) for _ in range(2))
    flow = 3 * torch.randn(1, 2, 16, 16, generator=generator, dtype=torch.float64)
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    landing = torch.stack([x, y])[None] + flow
    a = a * ((landing >= 0) & (landing <= 15)).all(1, keepdim=True)
    splat, weight = forward_warp(a, flow)
    torch.testing.assert_close((splat * b).sum(), (a * backward_warp(b, flow)).sum())
    assert weight.sum() <= 256 + 1e-9


def test_films_of_moved_photographs_are_made_again(rng: np.random.Generator) -> None:
    """The first frame moved by the exact flow is much nearer to the true film than a film that stands still."""
    films = moving_pictures(16, "train", 32, 6, rng)
    movies = torch.from_numpy(films.movies).permute(0, 1, 4, 2, 3).float() / 255
    made = warped_film(movies[:, 0], torch.from_numpy(films.flow))
    error = (made.frames - movies).square().mean(2)
    still = (movies[:, :1] - movies).square().mean(2)
    seen = made.visible[:, 1:]
    assert seen.float().mean() > 0.7
    assert error[:, 1:][seen].mean() < 0.12 * still[:, 1:][seen].mean()
    assert error[:, 1:].mean() < 0.5 * still[:, 1:].mean()


def test_the_object_covers_and_the_ground_is_uncovered() -> None:
    """A square moves 4 pixels to the right over a ground at rest: it hides what is before it and uncovers its trail."""
    flow = torch.zeros(1, 2, 20, 20)
    flow[0, 0, 6:12, 4:10] = 4.0
    later, covered = seen_from_later(flow)
    assert (later[0, 0, 6:12, 8:14] - 4).abs().max() < 1e-3
    assert covered[0, 0, 6:12, 4:8].sum() == 0
    assert (later[0, 0, 6:12, 4:8]).abs().max() < 1e-3  # what is uncovered rests as the ground does
    first = torch.zeros(1, 1, 20, 20)
    first[0, 0, 6:12, 4:10] = 1.0
    film = warped_film(first, flow[:, None])
    torch.testing.assert_close(film.frames[0, 1, 0, 6:12, 8:14], torch.ones(6, 6), atol=1e-3, rtol=0)
    assert film.frames[0, 1, 0, 7:11, 4:6].max() < 0.5  # the trail is filled with ground


def test_a_row_alone_is_the_same(generator: torch.Generator) -> None:
    first, flow = (
        torch.rand(3, 3, 10, 10, generator=generator),
        torch.randn(3, 2, 2, 5, 5, generator=generator),
    )
    torch.testing.assert_close(
        warped_film(first, flow).frames[1:2], warped_film(first[1:2], flow[1:2]).frames
    )


def test_pictures_and_flow_that_do_not_fit() -> None:
    with pytest.raises(InputError, match="one for each"):
        warped_film(torch.zeros(2, 3, 8, 8), torch.zeros(1, 1, 2, 8, 8))
    with pytest.raises(InputError, match="at least one frame"):
        warped_film(torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 2, 8, 8), frames=0)


def test_what_is_uncovered_moves_with_the_ground() -> None:
    """Ground to the right by one pixel, a square by four: its trail has no partner and gets the ground's motion."""
    flow = torch.zeros(1, 2, 20, 20)
    flow[0, 0] = 1.0
    flow[0, 0, 6:12, 4:10] = 4.0
    later, covered = seen_from_later(flow)
    assert covered[0, 0, 6:12, 5:8].sum() == 0
    torch.testing.assert_close(later[0, 0, 6:12, 5:8], torch.ones(6, 3))
    torch.testing.assert_close(later[0, 1], torch.zeros(20, 20))

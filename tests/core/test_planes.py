"""A denoiser of slices on volumes: the mean over directions, row by row, and the Gaussian whose answer is known."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from radiata_core.analytic import GaussianDenoiser
from radiata_core.covariances import Dense
from radiata_core.errors import InputError
from radiata_core.kernels import kernel_of
from radiata_core.paths import LinearPath
from radiata_core.planes import PlanewiseDenoiser

T = torch.tensor(0.4, dtype=torch.float64)


class Slices(nn.Module):
    """Something of slices that is neither linear nor symmetric, and depends on time and condition of its row.

    Args:
        multiple: Grids it takes.
    """

    def __init__(self, multiple: int = 1) -> None:
        super().__init__()
        self.path, self.network = LinearPath(), nn.Module()
        self.network.multiple = multiple  # type: ignore[assignment]
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: Tensor, t: Tensor, *, level: Tensor | None = None) -> Tensor:
        self.seen.append(tuple(x.shape))
        at = t.view(-1, 1, 1, 1).to(x) if t.ndim else t.to(x)
        own = 0.0 if level is None else level.view(-1, 1, 1, 1).to(x)
        return torch.tanh(x + at * x.roll(1, -1) - 0.3 * x.roll(1, -2)) + own


def volumes(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def one_by_one(denoiser: Any, x: Tensor, axis: int, t: Tensor, **conditions: Tensor) -> Tensor:
    """Each slice of each row by a call of its own."""
    found = torch.empty_like(x)
    for row in range(len(x)):
        own = {name: value[row : row + 1] for name, value in conditions.items()}
        for i in range(x.shape[2 + axis]):
            at = (row, slice(None), *(i if a == axis else slice(None) for a in range(3)))
            found[at] = denoiser(x[at][None], t[row : row + 1] if t.ndim else t, **own)[0]
    return found


@pytest.mark.parametrize("axes", [(0,), (2, 0), (0, 1, 2)])
@pytest.mark.parametrize("together", [1, 4, 100])
def test_it_is_the_mean_over_directions_of_slices_one_by_one(axes: tuple[int, ...], together: int) -> None:
    """With times and conditions that differ from row to row, and calls that mix slices of both rows."""
    denoiser, x = Slices(), volumes(2, 1, 5, 7, 6)
    t, level = torch.tensor([0.1, 0.8], dtype=torch.float64), torch.tensor([0.0, 5.0])
    expected = sum(one_by_one(denoiser, x, axis, t, level=level) for axis in axes) / len(axes)
    found = PlanewiseDenoiser(denoiser, axes, together)(x, t, level=level)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_rows_know_nothing_of_each_other() -> None:
    denoiser, x = Slices(), volumes(3, 1, 5, 4, 6)
    planes = PlanewiseDenoiser(denoiser, together=4)
    level = torch.tensor([1.0, 2.0, 3.0])
    together = planes(x, T, level=level)
    alone = torch.cat([planes(x[i : i + 1], T, level=level[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-6)


def test_slices_are_continued_by_their_mirror_image_and_cut() -> None:
    denoiser, x = Slices(4), volumes(1, 1, 3, 6, 5)
    found = PlanewiseDenoiser(denoiser, (0,), 8)(x, T)
    assert denoiser.seen == [(3, 1, 8, 8)]
    rows = x[0].movedim(1, 0)
    longer = rows[..., [0, 1, 2, 3, 4, 5, 4, 3], :][..., [0, 1, 2, 3, 4, 3, 2, 1]]
    expected = denoiser(longer, T)[..., :6, :5].movedim(0, 1)[None]
    torch.testing.assert_close(found, expected)
    thin = PlanewiseDenoiser(denoiser, (2,))(
        volumes(1, 1, 1, 6, 2), T
    )  # nothing to mirror in an edge of one voxel
    assert thin.shape == (1, 1, 1, 6, 2) and thin.isfinite().all()


class Closed(nn.Module):
    """The denoiser of Gaussian slices."""

    def __init__(self, covariance: Tensor, side: int) -> None:
        super().__init__()
        self.path = LinearPath()
        self.of_slices = GaussianDenoiser(
            torch.zeros(1, side, side, dtype=torch.float64), Dense(covariance), self.path
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.of_slices(x, t)


def test_gaussian_volumes_whose_covariance_is_a_product() -> None:
    """x_0 ~ N(0, C x C x C): in the eigenvectors of C the answer is a number a mode, and so is its error.

    The error lies above that of the posterior mean of volumes, and below that of one direction.
    """
    side = 4
    place = torch.arange(side, dtype=torch.float64)
    line = torch.exp(-((place[:, None] - place) ** 2) / 4)  # of variance 1, so slices have the product of two
    values, vectors = torch.linalg.eigh(line)
    x = volumes(1, 1, side, side, side).double()
    denoiser = Closed(torch.kron(line, line), side)
    of_path = denoiser.path.coefficients(T)
    alpha, sigma = float(of_path.alpha), float(of_path.sigma)

    def wiener(variance: Tensor) -> Tensor:
        return alpha * variance / (alpha**2 * variance + sigma**2)

    a, b, c = values[:, None, None], values[:, None], values
    ones = torch.ones(side, side, side, dtype=torch.float64)
    gains = [wiener(b * c * ones), wiener(a * c * ones), wiener(a * b * ones)]
    modes = torch.einsum("ijk,ia,jb,kc->abc", x[0, 0], vectors, vectors, vectors)
    mean = (gains[0] + gains[1] + gains[2]) / 3
    expected = torch.einsum("abc,ia,jb,kc->ijk", mean * modes, vectors, vectors, vectors)
    found = PlanewiseDenoiser(denoiser)(x, T)
    torch.testing.assert_close(found[0, 0], expected, atol=1e-10, rtol=1e-10)

    def error(gain: Tensor) -> float:
        full = a * b * c
        return float(((1 - alpha * gain) ** 2 * full + sigma**2 * gain**2).mean())

    assert error(wiener(a * b * c)) < error(mean) < min(map(error, gains))


def test_it_is_a_denoiser_that_tells_what_is_done() -> None:
    denoiser, done = Slices(), list[int]()
    planes = PlanewiseDenoiser(denoiser, (1, 2), 4, done.append)
    planes(volumes(1, 1, 2, 5, 3), T)
    assert done == [4, 1, 3]
    assert planes.path == denoiser.path and planes.kernel == kernel_of(denoiser)


def test_what_is_refused() -> None:
    wrong: list[tuple[tuple[int, ...], int]] = [((), 8), ((0, 0), 8), ((3,), 8), ((0,), 0)]
    for axes, together in wrong:
        with pytest.raises(InputError, match="different axes"):
            PlanewiseDenoiser(Slices(), axes, together)
    with pytest.raises(InputError, match="Slices need no planes"):
        PlanewiseDenoiser(Slices())(volumes(1, 1, 4, 4), T)

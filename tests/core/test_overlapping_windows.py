"""Overlapping windows: a partition of unity, the whole where one window is the whole, and a bound where it is not."""

import itertools

import pytest
import torch
from scipy.ndimage import label
from torch import nn

from radiata_core.errors import InputError
from radiata_core.overlapping_windows import (
    OverlappingDenoiser,
    WithCoordinates,
    coordinates_of,
    noise_of_box,
    weights_of_line,
)
from radiata_core.paths import LinearPath
from radiata_core.seeds import generator_of
from radiata_core.solvers import integrate
from radiata_core.tables import ddim
from radiata_core.tiling import TiledDenoiser
from radiata_core.times import LinearGrid

T = torch.tensor(0.4, dtype=torch.float64)


def image(*space, batch=2):
    return torch.randn(batch, 1, *space, generator=generator_of(1), dtype=torch.float64)


class Constant:
    """Says 3 everywhere."""

    path = LinearPath()

    def __call__(self, x, t, **conditions):
        return torch.full_like(x, 3.0)


class Markov:
    """The exact denoiser of a stationary Markov chain x_0 along the last axis (correlation rho, variance 1)."""

    path, rho = LinearPath(), 0.6

    def precision(self, n):
        q = torch.eye(n, dtype=torch.float64) * (1 + self.rho**2)
        q[0, 0] = q[-1, -1] = 1.0
        q -= self.rho * (torch.diag(torch.ones(n - 1), 1) + torch.diag(torch.ones(n - 1), -1))
        return q / (1 - self.rho**2)

    def system(self, n, t):
        c = self.path.coefficients(t)
        return self.precision(n) + (c.alpha / c.sigma) ** 2 * torch.eye(
            n, dtype=torch.float64
        ), c.alpha / c.sigma**2

    def __call__(self, x, t, **conditions):
        matrix, gain = self.system(x.shape[-1], t)
        return (
            torch.linalg.solve(matrix, gain * x.movedim(-1, 0).flatten(1))
            .reshape(x.movedim(-1, 0).shape)
            .movedim(0, -1)
        )


@pytest.mark.parametrize("length", [8, 16, 24, 56])
@pytest.mark.parametrize(("window", "overlap", "multiple"), [(16, 8, 8), (16, 0, 4), (16, 5, 1), (8, 7, 1)])
def test_weights_are_positive_and_sum_to_one(length, window, overlap, multiple):
    total, ends = torch.zeros(length, dtype=torch.float64), []
    for where, weight in weights_of_line(length, window, overlap, multiple):
        assert where.start % multiple == 0 and len(weight) == min(window, length) and (weight > 0).all()
        total[where] += weight
        ends += [where]
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-15)
    assert all(one.stop - other.start >= overlap for one, other in itertools.pairwise(ends))


@pytest.mark.parametrize("space", [(40,), (24, 40), (16, 24, 20)])
def test_a_constant_is_that_constant_and_one_window_is_the_denoiser_to_the_bit(space):
    x = image(*space)
    found = OverlappingDenoiser(Constant(), 16, 8)(x, T)
    torch.testing.assert_close(found, torch.full_like(x, 3.0), rtol=0, atol=1e-14)
    chain = Markov()
    assert torch.equal(OverlappingDenoiser(chain, 64, 32)(x, T), chain(x, T))


def test_joined_windows_differ_from_the_whole_by_no_more_than_the_bound():
    """A window's mean m_b solves (Q_b + c) m_b = y, the whole's m the same but for the ends, where the residual is
    r = (rho m_outside - rho^2 m_end)/(1 - rho^2). (Q_b + c)^-1 falls as C q^|i - j| (Demko, Moss & Smith 1984, for a banded
    matrix of condition kappa: q = (sqrt kappa - 1)/(sqrt kappa + 1)), and so does the window's error from its ends."""
    chain, n, window, overlap = Markov(), 48, 16, 8
    x = image(n, batch=1)
    whole, rho = chain(x, T)[0, 0], chain.rho
    values = torch.linalg.eigvalsh(chain.system(window, T)[0])
    root = (values[-1] / values[0]).sqrt()
    q, front = (
        (root - 1) / (root + 1),
        torch.maximum(torch.tensor(1.0), (1 + root) ** 2 / (2 * root**2)) / values[0],
    )
    bound = torch.zeros(n, dtype=torch.float64)
    place = torch.arange(window)
    for where, weight in weights_of_line(n, window, overlap):
        for end, outside, far in (
            (where.start, where.start - 1, place),
            (where.stop - 1, where.stop, place.flip(0)),
        ):
            if 0 <= outside < n:
                residual = (rho * whole[outside] - rho**2 * whole[end]).abs() / (1 - rho**2)
                bound[where] += weight * front * q**far * residual
    error = (OverlappingDenoiser(chain, window, overlap)(x, T)[0, 0] - whole).abs()
    assert (error <= bound + 1e-12).all()
    assert 1e-6 < float(error.max()) < 0.05 and float(bound.max()) < 1


@pytest.mark.parametrize("kind", ["tiles", "windows"])
def test_conditions_on_the_grid_are_cut_like_the_image(kind):
    """A denoiser that answers its condition gives the condition back, and asks no more than `together` windows a call."""
    calls = []

    class Echo:
        path = LinearPath()

        def __call__(self, x, t, coordinates, age):
            calls.append(len(x))
            assert coordinates.shape[2:] == x.shape[2:] and len(age) == len(x)
            return coordinates[:, :1] + age[:, None, None, None]

    x, age = image(40, 24), torch.tensor([0.0, 1000.0], dtype=torch.float64)
    places = coordinates_of((40, 24), (2.0, 1.0), (-5.0, 0.0)).double()
    echo = Echo()
    tiled = TiledDenoiser(echo, 8, 4) if kind == "tiles" else OverlappingDenoiser(echo, 16, 8, 3)
    found = tiled(x, T, coordinates=places, age=age)
    torch.testing.assert_close(found, (places[:, :1] + age[:, None, None, None]).expand_as(found))
    assert max(calls) <= (2 if kind == "tiles" else 3)
    assert places[0, 0, 3, 5] == 1.0 and places[0, 1, 3, 5] == 5.0


def test_a_network_is_given_its_places_as_channels():
    class First(nn.Module):
        def forward(self, x, noise_level):
            return x[:, 1:2] - x[:, 2:3]

    places = coordinates_of((4, 6))
    found = WithCoordinates(First())(torch.zeros(3, 1, 4, 6), torch.zeros(3), coordinates=places)
    torch.testing.assert_close(found, (torch.arange(4.0)[:, None] - torch.arange(6.0)).expand(3, 1, 4, 6))


def disc(centre, size):
    grid = coordinates_of((size, size))[0].double()
    return (((grid - torch.tensor(centre, dtype=torch.float64)[:, None, None]) ** 2).sum(0) < 9.0).double()


class Crops:
    """The exact denoiser of crops of a field with one disc: those at its own place, or all crops if it is told none."""

    path, size = LinearPath(), 16

    def __init__(self, field, centres):
        self.fields = torch.stack([disc(centre, field) for centre in centres])
        self.starts = range(0, field - self.size + 1, 4)

    def crops(self, corner):
        row, column = corner
        return self.fields[:, row : row + self.size, column : column + self.size].flatten(1)

    def __call__(self, x, t, coordinates=None):
        c, answers = self.path.coefficients(t), []
        for index, state in enumerate(x.flatten(1)):
            corners = [(a, b) for a in self.starts for b in self.starts]
            if coordinates is not None:
                corners = [tuple(coordinates[index, :, 0, 0].long().tolist())]
            atoms = torch.cat([self.crops(corner) for corner in corners])
            part = torch.softmax(-((state - c.alpha * atoms) ** 2).sum(1) / (2 * c.sigma**2), 0)
            answers.append(part @ atoms)
        return torch.stack(answers).reshape(x.shape)


def counted(denoiser, noise):
    table = ddim(LinearGrid()(12, denoiser.path), denoiser.path)
    return [int(label(row[0].numpy() > 0.5)[1]) for row in integrate(denoiser, noise, table)]


def test_one_object_where_windows_know_their_place_and_several_where_they_do_not():
    """A field of 32 x 32 with one disc near its middle, windows of 16: exact denoisers of windows, eight draws."""
    crops = Crops(32, [(14.0, 15.0), (17.0, 14.0), (15.0, 18.0)])
    noise = noise_of_box(range(8), (0, 0), (32, 32)).double()
    told = OverlappingDenoiser(crops, 16, 8, 8, coordinates_of((32, 32)).double())
    assert counted(told, noise) == [1] * 8
    assert sum(counted(OverlappingDenoiser(crops, 16, 8, 8), noise)) >= 12


def test_noise_belongs_to_its_place():
    whole = noise_of_box([3, 4], (-20, 5), (50, 40), channels=2)
    part = noise_of_box([4], (-3, 17), (20, 11), channels=2)
    assert torch.equal(part[0], whole[1, :, 17:37, 12:23])
    assert abs(float(whole.mean())) < 5 / 8000**0.5 and abs(float(whole.var()) - 1) < 5 * (2 / 8000) ** 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: OverlappingDenoiser(Constant(), 0, 0), "expected windows"),
        (lambda: OverlappingDenoiser(Constant(), 8, 8), "overlap"),
        (lambda: OverlappingDenoiser(Constant(), 8, 4, 0), "together"),
        (
            lambda: OverlappingDenoiser(Constant(), 8, 4, 1, coordinates_of((9, 9)))(image(16, 9), T),
            "of the grid",
        ),
        (lambda: coordinates_of((4, 4), (1.0,)), "one an axis"),
        (lambda: noise_of_box([], (0,), (4,)), "expected seeds"),
    ],
)
def test_bad_input_is_one_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)

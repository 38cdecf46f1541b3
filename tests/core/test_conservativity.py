"""Curl is measured where it is known: rotations, Stokes' theorem, log-density ratios of a mixture."""

import math

import pytest
import torch

from radiata_core.analytic import MixtureDenoiser
from radiata_core.conservativity import (
    asymmetry,
    curl_flux,
    loop_integral,
    path_integrals,
    random_plane,
    sub_jacobian,
)
from radiata_core.covariances import Dense
from radiata_core.errors import InputError
from radiata_core.jacobians import inner, jacobian, score_field
from radiata_core.paths import LinearPath
from radiata_core.seeds import generator_of, generators_of, noise_of

F64 = torch.float64
TIME = torch.tensor(0.4, dtype=F64)


def state(rows=4, event=(2, 3), seed=0):
    return noise_of(generators_of(range(rows), seed), event, F64)


def matrix_field(matrix):
    return lambda x: (x.flatten(1) @ matrix.to(x).T).view_as(x)


def parts(size=6):
    """A symmetric and an antisymmetric matrix."""
    m = torch.randn(size, size, generator=generator_of(1), dtype=F64)
    return (m + m.T) / 2, (m - m.T) / 2


def mixture(size=6):
    g = generator_of(2, size)
    roots = torch.randn(3, size, size, generator=g, dtype=F64) / size**0.5
    covariances = [Dense(r @ r.T + 0.05 * torch.eye(size, dtype=F64)) for r in roots]
    means = 2 * torch.randn(3, size, generator=g, dtype=F64)
    return MixtureDenoiser(torch.tensor([1.0, 2.0, 3.0], dtype=F64), means, covariances, LinearPath())


def curled(x):
    """Neither linear nor a gradient: tanh of a matrix product."""
    m = torch.randn(6, 6, generator=generator_of(4), dtype=F64)
    return torch.tanh(x.flatten(1) @ m.T).view_as(x)


def test_a_symmetric_matrix_has_ratio_0_and_an_antisymmetric_one_2():
    symmetric, antisymmetric = parts()
    x, generators = state(), generators_of(range(4))
    assert asymmetry(matrix_field(symmetric), x, generators).ratio < 1e-28
    assert asymmetry(matrix_field(antisymmetric), x, generators).ratio == pytest.approx(2, rel=1e-12)


def test_asymmetry_of_a_mixture_of_both():
    """|J - J^T|^2 / 2|J|^2 of S + c A is 2 c^2 |A|^2 / (|S|^2 + c^2 |A|^2); 4000 probes, within 3 %."""
    symmetric, antisymmetric = parts()
    for c in (0.2, 1.0, 3.0):
        rest = c**2 * antisymmetric.square().sum()
        wanted = 2 * rest / (symmetric.square().sum() + rest)
        rows = 400
        found = asymmetry(
            matrix_field(symmetric + c * antisymmetric), state(rows), generators_of(range(rows)), 10
        )
        assert found.ratio == pytest.approx(float(wanted), rel=0.03)


def test_asymmetry_of_a_nonlinear_field_is_that_of_its_jacobian():
    x = state(1).expand(4000, 2, 3)
    full = jacobian(curled, x[:1])[0]
    wanted = (full - full.T).square().sum() / (2 * full.square().sum())
    found = asymmetry(curled, x, generators_of(range(4000)))
    assert found.ratio == pytest.approx(float(wanted), rel=0.05)
    assert found.rows.shape == (4000,) and found.rows.std() > 0


def test_exact_score_is_symmetric_and_float32_resolves_it():
    score = score_field(mixture(), TIME)
    assert asymmetry(score, state(8, (6,)), generators_of(range(8))).ratio < 1e-24
    single = asymmetry(lambda x: score(x.double()).float(), state(8, (6,)).float(), generators_of(range(8)))
    assert single.ratio < 1e-11


def test_identity_hides_an_asymmetry():
    """The reason to ask the score, not the denoiser alone: x + small rotation looks symmetric."""
    _, antisymmetric = parts()
    x, generators = state(200), generators_of(range(200))
    hidden = asymmetry(lambda y: y + 1e-3 * matrix_field(antisymmetric)(y), x, generators)
    assert hidden.ratio < 1e-4


def test_a_row_is_the_same_alone():
    x = state()
    many = asymmetry(curled, x, generators_of(range(4)), 2)
    alone = asymmetry(curled, x[2:3], generators_of([2]), 2)
    assert torch.allclose(many.rows[2:3], alone.rows, rtol=1e-12)


def test_sub_jacobian_is_a_block_of_the_jacobian():
    x, indices = state(), torch.tensor([4, 0, 3])
    found = sub_jacobian(curled, x, indices)
    full = jacobian(curled, x)
    assert torch.allclose(found.matrix, full[:, indices][:, :, indices], atol=1e-13)
    every = sub_jacobian(curled, x, torch.arange(6))
    assert every.ratio() == pytest.approx(
        float((full - full.mT).square().sum() / (2 * full.square().sum())), rel=1e-12
    )


def test_ratio_of_a_block_without_its_diagonal():
    _, antisymmetric = parts()
    field = matrix_field(100 * torch.eye(6, dtype=F64) + antisymmetric)
    found = sub_jacobian(field, state(), torch.arange(6))
    assert found.ratio() < 1e-2 and found.ratio(diagonal=False) == pytest.approx(2, rel=1e-12)


@pytest.mark.parametrize("event", [(2,), (3,), (2, 3)])
def test_random_planes_are_orthonormal_and_of_their_row(event):
    x = torch.zeros(50, *event, dtype=F64)
    u, v = random_plane(x, generators_of(range(50)))
    one = torch.ones(50, dtype=F64)
    assert torch.allclose(inner(u, u), one) and torch.allclose(inner(v, v), one)
    assert inner(u, v).abs().max() < 1e-12
    alone = random_plane(x[:1], generators_of([7]))
    assert torch.equal(alone[0][0], u[7]) and torch.equal(alone[1][0], v[7])


def test_planes_are_uniform():
    """E[u u^T] = I / d: 4000 planes in 3-D, each entry within 5 sd (sd of u_i^2 is 0.3, of u_i u_j 0.26)."""
    u, _ = random_plane(torch.zeros(4000, 3, dtype=F64), generators_of(range(4000)))
    assert (u.T @ u / 4000 - torch.eye(3, dtype=F64) / 3).abs().max() < 5 * 0.3 / 4000**0.5


def test_loop_integral_of_a_rotation():
    """(x, y) -> w (-y, x) does 2 pi r^2 w of work around any circle of radius r, all of it forward if centred."""
    omega, radius = 1.7, 0.6
    turn = torch.tensor([[0.0, -omega], [omega, 0.0]], dtype=F64)
    plane = random_plane(torch.zeros(4, 2, dtype=F64), generators_of(range(4)))
    handed = torch.linalg.det(torch.stack(plane, 2))  # a plane may be left-handed
    found = loop_integral(matrix_field(turn), state(4, (2,)), plane, radius, 8)
    assert torch.allclose(found.signed, handed * 2 * math.pi * radius**2 * omega, rtol=1e-12)
    centred = loop_integral(matrix_field(turn), torch.zeros(4, 2, dtype=F64), plane, radius, 8)
    assert centred.ratio == pytest.approx(1, rel=1e-12)


def test_loop_integral_of_a_skew_matrix_in_its_plane():
    """2 pi r^2 v^T A u in the plane (u, v), wherever the centre is."""
    _, antisymmetric = parts()
    x = state()
    u, v = random_plane(x, generators_of(range(4)))
    found = loop_integral(matrix_field(antisymmetric), x, (u, v), 0.5, 8)
    wanted = 2 * math.pi * 0.25 * inner(v, matrix_field(antisymmetric)(u))
    assert torch.allclose(found.signed, wanted, rtol=1e-10)


def test_stokes():
    """Around the circle = through the disc, for a field that is not linear."""
    x = state()
    plane = random_plane(x, generators_of(range(4)))
    around = loop_integral(curled, x, plane, 0.8, 64).signed
    assert torch.allclose(around, curl_flux(curled, x, plane, 0.8, 8, 32), atol=1e-7)
    assert around.abs().min() > 1e-2


def test_exact_score_does_no_work_around_a_loop():
    score, x = score_field(mixture(), TIME), state(4, (6,))
    found = loop_integral(score, x, random_plane(x, generators_of(range(4))), 1.0, 128)
    assert found.ratio < 1e-10 and found.absolute.min() > 0.1


def test_work_of_an_exact_score_is_the_log_ratio_of_densities():
    law = mixture()
    a, b, corner = state(4, (6,)), state(4, (6,), 1), state(4, (6,), 2)
    found = path_integrals(score_field(law, TIME), a, b, corner, 48)
    wanted = law.log_density(b, TIME) - law.log_density(a, TIME)
    assert torch.allclose(found.straight, wanted, atol=1e-5)
    assert torch.allclose(found.dogleg, wanted, atol=1e-5)
    assert wanted.abs().min() > 0.3


def test_work_of_a_skew_matrix_depends_on_the_way():
    """Over the triangle a, c, b the skew field A does (c - a)^T A^T (b - a) more work than straight."""
    _, antisymmetric = parts()
    a, b, corner = state(), state(seed=1), state(seed=2)
    found = path_integrals(matrix_field(antisymmetric), a, b, corner, 4)
    wanted = inner(b - a, matrix_field(antisymmetric)(corner - a)).abs()
    assert torch.allclose(found.gap, wanted, rtol=1e-10)


def test_bad_input():
    x = state()
    with pytest.raises(InputError, match="at least one probe"):
        asymmetry(curled, x, generators_of(range(4)), 0)
    for indices in ([0, 0], [6], [-1], []):
        with pytest.raises(InputError, match="different indices from 0 to 5"):
            sub_jacobian(curled, x, torch.tensor(indices, dtype=torch.long))
    plane = random_plane(x, generators_of(range(4)))
    for points, radius in ((3, 1.0), (16, 0.0)):
        with pytest.raises(InputError, match="points >= 4 and a radius > 0"):
            loop_integral(curled, x, plane, radius, points)
    with pytest.raises(InputError, match="no loops"):
        random_plane(torch.zeros(2, 1), generators_of([0, 1]))
    with pytest.raises(InputError, match="one generator"):
        random_plane(x, generators_of([0, 1]))

"""Annealing, mirrors and the coupling of known pairs."""

import itertools

import pytest
import torch

from radiata_core.analytic import GaussianDenoiser
from radiata_core.couplings import Coupling, Pair
from radiata_core.covariances import Diagonal
from radiata_core.errors import InputError
from radiata_core.kernels import GaussianKernel
from radiata_core.pairings import Annealing, AnnealingShape, Flip, PairedNoise, equivariance_error
from radiata_core.paths import LinearPath
from radiata_core.seeds import generators_of, noise_of


@pytest.mark.parametrize("shape", list(AnnealingShape))
def test_annealing_falls_from_fresh_noise_to_none(shape):
    beta = Annealing(50, shape)
    values = [beta(step) for step in range(60)]
    assert values[0] == pytest.approx(1.0, abs=1e-12)
    assert values[50:] == [0.0] * 10
    assert all(a > b for a, b in itertools.pairwise(values[:51]))


def test_annealing_follows_its_formula():
    assert Annealing(8)(2) == 0.75
    assert Annealing(8, AnnealingShape.COSINE)(2) == pytest.approx(0.5 + 0.5 * 0.5**0.5)
    assert Annealing(8, AnnealingShape.EXPONENTIAL)(4) == pytest.approx(1 / (1 + 2.718281828459045**2.5))


def test_mixed_noise_is_standard_normal_whatever_the_share(generator):
    """Mean 0 and covariance I at every beta, correlation sqrt(1 - beta^2) with its own pair (5 standard errors)."""
    n = 20_000
    noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    for fresh in (0.0, 0.3, 0.8, 1.0):
        mixed = PairedNoise(noise, fresh)(torch.zeros_like(noise), generator).noise
        assert (mixed.mean(0).abs() < 5 / n**0.5).all()
        assert (torch.cov(mixed.T) - torch.eye(2)).abs().max() < 5 * (2 / n) ** 0.5
        shared = (mixed * noise).mean(0)
        assert (shared - (1 - fresh**2) ** 0.5).abs().max() < 5 * (2 / n) ** 0.5


def test_the_ends_of_the_annealing_are_exact():
    noise = noise_of(generators_of(range(4), 5), (3, 2))
    x0 = torch.zeros_like(noise)
    assert torch.equal(PairedNoise(noise)(x0, generators_of(range(4))).noise, noise)
    fresh = PairedNoise(noise, 1.0)(x0, generators_of(range(4))).noise
    assert torch.equal(fresh, GaussianKernel().noise(x0, generators_of(range(4))))


def test_it_is_a_coupling_and_refuses_noise_of_another_shape():
    coupling = PairedNoise(torch.zeros(3, 2))
    assert isinstance(coupling, Coupling)
    with pytest.raises(InputError, match=r"expected the noise of each sample, \(4, 2\); got \(3, 2\)"):
        coupling(torch.zeros(4, 2), generators_of(range(4)))


def test_a_flip_mirrors_data_and_noise_of_the_same_rows():
    n = 4000
    x0 = torch.arange(n * 6, dtype=torch.float32).reshape(n, 1, 2, 3)
    flip = Flip((-1,), teacher_commutes=True, probability=0.25)
    pair = flip(Pair(x0, -x0), generators_of(range(n), 7))
    assert torch.equal(pair.noise, -pair.x0)
    turned = torch.tensor([torch.equal(row, whole.flip(-1)) for row, whole in zip(pair.x0, x0, strict=True)])
    kept = torch.tensor([torch.equal(row, whole) for row, whole in zip(pair.x0, x0, strict=True)])
    assert bool((turned ^ kept).all())
    assert abs(float(turned.float().mean()) - 0.25) < 5 * (0.25 * 0.75 / n) ** 0.5
    assert torch.equal(flip.mirrored(x0), Flip((2,), teacher_commutes=True).mirrored(x0))


def test_a_flip_must_be_declared():
    with pytest.raises(InputError, match="expected a declared symmetry"):
        Flip((-1,))
    with pytest.raises(InputError, match="at least one axis"):
        Flip((), teacher_commutes=True)
    with pytest.raises(InputError, match="axes within an event"):
        Flip((3,), teacher_commutes=True).mirrored(torch.zeros(2, 1, 4, 4))


def test_the_equivariance_error_tells_a_symmetry_from_an_asymmetry(generator):
    """Closed form: Gaussian data commute with a mirror if mean and variances do."""
    x = torch.randn(50, 4, generator=generator, dtype=torch.float64)
    t = torch.tensor(0.6, dtype=torch.float64)
    flip = Flip((0,), teacher_commutes=True)
    symmetric = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64)
    lopsided = torch.tensor([1.0, 3.0, 0.1, 1.0], dtype=torch.float64)
    zero = torch.zeros(4, dtype=torch.float64)
    same = equivariance_error(GaussianDenoiser(zero, Diagonal(symmetric), LinearPath()), flip, x, t)
    other = equivariance_error(GaussianDenoiser(zero, Diagonal(lopsided), LinearPath()), flip, x, t)
    assert same < 1e-14
    assert other > 0.1


def test_an_annealing_without_steps_is_refused():
    with pytest.raises(InputError, match="1 step or more"):
        Annealing(0)

"""Products with Jacobians against the Jacobian itself; the trace estimator against its closed-form variance."""

import math

import pytest
import torch
from torch import nn

from radiata_core.analytic import GaussianDenoiser, MixtureDenoiser
from radiata_core.covariances import Dense, Diagonal
from radiata_core.errors import InputError
from radiata_core.jacobians import (
    BlockDivergence,
    Divergence,
    ExactDivergence,
    Hutchinson,
    hutchinson,
    inner,
    jacobian,
    jvp,
    probe_divergences,
    pushforward,
    rademacher,
    score_field,
    vjp,
)
from radiata_core.paths import LinearPath, TrigonometricPath, VEPath, VPPath
from radiata_core.seeds import generator_of, generators_of, noise_of

F64 = torch.float64
HALF = torch.tensor(0.5, dtype=F64)


def linear(size=6, seed=0):
    """x -> A x on events of shape (2, 3), and A."""
    matrix = torch.randn(size, size, generator=generator_of(seed), dtype=F64)
    return (lambda x: (x.flatten(1) @ matrix.T).view_as(x)), matrix


def state(rows=3, event=(2, 3), seed=0):
    return noise_of(generators_of(range(rows), seed), event, F64)


def network(seed=0, event=(2, 3)):
    size = math.prod(event)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(size, 16), nn.SiLU(), nn.Linear(16, size), nn.Unflatten(1, event)
        ).double()


def test_products_with_a_known_matrix():
    field, matrix = linear()
    x, v = state(), state(seed=1)
    assert torch.allclose(jvp(field, x, v).flatten(1), v.flatten(1) @ matrix.T, atol=1e-13)
    assert torch.allclose(vjp(field, x, v).flatten(1), v.flatten(1) @ matrix, atol=1e-13)
    assert torch.allclose(jacobian(field, x), matrix.expand(3, 6, 6), atol=1e-13)


def test_products_of_a_network_against_differences_and_each_other():
    field, x, v, w, h = network(), state(), state(seed=1), state(seed=2), 1e-5
    ahead = jvp(field, x, v)
    with torch.no_grad():
        difference = (field(x + h * v) - field(x - h * v)) / (2 * h)
    assert torch.allclose(ahead, difference, atol=1e-8)
    assert torch.allclose(inner(w, ahead), inner(vjp(field, x, w), v), rtol=1e-12)
    full = (jacobian(field, x) @ v.flatten(1)[..., None])[..., 0]
    assert torch.allclose(ahead.flatten(1), full, atol=1e-12)


class _NoForwardMode(torch.autograd.Function):
    """x -> x^3 with a reverse mode that can be differentiated, and no forward mode."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * 3 * x**2


def test_a_layer_without_forward_mode_is_served_by_two_reverse_ones():
    x, v = state(), state(seed=1)
    assert torch.allclose(jvp(_NoForwardMode.apply, x, v), 3 * x**2 * v, atol=1e-12)


def test_attention_has_both_products():
    """The fused kernels have no forward mode; the plain one is taken, and the two products agree."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        attention = nn.MultiheadAttention(8, 2, batch_first=True).double().eval()

    def field(x):
        return attention(x, x, x, need_weights=False)[0]

    x, v, w = state(2, (5, 8)), state(2, (5, 8), 1), state(2, (5, 8), 2)
    assert torch.allclose(inner(w, jvp(field, x, v)), inner(vjp(field, x, w), v), rtol=1e-10)


def test_products_leave_no_graph_and_no_gradient():
    field, x = network(), state()
    assert not jvp(field, x, x).requires_grad and not vjp(field, x, x).requires_grad
    assert not jacobian(field, x).requires_grad
    value, divergence = ExactDivergence()(field, x)
    assert not value.requires_grad and not divergence.requires_grad
    assert all(p.grad is None for p in field.parameters()) and not x.requires_grad


def test_exact_divergence_is_the_trace():
    field, x = network(), state()
    value, divergence = ExactDivergence()(field, x)
    assert torch.equal(value, field(x))
    assert torch.allclose(divergence, jacobian(field, x).diagonal(dim1=1, dim2=2).sum(1), rtol=1e-12)


def test_divergence_of_a_gaussian_score_is_minus_the_trace_of_the_precision():
    a = torch.randn(4, 4, generator=generator_of(5), dtype=F64)
    covariance = a @ a.T + 0.1 * torch.eye(4, dtype=F64)
    denoiser = GaussianDenoiser(torch.ones(4, dtype=F64), Dense(covariance), LinearPath())
    _, divergence = ExactDivergence()(score_field(denoiser, HALF), state(2, (4,)))
    precision = torch.linalg.inv(0.25 * covariance + 0.25 * torch.eye(4, dtype=F64))
    assert torch.allclose(divergence, -precision.trace().expand(2), rtol=1e-10)


def test_hutchinson_has_the_stated_mean_and_variance():
    """20000 probes of one matrix: mean within 4 standard errors of the trace, variance within 10 % of the formula."""
    field, matrix = linear(seed=3)
    x = state(20_000)
    _, found = hutchinson(x, generators_of(range(20_000), 7))(field, x)
    variance = 0.5 * (matrix + matrix.T).square().sum() - 2 * matrix.diagonal().square().sum()
    assert abs(found.mean() - matrix.trace()) < 4 * (variance / 20_000).sqrt()
    assert abs(found.var() / variance - 1) < 0.1


def test_hutchinson_averages_its_probes_and_keeps_them():
    field, x = network(), state()
    many = hutchinson(x, generators_of(range(3)), 5)
    each = [Hutchinson(many.probes[i : i + 1])(field, x)[1] for i in range(5)]
    assert torch.allclose(many(field, x)[1], torch.stack(each).mean(0), rtol=1e-12)
    assert torch.equal(many(field, x)[1], many(field, x)[1])
    assert isinstance(many, Divergence) and isinstance(ExactDivergence(), Divergence)


@pytest.mark.parametrize("block", [1, 4, 64])
def test_blocks_of_products_are_the_products(block):
    """6 elements in blocks that do not divide them; forward and reverse."""
    field, _ = linear()
    x = state()
    curved = lambda x: field(x).tanh()  # noqa: E731
    value, found = BlockDivergence(block)(curved, x)
    assert torch.equal(value, curved(x))
    assert torch.allclose(found, ExactDivergence()(curved, x)[1])
    tangents = torch.stack([state(seed=seed) for seed in range(1, 6)])
    assert torch.allclose(
        pushforward(curved, x, tangents, block), torch.stack([jvp(curved, x, v) for v in tangents])
    )


def test_each_probe_by_itself():
    """v^T A v of every probe and row."""
    field, matrix = linear()
    x = state()
    probes = hutchinson(x, generators_of([1, 2, 3]), 4).probes
    value, each = probe_divergences(field, x, probes)
    flat = probes.flatten(2)
    assert torch.allclose(each, torch.einsum("pbi,ij,pbj->pb", flat, matrix, flat))
    assert torch.equal(value, field(x))


def test_probes_are_fair_signs_of_their_own_row():
    """10000 signs: the mean is within 4 sd of 0. A row is the same alone as among others."""
    x = torch.zeros(4, 50, 50)
    signs = rademacher(x, generators_of(range(4)))
    assert torch.equal(signs.abs(), torch.ones_like(x)) and abs(signs.mean()) < 4 / 100
    assert torch.equal(rademacher(x[2:3], generators_of([2]))[0], signs[2])


@pytest.mark.parametrize("path", [LinearPath(), TrigonometricPath(), VPPath(), VEPath()])
def test_score_field_is_the_score(path):
    means = torch.tensor([[2.0, 0.0], [-1.0, 1.0]], dtype=F64)
    spreads = [Diagonal(torch.tensor(v, dtype=F64)) for v in ([0.1, 1.0], [0.5, 0.2])]
    mixture = MixtureDenoiser(torch.tensor([1.0, 3.0], dtype=F64), means, spreads, path)
    x = state(5, (2,))
    assert torch.allclose(score_field(mixture, HALF)(x), mixture.score(x, HALF), rtol=1e-9)
    times = torch.linspace(0.1, 0.9, 5, dtype=F64)
    assert torch.allclose(score_field(mixture, times)(x), mixture.score(x, times), rtol=1e-7)


def test_score_field_passes_conditions_on():
    class Conditional:
        path = LinearPath()

        def __call__(self, x, t, mean):
            return mean

    x, mean = state(2, (3,)), state(2, (3,), 1)
    assert torch.allclose(score_field(Conditional(), HALF, mean=mean)(x), (0.5 * mean - x) / 0.25)


def test_bad_input():
    x = state(3)
    denoiser = GaussianDenoiser(torch.zeros(2, 3), Diagonal(torch.ones(2, 3)), LinearPath())
    with pytest.raises(InputError, match="sigma = 0"):
        score_field(denoiser, torch.tensor(0.0, dtype=F64))
    with pytest.raises(InputError, match="one generator a row, 3; got 2"):
        rademacher(x, generators_of([0, 1]))
    with pytest.raises(InputError, match="at least one probe"):
        hutchinson(x, generators_of([0, 1, 2]), 0)
    with pytest.raises(InputError, match="probes of shape"):
        Hutchinson(torch.ones(1, 2, 6, dtype=F64))(lambda y: y, x)

    class Heavy(GaussianDenoiser):
        kernel = object()

    with pytest.raises(InputError, match="Gaussian noise"):
        score_field(Heavy(denoiser.mean, denoiser.covariance, denoiser.path), HALF)

"""The pooled Gaussian: the exact posterior mean of its own dense covariance, and honest calibration."""

import pytest
import torch

from radiata_core.anchors import PooledGaussian
from radiata_core.errors import InputError


def _random_anchor(generator: torch.Generator) -> PooledGaussian:
    anchor = PooledGaussian(shape=(1, 4, 4, 6), rank=3).double()
    anchor.mean.copy_(torch.randn(1, 4, 4, 6, generator=generator, dtype=torch.float64))
    basis = torch.linalg.qr(torch.randn(12, 3, generator=generator, dtype=torch.float64)).Q.T
    anchor.basis.copy_(basis)
    anchor.eigenvalues.copy_(torch.tensor([5.0, 2.0, 1.0]))
    anchor.floor.fill_(0.3)
    anchor.fine.fill_(0.1)
    return anchor


def _dense_covariance(anchor: PooledGaussian) -> torch.Tensor:
    """The covariance in voxel space, built the long way."""
    eye = torch.eye(96, dtype=torch.float64).reshape(96, 1, 4, 4, 6)
    pool = anchor._coarse(eye).flatten(1).T  # (12, 96), orthonormal rows
    low = anchor.floor * torch.eye(12, dtype=torch.float64) + anchor.basis.T @ (
        (anchor.eigenvalues - anchor.floor)[:, None] * anchor.basis
    )
    return anchor.fine * (torch.eye(96, dtype=torch.float64) - pool.T @ pool) + pool.T @ low @ pool


@pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 0.0), (0.7, 0.3), (0.2, 0.8), (0.0, 1.0)])
def test_it_is_the_dense_posterior_mean(generator: torch.Generator, alpha: float, sigma: float) -> None:
    anchor = _random_anchor(generator)
    x = torch.randn(5, 1, 4, 4, 6, generator=generator, dtype=torch.float64)
    covariance = _dense_covariance(anchor)
    mean = anchor.mean.flatten()
    noisy = alpha**2 * covariance + sigma**2 * torch.eye(96, dtype=torch.float64)
    gain = alpha * torch.linalg.solve(noisy, covariance)
    exact = mean + (x.flatten(1) - alpha * mean) @ gain
    given = anchor(x, torch.tensor(alpha, dtype=torch.float64), torch.tensor(sigma, dtype=torch.float64))
    assert torch.allclose(given.flatten(1), exact, atol=1e-12)


def test_each_row_has_its_own_noise_level(generator: torch.Generator) -> None:
    anchor = _random_anchor(generator)
    x = torch.randn(3, 1, 4, 4, 6, generator=generator, dtype=torch.float64)
    alpha, sigma = torch.tensor([0.9, 0.5, 0.1]), torch.tensor([0.1, 0.5, 0.9])
    together = anchor(x, alpha, sigma)
    alone = torch.cat([anchor(x[i : i + 1], alpha[i], sigma[i]) for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-12)


def test_fit_recovers_the_directions_and_calibrates_on_unseen_people(generator: torch.Generator) -> None:
    """One strong common direction and one direction a person: the first is trusted, the personal ones are not."""
    people, each = 6, 60
    common = torch.zeros(2, 2, 3).flatten()
    common[0] = 1.0
    personal = torch.eye(12)[1 : 1 + people]
    coarse = 3.0 * torch.randn(people, each, 1, generator=generator) * common
    coarse = coarse + 2.0 * torch.randn(people, each, 1, generator=generator) * personal[:, None]
    coarse = (coarse + 0.1 * torch.randn(people, each, 12, generator=generator)).reshape(-1, 1, 2, 2, 3)
    anchor = PooledGaussian(shape=(1, 4, 4, 6), rank=6)
    images = anchor._spread(coarse) + 0.05 * torch.randn(people * each, 1, 4, 4, 6, generator=generator)
    anchor.fit(images, [p for p in range(people) for _ in range(each)])
    assert abs(anchor.basis[0, 0]) > 0.97
    assert anchor.eigenvalues[0] == pytest.approx(9.0, rel=0.25)
    # In-sample every personal direction has variance 4/6; on a person left out it is noise, and the floor has the rest.
    assert anchor.eigenvalues[1] == anchor.floor
    assert anchor.floor == pytest.approx((4.0 + 5 * 0.01) / 6, rel=0.2)


def test_bad_shapes_and_ranks_are_refused(generator: torch.Generator) -> None:
    with pytest.raises(InputError, match="divides by pool"):
        PooledGaussian(shape=(1, 5, 4, 4), rank=2)
    with pytest.raises(InputError, match="rank between"):
        PooledGaussian(shape=(1, 4, 4, 4), rank=9)
    images = torch.randn(10, 1, 4, 4, 4, generator=generator)
    with pytest.raises(InputError, match="two people"):
        PooledGaussian(shape=(1, 4, 4, 4), rank=2).fit(images, [0] * 10)


def test_missing_covariates_take_their_conditional_expectation(generator: torch.Generator) -> None:
    """Against the textbook formula, pattern by pattern, in one batch."""
    anchor = PooledGaussian(shape=(1, 4, 4, 4), rank=2, covariates=3).double()
    factor = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    covariance = factor @ factor.T
    scale = covariance.diagonal().rsqrt()
    correlation = scale[:, None] * covariance * scale
    anchor.correlation.copy_(correlation)
    values = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    masks = torch.tensor([[bool(i >> k & 1) for k in range(3)] for i in range(8)])
    given = anchor._completed(values.masked_fill(~masks, torch.nan))
    for row, mask in enumerate(masks):
        expected = torch.zeros(3, dtype=torch.float64)
        if mask.any():
            inner = correlation[mask][:, mask]
            expected = correlation[:, mask] @ torch.linalg.solve(inner, values[row, mask])
        assert torch.allclose(given[row], expected, atol=1e-10)


def test_covariates_move_the_mean_as_they_did_in_the_data(generator: torch.Generator) -> None:
    """Known effects are recovered, and pure noise is answered with mu(c)."""
    effects = torch.zeros(2, 1, 2, 2, 2)
    effects[0, 0, 0], effects[1, 0, :, 1] = 2.0, -1.0
    c = torch.randn(400, 2, generator=generator)
    anchor = PooledGaussian(shape=(1, 4, 4, 4), rank=2, covariates=2)
    coarse = 5.0 + torch.einsum("nk,kcxyz->ncxyz", c, effects)
    images = anchor._spread(coarse) + 0.1 * torch.randn(400, 1, 4, 4, 4, generator=generator)
    anchor.fit(images, [i % 5 for i in range(400)], c, ridge=1e-6)
    assert (anchor.effects.reshape(effects.shape) - effects).abs().max() < 0.05
    row = torch.tensor([[1.5, -0.5]])
    x = torch.randn(1, 1, 4, 4, 4, generator=generator)
    answered = anchor(x, torch.tensor(0.0), torch.tensor(1.0), row)
    assert torch.allclose(answered, anchor.mean_given(row), atol=1e-5)
    truth = anchor._spread(5.0 + torch.einsum("nk,kcxyz->ncxyz", row, effects))
    assert (answered - truth).abs().max() < 0.1
    assert torch.equal(anchor.mean_given(None)[0], anchor.mean)
    with pytest.raises(InputError, match="expected covariates of shape"):
        anchor.fit(images, [i % 5 for i in range(400)])


def _root(matrix: torch.Tensor) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T


@pytest.mark.parametrize(("t", "s"), [(1.0, 0.0), (1.0, 0.4), (0.7, 0.2), (0.3, 0.3)])
def test_with_a_destination_one_euler_step_is_the_dense_flow(
    generator: torch.Generator, t: float, s: float
) -> None:
    """The flow of a Gaussian on the linear path, by dense matrix square roots, from t to s in one step."""
    anchor = _random_anchor(generator)
    covariance, mean = _dense_covariance(anchor), anchor.mean.flatten()
    x = torch.randn(4, 1, 4, 4, 6, generator=generator, dtype=torch.float64)
    eye = torch.eye(96, dtype=torch.float64)
    ahead, behind = (_root((1 - u) ** 2 * covariance + u**2 * eye) for u in (s, t))
    exact = (1 - s) * mean + (x.flatten(1) - (1 - t) * mean) @ torch.linalg.solve(behind, ahead)
    a, b, c, d = (torch.tensor(v, dtype=torch.float64) for v in (1 - t, t, 1 - s, s))
    g = anchor(x, a, b, destination=(c, d))
    step = s / t * x + ((1 - s) - (1 - t) * s / t) * g
    assert torch.allclose(step.flatten(1), exact, atol=1e-10)


def test_coupled_noise_gives_the_data_back(generator: torch.Generator) -> None:
    """Where x0 = mu + S^(1/2) eps, the state determines the data at every time; the coupled anchor says so."""
    anchor = _random_anchor(generator)
    coupled = anchor.truncated(3, coupled=True).double()
    noise = torch.randn(4, 96, generator=generator, dtype=torch.float64)
    x0 = anchor.mean.flatten() + noise @ _root(_dense_covariance(anchor))
    for t in (1.0, 0.6, 0.1):
        x = ((1 - t) * x0 + t * noise).reshape(4, 1, 4, 4, 6)
        alpha, sigma = (torch.tensor(v, dtype=torch.float64) for v in (1 - t, t))
        assert torch.allclose(coupled(x, alpha, sigma).flatten(1), x0, atol=1e-9)


def test_truncation_keeps_the_leading_part_and_the_total_variance(generator: torch.Generator) -> None:
    anchor = _random_anchor(generator)
    shorter = anchor.truncated(1).double()
    whole, part = _dense_covariance(anchor), _dense_covariance(shorter)
    assert torch.allclose(whole.trace(), part.trace(), atol=1e-6)
    leading = anchor._spread(anchor.basis[:1].reshape(1, 1, 2, 2, 3)).flatten()
    assert torch.allclose(whole @ leading, part @ leading, atol=1e-6)
    with pytest.raises(InputError, match="between 1 and 3"):
        anchor.truncated(4)

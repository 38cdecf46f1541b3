"""Spectra against explicit matrices, and the low-rank fit against scikit-learn's probabilistic PCA."""

import pytest
import torch

from radiata_core.covariances import Dense, Diagonal, LowRank, fit_low_rank
from radiata_core.errors import InputError


def _orthonormal(rows: int, columns: int, generator: torch.Generator) -> torch.Tensor:
    return torch.linalg.qr(
        torch.randn(columns, rows, generator=generator, dtype=torch.float64)
    ).Q.mT.contiguous()


def _inverse_root(values: torch.Tensor) -> torch.Tensor:
    """A function with one parameter a row, as the denoisers pass them."""
    shift = torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64).reshape(-1, *(1,) * (values.ndim - 1))
    return (values + shift).rsqrt()


def test_low_rank_is_the_matrix_it_stands_for(generator: torch.Generator) -> None:
    basis = _orthonormal(3, 8, generator).view(3, 2, 4)
    values = torch.tensor([4.0, 2.0, 0.7], dtype=torch.float64)
    flat = basis.flatten(1)
    matrix = flat.mT @ torch.diag(values) @ flat + 0.2 * (torch.eye(8, dtype=torch.float64) - flat.mT @ flat)
    x = torch.randn(3, 2, 4, generator=generator, dtype=torch.float64)
    low, dense = LowRank(basis, values, 0.2), Dense(matrix)
    torch.testing.assert_close(low.apply(_inverse_root, x), dense.apply(_inverse_root, x), rtol=0, atol=1e-12)
    torch.testing.assert_close(low.total(_inverse_root), dense.total(_inverse_root), rtol=0, atol=1e-11)
    for row, shift in enumerate((0.3, 1.0, 2.0)):  # a second route: f(M)^-2 by solving
        twice = low.apply(_inverse_root, low.apply(_inverse_root, x))[row].flatten()
        solved = torch.linalg.solve(matrix + shift * torch.eye(8, dtype=torch.float64), x[row].flatten())
        torch.testing.assert_close(twice, solved, rtol=0, atol=1e-12)


def test_diagonal_is_dense_with_a_diagonal(generator: torch.Generator) -> None:
    values = torch.rand(2, 3, generator=generator, dtype=torch.float64)
    x = torch.randn(3, 2, 3, generator=generator, dtype=torch.float64)
    diagonal, dense = Diagonal(values), Dense(torch.diag(values.flatten()))
    torch.testing.assert_close(
        diagonal.apply(_inverse_root, x), dense.apply(_inverse_root, x), rtol=0, atol=1e-13
    )
    torch.testing.assert_close(diagonal.total(_inverse_root), dense.total(_inverse_root), rtol=0, atol=1e-12)


def test_fit_agrees_with_probabilistic_pca(generator: torch.Generator) -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    mixing = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    data = torch.randn(300, 12, generator=generator, dtype=torch.float64) @ mixing + 3
    fit = fit_low_rank(data, rank=4)
    pca = decomposition.PCA(4, svd_solver="full").fit(data.numpy())
    torch.testing.assert_close(fit.mean, torch.from_numpy(pca.mean_))
    torch.testing.assert_close(fit.covariance.eigenvalues, torch.from_numpy(pca.explained_variance_))
    assert fit.covariance.floor == pytest.approx(pca.noise_variance_, rel=1e-10)
    alignment = (fit.covariance.basis * torch.from_numpy(pca.components_)).sum(1).abs()
    torch.testing.assert_close(alignment, torch.ones(4, dtype=torch.float64))


def test_fit_of_fewer_samples_than_elements(generator: torch.Generator) -> None:
    """The trace is the sample's at any shrinkage, the basis orthonormal, and full shrinkage isotropic."""
    data = torch.randn(6, 1, 4, 5, 4, generator=generator)
    variance = float(data.double().var(0).sum())
    for shrinkage in (0.0, 0.3, 1.0):
        covariance = fit_low_rank(data, 5, shrinkage).covariance
        assert float(covariance.total(lambda value: value)) == pytest.approx(variance, rel=1e-6)
    torch.testing.assert_close(
        covariance.eigenvalues, torch.full((5,), covariance.floor, dtype=torch.float64)
    )
    flat = covariance.basis.flatten(1)
    torch.testing.assert_close(flat @ flat.mT, torch.eye(5), rtol=0, atol=1e-5)


def test_fit_survives_repeated_samples() -> None:
    """Components of no variance are completed to an orthonormal basis instead of NaN."""
    data = torch.tensor([[1.0, 0, 0, 0], [1.0, 0, 0, 0], [-1.0, 0, 0, 0], [-1.0, 0, 0, 0]])
    covariance = fit_low_rank(data, 3).covariance
    torch.testing.assert_close(covariance.eigenvalues, torch.tensor([4 / 3, 0, 0], dtype=torch.float64))
    torch.testing.assert_close(covariance.basis @ covariance.basis.mT, torch.eye(3), rtol=0, atol=1e-6)


def test_rank_zero_is_isotropic(generator: torch.Generator) -> None:
    data = torch.randn(50, 3, generator=generator)
    covariance = fit_low_rank(data, 0).covariance
    torch.testing.assert_close(covariance.apply(lambda value: value, data), covariance.floor * data)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Diagonal(torch.tensor([1.0, -1.0])), "variances >= 0"),
        (lambda: Dense(torch.tensor([[1.0, 0.5], [0.0, 1.0]])), "symmetric"),
        (lambda: Dense(torch.tensor([[1.0, 2.0], [2.0, 1.0]])), "eigenvalues >= 0"),
        (lambda: LowRank(torch.tensor([[1.0, 1.0]]), torch.tensor([1.0]), 0.1), "orthonormal"),
        (lambda: LowRank(torch.tensor([[1.0, 0.0]]), torch.tensor([1.0]), float("nan")), "floor"),
        (lambda: fit_low_rank(torch.zeros(3, 2), 3), "rank"),
        (lambda: fit_low_rank(torch.zeros(3, 2), 1, shrinkage=2.0), "shrinkage"),
        (lambda: fit_low_rank(torch.full((3, 2), float("nan")), 1), "finite"),
    ],
)
def test_what_is_refused(make, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()

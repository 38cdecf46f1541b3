"""Conjugate gradients: against a dense solve, row by row, with and without a preconditioner, singular systems too."""

import pytest
import torch
from torch import Tensor

from radiata_core.conjugate_gradients import conjugate_gradients, least_norm_solve, real_product, ridge_solve
from radiata_core.errors import InputError
from radiata_core.seeds import generator_of


def _normal(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=generator_of(seed), dtype=dtype)


def _positive(size: int, smallest: float = 0.1) -> Tensor:
    vectors = torch.linalg.qr(_normal(size, size)).Q
    return vectors @ torch.diag(torch.linspace(smallest, 3, size, dtype=torch.float64)) @ vectors.T


def test_solution_is_that_of_a_dense_solve_in_at_most_as_many_steps_as_unknowns() -> None:
    matrix, b = _positive(12), _normal(5, 3, 4, seed=2)
    found = conjugate_gradients(lambda x: (x.flatten(1) @ matrix).view_as(x), b, tolerance=1e-12)
    torch.testing.assert_close(found.x.flatten(1), torch.linalg.solve(matrix, b.flatten(1).T).T)
    assert int(found.iterations.max()) <= 14  # 12 in exact arithmetic
    exact = (b.flatten(1) - found.x.flatten(1) @ matrix).norm(dim=1) / b.flatten(1).norm(dim=1)
    assert (exact < 1e-11).all()
    assert (found.residual < 1e-12).all()


def test_steps_are_as_many_as_there_are_eigenvalues() -> None:
    values = torch.tensor([1.0, 1, 1, 4, 4, 9], dtype=torch.float64)
    assert conjugate_gradients(lambda x: values * x, _normal(2, 6)).iterations.tolist() == [3, 3]


def test_rows_stop_by_themselves() -> None:
    """A row of zeros, an eigenvector, one that was right from the start, and a hard one."""
    values = torch.linspace(0.01, 1, 50, dtype=torch.float64)
    b = torch.stack([torch.zeros(50).double(), torch.eye(50).double()[7], values, _normal(50)])
    start = torch.zeros_like(b)
    start[2] = 1
    found = conjugate_gradients(lambda x: values * x, b, start=start)
    assert found.iterations[:3].tolist() == [0, 1, 0]
    assert int(found.iterations[3]) > 10
    torch.testing.assert_close(found.x, b / values)
    alone = conjugate_gradients(lambda x: values * x, b[3:])
    assert torch.equal(alone.x[0], found.x[3])
    assert float(found.residual[0]) == 0


def test_a_perfect_preconditioner_needs_one_step() -> None:
    values = torch.logspace(-3, 3, 40, dtype=torch.float64)
    b = _normal(2, 40)
    plain = conjugate_gradients(lambda x: values * x, b)
    helped = conjugate_gradients(lambda x: values * x, b, preconditioner=lambda r: r / values)
    assert helped.iterations.tolist() == [1, 1]
    assert int(plain.iterations.min()) > 30
    torch.testing.assert_close(helped.x, b / values)


def test_what_has_not_converged_says_so() -> None:
    values = torch.logspace(-6, 0, 100, dtype=torch.float64)
    found = conjugate_gradients(lambda x: values * x, _normal(1, 100), iterations=5)
    assert found.iterations.tolist() == [5]
    assert float(found.residual[0]) > 1e-3


def test_singular_systems_have_the_solution_of_least_norm() -> None:
    factor = _normal(4, 9)
    gram, b = factor.T @ factor, _normal(3, 4, seed=2) @ factor
    found = least_norm_solve(lambda x: x @ gram, b)
    torch.testing.assert_close(found, b @ torch.linalg.pinv(gram))


def test_derivatives_of_solves_are_those_of_the_formula_twice() -> None:
    matrix = _positive(6)
    b, rho = (
        _normal(2, 6, seed=3).requires_grad_(),
        torch.tensor([[0.3], [1.0]], dtype=torch.float64, requires_grad=True),
    )

    def solved(b: Tensor, rho: Tensor) -> Tensor:
        return ridge_solve(lambda x: x @ matrix, b, rho, tolerance=1e-13)

    with torch.random.fork_rng(devices=[]):  # the second check draws what it multiplies with
        assert torch.autograd.gradcheck(solved, (b, rho))
        assert torch.autograd.gradgradcheck(solved, (b, rho))


def test_complex_vectors_live_in_the_real_inner_product() -> None:
    x, y = _normal(2, 3, dtype=torch.complex128), _normal(2, 3, seed=2, dtype=torch.complex128)
    torch.testing.assert_close(real_product(x, y), (x.conj() * y).sum(1).real)
    matrix = x.T @ x.conj() + torch.eye(3)
    found = conjugate_gradients(lambda v: v @ matrix, y)
    torch.testing.assert_close(found.x @ matrix, y)


@pytest.mark.parametrize("options", [{"tolerance": 0.0}, {"tolerance": -1.0}, {"iterations": 0}])
def test_bad_options_are_refused(options: dict) -> None:
    with pytest.raises(InputError, match="expected a tolerance > 0 and at least 1 iteration"):
        conjugate_gradients(lambda x: x, _normal(1, 3), **options)

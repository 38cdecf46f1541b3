"""The largest eigenvalue: against a dense decomposition, also where eigenvalues crowd below it."""

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.lanczos import largest_eigenvalue
from radiata_core.seeds import generator_of


@pytest.mark.parametrize("size", [1, 2, 40, 400])
def test_largest_eigenvalue_from_below(size: int) -> None:
    factor = torch.randn(size, size, generator=generator_of(size), dtype=torch.float64)
    start = torch.randn(1, size, generator=generator_of(0), dtype=torch.float64)
    exact = float(torch.linalg.matrix_norm(factor, 2)) ** 2
    found = largest_eigenvalue(lambda x: x @ factor @ factor.T, start)
    assert exact * (1 - 1e-3) <= found <= exact * (1 + 1e-12)


def test_crowded_spectra_need_few_steps() -> None:
    """2000 eigenvalues in [0, 1], even: power iteration takes 500 steps to 1e-3."""
    values, calls = torch.linspace(0, 1, 2000, dtype=torch.float64), 0

    def apply(x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return values * x

    start = torch.randn(1, 2000, generator=generator_of(1), dtype=torch.float64)
    assert largest_eigenvalue(apply, start) == pytest.approx(1, rel=1e-3)
    assert calls < 80


def test_multiples_of_the_identity_and_zero_stop_at_once() -> None:
    start = torch.ones(1, 5, dtype=torch.complex128)
    assert largest_eigenvalue(lambda x: 3 * x, start) == pytest.approx(3)
    assert largest_eigenvalue(lambda x: 0 * x, start) == 0


def test_bad_starts_and_operators_are_refused() -> None:
    with pytest.raises(InputError, match="expected a start that is not 0"):
        largest_eigenvalue(lambda x: x, torch.zeros(1, 3))
    with pytest.raises(InputError, match="expected finite numbers from the operator"):
        largest_eigenvalue(lambda x: x / 0, torch.ones(1, 3))

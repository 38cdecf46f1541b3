"""The released potential against automatic differentiation and the consequences that its form has for any kernel."""

import math
from collections.abc import Iterator

import pytest
import torch

from radiata_core.errors import InputError
from radiata_latents.model.paper_potential import (
    LARGEST_STIFFNESS,
    CoupledPotential,
    least_oscillating_stiffness,
)


@pytest.fixture(autouse=True)
def own_random_state() -> Iterator[None]:
    """Layers of torch begin with numbers of its global generator."""
    with torch.random.fork_rng():
        yield


def potential(hidden: int, seed: int, **options: float | bool) -> CoupledPotential:
    made = CoupledPotential(hidden, **options).double()  # type: ignore[arg-type]
    kernel = torch.randn(4, 4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    made.kernel.data.copy_(kernel)
    return made


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("hidden", [4, 8, 64])
def test_coupling_is_the_hessian_and_the_energy_its_form(hidden: int, normalised: bool) -> None:
    made = potential(hidden, 0, normalised=normalised)
    z = torch.randn(5, hidden, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    z.requires_grad_(True)
    energy = made.energy(z)
    (gradient,) = torch.autograd.grad(energy.sum(), z)
    coupling = made.coupling()
    torch.testing.assert_close(gradient, z @ coupling, rtol=1e-12, atol=1e-11)
    torch.testing.assert_close(energy, 0.5 * ((z @ coupling) * z).sum(1), rtol=1e-12, atol=1e-11)


def test_energy_is_the_double_sum_written_out() -> None:
    made = potential(12, 3)
    z = torch.randn(12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    kernel, sites = made.kernel / made.kernel.norm(dim=2, keepdim=True), z.reshape(4, 3)
    total = 0.0
    for i in range(4):
        for j in range(4):
            for c in range(4):
                for s in range(3):
                    for tap in range(3):
                        if 0 <= s + tap - 1 < 3:
                            total = total + kernel[i, c, tap] * sites[c, s + tap - 1] * sites[j, s]
    torch.testing.assert_close(made.energy(z[None])[0], total)


@pytest.mark.parametrize("hidden", [8, 64])
def test_half_of_the_space_is_free_and_the_form_is_indefinite(hidden: int) -> None:
    for seed in range(4):
        stiffness = torch.linalg.eigvalsh(potential(hidden, seed).coupling())
        assert int((stiffness.abs() > 1e-9).sum()) == hidden // 2
        assert int((stiffness > 1e-9).sum()) == hidden // 4 == int((stiffness < -1e-9).sum())


def test_eleven_numbers_of_forty_eight_act() -> None:
    """Kernels enter by their sum over output channels only, and what is antisymmetric and common to all four cancels."""
    made = potential(16, 0, normalised=False)

    def coupling_of(kernel: torch.Tensor) -> torch.Tensor:
        made.taps = lambda: kernel  # type: ignore[method-assign]
        return made.coupling().flatten()

    jacobian = torch.autograd.functional.jacobian(coupling_of, made.kernel.data.clone())
    assert torch.linalg.matrix_rank(jacobian.flatten(1)) == 11
    odd = torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64).expand(4, 4, 3)
    assert float(coupling_of(odd).abs().max()) == 0


def test_no_kernel_oscillates() -> None:
    """The bound holds for a kernel that is made to be stiff, which comes within a quarter of it, and the released step is
    30 times short of turning it: eigenvalues of the step are real up to the threshold and complex beyond."""
    made = potential(64, 0)
    made.kernel.data.fill_(1.0)
    stiffest = float(torch.linalg.eigvalsh(made.coupling().detach()).max())
    assert 0.75 * LARGEST_STIFFNESS < stiffest < LARGEST_STIFFNESS
    assert abs(LARGEST_STIFFNESS - 55.4) < 0.05
    for gamma, threshold in ((0.55, 1681), (0.7, 4083)):
        least = least_oscillating_stiffness(0.01, gamma)
        assert least == pytest.approx(threshold, abs=1)
        for stiffness, turns in ((stiffest, False), (0.999 * least, False), (1.001 * least, True)):
            step = torch.tensor(
                [[1, 0.01], [-(1 - gamma) * 0.01 * stiffness, 1 - gamma]], dtype=torch.float64
            )
            assert bool(torch.linalg.eigvals(step).imag.abs().max() > 0) is turns
    assert least_oscillating_stiffness(0.01, 1.0) == math.inf


def test_the_first_gradient_of_a_released_kernel_is_one_over_epsilon() -> None:
    for epsilon in (1e-12, 1e-3):
        made = CoupledPotential(8, epsilon=epsilon).double()
        made.energy(torch.ones(1, 8, dtype=torch.float64)).sum().backward()
        assert made.kernel.grad is not None
        assert float(made.kernel.grad.abs().max()) == pytest.approx(8 / epsilon)


@pytest.mark.parametrize("hidden", [0, 2, 6])
def test_latents_that_are_not_four_channels_are_refused(hidden: int) -> None:
    with pytest.raises(InputError, match="4 equal channels"):
        CoupledPotential(hidden)

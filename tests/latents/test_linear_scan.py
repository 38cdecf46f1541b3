"""The scan against a loop that is differentiated automatically, and against the law that it has at rest."""

import pytest
import torch
from torch import Tensor

from radiata_latents.model.linear_scan import langevin_scan


def looped(start: Tensor, kicks: Tensor, coupling: Tensor, step: float, keep: float) -> Tensor:
    z, v = start.unbind(1)
    positions, velocities = [z], [v]
    for t in range(kicks.shape[1]):
        z, v = z + step * v, keep * (v - step * z @ coupling.T) + kicks[:, t]
        positions.append(z)
        velocities.append(v)
    return torch.stack([torch.stack(positions, 1), torch.stack(velocities, 1)])


@pytest.mark.parametrize(("steps", "rows"), [(1, 1), (7, 3)])
def test_values_and_all_gradients_of_a_coupling_that_is_not_symmetric(steps: int, rows: int) -> None:
    g = torch.Generator().manual_seed(0)
    shapes = ((rows, 2, 4), (rows, steps, 4), (4, 4))
    given = [torch.randn(s, generator=g, dtype=torch.float64, requires_grad=True) for s in shapes]
    ours, theirs = (run(*given, 0.3, 0.6) for run in (langevin_scan, looped))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    pull = torch.randn(ours.shape, generator=g, dtype=torch.float64)
    for mine, automatic in zip(
        torch.autograd.grad((ours * pull).sum(), given),
        torch.autograd.grad((theirs * pull).sum(), given),
        strict=True,
    ):
        torch.testing.assert_close(mine, automatic, rtol=1e-11, atol=1e-12)
    assert torch.autograd.gradcheck(lambda *args: langevin_scan(*args, 0.3, 0.6), given)


def test_a_single_bin_is_its_start() -> None:
    start = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
    states = langevin_scan(start, torch.zeros(3, 0, 4), torch.eye(4), 0.1, 0.5)
    torch.testing.assert_close(states[:, :, 0], start.transpose(0, 1))


def test_nothing_is_recorded_a_bin() -> None:
    start = torch.zeros(1, 2, 4, requires_grad=True)
    states = langevin_scan(start, torch.zeros(1, 50, 4), torch.eye(4), 0.1, 0.5)
    seen, todo = set(), [states.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [parent for parent, _ in node.next_functions]
    assert len(seen) < 10


@pytest.mark.parametrize("gamma", [0.55, 0.7])
def test_variance_of_a_free_velocity_at_rest(gamma: float) -> None:
    """Released noise 2 gamma: variance 2 / (2 - gamma), not 1, and correlation 1 - gamma a bin. 64,000 numbers of
    correlation (1 - gamma)^|k|: within 4.5 standard errors, sd² 2 / n · (1 + d²) / (1 - d²) with d = 1 - gamma."""
    keep, n = 1 - gamma, 64_000
    kicks = (2 * gamma) ** 0.5 * torch.randn(
        64, 1050, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    v = langevin_scan(
        torch.zeros(64, 2, 1, dtype=torch.float64), kicks, torch.zeros(1, 1, dtype=torch.float64), 0.01, keep
    )[1, :, 51:, 0]
    rest = 2 / (2 - gamma)
    error = rest * (2 / n * (1 + keep**2) / (1 - keep**2)) ** 0.5
    assert abs(float(v.square().mean()) - rest) < 4.5 * error
    assert abs(rest - 1) > 40 * error
    lagged = float((v[:, 1:] * v[:, :-1]).mean() / v.square().mean())
    assert lagged == pytest.approx(keep, abs=4.5 * n**-0.5)

"""The scans against a loop that is differentiated automatically."""

import pytest
import torch
from torch import Tensor

from radiata_latents.model.flow_scan import linear_flow_scan, stiffening_flow_scan


def looped(start: Tensor, drive: Tensor, a: Tensor, b: Tensor, kick: Tensor, c: Tensor) -> Tensor:
    half, states = len(kick), [start]
    for t in range(drive.shape[1]):
        q = states[-1][:, :half]
        new = states[-1] @ a - c * (q**3 / (1 + q**2 / 9)) @ b + drive[:, t]
        q = new[:, :half]
        states.append(torch.cat([q, new[:, half:] - kick * c * q**3 / (1 + q**2 / 9)], 1))
    return torch.stack(states, 1)


def given(steps: int, rows: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    shapes = ((rows, 6), (rows, steps, 6), (6, 6), (3, 6), (3,), ())
    sizes = (1.0, 1.0, 0.3, 0.3, 0.5, 0.1)
    return [
        (size * torch.randn(shape, generator=g, dtype=torch.float64)).requires_grad_(True)
        for shape, size in zip(shapes, sizes, strict=True)
    ]


@pytest.mark.parametrize(("steps", "rows"), [(1, 1), (6, 3)])
def test_values_and_all_gradients(steps: int, rows: int) -> None:
    """Also at c = 0, where a derivative by division would not exist."""
    for still in (False, True):
        inputs = given(steps, rows)
        if still:
            inputs[5] = torch.zeros((), dtype=torch.float64, requires_grad=True)
        ours, theirs = stiffening_flow_scan(*inputs), looped(*inputs)
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
        pull = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        for mine, automatic in zip(
            torch.autograd.grad((ours * pull).sum(), inputs),
            torch.autograd.grad((theirs * pull).sum(), inputs),
            strict=True,
        ):
            torch.testing.assert_close(mine, automatic, rtol=1e-10, atol=1e-11)
    assert torch.autograd.gradcheck(stiffening_flow_scan, given(steps, rows))


def test_without_a_force_it_is_a_linear_recurrence() -> None:
    inputs = given(7, 2)[:3]
    ours = linear_flow_scan(*inputs)
    nothing = torch.zeros((), dtype=torch.float64)
    still = looped(*inputs, torch.zeros(3, 6).double(), torch.zeros(3).double(), nothing)
    torch.testing.assert_close(ours, still, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(linear_flow_scan, inputs)


def test_a_single_bin_is_its_start() -> None:
    inputs = given(1, 2)
    inputs[1] = torch.zeros(2, 0, 6, dtype=torch.float64)
    torch.testing.assert_close(stiffening_flow_scan(*inputs)[:, 0], inputs[0])
    torch.testing.assert_close(linear_flow_scan(*inputs[:3])[:, 0], inputs[0])

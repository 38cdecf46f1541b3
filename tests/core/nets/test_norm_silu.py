"""SiLU of a group norm against the two operations, and what it keeps."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from radiata_core.nets.norm_silu import norm_silu


def norm_of(channels: int, groups: int, generator: torch.Generator) -> nn.GroupNorm:
    norm = nn.GroupNorm(groups, channels, eps=1e-6, dtype=torch.float64)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.randn(channels, generator=generator, dtype=torch.float64))
    return norm


@pytest.mark.parametrize("grid", [(7,), (4, 5), (3, 4, 5)])
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_equals_the_two_operations_with_their_gradients(
    grid: tuple[int, ...], last: bool, generator: torch.Generator
) -> None:
    norm = norm_of(6, 3, generator)
    x = torch.randn(3, 6, *grid, generator=generator, dtype=torch.float64)
    if last and len(grid) > 1:
        x = x.contiguous(memory_format=torch.channels_last if len(grid) == 2 else torch.channels_last_3d)
    x.requires_grad_()
    want, got = F.silu(norm(x)), norm_silu(x, norm)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-13)
    upstream = torch.randn(want.shape, generator=generator, dtype=torch.float64)
    for a, b in zip(
        torch.autograd.grad(got, (x, norm.weight, norm.bias), upstream),
        torch.autograd.grad(want, (x, norm.weight, norm.bias), upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_gradients_are_those_of_differences_and_of_what_is_asked(generator: torch.Generator) -> None:
    norm = norm_of(4, 2, generator)
    x = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: norm_silu(x, norm), (x,))
    norm.weight.requires_grad_(False)
    norm_silu(x.detach(), norm).sum().backward()
    assert x.grad is None and norm.weight.grad is None
    want = torch.autograd.grad(F.silu(norm(x.detach())).sum(), norm.bias)[0]
    torch.testing.assert_close(norm.bias.grad, want, rtol=0, atol=1e-13)


def test_it_keeps_its_input_and_nothing_of_that_size_beside(generator: torch.Generator) -> None:
    """The two operations keep the normalised map as well."""
    norm = norm_of(4, 2, generator)
    base = torch.randn(2, 4, 50, generator=generator, dtype=torch.float64, requires_grad=True)

    def kept(activation: object) -> set[int]:
        x, found = base * 1.0, []  # fresh, and no leaf
        with torch.autograd.graph.saved_tensors_hooks(lambda t: (found.append(t), t)[1], lambda t: t):
            activation(x)
        return {t.data_ptr() for t in found if t.numel() == base.numel()} - {x.data_ptr()}

    assert len(kept(lambda x: norm_silu(x, norm))) == 0
    assert len(kept(lambda x: F.silu(norm(x)))) == 1

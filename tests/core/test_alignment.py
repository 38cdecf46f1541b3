"""Cosines by hand, targets on the hidden grid, and where gradients go."""

import pytest
import torch
import torch.nn.functional as F

from radiata_core.alignment import Alignment, averaged_on, spatially_standardised
from radiata_core.errors import InputError
from radiata_core.seeds import generator_of


def normal(*shape):
    return torch.randn(shape, generator=generator_of(len(shape)))


def test_targets_are_standardised_over_cells():
    y = 3 + 2 * normal(2, 3, 4, 5)
    z = spatially_standardised(y)
    torch.testing.assert_close(z.mean((2, 3)), torch.zeros(2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std((2, 3)), torch.ones(2, 3))
    half = spatially_standardised(y, 0.5)
    torch.testing.assert_close(
        (half - z) * y.std((2, 3), keepdim=True), 0.5 * y.mean((2, 3), keepdim=True).expand_as(y)
    )


def test_target_is_averaged_onto_the_hidden_grid():
    y = normal(1, 2, 4, 6)
    torch.testing.assert_close(averaged_on(y, (2, 3)), y.reshape(1, 2, 2, 2, 3, 2).mean((3, 5)))
    assert averaged_on(y, (4, 6)) is y


@pytest.mark.parametrize("projector", ["conv", "mlp"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_loss_is_the_negative_cosine(projector, dims):
    """By the definition, cell by cell; float32 for half-precision maps."""
    align = Alignment(3, 4, dims, projector=projector, hidden=8, standardise="none", weight=0.7)
    hidden, target = normal(2, 3, *[4] * dims), normal(2, 4, *[4] * dims)
    projected = align.projector(hidden).flatten(2).movedim(1, 2)
    wanted = target.flatten(2).movedim(1, 2)
    cosines = (projected * wanted).sum(-1) / projected.norm(dim=-1) / wanted.norm(dim=-1)
    torch.testing.assert_close(align(hidden, target), -0.7 * cosines.mean())
    assert align(hidden.bfloat16(), target.bfloat16()).dtype == torch.float32


def test_gradients_reach_the_hidden_maps_and_never_the_target():
    align = Alignment(3, 4, 2)
    hidden, target = normal(2, 3, 4, 4).requires_grad_(), normal(2, 4, 8, 8).requires_grad_()
    align(hidden, target).backward()
    assert hidden.grad.abs().max() > 0 and target.grad is None


def test_projector_learns_a_linear_map_of_the_hidden_maps():
    align = Alignment(4, 4, 2)
    hidden = normal(4, 4, 6, 6)
    target = F.conv2d(hidden, normal(4, 4, 3, 3), padding=1)
    optimiser = torch.optim.Adam(align.parameters(), 0.02)
    for _ in range(250):
        optimiser.zero_grad()
        align(hidden, target).backward()
        optimiser.step()
    assert float(align.cosine(hidden, target).detach()) > 0.8


def test_bad_input_is_refused_in_one_line():
    for wrong in ({"projector": "x"}, {"weight": -1.0}, {"gamma": 2.0}):
        with pytest.raises(InputError, match="expected"):
            Alignment(3, 4, 2, **wrong)
    with pytest.raises(InputError, match="hidden maps"):
        Alignment(3, 4, 2)(normal(2, 5, 4, 4), normal(2, 4, 4, 4))
    with pytest.raises(InputError, match="target maps"):
        Alignment(3, 4, 2)(normal(2, 3, 4, 4), normal(1, 4, 4, 4))

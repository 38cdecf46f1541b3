"""The U-Net: exact rearrangements, silence at the start, rows that do not see each other, missing covariates."""

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.nets.unet import UNet, depth_to_space, space_to_depth
from radiata_core.specs import describe, rebuild


def _noisy(network: UNet, generator: torch.Generator) -> UNet:
    """Fill every parameter (the zero-initialised too), so that nothing hides behind a zero."""
    for parameter in network.parameters():
        parameter.data.normal_(std=0.2, generator=generator)
    return network.eval()


def _small(dims: int = 3, **options: object) -> UNet:
    base = {
        "channels": (8, 16),
        "down_blocks": (0, 1),
        "up_blocks": (1, 1),
        "attention": (False, True),
        "embedding": 16,
    }
    with torch.random.fork_rng():
        return UNet(dims=dims, **(base | options))  # type: ignore[arg-type]


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_space_to_depth_is_an_isometry_and_inverts(dims: int, generator: torch.Generator) -> None:
    x = torch.randn(2, 3, *[4, 6, 8][:dims], generator=generator)
    folded = space_to_depth(x, 2)
    assert torch.equal(depth_to_space(folded, 2), x)
    assert folded.shape[1] == 3 * 2**dims
    corner = (slice(None), slice(None), *[slice(1, None, 2)] * dims)
    assert torch.equal(
        folded.unflatten(1, (3, -1))[:, :, -1], x[corner]
    )  # the last channel: odd positions everywhere


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_it_starts_silent_and_learns_everywhere(dims: int, generator: torch.Generator) -> None:
    network = _small(dims)
    x = torch.randn(2, 1, *[8] * dims, generator=generator)
    assert not network(x, torch.zeros(2)).any()
    y = _noisy(network, generator)(x, torch.zeros(2))
    assert y.shape == x.shape
    y.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_rows_do_not_see_each_other(generator: torch.Generator) -> None:
    network = _noisy(_small(covariates=2, shape=(8, 8, 8)), generator).double()
    x = torch.randn(3, 1, 8, 8, 8, generator=generator, dtype=torch.float64)
    level = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    c = torch.tensor([[0.1, torch.nan], [torch.nan, torch.nan], [1.0, -1.0]], dtype=torch.float64)
    together = network(x, level, c)
    alone = torch.cat([network(x[i : i + 1], level[i : i + 1], c[i : i + 1]) for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-10)


def test_nan_means_not_given_and_zero_means_zero(generator: torch.Generator) -> None:
    network = _noisy(_small(covariates=2), generator)
    x, level = torch.randn(1, 1, 8, 8, 8, generator=generator), torch.zeros(1)
    nothing = network(x, level, torch.full((1, 2), torch.nan))
    assert torch.equal(nothing, network(x, level))
    assert not torch.allclose(nothing, network(x, level, torch.zeros(1, 2)), atol=1e-4)
    assert torch.isfinite(nothing).all()


def test_without_positions_it_commutes_with_shifts_inside(generator: torch.Generator) -> None:
    """No positions, no attention: shifting the input by the coarsest stride shifts the output (away from the border)."""
    network = _noisy(_small(dims=1, attention=(False, False)), generator).double()
    x = torch.zeros(1, 1, 128, dtype=torch.float64)
    x[..., 60:68] = torch.randn(8, generator=generator, dtype=torch.float64)
    level = torch.zeros(1, dtype=torch.float64)
    shifted = network(x.roll(4, -1), level)
    assert torch.allclose(shifted[..., 44:88], network(x, level).roll(4, -1)[..., 44:88], atol=1e-9)
    placed = _noisy(_small(dims=1, attention=(False, False), shape=(128,)), generator).double()
    assert not torch.allclose(
        placed(x.roll(4, -1), level)[..., 44:88], placed(x, level).roll(4, -1)[..., 44:88], atol=1e-3
    )


def test_a_grid_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="divide by 4"):
        _small()(torch.zeros(1, 1, 8, 8, 6), torch.zeros(1))
    with pytest.raises(InputError, match="knows its positions"):
        _small(shape=(8, 8, 8))(torch.zeros(1, 1, 8, 8, 12), torch.zeros(1))
    with pytest.raises(InputError, match="one entry a level"):
        _small(attention=(True,))


def test_a_destination_starts_silent_and_then_counts(generator: torch.Generator) -> None:
    """A denoiser's weights start a flow map: the second time changes nothing until it is trained."""
    small = {
        "dims": 1,
        "channels": (8, 8),
        "down_blocks": (0, 1),
        "up_blocks": (1, 1),
        "attention": (False, False),
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain, jumping = UNet(**small), UNet(**small, destination=True)  # type: ignore[arg-type]
        for parameter in plain.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    missing, unexpected = jumping.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and missing == ["embed_destination.weight", "embed_destination.bias"]
    x, level = torch.randn(3, 1, 8, generator=generator), torch.tensor([0.5, -1.0, 2.0])
    assert torch.equal(jumping(x, level, target_level=level + 2), plain(x, level))
    with torch.no_grad():
        jumping.embed_destination.weight.normal_(generator=generator)  # type: ignore[union-attr, operator]
    assert torch.equal(jumping(x, level), jumping(x, level, target_level=level))
    assert not torch.allclose(jumping(x, level), jumping(x, level, target_level=level + 2))


def test_with_channel_norm_a_voxel_sees_its_neighbourhood_only(generator: torch.Generator) -> None:
    """A change far away moves nothing at all, where group norm moves everything; and the card says which norm it is."""
    reached = {}
    for norm in ("channel", "group"):
        network = _noisy(_small(dims=2, attention=(False, False), norm=norm), generator)
        x = torch.randn(1, 1, 64, 64, generator=generator)
        other = x.clone()
        other[..., 48:] += 1.0
        level = torch.zeros(1)
        with torch.no_grad():
            reached[norm] = float((network(x, level) - network(other, level))[..., :16].abs().max())
    assert reached["channel"] == 0.0 < reached["group"]
    with torch.random.fork_rng():
        assert rebuild(describe(network)).options == network.options


def test_an_unknown_norm_is_refused() -> None:
    with pytest.raises(InputError, match="expected norm group or channel; got 'batch'"):
        UNet(norm="batch")

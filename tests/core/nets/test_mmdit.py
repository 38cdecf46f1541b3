"""The MM-DiT network: silence at the start, rows and contexts on their own, positions of any grid, and it learns."""

import pytest
import torch
from torch import Tensor

from radiata_core.denoisers import Guided, NetworkDenoiser
from radiata_core.errors import InputError
from radiata_core.flowmaps import NetworkFlowMap
from radiata_core.nets.mmdit import MMDiT, position_grid, sinusoids
from radiata_core.objectives import Regression
from radiata_core.paths import LinearPath
from radiata_core.predictions import Prediction
from radiata_core.seeds import generators_of
from radiata_core.specs import describe, rebuild
from radiata_core.times import LogNormalSNR


def _small(dims: int = 2, **options: object) -> MMDiT:
    base = {"depth": 2, "heads": 2, "head": 12, "frequencies": 8}
    with torch.random.fork_rng():
        return MMDiT(dims=dims, **(base | options))  # type: ignore[arg-type]


def _noisy(network: MMDiT, generator: torch.Generator) -> MMDiT:
    for parameter in network.parameters():
        parameter.data.normal_(std=0.2, generator=generator)
    return network.eval()


def _draw(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_it_starts_silent_and_learns_everywhere(dims: int, generator: torch.Generator) -> None:
    network = _small(dims, context=5, covariates=2, in_channels=2)
    x = torch.randn(2, 2, *[4, 6, 8][:dims], generator=generator)
    context = torch.randn(2, 3, 5, generator=generator)
    assert not network(x, torch.zeros(2), None, context).any()
    y = _noisy(network, generator)(x, torch.zeros(2), torch.ones(2, 2), context)
    assert y.shape == (2, 1, *x.shape[2:])
    y.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_patches_come_back_where_they_were(generator: torch.Generator) -> None:
    """With no blocks in the way (gates zero) a voxel of the output depends on the voxels of its own patch only."""
    network = _small(2, patch=2).double()
    network.head.weight.data.normal_(generator=generator)
    x = _draw(generator, 1, 1, 4, 6).requires_grad_()
    network(x, torch.zeros(1, dtype=torch.float64))[0, 0, 2, 5].backward()
    assert x.grad is not None
    touched = x.grad[0, 0] != 0
    assert touched[2:4, 4:6].all()
    assert touched.sum() == 4


def test_rows_and_lengths_of_context_do_not_see_each_other(generator: torch.Generator) -> None:
    """A batch with contexts of 3, 1 and no words, padded with NaN, is three batches of one."""
    network = _noisy(_small(context=5, covariates=2), generator).double()
    x, level = _draw(generator, 3, 1, 6, 4), torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    c = torch.tensor([[0.1, torch.nan], [torch.nan, torch.nan], [1.0, -1.0]], dtype=torch.float64)
    context = _draw(generator, 3, 3, 5)
    context[1, 1:], context[2] = torch.nan, torch.nan
    together = network(x, level, c, context)
    rows = [(context[:1], 0), (context[1:2, :1], 1), (None, 2)]
    alone = torch.cat([network(x[i : i + 1], level[i : i + 1], c[i : i + 1], words) for words, i in rows])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)
    torch.testing.assert_close(
        network(x[1:2], level[1:2], None, None),
        network(x[1:2], level[1:2], c[1:2], None),
        rtol=0,
        atol=1e-12,
    )


def test_positions_are_extended_interpolated_and_cropped() -> None:
    """SD3's section 5.3.2 by its own formula: ((p - (h_max - s)/2) 256/S), p = 0 … h_max - 1, then a centre crop."""
    torch.testing.assert_close(
        position_grid((4, 6), (4, 6))[:, 1], torch.arange(6, dtype=torch.float64).repeat(4)
    )
    base, s = 16, 64  # 256 pixels in training, 1024 in use, patches of 2 pixels of latents of 8
    h, w = 32, 128  # of the same area as 64 x 64

    def axis(n: int, longest: int = 128) -> Tensor:
        grid = (torch.arange(longest, dtype=torch.float64) - (longest - s) / 2) * base / s
        first = (longest - n) // 2
        return grid[first : first + n]

    made = position_grid((h, w), (base, base)).reshape(h, w, 2)
    torch.testing.assert_close(made[:, 0, 0], axis(h), rtol=0, atol=1e-12)
    torch.testing.assert_close(made[0, :, 1], axis(w), rtol=0, atol=1e-12)
    volume = position_grid((8, 8, 8), (4, 4, 4)).reshape(8, 8, 8, 3)
    torch.testing.assert_close(volume[0, 0, :, 2], torch.arange(8, dtype=torch.float64) / 2)


def test_sinusoids_are_diffusers(generator: torch.Generator) -> None:
    """Per axis sin and cos of p / 10000^(k/n); diffusers puts the last axis first."""
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    theirs = embeddings.get_2d_sincos_pos_embed(16, (3, 5), base_size=1, output_type="pt")
    ours = sinusoids(position_grid((3, 5)) / torch.tensor([3.0, 5.0]), 16)
    swapped = torch.cat([ours[:, 8:], ours[:, :8]], 1)
    torch.testing.assert_close(swapped.float(), theirs.float(), rtol=0, atol=1e-5)
    assert not sinusoids(position_grid((3, 5)), 18)[:, 16:].any()


def test_a_known_place_matters_and_any_grid_is_taken(generator: torch.Generator) -> None:
    network = _noisy(_small(shape=(8, 8)), generator).double()
    x, level = _draw(generator, 1, 1, 8, 8), torch.zeros(1, dtype=torch.float64)
    rolled = network(x.roll(2, -1), level).roll(-2, -1)
    assert (rolled - network(x, level)).abs().max() > 1e-3
    assert network(_draw(generator, 1, 1, 4, 16), level).shape == (1, 1, 4, 16)


def test_a_denoiser_is_a_flow_map_at_the_start(generator: torch.Generator) -> None:
    """The destination's embedding is zero at first, so the weights of a denoiser load and mean the same."""
    denoiser = _noisy(_small(context=3), generator)
    student = _small(context=3, destination=True)
    assert student.load_state_dict(denoiser.state_dict(), strict=False).missing_keys == [
        "embed_destination.weight",
        "embed_destination.bias",
    ]
    x, t, s = torch.randn(2, 1, 4, 4, generator=generator), torch.tensor([0.9, 0.5]), torch.tensor([0.2, 0.0])
    path = LinearPath()
    flow_map = NetworkFlowMap(student, path, Prediction.VELOCITY)
    plain = NetworkDenoiser(denoiser, path, Prediction.VELOCITY)
    torch.testing.assert_close(flow_map(x, t, s), plain(x, t))


def test_it_survives_json() -> None:
    network = NetworkDenoiser(_small(3, context=7, shape=(8, 8, 8)), LinearPath(), "velocity")
    with torch.random.fork_rng():
        again = rebuild(describe(network))
    assert describe(again) == describe(network)


def test_it_learns_what_the_context_says(generator: torch.Generator) -> None:
    """Trained as any network, it tells two images by their word at a noise of 19, where x says nothing.

    Whoever answers the mean is off by 0.71, the other image by 1.41. Guidance needs no null token.
    """
    network = _small(1, context=2, head=8)
    path = LinearPath()
    denoiser = NetworkDenoiser(network, path, Prediction.VELOCITY)
    objective = Regression(path, LogNormalSNR())
    images = torch.tensor([[[1.0, 1.0, -1.0, -1.0]], [[-1.0, 1.0, -1.0, 1.0]]])
    words = torch.eye(2)[:, None]
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for step in range(120):
        pick = torch.randint(2, (32,), generator=generator)
        context = words[pick].masked_fill(torch.rand(32, 1, 1, generator=generator) < 0.3, torch.nan)
        seeds = range(32 * step, 32 * step + 32)
        loss = objective(denoiser, images[pick], generators_of(seeds), context=context).value
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    x, late = torch.randn(64, 1, 4, generator=generator), torch.tensor(0.95, dtype=torch.float64)
    images, words = images.repeat(32, 1, 1), words.repeat(32, 1, 1)
    with torch.no_grad():
        said = denoiser(x, late, context=words)
        unsaid = denoiser(x, late)
        guided = Guided(denoiser, 2.0)(x, late, context=words)
    assert (said - images).square().mean().sqrt() < 0.45
    assert (unsaid - images[:2].mean(0)).square().mean().sqrt() < 0.6
    torch.testing.assert_close(guided, 2 * said - unsaid, rtol=1e-4, atol=1e-5)


def test_half_precision_agrees_with_single(generator: torch.Generator) -> None:
    """Weights in bfloat16, and autocast, within a fiftieth of the output's size, absent words and all."""
    network = _noisy(_small(context=5, covariates=2), generator)
    x, level = torch.randn(2, 1, 8, 8, generator=generator), torch.tensor([1.5, -2.0])
    context = torch.randn(2, 3, 5, generator=generator)
    context[1] = torch.nan
    with torch.no_grad():
        whole = network(x, level, None, context)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = network(x, level, None, context)
        half = network.bfloat16()(x.bfloat16(), level, None, context.bfloat16())
    for other in (mixed, half):
        assert other.dtype == torch.bfloat16
        assert (other.float() - whole).abs().mean() < 0.02 * whole.abs().mean()


def test_bad_input_is_refused(generator: torch.Generator) -> None:
    x, level = torch.zeros(1, 1, 5, 4), torch.zeros(1)
    with pytest.raises(InputError, match="divide by 2; got 5x4"):
        _small()(x, level)
    with pytest.raises(InputError, match="context tokens of 0 features; got 3"):
        _small()(x[:, :, :4], level, context=torch.zeros(1, 2, 3))
    with pytest.raises(InputError, match="dims 1, 2 or 3"):
        _small(4)
    with pytest.raises(InputError, match="as many axes"):
        position_grid((4, 4), (4,))

"""The n-dimensional transformer: silence, places, rows on their own, windows, skips, and what is the same by two routes."""

import contextvars
import itertools

import pytest
import torch
from torch import Tensor

from radiata_core.denoisers import Guided, NetworkDenoiser
from radiata_core.errors import InputError
from radiata_core.flowmaps import NetworkFlowMap
from radiata_core.nets.rotary import token_coordinates
from radiata_core.nets.transformer import Placed, Transformer
from radiata_core.objectives import Regression
from radiata_core.paths import LinearPath
from radiata_core.predictions import Prediction
from radiata_core.seeds import generators_of
from radiata_core.specs import describe, rebuild
from radiata_core.times import LogNormalSNR

SHAPES = {0: (7,), 1: (8,), 2: (5, 8), 3: (4, 6, 5)}


def _small(dims: int = 2, **options: object) -> Transformer:
    base = {"patch": 2 if dims else 1, "depth": 3, "heads": 2, "head": 12, "frequencies": 8}
    with torch.random.fork_rng():
        return Transformer(dims=dims, **(base | options))  # type: ignore[arg-type]


def _noisy(network: Transformer, generator: torch.Generator, std: float = 0.2) -> Transformer:
    for parameter in network.parameters():
        parameter.data.normal_(std=std, generator=generator)
    return network.eval()


def _draw(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


ZERO = torch.zeros(1, dtype=torch.float64)


# Silence, learning ------------------------------------------------------------------------------------------------------

CONVOLUTIONAL = {"conv_stem": True, "final_conv": True, "windows": "WG", "window": 2}


@pytest.mark.parametrize(
    ("dims", "options"),
    [
        (0, {}),
        (1, CONVOLUTIONAL),
        (2, {"shared_modulation": True, "absolute": True, "skips": False}),
        (3, CONVOLUTIONAL | {"shared_modulation": True}),
        (3, {"patch": (1, 2, 3)}),
    ],
)
def test_it_starts_silent_and_learns_everywhere(
    dims: int, options: dict[str, object], generator: torch.Generator
) -> None:
    network = _small(dims, context=5, covariates=2, in_channels=2, out_channels=3, **options)
    x = torch.randn(2, 2, *SHAPES[dims], generator=generator)
    context = torch.randn(2, 3, 5, generator=generator)
    assert not network(x, torch.zeros(2), None, context).any()
    y = _noisy(network, generator)(x, torch.zeros(2), torch.ones(2, 2), context)
    assert y.shape == (2, 3, *x.shape[2:])
    y.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize("shared", [False, True])
def test_new_blocks_and_skips_are_the_identity(shared: bool, generator: torch.Generator) -> None:
    """What comes out of the last block is what the patches were, bit for bit, though skips are concatenated."""
    network = _small(2, depth=5, shared_modulation=shared, context=4).double()
    seen: list[Tensor] = []
    network.embed_patch.register_forward_hook(lambda *a: seen.append(a[-1]))
    network.blocks[-1].register_forward_hook(lambda *a: seen.append(a[-1][0]))
    network(_draw(generator, 2, 1, 4, 6), ZERO, None, _draw(generator, 2, 3, 4))
    assert torch.equal(seen[0], seen[1])


def test_skips_join_the_first_block_to_the_last(generator: torch.Generator) -> None:
    """Linear([x, skip]) = skip in all: the k-th block from the end reads what the k-th wrote."""
    network = _noisy(_small(1, depth=5), generator).double()
    width = network.width
    for layer in network.skips:
        layer.weight.data.copy_(torch.eye(2 * width)[width:])
        layer.bias.data.zero_()
    read: dict[int, Tensor] = {}
    written: dict[int, Tensor] = {}
    for index, block in enumerate(network.blocks):
        block.register_forward_pre_hook(lambda _, a, i=index: read.update({i: a[0]}))
        block.register_forward_hook(lambda _, __, y, i=index: written.update({i: y[0]}))
    network(_draw(generator, 1, 1, 8), ZERO)
    assert torch.equal(read[4], written[0])
    assert torch.equal(read[3], written[1])
    assert torch.equal(read[2], written[1])  # no skip in the middle


def test_shared_modulation_is_a_network_whose_modulations_are_one(generator: torch.Generator) -> None:
    """adaLN-single = adaLN-zero with equal weights and the table added to the bias, and a third fewer parameters."""
    single = _noisy(_small(2, context=4, shared_modulation=True), generator).double()
    zero = _small(2, context=4).double()
    state = dict(single.state_dict())
    weight, bias = state.pop("shared.weight"), state.pop("shared.bias")
    for name in [name for name in state if name.endswith(".table")]:
        table = state.pop(name)
        stream = name.removesuffix("table")
        state[f"{stream}modulation.weight"] = weight[: len(table)]
        state[f"{stream}modulation.bias"] = bias[: len(table)] + table
    zero.load_state_dict(state)
    x, context = _draw(generator, 2, 1, 4, 6), _draw(generator, 2, 3, 4)
    level = torch.tensor([0.3, -2.0], dtype=torch.float64)
    torch.testing.assert_close(
        single(x, level, None, context), zero(x, level, None, context), rtol=0, atol=1e-12
    )
    deep = [sum(p.numel() for p in _small(depth=12, shared_modulation=s).parameters()) for s in (False, True)]
    assert deep[1] < 0.75 * deep[0]


def test_it_learns_where_a_voxel_is(generator: torch.Generator) -> None:
    """Trained as any network, predicting x_0 at a noise of 99, it tells the left half from the right by `absolute`.

    Whoever answers the mean is off by 1, and so is who knows distances only: the mirror image has the same ones.
    """
    path, image = LinearPath(), torch.tensor([1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0]).expand(16, 1, 8)
    denoiser = NetworkDenoiser(_small(1, depth=2, absolute=True), path, Prediction.X0)
    objective = Regression(path, LogNormalSNR(2.0))
    optimiser = torch.optim.AdamW(denoiser.parameters(), lr=1e-2)
    for step in range(40):
        loss = objective(denoiser, image, generators_of(range(16 * step, 16 * step + 16))).value
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    x = torch.randn(16, 1, 8, generator=generator)
    with torch.no_grad():
        said = denoiser(x, torch.tensor(0.99, dtype=torch.float64))
    assert (said - image).square().mean().sqrt() < 0.3


# Places -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_only_distances_in_millimetres_matter(dims: int, generator: torch.Generator) -> None:
    """The origin changes nothing; it does with `absolute`. The spacing does; and in proportion to `unit` it does not."""
    network = _noisy(_small(dims), generator).double()
    x = _draw(generator, 1, 1, *SHAPES[dims])
    here = network(x, ZERO)
    torch.testing.assert_close(network(x, ZERO, origin=[-70.5] * dims), here, rtol=0, atol=1e-9)
    assert (network(x, ZERO, spacing=[1.7] * dims) - here).abs().max() > 1e-4
    other = _small(dims, unit=2 * 1.7).double()
    other.load_state_dict(network.state_dict())
    torch.testing.assert_close(other(x, ZERO, spacing=[1.7] * dims), here, rtol=0, atol=1e-10)
    aware = _small(dims, absolute=True).double()
    aware.load_state_dict(network.state_dict())
    assert (aware(x, ZERO, origin=[9.0] * dims) - aware(x, ZERO)).abs().max() > 1e-4


def test_a_periodic_image_moves_with_its_content(generator: torch.Generator) -> None:
    """Patches that are exchanged together with their coordinates come out exchanged: no order is built in."""
    network = _noisy(_small(2, windows="G"), generator).double()
    x, places = _draw(generator, 1, 1, 4, 8), token_coordinates((2, 4), (2, 2))
    swapped = x.roll(4, -1)
    moved = places.reshape(2, 4, 2).roll(2, 1).reshape(1, 8, 2)
    torch.testing.assert_close(
        network(swapped, ZERO, coordinates=moved).roll(-4, -1), network(x, ZERO), rtol=0, atol=1e-10
    )


def test_plain_tokens_with_places_are_the_image(generator: torch.Generator) -> None:
    """Two routes: an image of patch 1, and its voxels as tokens in any order with their coordinates."""
    image = _noisy(_small(2, patch=1, in_channels=2), generator).double()
    plain = _small(0, in_channels=2).double()
    plain.load_state_dict(image.state_dict())
    x, spacing = _draw(generator, 2, 2, 3, 4), (1.3, 0.6)
    order = torch.randperm(12, generator=generator)
    places = token_coordinates((3, 4), spacing=spacing)[0]
    said = plain(x.flatten(2)[:, :, order], ZERO, coordinates=places[order])
    expected = image(x, ZERO, spacing=spacing).flatten(2)[:, :, order]
    torch.testing.assert_close(said, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(
        image(x, ZERO, coordinates=places), image(x, ZERO, spacing=spacing), rtol=0, atol=1e-12
    )
    alone = plain(x.flatten(2), ZERO)
    torch.testing.assert_close(plain(x.flatten(2)[:, :, order], ZERO), alone[:, :, order], rtol=0, atol=1e-10)


@pytest.mark.parametrize("final_conv", [False, True])
def test_grids_that_the_patch_does_not_divide_are_continued_and_cut(
    final_conv: bool, generator: torch.Generator
) -> None:
    network = _noisy(_small(2, patch=(4, 3), final_conv=final_conv), generator).double()
    x = _draw(generator, 1, 1, 6, 8)
    whole = torch.nn.functional.pad(x, (0, 1, 0, 2), mode="replicate")
    torch.testing.assert_close(network(x, ZERO), network(whole, ZERO)[..., :6, :8], rtol=0, atol=1e-12)
    assert network.token_grid((6, 8)) == (2, 3)


# Rows -------------------------------------------------------------------------------------------------------------------


def test_rows_do_not_see_each_other(generator: torch.Generator) -> None:
    """A batch of levels, covariates, contexts of 3, 1 and no words, and spacings is three batches of one."""
    network = _noisy(_small(context=5, covariates=2, windows="WG", window=(2, 3)), generator).double()
    x, level = _draw(generator, 3, 1, 6, 9), torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    c = torch.tensor([[0.1, torch.nan], [torch.nan, torch.nan], [1.0, -1.0]], dtype=torch.float64)
    context = _draw(generator, 3, 3, 5)
    context[1, 1:], context[2] = torch.nan, torch.nan
    spacing = torch.tensor([[1.0, 1.0], [2.0, 0.5], [1.0, 3.0]])
    together = network(x, level, c, context, spacing=spacing)
    rows = [(context[:1], 0), (context[1:2, :1], 1), (None, 2)]
    alone = [
        network(x[i : i + 1], level[i : i + 1], c[i : i + 1], words, spacing=spacing[i].tolist())
        for words, i in rows
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-10)
    torch.testing.assert_close(
        network(x[1:2], level[1:2]), network(x[1:2], level[1:2], c[1:2]), rtol=0, atol=1e-12
    )


def test_not_given_is_not_zero(generator: torch.Generator) -> None:
    """A covariate that is NaN is flagged, not read as 0; a word with one NaN in it is no word; words have no order."""
    network = _noisy(_small(context=5, covariates=1), generator).double()
    x, context = _draw(generator, 1, 1, 4, 6), _draw(generator, 1, 3, 5)
    unknown, zero = torch.full((1, 1), torch.nan, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    assert (network(x, ZERO, unknown) - network(x, ZERO, zero)).abs().max() > 1e-3
    expected = network(x, ZERO, None, context[:, :2])
    torch.testing.assert_close(network(x, ZERO, None, context[:, [1, 0]]), expected, rtol=0, atol=1e-10)
    context[0, 2, 1] = torch.nan
    torch.testing.assert_close(network(x, ZERO, None, context), expected, rtol=0, atol=1e-10)


def test_a_denoiser_is_a_flow_map_at_the_start(generator: torch.Generator) -> None:
    denoiser = _noisy(_small(context=3), generator)
    student = _small(context=3, destination=True)
    missing = student.load_state_dict(denoiser.state_dict(), strict=False).missing_keys
    assert missing == ["embed_destination.weight", "embed_destination.bias"]
    x, t, s = torch.randn(2, 1, 4, 4, generator=generator), torch.tensor([0.9, 0.5]), torch.tensor([0.2, 0.0])
    path = LinearPath()
    flow_map = NetworkFlowMap(student, path, Prediction.VELOCITY)
    plain = NetworkDenoiser(denoiser, path, Prediction.VELOCITY)
    torch.testing.assert_close(flow_map(x, t, s), plain(x, t))


def test_guidance_keeps_the_geometry(generator: torch.Generator) -> None:
    """`Guided` drops every condition by NaN; geometry may not be dropped, and is not where it is settled."""
    network = _noisy(_small(covariates=1), generator).double()
    x, c, t = _draw(generator, 1, 1, 4, 6), torch.ones(1, 1, dtype=torch.float64), ZERO[0] + 0.5
    spacing, path = torch.tensor([1.0, 2.5]), LinearPath()
    bare = NetworkDenoiser(network, path, Prediction.VELOCITY)
    settled = NetworkDenoiser(Placed(network, spacing=spacing), path, Prediction.VELOCITY)
    torch.testing.assert_close(
        settled(x, t, covariates=c), bare(x, t, covariates=c, spacing=spacing), rtol=0, atol=0
    )
    guided = Guided(settled, 2.0)(x, t, covariates=c)
    expected = 2 * bare(x, t, covariates=c, spacing=spacing) - bare(x, t, spacing=spacing)
    torch.testing.assert_close(guided, expected, rtol=0, atol=1e-12)
    with pytest.raises(InputError, match="Placed"):
        Guided(bare, 2.0)(x, t, covariates=c, spacing=spacing)


# Windows ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_windows_that_cover_the_grid_are_global(dims: int, generator: torch.Generator) -> None:
    network = _noisy(_small(dims, context=3), generator).double()
    x, context = _draw(generator, 2, 1, *SHAPES[dims]), _draw(generator, 2, 2, 3)
    context[1, 1] = torch.nan
    everywhere = network(x, ZERO, None, context)
    for window, same in ((4, True), (1, False)):
        other = _small(dims, context=3, windows="W", window=window).double()
        other.load_state_dict(network.state_dict())
        gap = (other(x, ZERO, None, context) - everywhere).abs().max()
        assert (gap < 1e-10) == same


def test_a_window_is_not_left_and_displaced_windows_tile_without_a_seam(generator: torch.Generator) -> None:
    """One block: a token hears its window. Two displaced blocks: information crosses, yet never from edge to edge."""

    def heard(depth: int) -> list[int]:
        network = _noisy(_small(1, patch=1, depth=depth, windows="W", window=4, skips=False), generator)
        x = torch.randn(1, 1, 12, generator=generator).requires_grad_()
        network(x, torch.zeros(1))[0, 0, 0].backward()
        assert x.grad is not None
        return x.grad[0, 0].nonzero().flatten().tolist()

    assert heard(1) == [0, 1, 2, 3]
    # The second block sees {0, 1}, {2 … 5}, {6 … 9}, {10, 11}: of the first window, 0 and 1 hear all of it.
    assert heard(2) == [0, 1, 2, 3]
    assert heard(3) == [0, 1, 2, 3, 4, 5, 6, 7]


def test_every_offset_of_windows_comes_once() -> None:
    network = _small(3, depth=10, windows="WWWWG", window=(4, 6, 2))
    assert [index for index, place in enumerate(network.layout) if place is None] == [4, 9]
    shifts = [place[1] for place in network.layout if place is not None]
    assert shifts[:2] == [(0, 0, 0), (2, 3, 1)]
    assert sorted(shifts) == sorted(itertools.product((0, 2), (0, 3), (0, 1)))


# Convolutions, checkpointing, files, precision ----------------------------------------------------------------------------


def test_convolutions_reach_across_the_border_of_a_patch(generator: torch.Generator) -> None:
    """With silent blocks a voxel at a border depends on its own patch; on more with a stem or a last convolution."""
    touched = {}
    for option in ("", "conv_stem", "final_conv"):
        network = _small(1, patch=4, **({option: True} if option else {})).double()
        network.head.weight.data.normal_(generator=generator)
        if network.final_conv is not None:
            network.final_conv.weight.data.normal_(generator=generator)
        x = _draw(generator, 1, 1, 16).requires_grad_()
        network(x, ZERO)[0, 0, 4].backward()
        assert x.grad is not None
        touched[option] = set(x.grad[0, 0].nonzero().flatten().tolist())
    assert touched[""] == {4, 5, 6, 7}
    assert touched["final_conv"] == set(range(8))
    assert touched["conv_stem"] > {3, 4, 5, 6, 7, 8}


def test_a_new_last_convolution_changes_nothing(generator: torch.Generator) -> None:
    plain, more = _small(2).double(), _small(2, final_conv=True).double()
    plain.head.weight.data.normal_(generator=generator)
    more.load_state_dict(plain.state_dict(), strict=False)
    x = _draw(generator, 1, 1, 4, 6)
    torch.testing.assert_close(more(x, ZERO), plain(x, ZERO), rtol=0, atol=1e-12)
    assert plain(x, ZERO).any()


def test_checkpointing_changes_no_gradient_and_keeps_the_context(generator: torch.Generator) -> None:
    """What is computed again in the backward pass hears the context variables of the forward pass."""
    gain: contextvars.ContextVar[float] = contextvars.ContextVar("gain", default=1.0)
    calls = []

    def gradients(checkpointing: bool, handled: float) -> list[Tensor]:
        network = _noisy(
            _small(2, context=3, windows="WG", window=2), torch.Generator().manual_seed(1)
        ).train()
        network.checkpointing = checkpointing
        for block in network.blocks:
            block.register_forward_pre_hook(lambda _, a: (calls.append(0), (gain.get() * a[0], *a[1:]))[1])
        draw = torch.Generator().manual_seed(2)
        x, words = torch.randn(2, 1, 8, 6, generator=draw), torch.randn(2, 2, 3, generator=draw)
        token = gain.set(handled)
        y = network(x, torch.tensor([0.5, -1.0]), None, words)
        gain.reset(token)
        y.square().sum().backward()
        return [p.grad for p in network.parameters() if p.grad is not None]

    plain = gradients(False, 2.0)
    assert len(calls) == 3
    again = gradients(True, 2.0)
    assert len(calls) == 3 + 6
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    assert not torch.equal(plain[0], gradients(True, 1.0)[0])


def test_it_survives_json_and_keeps_its_outputs(generator: torch.Generator) -> None:
    network = _noisy(
        _small(
            3, context=7, patch=(2, 1, 2), windows="WG", window=[2, 3, 2], shared_modulation=True, unit=2.0
        ),
        generator,
    )
    denoiser = NetworkDenoiser(network, LinearPath(), "velocity")
    with torch.random.fork_rng():
        again = rebuild(describe(denoiser))
    assert describe(again) == describe(denoiser)
    again.load_state_dict(denoiser.state_dict())
    x, t = torch.randn(1, 1, 4, 3, 6, generator=generator), torch.tensor(0.5)
    assert torch.equal(again(x, t), denoiser(x, t))


def test_places_made_while_sampling_serve_in_training(generator: torch.Generator) -> None:
    """They are kept from call to call, and may not be tensors of the inference mode; on "meta" a call costs nothing."""
    network = _noisy(_small(), generator)
    x, level = torch.randn(1, 1, 4, 4, generator=generator), torch.zeros(1)
    with torch.inference_mode():
        sampled = network(x, level)
    trained = network(x, level)
    trained.sum().backward()
    assert torch.equal(trained.detach(), sampled)
    with torch.device("meta"):
        assert _small(3)(torch.zeros(1, 1, 64, 64, 64), torch.zeros(1)).shape == (1, 1, 64, 64, 64)


def test_half_precision_agrees_with_single(generator: torch.Generator) -> None:
    """Weights in bfloat16, and autocast, within a thirtieth of the output's size, places in float32 and absent words."""
    network = _noisy(_small(context=5, covariates=2, windows="WG", window=2, final_conv=True), generator)
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
        assert (other.float() - whole).abs().mean() < 0.03 * whole.abs().mean()


def test_bad_input_is_refused() -> None:
    x, level = torch.zeros(1, 1, 5, 4), torch.zeros(1)
    with pytest.raises(InputError, match="x of 2 axes"):
        _small()(x[0], level)
    with pytest.raises(InputError, match="context tokens of 0 features; got 3"):
        _small()(x, level, context=torch.zeros(1, 2, 3))
    with pytest.raises(InputError, match="places of 6 tokens"):
        _small()(x, level, coordinates=torch.zeros(5, 2))
    with pytest.raises(InputError, match="one a sample of 1; got shape"):
        _small()(x, level, spacing=torch.ones(3, 2))
    with pytest.raises(InputError, match="dims 0 … 3"):
        _small(4)
    with pytest.raises(InputError, match="1 … 16 voxels"):
        _small(patch=17)
    with pytest.raises(InputError, match="one patch, or one for each of 2"):
        _small(patch=(2, 2, 2))
    with pytest.raises(InputError, match="Plain tokens have no grid"):
        _small(0, patch=2)
    with pytest.raises(InputError, match="letters W and G"):
        _small(windows="WX", window=2)
    with pytest.raises(InputError, match="window >= 1"):
        _small(windows="WG")
    with pytest.raises(InputError, match="at least 2 channels an axis"):
        _small(3, head=4)

"""Features of a frozen denoiser: which activations, under which noise, the same for a row in any batch."""

import pytest
import torch
import torch.nn.functional as F
from backbones import TOLD_STEPS, backbone, picture

from radiata_core.denoiser_features import DenoiserFeatures, decoder_layers, on_grid
from radiata_core.denoisers import EDMDenoiser, MedForJInput, NetworkDenoiser
from radiata_core.errors import InputError
from radiata_core.nets.unet import UNet
from radiata_core.paths import LinearPath
from radiata_core.seeds import generators_of


def tiny(dims: int = 2, norm: str = "channel") -> EDMDenoiser:
    """A small denoiser whose zero layers are filled, so that every activation depends on the image."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = UNet(
            dims=dims, patch=2, channels=(8, 12), down_blocks=(0, 1), up_blocks=(1, 1), attention=(False, False),
            embedding=16, frequencies=8, norm=norm,
        )  # fmt: skip
        for parameter in network.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.2)
    return EDMDenoiser(network, LinearPath(), 0.45)


class Sampled(torch.nn.Module):
    """A network of any library as a tensor in, a tensor out."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor, noise_level: torch.Tensor) -> torch.Tensor:
        found = self.network(x, noise_level)
        return found if isinstance(found, torch.Tensor) else found.sample


def test_decoder_levels_run_from_coarse_to_fine() -> None:
    assert decoder_layers(tiny()) == ("network.up.1", "network.up.0")


@pytest.mark.parametrize("dims", [2, 3])
def test_maps_are_those_of_a_direct_call(dims: int, generator: torch.Generator) -> None:
    """Second implementation: the noisy state by hand at t = kappa/(1 + kappa), activations by a hook of the test's own."""
    denoiser, level = tiny(dims), 0.3
    x = torch.randn((2, 1, *[8] * dims), generator=generator)
    features = DenoiserFeatures(denoiser, (level,))
    coarse, fine, estimate = features.maps(x, generators_of([5, 6]))
    noise = torch.stack([torch.randn(x.shape[1:], generator=g) for g in generators_of([5, 6])])
    t = torch.tensor(level / (1 + level), dtype=torch.float64)
    caught = []
    handle = denoiser.network.up[0].register_forward_hook(lambda _, __, out: caught.append(out))
    with torch.no_grad():
        wanted = denoiser((1 - level / (1 + level)) * (x + 0.5 * level * noise), t)
    handle.remove()
    torch.testing.assert_close(estimate, wanted)
    torch.testing.assert_close(fine, caught[0])
    assert coarse.shape == (2, 12, *[2] * dims) and fine.shape == (2, 8, *[4] * dims)


def test_a_row_is_the_same_in_any_batch(generator: torch.Generator) -> None:
    x = torch.randn((3, 1, 16, 16), generator=generator)
    features = DenoiserFeatures(tiny(), (0.1, 1.0))
    together = features(x, generators_of([1, 2, 3]))
    alone = features(x[2:], generators_of([3]))
    torch.testing.assert_close(together[2:], alone, atol=1e-5, rtol=1e-4)
    again = features(x, generators_of([1, 2, 3]))
    assert torch.equal(together, again)
    assert not torch.allclose(together, features(x, generators_of([4, 5, 6])), atol=1e-3)


def test_features_of_a_translated_image_translate() -> None:
    """Without noise, away from the borders, by a multiple of the network's blocks."""
    x = torch.zeros((1, 1, 96, 96))
    x[..., 40:50, 42:54] = 1.0
    features = DenoiserFeatures(tiny(), (0.3,), share=0.0)
    one, two = features(x, generators_of([0])), features(x.roll(8, -1), generators_of([0]))
    inside = (..., slice(36, 60), slice(40, 60))
    torch.testing.assert_close(one.roll(8, -1)[inside], two[inside], atol=1e-5, rtol=1e-4)


def test_all_maps_on_the_grid_commute_with_a_pointwise_layer(generator: torch.Generator) -> None:
    """What lets a head begin at the maps' own resolution."""
    features = DenoiserFeatures(tiny(), (0.1, 0.5))
    x = torch.randn((1, 1, 16, 24), generator=generator)
    whole = features(x, generators_of([0]))
    weight = torch.randn((5, whole.shape[1], 1, 1), generator=generator)
    parts, start = torch.zeros((1, 5, 16, 24)), 0
    for values in features.maps(x, generators_of([0])):
        stop = start + values.shape[1]
        parts += on_grid(F.conv2d(values, weight[:, start:stop]), (16, 24))
        start = stop
    torch.testing.assert_close(parts, F.conv2d(whole, weight), atol=1e-4, rtol=1e-4)
    assert start == 2 * (12 + 8 + 1)


def test_nothing_is_kept(generator: torch.Generator) -> None:
    """No gradient, and no hook left behind, also after an error in the network."""
    denoiser = tiny()
    features = DenoiserFeatures(denoiser)
    assert not features(torch.randn((1, 1, 8, 8), generator=generator), generators_of([0])).requires_grad
    with pytest.raises(InputError, match="divide by"):
        features(torch.zeros((1, 1, 9, 8)), generators_of([0]))
    assert all(not module._forward_hooks for module in denoiser.modules())


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="noise levels > 0"):
        DenoiserFeatures(tiny(), (0.0,))
    with pytest.raises(InputError, match=r"share of the noise in \[0, 1\]"):
        DenoiserFeatures(tiny(), share=2.0)
    with pytest.raises(InputError, match="layers of the denoiser; got 'nothing'"):
        DenoiserFeatures(tiny(), layers=("nothing",))
    with pytest.raises(InputError, match=r"up\.0"):
        DenoiserFeatures(torch.nn.Identity())
    with pytest.raises(InputError, match="one generator a row"):
        DenoiserFeatures(tiny())(torch.zeros((2, 1, 8, 8)), generators_of([0]))
    with pytest.raises(InputError, match=r"from layer network\.embed"):
        DenoiserFeatures(tiny(), layers=("network.embed",))(torch.zeros((2, 1, 8, 8)), generators_of([0, 1]))


@pytest.mark.parametrize("name", ["unet", "mmdit", "medforj", "monai", "diffusers"])
def test_layers_are_found_and_read_on_networks_of_three_libraries(name: str) -> None:
    """The last layer's map is what the test's own hook sees at the same call; tokens lie on their grid, rows alone agree."""
    network = backbone(name).float()
    scaling = MedForJInput() if name in TOLD_STEPS else None
    denoiser = NetworkDenoiser(Sampled(network), LinearPath(), "velocity", scaling)
    features = DenoiserFeatures(denoiser, (0.5,), estimate=False)
    x = picture(name).float()
    layer = features.layers[-1]
    seen = []
    handle = denoiser.get_submodule(layer).register_forward_hook(lambda _, __, output: seen.append(output))
    maps = dict(features.named_maps(x, generators_of([1, 2, 3])))
    handle.remove()
    assert list(maps) == [(each, 0.5) for each in features.layers]
    values, direct = maps[layer, 0.5], seen[0]
    if name == "mmdit":
        tokens = direct[0]
        torch.testing.assert_close(values[:, :, 3, 5], tokens[:, 3 * 8 + 5])
        assert values.shape[2:] == (8, 8)
    else:
        torch.testing.assert_close(values, direct)
        sizes = [each.shape[-1] for each in maps.values()]
        assert sizes == sorted(sizes)
    alone = dict(features.named_maps(x[1:2], generators_of([2])))[layer, 0.5]
    torch.testing.assert_close(values[1:2], alone, atol=1e-4, rtol=1e-4)
    vectors = features.vectors(x, generators_of([1, 2, 3]), 2)[layer, 0.5]
    quarter = values[:, :, : values.shape[2] // 2, : values.shape[3] // 2].mean((2, 3))
    torch.testing.assert_close(vectors.unflatten(1, (-1, 4))[:, :, 0], quarter)


def test_draws_average_and_rows_of_one_seed_share_their_noise(generator: torch.Generator) -> None:
    denoiser, x = tiny(), torch.randn((2, 1, 8, 8), generator=generator)
    x[1] = x[0]
    one = DenoiserFeatures(denoiser, (1.0,))
    three = DenoiserFeatures(denoiser, (1.0,), draws=3)
    rolling = generators_of([4, 4])
    mean = sum(one(x, rolling) for _ in range(3)) / 3
    torch.testing.assert_close(three(x, generators_of([4, 4])), mean)
    torch.testing.assert_close(mean[0], mean[1])
    with pytest.raises(InputError, match="draws >= 1"):
        DenoiserFeatures(denoiser, draws=0)
    with pytest.raises(InputError, match="cells >= 1"):
        one.vectors(x, generators_of([4, 4]), 0)

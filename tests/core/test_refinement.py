"""Stages of a cascade: exact rearrangements, places that do not depend on the cut, and the law of a Gaussian field."""

from typing import Any

import pytest
import torch
from torch import nn

from radiata_core.checkpoint import load_model, save_model
from radiata_core.denoisers import NetworkDenoiser, UnitVariance
from radiata_core.errors import InputError
from radiata_core.flowmaps import NetworkFlowMap
from radiata_core.nets.unet import UNet, depth_to_space, space_to_depth
from radiata_core.overlapping_windows import WithCoordinates, noise_of_box
from radiata_core.paths import LinearPath
from radiata_core.predictions import Prediction
from radiata_core.refinement import (
    Cascade,
    GivenCoarse,
    Refinement,
    box_mean,
    finer,
    interpolated,
    refine,
    residual,
)
from radiata_core.seeds import seed_of


def stage_of(
    placed: bool = False, jumps: bool = False, corruption: float = 0.2, seed: int = 0, **more: Any
) -> Refinement:
    """A stage with weights that are not zero anywhere: a local network of two levels, receptive field below 16."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = UNet(
            in_channels=9 + 3 * placed,
            out_channels=8,
            patch=1,
            channels=(6, 8),
            down_blocks=(0, 1),
            up_blocks=(1, 1),
            attention=(False, False),
            covariates=int(corruption > 0),
            embedding=16,
            frequencies=8,
            norm="channel",
            destination=jumps,
        )
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.15)
    if placed:
        network = WithCoordinates(network)
    kind = NetworkFlowMap if jumps else NetworkDenoiser
    denoiser = kind(GivenCoarse(network), LinearPath(), "velocity", UnitVariance(1.0))
    return Refinement(denoiser, 2, 0.1, corruption, placed, **more).eval()


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(2, 1, 12), (2, 3, 6, 8), (1, 1, 4, 6, 8)])
def test_the_residual_and_the_coarse_grid_are_the_fine_grid(shape):
    fine = noise(*shape).double()
    coarse = box_mean(fine, 2)
    folded = residual(fine, coarse, 2, 0.3)
    assert folded.shape == (shape[0], shape[1] * 2 ** (len(shape) - 2), *(n // 2 for n in shape[2:]))
    torch.testing.assert_close(finer(folded, coarse, 2, 0.3), fine, rtol=0, atol=1e-12)


def test_interpolation_is_exact_on_ramps_between_the_centres():
    """A linear function of place is its own interpolation, half a coarse voxel away from the ends."""
    places = torch.meshgrid(*[torch.arange(n).double() for n in (16, 12)], indexing="ij")
    ramp = (2.0 * places[0] - 0.5 * places[1])[None, None]
    made = interpolated(box_mean(ramp, 4), 4)
    inside = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(made[inside], ramp[inside], rtol=0, atol=1e-12)


WAYS = [(False, False), (False, True), (True, False), (True, True)]


@pytest.mark.parametrize(("jumps", "stochastic"), WAYS)
def test_a_head_does_not_depend_on_how_it_is_cut(jumps, stochastic):
    stage, coarse = stage_of(jumps=jumps), noise(2, 1, 24, 32, 40, seed=1)
    options = {"steps": 2, "corruption": 0.1, "stochastic": stochastic}
    whole = refine(stage, coarse, [3, 4], **options)
    cut = refine(stage, coarse, [3, 4], tile=8, halo=16, **options)
    torch.testing.assert_close(cut, whole, rtol=0, atol=2e-6)
    seam = refine(stage, coarse, [3, 4], tile=8, halo=0, **options)
    assert float((seam - whole).abs().max()) > 1e-3  # without a halo there is a seam, so the test can see one


@pytest.mark.parametrize(("jumps", "stochastic"), WAYS)
def test_a_box_is_drawn_as_in_the_whole_and_a_row_by_its_seed(jumps, stochastic):
    stage, coarse = stage_of(jumps=jumps), noise(2, 1, 40, 32, 32, seed=2)
    whole = refine(stage, coarse, [5, 6], steps=2, corruption=0.2, stochastic=stochastic)
    again = refine(stage, coarse[1:], [6], steps=2, corruption=0.2, stochastic=stochastic)
    box = refine(
        stage, coarse[1:, :, 8:], [6], steps=2, corruption=0.2, stochastic=stochastic, origin=(8, 0, 0)
    )
    torch.testing.assert_close(again, whole[1:], rtol=0, atol=2e-6)
    # 17 coarse voxels from the cut and from the border there is nothing that the box does not know.
    torch.testing.assert_close(box[:, :, 34:], whole[1:, :, 50:], rtol=0, atol=2e-6)
    other = refine(stage, coarse[1:], [7], steps=2, corruption=0.2, stochastic=stochastic)
    assert float((other - again).abs().mean()) > 0.01


class GaussianDetail(nn.Module):
    """The exact denoiser of r = g c + e, e ~ N(0, v), on the linear path: E[r | r_t] = m + t-dependent gain."""

    multiple = 1

    def __init__(self, gain: float, variance: float) -> None:
        super().__init__()
        self.gain, self.variance = gain, variance

    def forward(self, x, noise_level, *, coarse, **conditions):
        alpha = torch.sigmoid(noise_level).reshape(-1, *[1] * (x.ndim - 1))  # alpha / sigma = exp(level)
        sigma = 1 - alpha
        mean = self.gain * coarse
        x = x * (alpha.square() + sigma.square()).sqrt()  # undo UnitVariance(1)
        return mean + alpha * self.variance / (alpha**2 * self.variance + sigma**2) * (x - alpha * mean)


@pytest.mark.parametrize("stochastic", [False, True])
def test_the_law_of_a_gaussian_field(stochastic):
    """Mean and variance of what is drawn are those of x given c; 32768 voxels, four standard errors."""
    gain, variance, scale = 0.7, 0.25, 0.4
    denoiser = NetworkDenoiser(GaussianDetail(gain, variance), LinearPath(), Prediction.X0, UnitVariance(1.0))
    stage = Refinement(denoiser, 2, scale).eval()
    coarse = noise(1, 1, 16, 16, 16, seed=3)
    drawn = refine(stage, coarse, [0], steps=64, stochastic=stochastic)
    detail = residual(drawn, coarse, 2, scale) - gain * coarse
    count = detail.numel()
    assert abs(float(detail.mean())) < 4 * (variance / count) ** 0.5
    assert float(detail.var()) == pytest.approx(variance, rel=4 * (2 / count) ** 0.5 + 0.01)
    neighbours = (detail[:, :, 1:] * detail[:, :, :-1]).mean() / variance
    assert abs(float(neighbours)) < 4 / count**0.5


class GaussianJump(GaussianDetail):
    """The exact flow map of the same law: E[x_0 | x_u] averaged over the way, from `analytic.gaussian_flow`."""

    def forward(self, x, noise_level, *, target_level, coarse, **conditions):
        alpha, to = (
            torch.sigmoid(level).reshape(-1, *[1] * (x.ndim - 1)) for level in (noise_level, target_level)
        )
        sigma, end = 1 - alpha, 1 - to
        x = x * (alpha.square() + sigma.square()).sqrt()
        mean = self.gain * coarse
        spread = [(a**2 * self.variance + b**2).sqrt() for a, b in ((alpha, sigma), (to, end))]
        there = to * mean + spread[1] / spread[0] * (x - alpha * mean)
        ratio = end / sigma
        return (there - ratio * x) / (to - alpha * ratio)  # the value whose Euler form is the jump


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("stochastic", [False, True])
def test_jumps_of_the_exact_map_have_the_law_too(stochastic, steps):
    """With and without fresh noise between them; 32768 voxels, four standard errors."""
    gain, variance, scale = 0.7, 0.25, 0.4
    jumps = NetworkFlowMap(GaussianJump(gain, variance), LinearPath(), Prediction.X0, UnitVariance(1.0))
    coarse = noise(1, 1, 16, 16, 16, seed=3)
    drawn = {
        seed: refine(Refinement(jumps, 2, scale).eval(), coarse, [seed], steps=steps, stochastic=stochastic)
        for seed in (0, 1)
    }
    detail = residual(drawn[0], coarse, 2, scale) - gain * coarse
    count = detail.numel()
    assert abs(float(detail.mean())) < 4 * (variance / count) ** 0.5
    assert float(detail.var()) == pytest.approx(variance, rel=4 * (2 / count) ** 0.5)
    other = residual(drawn[1], coarse, 2, scale) - gain * coarse
    assert abs(float((detail * other).mean())) < 4 * variance / count**0.5  # another seed is another draw


def test_fresh_noise_between_jumps_is_another_draw():
    """With the exact map one start and two jumps leave nothing of the start where the noise between them is new."""
    jumps = NetworkFlowMap(GaussianJump(0.7, 0.25), LinearPath(), Prediction.X0, UnitVariance(1.0))
    stage, coarse = Refinement(jumps, 2, 0.4).eval(), torch.zeros(1, 1, 16, 16, 16)
    kept, fresh = (refine(stage, coarse, [0], steps=4, stochastic=fresh).flatten() for fresh in (False, True))
    start = depth_to_space(space_to_depth(noise_of_box([0], (0, 0, 0), (32, 32, 32), key=11), 2), 2).flatten()
    correlations = [float(torch.corrcoef(torch.stack([start, drawn]))[0, 1]) for drawn in (kept, fresh)]
    assert correlations[0] > 0.95 and abs(correlations[1]) < 0.5


def test_the_corruption_is_noise_of_the_place_and_is_told():
    stage, coarse = stage_of(), torch.zeros(1, 1, 8, 8, 8)
    seen = {}

    def record(module, arguments, given):
        seen.update(given)

    with stage.denoiser.network.register_forward_pre_hook(record, with_kwargs=True) as _:
        refine(stage, coarse, [9], steps=1, corruption=0.15)
    expected = 0.15 * noise_of_box([9], (0, 0, 0), (8, 8, 8), key=12)
    torch.testing.assert_close(seen["coarse"], expected)
    torch.testing.assert_close(seen["covariates"], torch.tensor([[1.0]]))  # 4 * 0.15 / 0.2 - 2
    assert float(stage.told(0.0, 1)["covariates"]) == -2.0 and stage_of(corruption=0.0).told(0.0, 3) == {}


def test_places_are_in_decimetres_from_the_centre():
    stage = stage_of(placed=True)
    places = stage.places((4, 6, 8), 8.0)["coordinates"]
    assert places.shape == (1, 3, 4, 6, 8)
    torch.testing.assert_close(places.mean((2, 3, 4)), torch.zeros(1, 3), atol=1e-6, rtol=0)
    assert float(places[0, 1, 0, 1, 0] - places[0, 1, 0, 0, 0]) == pytest.approx(0.08)
    coarse = noise(1, 1, 8, 8, 8)
    near, far = (refine(stage, coarse, [0], steps=1, spacing=spacing) for spacing in (2.0, 8.0))
    assert float((near - far).abs().max()) > 1e-4


@pytest.mark.parametrize("jumps", [False, True])
def test_a_stage_survives_its_file(tmp_path, jumps):
    stage, coarse = stage_of(placed=True, jumps=jumps), noise(1, 1, 8, 8, 8)
    save_model(tmp_path / "stage.safetensors", stage, metadata={})
    loaded = load_model(tmp_path / "stage.safetensors").denoiser
    assert isinstance(loaded, Refinement)
    torch.testing.assert_close(refine(loaded, coarse, [1]), refine(stage, coarse, [1]), rtol=0, atol=0)


def test_a_guided_stage_is_a_stage_whose_denoiser_is_guided(tmp_path):
    """What the house draws with a worse version is what the mix of the two by hand draws; in blocks, and from a file."""
    worse = stage_of(placed=True, seed=1).denoiser
    stage, coarse = stage_of(placed=True, worse=worse, guidance=1.75), noise(1, 1, 8, 8, 8)

    class Mixed(nn.Module):
        multiple = 2

        def forward(
            self, x, level, **given
        ):  # velocities mix as denoisers do: both are linear in E[x_0 | x_t]
            better = stage.denoiser.network(x, level, **given)
            return better + 0.75 * (better - worse.network(x, level, **given))

    by_hand = Refinement(
        NetworkDenoiser(Mixed(), LinearPath(), "velocity", UnitVariance(1.0)), 2, 0.1, 0.2, True
    )
    drawn = refine(stage, coarse, [3], corruption=0.1)
    torch.testing.assert_close(drawn, refine(by_hand, coarse, [3], corruption=0.1), rtol=1e-4, atol=1e-5)
    assert float((drawn - refine(stage_of(placed=True), coarse, [3], corruption=0.1)).abs().max()) > 1e-3
    torch.testing.assert_close(
        refine(stage, coarse, [3], corruption=0.1, tile=4, halo=16), drawn, rtol=0, atol=2e-5
    )
    save_model(tmp_path / "stage.safetensors", stage, metadata={})
    loaded = load_model(tmp_path / "stage.safetensors").denoiser
    torch.testing.assert_close(refine(loaded, coarse, [3], corruption=0.1), drawn, rtol=0, atol=0)
    with pytest.raises(InputError, match="denoiser to guide"):
        stage_of(jumps=True, worse=worse)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"corruption": 0.3}, "corruption from 0 to 0.2"),
        ({"seeds": [1]}, "one seed a row, 2; got 1"),
        ({"coarse": torch.zeros(2, 1, 7, 8, 8)}, "divide by 2"),
    ],
)
def test_what_does_not_fit_is_said(change, said):
    given = {"coarse": torch.zeros(2, 1, 8, 8, 8), "seeds": [0, 1], "corruption": 0.0} | change
    with pytest.raises(InputError, match=said):
        if given["coarse"].shape[2] % 2:
            box_mean(given["coarse"], 2)
        refine(stage_of(), given["coarse"], given["seeds"], corruption=given["corruption"])


def test_numbers_and_boxes_that_make_no_stage():
    with pytest.raises(InputError, match="factor >= 2"):
        Refinement(stage_of().denoiser, 1)
    with pytest.raises(InputError, match="told places"):
        refine(stage_of(placed=True), torch.zeros(1, 1, 8, 8, 8), [0], origin=(2, 0, 0))


def test_a_cascade_is_its_stages_with_noise_of_their_own():
    first, second = stage_of(placed=True), stage_of()
    cascade = Cascade([first, second], 8.0, [2, 3], [0.1, 0.05], [False, True]).eval()
    coarse = noise(2, 1, 8, 6, 8, seed=4)
    assert cascade.spacings() == (4.0, 2.0)
    middle = refine(first, coarse, [seed_of(s, 0) for s in (5, 6)], steps=2, corruption=0.1, spacing=8.0)
    how = {"steps": 3, "corruption": 0.05, "spacing": 4.0, "stochastic": True}
    end = refine(second, middle, [seed_of(s, 1) for s in (5, 6)], **how)
    torch.testing.assert_close(cascade(coarse, [5, 6], until=4.0), middle, rtol=0, atol=0)
    torch.testing.assert_close(cascade(coarse, [5, 6]), end, rtol=0, atol=0)
    torch.testing.assert_close(cascade(coarse[1:], [6]), end[1:], rtol=0, atol=2e-6)
    assert cascade(coarse, [5, 6], until=8.0) is coarse


def test_a_cascade_wants_numbers_of_each_stage():
    with pytest.raises(InputError, match="at least one stage"):
        Cascade([stage_of()], 8.0, [2, 2], [0.0])
    with pytest.raises(InputError, match="does not jump"):
        stage_of().jump(torch.zeros(1, 8, 8, 8, 8), torch.tensor(0.5), torch.tensor(0.0))

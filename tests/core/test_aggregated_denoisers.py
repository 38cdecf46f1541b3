"""Aggregated denoisers: the exact Gaussian answer, draws of all modalities, conditionals, what is told, refusals."""

import importlib.util
import math
import sys
from pathlib import Path

import pytest
import torch

from radiata_core.aggregated_denoisers import AggregatedDenoiser
from radiata_core.checkpoint import load_model, save_model
from radiata_core.denoisers import Denoiser
from radiata_core.errors import InputError
from radiata_core.modality_laws import ClassLaw, MaskLaw, RealLaw
from radiata_core.nets.unet import UNet
from radiata_core.paths import LinearPath, VEPath
from radiata_core.seeds import generators_of, noise_of
from radiata_core.shared_modalities import modalities_of
from radiata_core.tables import sde_dpmpp_2m
from radiata_core.times import LogSNRGrid

_spec = importlib.util.spec_from_file_location(
    "aggregated_world", Path(__file__).with_name("aggregated_world.py")
)
assert _spec is not None and _spec.loader is not None
world = importlib.util.module_from_spec(_spec)
sys.modules["aggregated_world"] = world
_spec.loader.exec_module(world)


def small(dims: int = 2, conditional: bool = True, path=None) -> AggregatedDenoiser:
    """An untrained denoiser of an image, a mask and a label, whose output layers are not zero."""
    laws = {"image": RealLaw(1), "mask": MaskLaw(1), "labels": ClassLaw(3)}
    parts = modalities_of(laws, dims=dims, latent=4, features=6, vectors=("labels",))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = UNet(
            dims=dims,
            in_channels=11 if conditional else 4,
            out_channels=10,
            patch=1,
            channels=(8, 8),
            down_blocks=(1, 1),
            up_blocks=(1, 1),
            attention=(False, False),
            embedding=16,
        )
        torch.nn.init.normal_(network.head.weight, std=0.1)
    return AggregatedDenoiser(network, path or LinearPath(), parts, 4, conditional=conditional).eval()


GIVEN = [(), ("image",), ("vector",)]


@pytest.mark.parametrize("names", GIVEN, ids=str)
def test_linear_heads_on_the_latents_mean_are_the_exact_posterior_means(names):
    """E[a, b | z_t, what is given] by Gaussian conditioning of the four numbers, at three noise levels."""
    denoiser = world.exact()
    a, b = world.drawn(5)
    values = {"image": a, "vector": b}
    chosen = {name: values[name] for name in names}
    told = None
    if names:
        told = denoiser.told(chosen, denoiser.known(chosen), (1,))
    z0 = denoiser.aggregate(values, (1,))
    for t in (0.2, 0.5, 0.9):
        z = (1 - t) * z0 + t * noise_of(generators_of(range(5)), (4, 1), torch.float64)
        found = denoiser.read(z, torch.tensor(t, dtype=torch.float64), told)
        gain, _, _ = world.posterior(t, ("image" in names, "vector" in names))
        clean = torch.cat([a[:, :, 0] * ("image" in names), b * ("vector" in names)], 1)
        wanted = torch.cat([z[:, :, 0], clean], 1) @ gain.T
        said = torch.cat([found.said["image"][:, :, 0], found.said["vector"]], 1)
        torch.testing.assert_close(said, wanted, rtol=1e-5, atol=1e-6)


def test_draws_have_the_joint_covariance():
    """1200 draws, every entry within 4.5 standard errors (a false alarm in 7e-5 of 10) and 0.02 for the solver."""
    n = 1200
    drawn = world.exact().sample(generators_of(range(n)), (1,))
    u = torch.cat([drawn["image"][:, :, 0], drawn["vector"]], 1)
    error = u.T @ u / n - world.S
    sd = ((world.S.diagonal()[:, None] * world.S.diagonal() + world.S**2) / n).sqrt()
    assert (error.abs() < 4.5 * sd + 0.02).all(), error


@pytest.mark.parametrize("name", ["image", "vector"])
def test_draws_given_one_modality_have_the_conditional_law_of_the_other(name):
    """Mean and covariance of p(other | given), within 4.5 standard errors and 0.02; the given comes back untouched."""
    n, index = 700, 0 if name == "image" else 2
    value = torch.tensor([[1.0, -0.6]], dtype=torch.float64)
    given = {name: value[:, :, None] if name == "image" else value}
    drawn = world.exact().sample(generators_of(range(n)), (1,), given)
    assert torch.equal(drawn[name], given[name].expand_as(drawn[name]))
    other = drawn["vector"] if name == "image" else drawn["image"][:, :, 0]
    known, rest = slice(index, index + 2), slice(2 - index, 4 - index)
    link = world.S[rest, known] @ torch.linalg.inv(world.S[known, known])
    covariance = world.S[rest, rest] - link @ world.S[known, rest]
    sd = (covariance.diagonal() / n).sqrt()
    assert ((other.mean(0) - link @ value[0]).abs() < 4.5 * sd + 0.02).all()
    around = torch.cov(other.T)
    spread = ((covariance.diagonal()[:, None] * covariance.diagonal() + covariance**2) / n).sqrt()
    assert ((around - covariance).abs() < 4.5 * spread + 0.02).all(), around - covariance


def test_a_seed_is_a_sample_whatever_the_batch_and_the_solver():
    denoiser = small()
    table = sde_dpmpp_2m(LogSNRGrid()(4, denoiser.path), denoiser.path)
    for solver in (None, table):
        whole = denoiser.sample(generators_of([3, 4, 5]), (4, 4), table=solver)
        alone = denoiser.sample(generators_of([4]), (4, 4), table=solver)
        torch.testing.assert_close(whole["image"][1:2], alone["image"], rtol=1e-4, atol=1e-5)
        assert torch.equal(whole["labels"][1:2], alone["labels"])


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_every_modality_comes_out_in_its_own_shape(dims):
    denoiser, grid = small(dims), (4,) * dims
    assert isinstance(denoiser, Denoiser) and denoiser.in_channels == 11
    mask = torch.ones(1, 1, *grid)
    drawn = denoiser.sample(generators_of([0, 1]), grid, {"mask": mask, "labels": torch.tensor([2, -1])})
    assert drawn["image"].shape == (2, 1, *grid) and torch.isfinite(drawn["image"]).all()
    assert torch.equal(drawn["mask"], mask.expand(2, 1, *grid))
    assert drawn["labels"][0] == 2 and 0 <= int(drawn["labels"][1]) < 3  # -1: not given, so drawn


def test_what_a_row_lacks_is_as_if_it_had_not_been_named(generator):
    """NaN and negative classes leave the aggregate alone, and rows do not see one another."""
    denoiser = small()
    image = torch.randn(2, 1, 4, 4, generator=generator)
    labels, mask = torch.tensor([1, -1]), torch.ones(2, 1, 4, 4)
    mask[1] = math.nan
    both = denoiser.aggregate({"image": image, "labels": labels, "mask": mask}, (4, 4))
    torch.testing.assert_close(both[1:], denoiser.aggregate({"image": image[1:]}, (4, 4)))
    assert denoiser.known({"image": image, "labels": labels, "mask": mask}).tolist() == [
        [True, True, True],
        [True, False, False],
    ]
    present = denoiser.known({"image": image, "labels": labels})
    told = denoiser.told({"image": image, "labels": labels}, present, (4, 4), present)
    assert told[:, 4:, 0, 0].tolist() == [[1.0, -1.0, 1.0], [1.0, -1.0, -1.0]]


def test_kept_and_loaded_it_is_the_same(tmp_path):
    denoiser = small()
    save_model(tmp_path / "model.safetensors", denoiser, metadata={})
    loaded = load_model(tmp_path / "model.safetensors").denoiser.eval()
    one, other = (d.sample(generators_of([7]), (4, 4)) for d in (denoiser, loaded))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_is_refused():
    denoiser, t = small(), torch.tensor(0.5, dtype=torch.float64)
    with pytest.raises(InputError, match="a path that ends in N"):
        small(path=VEPath())
    with pytest.raises(InputError, match="at least one modality"):
        AggregatedDenoiser(torch.nn.Identity(), LinearPath(), {}, 4)
    with pytest.raises(InputError, match="modalities out of image, mask, labels; got 'sound'"):
        denoiser.known({"sound": torch.zeros(1)})
    with pytest.raises(InputError, match=r"as many rows of each modality; got \[1, 2\]"):
        denoiser.known({"image": torch.zeros(2, 1, 4, 4), "labels": torch.zeros(1)})
    with pytest.raises(InputError, match="4 channels of the latent; got 1"):
        denoiser.read(torch.zeros(1, 1, 4, 4), t)
    with pytest.raises(InputError, match="not conditional"):
        small(conditional=False).sample(generators_of([0]), (4, 4), {"labels": torch.tensor([1])})
    network = torch.nn.Identity()
    network.forward = lambda x, level: x[:, :2]  # type: ignore[method-assign, assignment]
    thin = AggregatedDenoiser(network, LinearPath(), dict(denoiser.modalities.items()), 4, conditional=False)
    with pytest.raises(InputError, match="at least 4 channels out; got 2"):
        thin.read(torch.zeros(1, 4, 4, 4), t)

"""The prior and the joint model: preconditioned, local, told a contrast or not."""

import pytest
import torch

from radiata_core.checkpoint import load_model, save_model
from radiata_core.denoisers import EDMDenoiser
from radiata_core.errors import InputError
from radiata_core.nets.unet import UNet
from radiata_medical.model.prior import CHANNELS, SIGMA_DATA, build_joint, build_prior

TINY = (8, 16, 16)


def stirred(prior: EDMDenoiser) -> EDMDenoiser:
    """With weights that are not those of the start, where the last layer is 0."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for weights in prior.parameters():
            weights += 0.1 * torch.randn(weights.shape, generator=generator)
    return prior


@pytest.mark.parametrize("dims", [2, 3])
def test_before_training_it_is_the_linear_estimate(dims: int) -> None:
    """EDM's c_skip: D(x) = x alpha v/(alpha^2 v + sigma^2) for v = sigma_data^2, exact for white data of that variance."""
    prior = build_prior(dims, TINY)
    x = torch.randn((2, 1, *(16,) * dims), generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.2, 0.7])
    alpha, sigma, variance = 1 - t, t, SIGMA_DATA**2
    gain = alpha * variance / (alpha**2 * variance + sigma**2)
    with torch.no_grad():
        assert torch.allclose(prior(x, t), gain.reshape(-1, *(1,) * (dims + 1)) * x, atol=1e-6)


def test_weights_are_a_function_of_the_seed() -> None:
    one, two, other = (build_prior(2, TINY, seed=s).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_the_shipped_sizes_are_the_default() -> None:
    for dims, channels in CHANNELS.items():
        assert build_prior(dims).network.options["channels"] == channels  # type: ignore[union-attr]


@pytest.mark.parametrize("dims", [2, 3])
def test_any_grid_of_multiples_and_translation(dims: int) -> None:
    """Moving the image by the multiple moves the estimate, away from the border."""
    prior = stirred(build_prior(dims, (8, 8), covariates=0))
    assert isinstance(prior.network, UNet)
    step = prior.network.multiple
    shape = (1, 1, 30 * step, *(2 * step,) * (dims - 1))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        here = prior(x, torch.tensor(0.3))
        moved = prior(x.roll(step, 2), torch.tensor(0.3))
    reach = 12 * step
    assert torch.allclose(here.roll(step, 2)[:, :, reach:-reach], moved[:, :, reach:-reach], atol=1e-5)
    assert float((here - x).abs().max()) > 0.1


def test_the_contrast_matters_unless_it_is_not_told() -> None:
    prior = stirred(build_prior(2, TINY))
    x = torch.randn((1, 1, 16, 16), generator=torch.Generator().manual_seed(2))
    t = torch.tensor(0.5)
    told = torch.tensor([[0.2, 0.6, 1.0, 0.8]])
    with torch.no_grad():
        unknown = prior(x, t)
        assert torch.equal(unknown, prior(x, t, covariates=torch.full((1, 4), torch.nan)))
        assert not torch.allclose(unknown, prior(x, t, covariates=told))


def test_joint_model_has_a_channel_a_class_and_a_file(tmp_path) -> None:
    joint = build_joint(2, 9, TINY)
    assert joint.network.options["in_channels"] == joint.network.options["out_channels"] == 10  # type: ignore[union-attr]
    save_model(tmp_path / "joint.safetensors", joint, metadata={})
    again = load_model(tmp_path / "joint.safetensors").denoiser
    assert type(again) is type(joint)
    assert all(torch.equal(a, b) for a, b in zip(joint.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("build", [lambda: build_prior(4), lambda: build_joint(1, 9)])
def test_other_dimensions_are_refused(build) -> None:
    with pytest.raises(InputError, match=r"of 2 or 3 dimensions; got \d"):
        build()

"""Routing, windows and alignment at once, on three backbones: each does what it does alone, and nothing stays."""

import copy

import pytest
import torch
from backbones import backbone, picture

from radiata_core.aligned_objective import aligned
from radiata_core.attention_windows import windowed
from radiata_core.denoisers import MedForJInput, NetworkDenoiser
from radiata_core.feature_targets import tapped_features
from radiata_core.objectives import Regression
from radiata_core.paths import LinearPath
from radiata_core.predictions import Prediction
from radiata_core.routing import routed
from radiata_core.seeds import generators_of
from radiata_core.times import UniformTime

PATH = LinearPath()
OBJECTIVE = Regression(PATH, UniformTime(), target=Prediction.VELOCITY)


def denoiser_of(name):
    scaling = MedForJInput() if name == "medforj" else None
    return NetworkDenoiser(backbone(name), PATH, "velocity", scaling)


def encoder_of(x):
    """A frozen convolution as encoder."""
    with torch.random.fork_rng():
        return tapped_features(torch.nn.Conv2d(1, 6, 4, stride=4).double(), "", x)


def gradients(denoiser, value):
    return torch.autograd.grad(value, list(denoiser.parameters()), allow_unused=True)


@pytest.mark.parametrize("name", ["unet", "transformer", "medforj"])
def test_three_additions_at_once(name):
    """The loss is that of the routed, windowed network plus the alignment's; so are its gradients; then all is as before."""
    denoiser, x = denoiser_of(name), picture(name)
    untouched = copy.deepcopy(denoiser)
    objective = aligned(OBJECTIVE, denoiser, x[:1], encoder_of(x[:1]))
    rows = range(len(x))
    with routed(denoiser, shared=0.5, power=1.0), windowed(denoiser, 2):
        plain = OBJECTIVE(denoiser, x, generators_of(rows))
        both = objective(denoiser, x, generators_of(rows))
        assert torch.equal(plain.per_sample, both.per_sample)
        torch.testing.assert_close(both.value, plain.value + both.alignment)
        total = gradients(denoiser, both.value)
        alone = gradients(denoiser, plain.value)
    silent = objective.alignment.weight
    assert silent == 0.5 and -0.5 <= float(both.alignment) <= 0.5
    moved = [
        float((t - a).abs().max())
        for t, a in zip(total, alone, strict=True)
        if t is not None and a is not None
    ]
    assert (
        max(moved) > 0 and min(moved) == 0
    )  # alignment teaches what comes before its layer, nothing behind it
    without = OBJECTIVE(denoiser, x, generators_of(rows)).value
    assert torch.equal(without, OBJECTIVE(untouched, x, generators_of(rows)).value)
    assert not torch.allclose(without, plain.value)


@pytest.mark.parametrize("name", ["unet", "transformer", pytest.param("medforj", marks=pytest.mark.slow)])
def test_a_network_with_three_additions_learns(name):
    """Thirty steps on three pictures: the loss falls, and the hidden layer comes to say what the encoder sees."""
    denoiser, x = denoiser_of(name), picture(name)
    objective = aligned(OBJECTIVE, denoiser, x[:1], encoder_of(x[:1]))
    optimiser = torch.optim.Adam([*denoiser.parameters(), *objective.beside.parameters()], 1e-2)
    losses, cosines = [], []
    with routed(denoiser), windowed(denoiser, 2):
        for _ in range(30):
            loss = objective(denoiser, x, generators_of(range(len(x))))
            optimiser.zero_grad()
            loss.value.backward()
            optimiser.step()
            losses.append(float(loss.per_sample.detach().mean()))
            cosines.append(-2 * float(loss.alignment))
    assert losses[-1] < 0.6 * losses[0]
    assert cosines[-1] > cosines[0] + 0.2

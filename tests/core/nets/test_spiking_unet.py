"""The spiking U-Net: rows, calls and names; its convolutions read spikes; its twin is its graph."""

import pytest
import torch

from radiata_core.denoisers import NetworkDenoiser
from radiata_core.errors import InputError
from radiata_core.nets.spiking import SpikingUNet
from radiata_core.objectives import Regression
from radiata_core.paths import LinearPath
from radiata_core.seeds import generator_of, generators_of
from radiata_core.specs import describe, rebuild
from radiata_core.spiking_energy import synaptic_energy
from radiata_core.times import LogNormalSNR


def network(**changed) -> SpikingUNet:
    options = {"dims": 2, "channels": (8, 16), "embedding": 16, "frequencies": 8, "covariates": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        made = SpikingUNet(**{**options, **changed})
        for parameter in made.parameters():
            if parameter.requires_grad and not parameter.any():
                torch.nn.init.normal_(parameter, std=0.3)
    return made.double()


def given(dims: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = generator_of(1)
    return tuple(torch.randn(s, generator=g).double() for s in ((3, 1, *[4] * dims), (3,), (3, 2)))


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("mode", [True, False])
def test_rows_and_calls_are_independent(dims: int, mode: bool) -> None:
    model, (x, level, covariates) = network(dims=dims).train(mode), given(dims)
    whole = model(x, level, covariates)
    assert whole.shape == x.shape and torch.isfinite(whole).all() and whole.std() > 0
    model(x + 1, level)  # what is called between leaves nothing
    rows = [model(x[i : i + 1], level[i : i + 1], covariates[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(torch.cat(rows), whole)
    assert torch.equal(model(x, level, covariates), whole)


def test_body_reads_spikes_only_and_floats_are_counted_as_such() -> None:
    model, (x, level, covariates) = network(), given()
    account = synaptic_energy(model, x, level, covariates)
    body = sum(m.weight.numel() for n, m in model.named_modules() if n.endswith("conv"))
    assert len(account.rate) == sum(n.endswith("conv") for n, _ in model.named_modules()) and body > 0
    assert all(0 < rate < 1 for rate in account.rate.values())
    ends = 16 * (model.stem.weight.numel() + model.head.weight.numel())
    linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
    assert account.macs == ends + linear


def test_twin_has_the_weights_and_one_step() -> None:
    model = network()
    twin = model.twin("relu")
    assert twin.steps == 1 and torch.equal(twin.stem.weight, model.stem.weight)
    mine = {key for key in model.state_dict() if not key.endswith("activation.gain")}
    assert set(twin.state_dict()) == mine
    assert synaptic_energy(twin, *given()).acs == 0


def test_built_by_name_and_not_given_covariates() -> None:
    model, (x, level, _) = network(), given()
    with torch.random.fork_rng(devices=[]):
        again = rebuild(describe(model)).double()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(x, level), model(x, level, torch.full((3, 2), torch.nan).double()))


def test_learns_through_its_spikes() -> None:
    """One image: the loss of its denoiser falls by half within 40 steps."""
    model = network(covariates=0, steps=3).float()
    denoiser = NetworkDenoiser(model, LinearPath(), "velocity")
    objective = Regression(LinearPath(), LogNormalSNR(), target=denoiser.prediction)
    image = torch.linspace(-1, 1, 16).reshape(1, 1, 4, 4).expand(8, 1, 4, 4)
    optimiser, losses = torch.optim.Adam(model.parameters(), 1e-2), []
    for step in range(40):
        loss = objective(denoiser, image, generators_of(range(8), step)).value
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-8:]) < 0.5 * sum(losses[:8])
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []


def test_what_it_cannot_do_it_says() -> None:
    with pytest.raises(InputError, match="grid divisible by 2"):
        network()(torch.zeros(1, 1, 5, 4).double(), torch.zeros(1).double())
    with pytest.raises(InputError, match="spike, relu or silu; got 'gelu'"):
        network(activation="gelu")
    with pytest.raises(InputError, match="dims; got 4"):
        network(dims=4)

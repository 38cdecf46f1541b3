"""The smoother without dynamics: it learns known rates, and looks both ways."""

import pytest
import torch

from radiata_core.checkpoint import load_model, save_model
from radiata_core.errors import InputError
from radiata_core.seeds import generators_of
from radiata_latents.model.gru_smoother import GRUSmoother
from radiata_latents.model.objective import TrialBound


def made(**options) -> GRUSmoother:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return GRUSmoother(
            **({"neurons": 12, "heldin": 9, "bins": 20, "forward": 5, "hidden": 24, "factors": 4} | options)
        )


def test_it_learns_rates_that_it_cannot_copy() -> None:
    """Sines of random phase drive 12 neurons; after 250 updates the error of the rates, held-out neurons and forward bins
    included, is below a third of that of the mean (which knows no phase)."""
    g = torch.Generator().manual_seed(0)
    t = torch.arange(25) * 0.02
    weights = torch.randn(2, 12, generator=g)

    def draw(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        angle = 2 * torch.pi * (3 * t + torch.rand(rows, 1, generator=g))
        rates = torch.exp(torch.stack([angle.sin(), angle.cos()], 2) @ weights * 0.8 + 0.5)
        return torch.poisson(rates, generator=g), rates

    model, loss = made(dropout=0.0), TrialBound()
    counts, _ = draw(400)
    model.set_mean_counts(counts.mean((0, 1)))
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(250):
        rows = torch.randint(400, (32,), generator=g)
        optimiser.zero_grad()
        loss(model, counts[rows], generators_of(range(32 * step, 32 * step + 32))).value.backward()
        optimiser.step()
    test, rates = draw(100)
    with torch.no_grad():
        found = model.eval().rates(test[:, :20, :9])
    null = (rates - rates.mean((0, 1))).square()
    error = (rates - found).square()
    assert float(error.mean() / null.mean()) < 1 / 3
    assert float(error[..., 9:].mean() / null[..., 9:].mean()) < 1 / 2
    assert float(error[:, 20:].mean() / null[:, 20:].mean()) < 1 / 2


def test_it_looks_both_ways_and_rows_are_their_own() -> None:
    model = made().eval()
    counts = torch.poisson(torch.ones(3, 20, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = model.rates(counts)
        torch.testing.assert_close(model.rates(counts[1:2]), whole[1:2])
        for late, early in ((19, 0), (0, 19)):
            other = counts.clone()
            other[0, late] += 3
            assert float((model.rates(other) - whole)[0, early].abs().max()) > 0


def test_it_comes_back_from_its_files_and_refuses(tmp_path) -> None:
    model = made().eval()
    save_model(tmp_path / "model.safetensors", model, metadata={})
    back = load_model(tmp_path / "model.safetensors").denoiser
    counts = torch.ones(1, 20, 9)
    torch.testing.assert_close(back.rates(counts), model.rates(counts), rtol=0, atol=0)
    with pytest.raises(InputError, match="20 observed bins"):
        model.encode(torch.zeros(1, 25, 12))
    with pytest.raises(InputError, match="heldin <= neurons"):
        made(heldin=13)

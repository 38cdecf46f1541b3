"""The bound of a trial: its value by hand, and spikes that are shown or scored but never both."""

import pytest
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.seeds import generators_of
from radiata_latents.model.gru_smoother import GRUSmoother, NoPosterior
from radiata_latents.model.langevin_flow import LangevinFlow
from radiata_latents.model.objective import TrialBound, poisson_nll
from radiata_latents.model.population_model import PopulationModel

SIZES = {"neurons": 6, "heldin": 4, "bins": 10, "forward": 3, "hidden": 8}


def counts_of(rows: int) -> Tensor:
    return torch.poisson(torch.full((rows, 13, 6), 1.5), generator=torch.Generator().manual_seed(2))


class Spy(PopulationModel):
    """Constant rates; keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__(6, 4, 10, 3)
        self.log_rate = torch.nn.Parameter(torch.zeros(1, 13, 6))
        self.seen = torch.zeros(())

    def encode(self, counts: Tensor) -> NoPosterior:
        self.seen = counts
        return NoPosterior(self.log_rate.expand(len(counts), -1, -1))

    def path(self, posterior: NoPosterior, *generators: object) -> NoPosterior:
        return posterior

    def log_rates(self, path: NoPosterior) -> Tensor:
        return path.log_rates


def test_nll_is_scipys() -> None:
    from scipy.stats import poisson

    counts, log_rates = torch.tensor([0.0, 1.0, 7.0]), torch.tensor([-2.0, 0.3, 1.5])
    expected = -poisson(log_rates.double().exp().numpy()).logpmf(counts.numpy())
    torch.testing.assert_close(
        poisson_nll(log_rates, counts).double(), torch.from_numpy(expected), rtol=1e-5, atol=1e-5
    )


def test_a_spike_is_shown_or_scored_and_never_both() -> None:
    """Rates that are constant get a gradient exactly where nothing was shown, held-out and forward always."""
    spy, counts = Spy(), counts_of(1) + 1
    loss = TrialBound(shown=0.6)
    loss(spy, counts, generators_of([0])).value.backward()
    scored = spy.log_rate.grad[0] != 0
    wrong = torch.exp(spy.log_rate[0]) == counts[0]  # a gradient of 0 there says nothing
    shown = spy.seen[0] != 0
    inner = ~wrong[:10, :4]
    assert bool((scored[:10, :4] ^ shown)[inner].all())
    assert bool((scored | wrong)[10:].all())
    assert bool((scored | wrong)[:, 4:].all())


def test_what_is_shown_and_scored_is_right_on_average() -> None:
    """Over 4000 masks: the input's mean is the counts, the loss's mean is that of all counts (|z| < 4.5)."""
    spy, counts = Spy(), counts_of(1)
    rows = counts.expand(4000, -1, -1)
    found = TrialBound(shown=0.6)(spy, rows, generators_of(range(4000)))
    shown = (spy.seen != 0).double().mean(0)
    where = counts[0, :10, :4] > 0
    z = (shown - 0.6) / (0.24 / 4000) ** 0.5
    assert float(z[where].abs().max()) < 4.5
    torch.testing.assert_close(spy.seen.amax(0)[where], (counts[0, :10, :4] / 0.6)[where])
    whole = poisson_nll(torch.zeros_like(counts), counts).mean()
    values = found.per_sample.detach()
    assert abs(float(values.mean() - whole)) < 4.5 * float(values.std()) / 4000**0.5 + 2e-3


def test_the_bound_by_hand() -> None:
    """With the masks and draws of the same generators: weighted nll plus beta times the KL over what was scored."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LangevinFlow(latents=3, dropout=0.0, **SIZES)
    counts, observed = counts_of(2), torch.ones(2, 13, dtype=torch.bool)
    observed[1, 6:] = False
    counts[1, 6:] = 0
    loss = TrialBound(beta=0.5, shown=0.7)
    found = loss(model, counts, generators_of([5, 6]), observed=observed).per_sample
    rows = generators_of([5, 6])
    shown = torch.stack([torch.rand((10, 4), generator=g) < 0.7 for g in rows])
    posterior = model.encode(counts[:, :10, :4] * shown / 0.7)
    path = model.path(posterior, rows, rows)
    log_rates = model.log_rates(path)
    for row in range(2):
        total, size = 0.5 * posterior.kl(path)[row], 0.0
        for t in range(13):
            for n in range(6):
                inside = t < 10 and n < 4
                weight = float(observed[row, t]) * ((not shown[row, t, n]) / 0.3 if inside else 1.0)
                total = total + weight * poisson_nll(log_rates[row, t, n], counts[row, t, n])
                size += weight
        torch.testing.assert_close(found[row], total / size)


def test_beta_rises_with_the_step() -> None:
    loss = TrialBound(beta=0.8, ramp=10)
    assert [loss.at(k).weight for k in (0, 5, 10, 99)] == pytest.approx([0, 0.4, 0.8, 0.8])
    assert TrialBound(beta=0.8).at(0).weight == 0.8


def test_a_row_is_the_same_alone_and_the_smoother_is_trained_by_the_same() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GRUSmoother(dropout=0.0, **SIZES)
    counts, loss = counts_of(3), TrialBound()
    whole = loss(model, counts, generators_of([1, 2, 3])).per_sample
    torch.testing.assert_close(loss(model, counts[2:], generators_of([3])).per_sample, whole[2:])
    assert whole.requires_grad


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="beta in"):
        TrialBound(beta=2.0)
    with pytest.raises(InputError, match="shown in"):
        TrialBound(shown=1.0)
    with pytest.raises(InputError, match=r"10 \+ 3 bins, 6 neurons"):
        TrialBound()(Spy(), torch.zeros(2, 10, 6), generators_of([0, 1]))

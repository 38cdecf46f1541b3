"""The auto-encoder: its generator against a literal loop, its KL against the integral, and where information may flow."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from radiata_core.checkpoint import load_model, save_model
from radiata_core.errors import InputError
from radiata_core.seeds import generators_of, noise_of
from radiata_latents.data.lorenz import lorenz_population
from radiata_latents.model.bits import bits_per_spike
from radiata_latents.model.lfads import LFADS, GeneratorPath, StartPosterior
from radiata_latents.model.objective import TrialBound

SIZES = {
    "neurons": 7,
    "heldin": 5,
    "bins": 9,
    "forward": 4,
    "hidden": 6,
    "latents": 3,
    "generator": 8,
    "factors": 4,
}


def made(**options) -> LFADS:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = LFADS(**(SIZES | options)).eval()
        torch.nn.init.normal_(model.start.weight)
        if model.inputs:
            torch.nn.init.normal_(model.push.weight)
        return model


def counts_of(rows: int, time: int = 9, neurons: int = 5) -> Tensor:
    return torch.poisson(torch.full((rows, time, neurons), 1.2), generator=torch.Generator().manual_seed(2))


def cell(model: LFADS, u: Tensor, g: Tensor) -> Tensor:
    """One step of the generator by the equations of a gated recurrent unit, reset gate inside."""
    w = dict(model.generator.named_parameters())
    x, h = (u @ w["weight_ih_l0"].T + w["bias_ih_l0"]), (g @ w["weight_hh_l0"].T + w["bias_hh_l0"])
    (xr, xz, xn), (hr, hz, hn) = x.chunk(3, 1), h.chunk(3, 1)
    r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
    return (1 - z) * torch.tanh(xn + r * hn) + z * g


def read(model: LFADS, g: Tensor) -> Tensor:
    weight = model.factors.weight
    return g @ (weight / weight.square().sum(1, keepdim=True).sqrt()).T


@torch.no_grad()
def test_the_generator_is_a_literal_loop() -> None:
    """Without inputs: one fused call over observed and forward bins equals a step a bin, log-rates included."""
    model = made()
    start = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    path = model.path(StartPosterior(start, torch.zeros_like(start), 1.0))
    g = start @ model.begin.weight.T + model.begin.bias
    for t in range(13):
        g = cell(model, torch.zeros(4, 1), g)
        torch.testing.assert_close(path.state[:, t], g)
        rates = read(model, g) @ model.readout.weight.T + model.readout.bias
        torch.testing.assert_close(model.log_rates(path)[:, t], rates)
    assert path.inputs.shape == (4, 13, 0)


@torch.no_grad()
def test_the_controller_is_a_literal_loop() -> None:
    """With inputs: evidence and last factors move the controller, its draw the generator; after the observed bins the
    inputs' prior takes over. The KL is summed along the way."""
    model, rows = made(inputs=2, controller=5), generators_of([4, 5])
    posterior = model.encode(counts_of(2))
    assert posterior.evidence is not None
    path = model.path(posterior, rows, rows)
    again = generators_of([4, 5])
    start = posterior.start_mean + posterior.start_log_sd.exp() * noise_of(again, (3,))
    inside, after = noise_of(again, (9, 2)), noise_of(again, (4, 2))
    a, sigma = torch.exp(-1 / torch.exp(model.memory)), torch.exp(model.spread)
    g, c = start @ model.begin.weight.T + model.begin.bias, torch.zeros(2, 5)
    f, u, kl = read(model, g), torch.zeros(2, 2), torch.zeros(2)
    for t in range(13):
        prior = torch.distributions.Normal(a * u, sigma if t == 0 else sigma * (1 - a**2).sqrt())
        if t < 9:
            c = model.controller(torch.cat([posterior.evidence[:, t], f], 1), c)
            mean, log_sd = model.push(c).chunk(2, 1)
            law = torch.distributions.Normal(mean, log_sd.exp() * prior.stddev)
            u = mean + law.stddev * inside[:, t]
            kl = kl + torch.distributions.kl_divergence(law, prior).sum(1)
        else:
            u = a * u + prior.stddev * after[:, t - 9]
        g = cell(model, u, g)
        f = read(model, g)
        torch.testing.assert_close(path.inputs[:, t], u)
        torch.testing.assert_close(path.state[:, t], g)
    torch.testing.assert_close(path.input_kl, kl)
    torch.testing.assert_close(posterior.kl(path), replace(posterior, evidence=None).kl() + kl)
    with pytest.raises(InputError, match="path that inputs"):
        posterior.kl()


def test_kl_of_the_start_is_that_of_torch() -> None:
    mean, log_sd = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(3)).unbind(0)
    found = StartPosterior(mean, log_sd, 0.4).kl()
    normal = torch.distributions.Normal
    wanted = torch.distributions.kl_divergence(normal(mean, log_sd.exp()), normal(0.0, 0.4)).sum(1)
    torch.testing.assert_close(found, wanted)
    assert float(StartPosterior(torch.zeros(1, 3), torch.full((1, 3), 0.4).log(), 0.4).kl()) == pytest.approx(
        0, abs=1e-6
    )


@torch.no_grad()
def test_without_inputs_the_start_carries_everything() -> None:
    """A trial's rates are those of its start, whatever its spikes; with inputs they are not."""
    one, other = counts_of(2)[:1], counts_of(2)[1:]
    for inputs in (0, 2):
        model = made(inputs=inputs, controller=5)
        mixed = replace(model.encode(other), start_mean=model.encode(one).start_mean)
        same = torch.allclose(model.log_rates(model.path(mixed)), model(one), atol=1e-6)
        assert same == (inputs == 0)
        assert not torch.allclose(model(other), model(one), atol=1e-3)


@pytest.mark.parametrize("inputs", [0, 2])
def test_no_spike_after_the_observed_window_reaches_a_rate(inputs: int) -> None:
    """Through the objective: forward counts and held-out neurons change the loss, never the rates that it scores."""
    model, seen = made(inputs=inputs, controller=5), list[Tensor]()
    original = model.log_rates

    def spied(path: GeneratorPath) -> Tensor:
        seen.append(original(path).detach())
        return original(path)

    model.log_rates = spied
    counts = counts_of(2, 13, 7)
    other = counts.clone()
    other[:, 9:] += 3
    other[..., 5:] += 2
    losses = [TrialBound()(model, c, generators_of([1, 2])).per_sample for c in (counts, other)]
    torch.testing.assert_close(seen[1], seen[0], rtol=0, atol=0)
    assert not torch.allclose(losses[0], losses[1])
    early = counts.clone()
    early[:, 0, :5] += 3
    TrialBound()(model, early, generators_of([1, 2]))
    assert float((seen[2] - seen[0])[:, 12].abs().max()) > 1e-5


@torch.no_grad()
def test_inputs_of_the_prior_have_its_moments() -> None:
    """AR(1) from its law at rest: variance sigma^2 in every bin, correlation a between bins (4000 paths, |z| < 4.5)."""
    model = made(inputs=1)
    model.memory.fill_(1.0)
    a, sigma = (float(value) for value in model.input_prior)
    u = model.sample(generators_of(range(4000)), 6).inputs[..., 0] / sigma
    assert float((u.square().mean(0) - 1).abs().max()) < 4.5 * (2 / 4000) ** 0.5
    lagged = (u[:, 1:] * u[:, :-1]).mean(0) - a
    assert float(lagged.abs().max()) < 4.5 * ((1 + a**2) / 4000) ** 0.5


def test_rows_are_their_own_and_draws_need_generators() -> None:
    model, counts = made(inputs=2, controller=5), counts_of(3)
    with torch.no_grad():
        whole = model.rates(counts, 2, generators_of([1, 2, 3]))
        torch.testing.assert_close(model.rates(counts[2:], 2, generators_of([3])), whole[2:])
    with pytest.raises(InputError, match="one generator a trial"):
        model.rates(counts, 2)
    with pytest.raises(InputError, match="9 observed bins"):
        model.encode(counts_of(1, 13))
    with pytest.raises(InputError, match="start_sd > 0"):
        made(start_sd=0.0)


def test_it_comes_back_from_its_files(tmp_path) -> None:
    model, counts = made(inputs=2, controller=5), counts_of(2)
    save_model(tmp_path / "model.safetensors", model, metadata={})
    back = load_model(tmp_path / "model.safetensors").denoiser
    torch.testing.assert_close(back.rates(counts), model.rates(counts), rtol=0, atol=0)


def test_it_learns_a_lorenz_set() -> None:
    """Spikes of a Lorenz attractor, 8 trajectories: after 150 updates held-out neurons of new trials are predicted
    better than by their mean, a quarter of the way to the true rates (0.76 bits), and the starts of trials differ."""
    data = lorenz_population(conditions=8, trials=30, neurons=20)
    counts = (
        torch.from_numpy(data["counts"].values.astype("float32"))[:, ::2]
        + torch.from_numpy(data["counts"].values.astype("float32"))[:, 1::2]
    )
    test = torch.arange(len(counts)) % 5 == 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LFADS(20, 15, 25, hidden=24, latents=8, generator=40, factors=6, dropout=0.0)
        model.set_mean_counts(counts[~test].mean((0, 1)))
        optimiser, draws = torch.optim.Adam(model.parameters(), 1e-2), torch.Generator().manual_seed(0)
        for step in range(150):
            rows = torch.randint(int((~test).sum()), (32,), generator=draws)
            optimiser.zero_grad()
            bound = TrialBound(beta=0.1)(
                model, counts[~test][rows], generators_of(range(32 * step, 32 * step + 32))
            )
            bound.value.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()
    with torch.no_grad():
        seen = counts[test][..., :15]
        rates = model.eval().rates(seen)
        bits = bits_per_spike(rates[..., 15:].numpy(), counts[test][..., 15:].numpy())
        assert model.encode(seen).informed()[0] > 0.3
    assert bits > 0.19, bits

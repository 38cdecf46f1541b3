"""The latent flow: its dynamics in closed form, its law at rest, its posterior, and rows that are their own."""

import math

import pytest
import torch

from radiata_core.checkpoint import load_model, save_model
from radiata_core.errors import InputError
from radiata_core.langevin import Bath, PhasePoint, autocovariance, simulate
from radiata_core.seeds import generators_of, noise_of
from radiata_latents.model.flow_dynamics import Dynamics
from radiata_latents.model.langevin_flow import LangevinFlow

SIZES = {"neurons": 7, "heldin": 5, "bins": 12, "forward": 4, "latents": 5, "hidden": 8}


def made(**options) -> LangevinFlow:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return LangevinFlow(**(SIZES | options)).eval()


def counts_of(rows: int = 3) -> torch.Tensor:
    return torch.poisson(torch.full((rows, 12, 5), 0.7), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_the_prior_is_at_rest_with_the_oscillators_autocovariance() -> None:
    """Without coupling: variance 1 of q and v / omega in every bin, lagged covariance in closed form; 6000 trials, all
    z-scores within 4.5 (130 of them: one seed in 1100 fails)."""
    n, bins = 6000, 9
    model = made(coupled=False)
    path = model.sample(generators_of(range(n)), bins)
    for state in (path.position, path.velocity):
        z = (state.square().mean(0) - 1) * math.sqrt(n / 2)
        assert float(z.abs().max()) < 4.5
    omega = 2 * math.pi * model.frequency_hz.double()
    bath = Bath(2 * model.damping.double() * omega, 1.0, omega**-2)
    for lag in range(1, bins):
        exact = autocovariance(lag * model.bin_s, omega, bath)
        found = (path.position[:, 0] * path.position[:, lag]).double().mean(0)
        z = (found - exact) / ((1 + exact.square()) / n).sqrt()
        assert float(z.abs().max()) < 4.5


@torch.no_grad()
def test_without_noise_an_uncoupled_oscillator_swings_as_it_should() -> None:
    """q(t) = exp(-zeta omega t) (cos nu t + zeta / sqrt(1 - zeta^2) sin nu t) from (1, 0): 1e-5."""
    model = made(coupled=False)
    start = torch.tensor([1.0, 0.0])[None, :, None].expand(1, 2, 5)
    path = model.run(start, torch.zeros(1, 30, 2, 5))
    t = model.bin_s * torch.arange(31, dtype=torch.float64)[:, None]
    omega, zeta = 2 * math.pi * model.frequency_hz.double(), model.damping.double()
    nu = omega * (1 - zeta**2).sqrt()
    exact = torch.exp(-zeta * omega * t) * (
        torch.cos(nu * t) + zeta / (1 - zeta**2).sqrt() * torch.sin(nu * t)
    )
    torch.testing.assert_close(path.position[0].double(), exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("band", [(0.3, 8.0), (1.0, 24.0)])
@torch.no_grad()
def test_no_parameters_make_the_prior_explode(band: tuple[float, float]) -> None:
    """Extreme coupling, wells and little friction: a path without noise from far out stays below twice its start."""
    model = made(band_hz=band).double()
    model.flow.pitch.fill_(9.0)
    model.flow.friction.fill_(-9.0)
    model.flow.stiffening.fill_(9.0)
    for kernel in ([40.0, -80.0, 40.0], [50.0, 50.0, 50.0], [0.0, 99.0, 0.0]):
        model.flow.kernel.copy_(torch.tensor(kernel))
        start = torch.zeros(4, 2, 5, dtype=torch.float64)
        start[:, 0] = 30 * noise_of(generators_of(range(4)), (5,), torch.float64)
        path = model.run(start, torch.zeros(4, 600, 2, 5, dtype=torch.float64))
        energy = 0.5 * path.velocity.square().sum(2) + model.energy(path.position.flatten(0, 1)).unflatten(
            0, (4, -1)
        )
        assert bool((energy < 4 * energy[:, :1]).all())


def test_the_force_is_the_gradient_of_an_energy_that_is_bounded_below() -> None:
    model = made().double()
    with torch.no_grad():
        model.flow.kernel.copy_(torch.tensor([0.7, -1.3, 0.4]))
        model.flow.stiffening.fill_(0.5)
    q = 3 * torch.randn(
        50, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    ).requires_grad_(True)
    energy = model.energy(q)
    (slope,) = torch.autograd.grad(energy.sum(), q)
    torch.testing.assert_close(model.force(q), q - slope)
    assert bool((energy >= 0.5 * q.square().sum(1)).all())


@torch.no_grad()
def test_at_rest_the_law_is_that_of_the_energy() -> None:
    """Virial theorem, E[q_k dU/dq_k] = 1 for every k, after 300 bins of strong coupling: 4000 trials, 4.5 standard errors
    plus 1 % for the step."""
    model = made(bin_s=0.005).double()
    model.flow.pitch.add_(3.0)  # all of them above 2 Hz, so that 1.5 s is long
    model.flow.kernel.copy_(torch.tensor([0.5, 0.8, -0.3]))
    model.flow.stiffening.fill_(0.0)
    q = model.sample(generators_of(range(4000)), 300).position[:, -1]
    with torch.enable_grad():
        q.requires_grad_(True)
        (slope,) = torch.autograd.grad(model.energy(q).sum(), q)
    work = (q * slope).detach()
    error = work.std(0) / math.sqrt(len(q))
    assert bool(((work.mean(0) - 1).abs() < 4.5 * error + 0.01).all())
    assert float(q.detach().var(0).mean()) < 0.8  # and not that of |q|^2 / 2


@torch.no_grad()
def test_kl_along_a_path_is_that_of_the_drawn_noise() -> None:
    """Mean over 3000 draws of log q - log p of start and noise, feedback included, against the mean KL (|z| < 4.5)."""
    n, model = 3000, made(forward=0)
    model.feedback.normal_(0.0, 0.4, generator=torch.Generator().manual_seed(7))
    model.noise.bias.normal_(0.0, 0.7, generator=torch.Generator().manual_seed(8))
    posterior = model.encode(counts_of(1).expand(n, -1, -1))
    path = model.path(posterior, generators_of(range(n)))
    rows = generators_of(range(n))
    first, later = noise_of(rows, (2, 5)), noise_of(rows, (11, 2, 5))
    start = posterior.start_mean + posterior.start_log_sd.exp() * first
    noise = path.noise_mean + posterior.noise_log_sd.exp() * later
    pieces = ((start, first, posterior.start_log_sd), (noise, later, posterior.noise_log_sd))
    ratio = sum((0.5 * (x**2 - e**2) - s).flatten(1).sum(1) for x, e, s in pieces)
    z = (ratio - posterior.kl(path)).mean() / ratio.std() * math.sqrt(n)
    assert abs(float(z)) < 4.5
    assert float((posterior.kl(path) - posterior.kl()).abs().min()) > 0  # and the feedback counts
    torch.testing.assert_close(path.position[:, 0], start[:, 0])


@torch.no_grad()
def test_feedback_holds_a_drawn_path() -> None:
    """Spread of position over 2000 draws in the last bin: with gains on the velocity below two thirds of that without."""
    spread = []
    for gain in (0.0, 1.0):
        model = made(bins=60, forward=0, coupled=False)
        model.feedback.zero_()
        model.feedback[-1, 1] = gain
        posterior = model.encode(torch.zeros(2000, 60, 5))
        spread.append(float(model.path(posterior, generators_of(range(2000))).position[:, -1].var(0).mean()))
    assert spread[1] < spread[0] * 2 / 3


@pytest.mark.parametrize("dynamics", Dynamics)
@pytest.mark.parametrize("attention", [False, True])
@torch.no_grad()
def test_a_row_is_the_same_alone(dynamics: Dynamics, attention: bool) -> None:
    model = made(dynamics=dynamics, attention=attention)
    if attention:
        model.attention.out.weight.normal_(generator=torch.Generator().manual_seed(0))
    counts = counts_of()
    posterior = model.encode(counts)
    whole = model.log_rates(model.path(posterior, generators_of([4, 5, 6]), generators_of([4, 5, 6], 1)))
    alone = model.log_rates(model.path(model.encode(counts[1:2]), generators_of([5]), generators_of([5], 1)))
    assert whole.shape == (3, 16, 7)
    torch.testing.assert_close(whole[1:2], alone, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_forward_bins_do_not_need_to_be_seen_and_everything_before_does() -> None:
    """The encoder reads the whole observed window (both ways): the last bin changes the first rate; held-out and forward
    bins are no input at all."""
    model, counts = made(), counts_of(1)
    other = counts.clone()
    other[0, -1, 2] += 5
    assert float((model(counts) - model(other))[0, 0].abs().max()) > 0
    with pytest.raises(InputError, match="12 observed bins, 5 held-in"):
        model.encode(torch.zeros(1, 16, 7))


@torch.no_grad()
def test_draws_average_to_rates_and_mean_counts_are_the_null_model() -> None:
    model, counts = made(), counts_of(2)
    model.readout.linear.weight.zero_()
    model.set_mean_counts(torch.linspace(0.1, 0.7, 7))
    expected = torch.linspace(0.1, 0.7, 7).expand(2, 16, 7)
    torch.testing.assert_close(model.rates(counts), expected)
    torch.testing.assert_close(model.rates(counts, 3, generators_of([0, 1])), expected)
    with pytest.raises(InputError, match="one generator a trial, 2; got 1"):
        model.rates(counts, 2, generators_of([0]))


@torch.no_grad()
def test_without_latents_the_encoder_is_read_out_and_costs_no_kl() -> None:
    model, counts = made(dynamics="none"), counts_of()
    posterior = model.encode(counts)
    drawn = model.path(posterior, generators_of([1, 2, 3]))
    torch.testing.assert_close(drawn.features, model.path(posterior).features, rtol=0, atol=0)
    assert not posterior.kl(drawn).any()
    torch.testing.assert_close(drawn.features[:, 1:12], posterior.noise_mean.flatten(2))


def test_a_dropped_unit_is_missing_in_the_whole_trial() -> None:
    model = made().train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kept = model.whole_trial_dropout(torch.ones(200, 12, 16), 0.25)
    assert bool((kept == kept[:, :1]).all())
    torch.testing.assert_close(kept.unique(), torch.tensor([0.0, 4 / 3]))
    share = float((kept[:, 0] == 0).float().mean())
    assert abs(share - 0.25) < 4.5 * math.sqrt(0.25 * 0.75 / 3200)


@pytest.mark.parametrize("dynamics", ["first-order", "independent", "none"])
def test_an_ablation_has_no_modes(dynamics: str) -> None:
    assert len(made(dynamics=dynamics).modes().frequency_hz) == 0


def test_first_order_latents_have_unit_variance_and_no_velocity() -> None:
    model = made(dynamics="first-order", coupled=False)
    with torch.no_grad():
        path = model.sample(generators_of(range(5000)), 6)
    z = (path.position.square().mean(0) - 1) * math.sqrt(5000 / 2)
    assert float(z.abs().max()) < 4.5
    assert not path.velocity.any()


@torch.no_grad()
def test_normal_modes_are_what_paths_swing_with() -> None:
    """Uncoupled: nu = omega sqrt(1 - zeta^2) / 2 pi and decay 1 / (zeta omega), 1e-4. Coupled: a path without noise from
    (1, 0, ...) is a sum of the modes' decaying swings and nothing else (least squares, residual 1e-5)."""
    model = made(coupled=False)
    modes, omega, zeta = model.modes(), 2 * math.pi * model.frequency_hz.double(), model.damping.double()
    torch.testing.assert_close(
        modes.frequency_hz, omega * (1 - zeta**2).sqrt() / (2 * math.pi), rtol=1e-4, atol=0
    )
    torch.testing.assert_close(modes.decay_s, 1 / (zeta * omega), rtol=1e-4, atol=0)
    model = made().double()
    model.flow.kernel.copy_(torch.tensor([0.5, 0.8, -0.3]))
    model.flow.stiffening.fill_(-40.0)
    path = model.run(torch.eye(1, 10).double().unflatten(1, (2, 5)), torch.zeros(1, 80, 2, 5).double())
    modes, t = model.modes(), model.bin_s * torch.arange(81, dtype=torch.float64)[:, None]
    phase, fall = 2 * math.pi * modes.frequency_hz * t, torch.exp(-t / modes.decay_s)
    basis = torch.cat([fall * torch.cos(phase), fall * torch.sin(phase)], 1)
    fit = torch.linalg.lstsq(basis, path.position[0]).solution
    torch.testing.assert_close(basis @ fit, path.position[0], rtol=0, atol=1e-5)
    assert float((modes.frequency_hz - made(coupled=False).modes().frequency_hz).abs().max()) > 0.1


@torch.no_grad()
def test_the_path_is_the_cores_langevin_steps() -> None:
    """With coupling and cubic force: kicks around exact steps, as `radiata_core.langevin.simulate` does them, 1e-9."""
    model = made(dropout=0.0).double()
    model.flow.kernel.copy_(torch.tensor([0.5, 0.8, -0.3]))
    model.flow.stiffening.fill_(0.7)
    rows = generators_of(range(4))
    start, noise = noise_of(rows, (2, 5), torch.float64), noise_of(rows, (30, 2, 5), torch.float64)
    path, omega = model.run(start, noise), 2 * math.pi * model.frequency_hz
    first = PhasePoint(start[:, 0], start[:, 1] * omega)
    exact = simulate(model.force, first, model.step(), 30, noise=noise.transpose(0, 1))
    torch.testing.assert_close(path.position, exact.position.transpose(0, 1), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(path.velocity * omega, exact.velocity.transpose(0, 1), rtol=1e-9, atol=1e-8)


def test_gradients_reach_frequency_damping_and_coupling() -> None:
    model = made()
    model(counts_of()).square().sum().backward()
    for name in ("flow.pitch", "flow.friction", "flow.kernel", "flow.stiffening", "feedback"):
        gradient = model.get_parameter(name).grad
        assert torch.isfinite(gradient).all()
        assert gradient.abs().max() > 0, name


def test_it_comes_back_from_its_files(tmp_path) -> None:
    model = made(attention=True)
    save_model(tmp_path / "model.safetensors", model, metadata={})
    back = load_model(tmp_path / "model.safetensors").denoiser
    torch.testing.assert_close(back(counts_of()), model(counts_of()), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"heldin": 8}, "heldin <= neurons"),
        ({"latents": 2}, "3 latents"),
        ({"dynamics": "chaos"}, "got 'chaos'"),
        ({"band_hz": (1.0, 40.0)}, "< 25 Hz"),
        ({"bins": 1}, "2 bins"),
    ],
)
def test_what_cannot_be_is_refused(options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        LangevinFlow(**(SIZES | options))


@torch.no_grad()
def test_far_states_of_the_overdamped_flow_come_back() -> None:
    """From q = 100 with strong coupling and wells: no overflow, and near 0 after four seconds."""
    model = made(dynamics="first-order")
    model.flow.stiffening.fill_(9.0)
    model.flow.kernel.copy_(torch.tensor([40.0, -80.0, 40.0]))
    start = torch.full((1, 2, 5), 100.0)
    position = model.run(start, torch.zeros(1, 200, 1, 5)).position
    assert float(position.abs().max()) == 100.0
    assert float(position[0, -1].abs().max()) < 1.0

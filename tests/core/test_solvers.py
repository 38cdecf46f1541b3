"""The one loop against textbook loops, diffusers, closed forms and its own promises."""

import functools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from radiata_core.analytic import GaussianDenoiser, MixtureDenoiser, gaussian_flow
from radiata_core.covariances import Diagonal
from radiata_core.errors import InputError
from radiata_core.paths import DiscreteVPPath, LinearPath, Path, TrigonometricPath, VEPath, VPPath
from radiata_core.predictions import Prediction, convert
from radiata_core.seeds import generators_of, noise_of
from radiata_core.solvers import (
    MultistepTable,
    Step,
    ab2_velocity,
    ddim,
    ddpm,
    dpmpp_2m,
    integrate,
    sde_dpmpp_2m,
    unipc_2,
)
from radiata_core.times import LogSNRGrid
from radiata_core.transitions import PowerDiffusion, euler_maruyama

Maker = Callable[[Tensor, Path], MultistepTable]
PATHS = [LinearPath(), TrigonometricPath(), VPPath(), VEPath(sigma_max=20.0)]


def _gaussian(path: Path) -> GaussianDenoiser:
    mean, variance = torch.tensor([0.3, -1.0]), torch.tensor([0.5, 0.04])
    return GaussianDenoiser(mean.double(), Diagonal(variance.double()), path)


def _mixture(path: Path) -> MixtureDenoiser:
    means = torch.tensor([[1.5, 0.0], [-1.0, 1.0], [0.0, -2.0]], dtype=torch.float64)
    blobs = [Diagonal(torch.tensor(v, dtype=torch.float64)) for v in ([0.1, 0.3], [0.2, 0.2], [0.4, 0.05])]
    return MixtureDenoiser(torch.tensor([0.5, 0.3, 0.2]), means, blobs, path)


def _start(path: Path, rows: int, generator: torch.Generator) -> Tensor:
    sigma = path.coefficients(torch.ones((), dtype=torch.float64)).sigma
    return torch.randn(rows, 2, generator=generator, dtype=torch.float64) * sigma


@pytest.mark.parametrize("path", PATHS, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("make", [dpmpp_2m, unipc_2, ab2_velocity])
def test_gaussian_flow_is_reproduced(make: Maker, path: Path, generator: torch.Generator) -> None:
    denoiser, x = _gaussian(path), _start(path, 8, generator)
    ends = torch.tensor([1.0, 0.0], dtype=torch.float64)
    truth = gaussian_flow(x, ends[0], ends[1], denoiser.mean, denoiser.covariance, path)
    solved = integrate(denoiser, x, make(LogSNRGrid(7.0)(300, path), path))
    torch.testing.assert_close(solved, truth, rtol=0, atol=4e-3)


def _interior(denoiser: Callable, x: Tensor, make: Maker, n: int) -> Tensor:
    """From log-SNR -2 to 2 in n steps: no ends."""
    path = VPPath()
    times = path.time_of_log_snr(torch.linspace(-2.0, 2.0, n + 1, dtype=torch.float64))
    return integrate(denoiser, x, make(times, path))


@functools.cache
def _interior_truth(oracle: Callable) -> tuple[Callable, Tensor, Tensor]:
    """The oracle, 16 states at log-SNR -2, and where they are at 2."""
    denoiser, generator = oracle(VPPath()), torch.Generator().manual_seed(20240)
    x = torch.randn(16, 2, generator=generator, dtype=torch.float64)
    return denoiser, x, _interior(denoiser, x, unipc_2, 256)


@pytest.mark.parametrize(
    ("make", "order"), [(ddim, 0.9), (dpmpp_2m, 1.85), (ab2_velocity, 1.8), (unipc_2, 2.3)]
)
@pytest.mark.parametrize("oracle", [_gaussian, _mixture])
def test_orders(oracle: Callable, make: Maker, order: float) -> None:
    """Between two interior times the error falls at the order of the method, on one Gaussian and on a mixture."""
    denoiser, x, truth = _interior_truth(oracle)
    errors = [float((_interior(denoiser, x, make, n) - truth).square().mean().sqrt()) for n in (16, 64)]
    if oracle is _mixture and make is ddim:
        order = 0.8  # it creeps to 1 on multimodal data
    assert math.log(errors[0] / errors[1], 4) > order


def _textbook_dpmpp_2m(denoiser, x: Tensor, times: Tensor, path: Path, noises: list[Tensor] | None) -> Tensor:
    """Lu et al., algorithm 2 (and its SDE variant), with D0 and D1 as in the paper."""
    old, h_old = None, None
    for i in range(len(times) - 1):
        s, t = times[i], times[i + 1]
        a, b = path.coefficients(s), path.coefficients(t)
        m = denoiser(x, s)
        if float(b.sigma) == 0:
            return m
        h = (b.alpha / b.sigma).log() - (a.alpha / a.sigma).log()
        d = m if old is None else m + (m - old) / (2 * (h_old / h))
        if noises is None:
            x = b.sigma / a.sigma * x - b.alpha * (torch.exp(-h) - 1) * d
        else:
            x = b.sigma / a.sigma * torch.exp(-h) * x + b.alpha * (1 - torch.exp(-2 * h)) * d
            x = x + b.sigma * (1 - torch.exp(-2 * h)).sqrt() * noises[i]
        old, h_old = m, h
    return x


def _textbook_unipc_2(denoiser, x: Tensor, times: Tensor, path: Path) -> Tensor:
    """Zhao et al., algorithms 5–8 for p = 2, data prediction, B(h) = e^h - 1, by solving their linear systems."""
    lam = path.log_snr(times)
    c = path.coefficients(times)
    outputs: list[Tensor] = []
    base = x
    for i in range(len(times) - 1):
        m = denoiser(x, times[i])
        if i:
            h = float(lam[i] - lam[i - 1])
            hh, b_h = -h, math.expm1(-h)
            plain = c.sigma[i] / c.sigma[i - 1] * base - c.alpha[i] * b_h * outputs[-1]
            phi = b_h / hh - 1
            if i == 1:
                corrected = plain - c.alpha[i] * b_h * 0.5 * (m - outputs[-1])
            else:
                r = float((lam[i - 2] - lam[i - 1]) / h)
                rho = torch.linalg.solve(
                    torch.tensor([[1.0, 1.0], [r, 1.0]], dtype=torch.float64),
                    torch.tensor([phi / b_h, 2 * (phi / hh - 0.5) / b_h], dtype=torch.float64),
                )
                inner = rho[0] * (outputs[-2] - outputs[-1]) / r + rho[1] * (m - outputs[-1])
                corrected = plain - c.alpha[i] * b_h * inner
            base = corrected
        outputs.append(m)
        if float(c.sigma[i + 1]) == 0:
            return m
        h = float(lam[i + 1] - lam[i])
        x = c.sigma[i + 1] / c.sigma[i] * base - c.alpha[i + 1] * math.expm1(-h) * m
        if i:
            r = float((lam[i - 1] - lam[i]) / h)
            x = x - c.alpha[i + 1] * math.expm1(-h) * 0.5 * (outputs[-2] - m) / r
    return x


def _curved(x: Tensor, t: Tensor) -> Tensor:
    """Any function will do where two programs of one method must agree; this one is cheap, and linear in nothing."""
    return torch.tanh(2 * x + 1 - 3 * t) + 0.3 * torch.cos(5 * x.flip(1))


def _uneven(path: Path, end: float) -> Tensor:
    inner = torch.linspace(0.98, 0.03, 12, dtype=torch.float64) ** 1.3
    return torch.cat([inner, torch.tensor([end], dtype=torch.float64)])


@pytest.mark.parametrize("end", [0.0, 0.004])
@pytest.mark.parametrize("path", [*PATHS, DiscreteVPPath()], ids=lambda p: type(p).__name__)
def test_tables_are_the_textbook_loops(path: Path, end: float, generator: torch.Generator) -> None:
    denoiser, times, x = _curved, _uneven(path, end), _start(path, 5, generator)
    c = path.coefficients(times)

    noises = list(torch.randn(13, 5, 2, generator=generator, dtype=torch.float64))
    expected = _textbook_dpmpp_2m(denoiser, x, times, path, None)
    torch.testing.assert_close(integrate(denoiser, x, dpmpp_2m(times, path)), expected, rtol=0, atol=1e-11)
    expected = _textbook_unipc_2(denoiser, x, times, path)
    torch.testing.assert_close(integrate(denoiser, x, unipc_2(times, path)), expected, rtol=0, atol=1e-10)

    y = x  # DDIM by predicting the noise, and stepping the pair (x0, noise)
    for i in range(len(times) - 1):
        m = denoiser(y, times[i])
        y = c.alpha[i + 1] * m + c.sigma[i + 1] * (y - c.alpha[i] * m) / c.sigma[i]
    torch.testing.assert_close(integrate(denoiser, x, ddim(times, path)), y, rtol=0, atol=1e-11)

    generators = generators_of(range(5), 7)
    noises = [noise_of(generators, (2,), torch.float64) for _ in range(len(times) - 1)]
    expected = _textbook_dpmpp_2m(denoiser, x, times, path, noises)
    solved = integrate(denoiser, x, sde_dpmpp_2m(times, path), generators=generators_of(range(5), 7))
    torch.testing.assert_close(solved, expected, rtol=0, atol=1e-11)


def test_ab2_is_the_textbook_loop_in_velocity(generator: torch.Generator) -> None:
    path = LinearPath()
    denoiser, times, x = _mixture(path), _uneven(path, 0.0), _start(path, 5, generator)
    y, old = x, None
    for i in range(len(times) - 1):
        velocity = convert(denoiser(y, times[i]), y, times[i], path, Prediction.X0, Prediction.VELOCITY)
        step = times[i + 1] - times[i]
        r = step / (times[i] - times[i - 1]) if i else torch.zeros(())
        last = i == len(times) - 2
        y = y + step * (velocity if old is None or last else (1 + r / 2) * velocity - r / 2 * old)
        old = velocity
    torch.testing.assert_close(integrate(denoiser, x, ab2_velocity(times, path)), y, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers on numpy 2
@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler"])
def test_same_as_diffusers_as_a_black_box(name: str, generator: torch.Generator) -> None:
    diffusers = pytest.importorskip("diffusers")
    scheduler = getattr(diffusers, name)(prediction_type="sample", timestep_spacing="linspace")
    scheduler.set_timesteps(18)
    path = DiscreteVPPath()
    kappas = scheduler.sigmas.double()
    times = torch.cat([path.time_of_log_snr(-kappas[:-1].log()), torch.zeros(1, dtype=torch.float64)])
    denoiser, x = _mixture(path), torch.randn(6, 2, generator=generator)
    y = x.clone()
    for index, step in enumerate(scheduler.timesteps):
        y = scheduler.step(denoiser(y, times[index]), step, y).prev_sample
    make = unipc_2 if name.startswith("UniPC") else dpmpp_2m
    torch.testing.assert_close(integrate(denoiser, x, make(times, path)), y, rtol=0, atol=2e-4)


@pytest.mark.parametrize("path", [LinearPath(), VPPath()], ids=lambda p: type(p).__name__)
def test_same_as_azula_as_a_black_box(path: Path, generator: torch.Generator) -> None:
    """DDIM and Adams-Bashforth in velocity between interior times, on the same schedule and denoiser: 1e-10.

    Azula asks for packages that we do not depend on: `pip install --no-deps azula` is enough for this.
    """
    denoise = pytest.importorskip("azula.denoise")
    sample = pytest.importorskip("azula.sample")
    exact, x = _mixture(path), torch.randn(6, 2, generator=generator, dtype=torch.float64)

    class Theirs(denoise.Denoiser):  # type: ignore[name-defined, misc]
        @staticmethod
        def schedule(t: Tensor) -> tuple[Tensor, Tensor]:
            c = path.coefficients(t)
            return c.alpha, c.sigma

        def forward(self, x_t: Tensor, t: Tensor) -> object:
            return denoise.DiracPosterior(mean=exact(x_t, t))

    options = {"start": 0.95, "stop": 0.05, "steps": 12, "silent": True, "dtype": torch.float64}
    times = torch.linspace(0.95, 0.05, 13, dtype=torch.float64)
    pairs = [
        (sample.DDIMSampler(Theirs(), **options), ddim),
        (sample.vABSampler(Theirs(), order=2, **options), ab2_velocity),
    ]
    for theirs, make in pairs:
        with torch.random.fork_rng(devices=[]):  # it draws noise even where none is used
            expected = theirs(x)
        torch.testing.assert_close(integrate(exact, x, make(times, path)), expected, rtol=0, atol=1e-10)


def _free_diffusion(times: Tensor, path: Path) -> MultistepTable:
    return euler_maruyama(times, path, PowerDiffusion(2**0.5, 0.5)).table


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers on numpy 2
@pytest.mark.parametrize("ancestral", [False, True])
def test_ddim_and_ddpm_are_those_of_diffusers(ancestral: bool, generator: torch.Generator) -> None:
    """One step anywhere on MedForJ's schedule: its own betas, 50 strided steps, eta 0 and 1 with the same noise."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(
        beta_start=1e-4, beta_end=2e-2, prediction_type="sample", clip_sample=False, set_alpha_to_one=True
    )
    scheduler.set_timesteps(50)
    path, steps = DiscreteVPPath(), scheduler.timesteps
    times = torch.cat([path.time_of_index(steps), torch.zeros(1, dtype=torch.float64)])
    table = ddpm(times, path) if ancestral else ddim(times, path)
    x, m, z = torch.randn(3, 4, 2, generator=generator, dtype=torch.float64)
    for index in range(
        49
    ):  # the last row has no noise with us; diffusers ends at its first node, not at data
        row = table.rows[index]
        ours = row.states[0] * x + row.outputs[0] * m + row.noise * z
        theirs = scheduler.step(m, steps[index], x, eta=float(ancestral), variance_noise=z).prev_sample
        torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=2e-4)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers on numpy 2
def test_euler_on_the_straight_path_is_that_of_diffusers(generator: torch.Generator) -> None:
    """DDIM on the linear path is the Euler step of flow matching: same grid, same answers, same samples."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(12)
    path = LinearPath()
    times = scheduler.sigmas.double()
    denoiser, x = _mixture(path), torch.randn(6, 2, generator=generator)
    y = x.clone()
    for index, step in enumerate(scheduler.timesteps):
        velocity = convert(
            denoiser(y, times[index]), y, times[index], path, Prediction.X0, Prediction.VELOCITY
        )
        y = scheduler.step(velocity, step, y).prev_sample
    torch.testing.assert_close(integrate(denoiser, x, ddim(times, path)), y, rtol=0, atol=1e-5)


@pytest.mark.parametrize("make", [sde_dpmpp_2m, unipc_2, _free_diffusion])
def test_marginals_of_a_mixture(make: Maker) -> None:
    """Features of 1500 samples against exact moments: |z| < 4.5 for 8 features (false alarm 6e-5)."""
    path, rows = LinearPath(), 1500
    denoiser = _mixture(path)
    noise = noise_of(generators_of(range(rows), 1), (2,), torch.float64)
    if make is _free_diffusion:
        table = make(torch.linspace(1, 0, 121, dtype=torch.float64), path)
    else:
        table = make(LogSNRGrid()(40, path), path)
    x = integrate(denoiser, noise, table, generators=generators_of(range(rows), 2))
    truth = _exact_samples(denoiser, 40_000)
    features, exact = _features(x, denoiser), _features(truth, denoiser)
    error = (features.var(0) / len(features) + exact.var(0) / len(exact)).sqrt()
    z = (features.mean(0) - exact.mean(0)) / error
    assert z.abs().max() < 4.5, z.tolist()


def _exact_samples(denoiser: MixtureDenoiser, rows: int) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    which = torch.multinomial(denoiser.weights, rows, replacement=True, generator=generator)
    spread = torch.stack([c.values for c in denoiser.covariances]).sqrt()  # type: ignore[attr-defined]
    noise = torch.randn(rows, 2, generator=generator, dtype=torch.float64)
    return denoiser.means[which] + spread[which] * noise


def _features(x: Tensor, denoiser: MixtureDenoiser) -> Tensor:
    shares = denoiser.responsibilities(x, torch.tensor(0.02))
    return torch.cat([x, x.square(), x.prod(1, keepdim=True), shares], 1)


@pytest.mark.parametrize("make", [ddpm, sde_dpmpp_2m, unipc_2, ab2_velocity])
def test_a_seed_is_a_sample_not_a_batch(make: Maker) -> None:
    path = VPPath()
    denoiser, table = _mixture(path), make(LogSNRGrid()(12, path), path)

    def draw(*seeds: int) -> Tensor:
        start = noise_of(generators_of(seeds, 0), (2,))
        return integrate(denoiser, start, table, generators=generators_of(seeds, 1))

    together = draw(3, 1, 4)
    for row, seed in enumerate((3, 1, 4)):
        torch.testing.assert_close(draw(seed)[0], together[row], rtol=0, atol=1e-6)
    assert together.dtype == torch.float32


def test_callback_conditions_and_inputs(generator: torch.Generator) -> None:
    """Each evaluation is reported once, conditions reach the denoiser, and neither x nor kept tensors change."""
    path, seen, asked = LinearPath(), [], []
    exact = _gaussian(path)

    def denoiser(x: Tensor, t: Tensor, scale: float) -> Tensor:
        asked.append((float(t), scale))
        return exact(x, t)

    x = torch.randn(2, 2, generator=generator, dtype=torch.float64)
    before, table = x.clone(), unipc_2(torch.linspace(1, 0, 6), path)
    kept: list[Tensor] = []

    def callback(step: Step) -> None:
        seen.append((step.index, step.t))
        kept.extend([step.x, step.x.clone(), step.x0, step.x0.clone()])

    result = integrate(denoiser, x, table, callback=callback, scale=2.0)
    assert torch.equal(x, before)
    assert seen == list(enumerate(table.times[:-1].tolist()))
    assert asked == [(t, 2.0) for _, t in seen]
    assert all(torch.equal(a, b) for a, b in zip(kept[::2], kept[1::2], strict=True))
    assert torch.equal(result, kept[-1])  # the last step returns x0


def test_a_denoiser_that_returns_its_input_is_safe() -> None:
    path, x = LinearPath(), torch.ones(1, 3)
    result = integrate(lambda x, t: x, x, dpmpp_2m(torch.linspace(1, 0, 5), path))
    assert torch.equal(x, torch.ones(1, 3))
    torch.testing.assert_close(result, x)  # alpha + sigma = 1: x stays


def test_gradients_only_when_asked(generator: torch.Generator) -> None:
    """The Jacobian of the exact flow of a Gaussian is its growth factor."""
    path = VPPath()
    denoiser, x = _gaussian(path), torch.randn(1, 2, generator=generator, dtype=torch.float64)
    table = unipc_2(LogSNRGrid()(100, path), path)
    x.requires_grad_()
    assert not integrate(denoiser, x, table).requires_grad
    (slope,) = torch.autograd.grad(integrate(denoiser, x, table, gradients=True).sum(), x)
    c = path.coefficients(torch.ones((), dtype=torch.float64))
    values = torch.tensor([[0.5, 0.04]], dtype=torch.float64)
    torch.testing.assert_close(slope, (values / (c.alpha**2 * values + c.sigma**2)).sqrt(), rtol=2e-3, atol=0)


def test_half_precision_outputs_are_accumulated_in_the_states_dtype() -> None:
    path = LinearPath()
    table = dpmpp_2m(torch.linspace(1, 0, 5), path)
    result = integrate(
        lambda x, t: torch.full_like(x, 60000.0, dtype=torch.float16), torch.zeros(2, 8), table
    )
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, torch.full((2, 8), 60000.0).half().float())


def test_nan_names_step_and_time() -> None:
    path = LinearPath()

    def breaks(x: Tensor, t: Tensor) -> Tensor:
        return x * (float("nan") if float(t) < 0.5 else 1.0)

    with pytest.raises(InputError, match=r"step 3, t=0\.4"):
        integrate(breaks, torch.ones(1, 2), dpmpp_2m(torch.linspace(1, 0, 6), path))


def test_what_is_refused() -> None:
    path, x = LinearPath(), torch.ones(2, 2)
    times = torch.linspace(1, 0, 4)
    with pytest.raises(InputError, match="one generator a row"):
        integrate(lambda x, t: x, x, ddpm(times, path))
    with pytest.raises(InputError, match="one generator a row"):
        integrate(lambda x, t: x, x, ddpm(times, path), generators=generators_of([1]))
    with pytest.raises(InputError, match=r"state's shape \(2, 2\); got \(2, 1\)"):
        integrate(lambda x, t: x[:, :1], x, ddim(times, path))
    with pytest.raises(InputError, match="denoiser's path"):
        integrate(_gaussian(VPPath()), x.double(), ddim(times, path))


def test_noise_given_by_step_is_the_noise_of_generators():
    """The same numbers handed in step by step give the same bits; a step without noise asks for none."""
    path = LinearPath()
    denoiser, table = _gaussian(path), sde_dpmpp_2m(LogSNRGrid()(8, path), path)
    x = noise_of(generators_of([1, 2], 0), (2,), torch.float64)
    stream, asked = generators_of([1, 2], 1), []

    def drawn(step: int) -> Tensor:
        asked.append(step)
        return noise_of(stream, (2,), torch.float64)

    by_step = integrate(denoiser, x, table, noise=drawn)
    torch.testing.assert_close(
        by_step, integrate(denoiser, x, table, generators=generators_of([1, 2], 1)), rtol=0, atol=0
    )
    assert asked == [index for index, row in enumerate(table.rows) if row.noise]

"""Laws as weights and weights as laws: exact quadrature, the papers' formulas, and what does not depend on the path."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm
from torch import Tensor

from radiata_core.analytic import GaussianDenoiser, MixtureDenoiser
from radiata_core.covariances import Diagonal
from radiata_core.errors import InputError
from radiata_core.objectives import EDM, SNR, Constant, MinSNR, Regression
from radiata_core.paths import DiscreteVPPath, LinearPath, Path, TrigonometricPath, VEPath, VPPath, add_noise
from radiata_core.predictions import Prediction, convert
from radiata_core.seeds import generators_of
from radiata_core.specs import describe, rebuild
from radiata_core.time_weights import LawWeight, WeightLaw, density_on, effective_weight
from radiata_core.times import CosMap, LogNormalSNR, Mode, TimeLaw, UniformSteps, UniformTime, shift_time

PATHS = [LinearPath(), TrigonometricPath(), VPPath(), VEPath(sigma_max=80.0), DiscreteVPPath()]
over_paths = pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)


def _t(*times: float) -> Tensor:
    return torch.tensor(times, dtype=torch.float64)


def _nodes(count: int = 200) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights on [0, 1], after a substitution that stands still at both ends."""
    x, weights = np.polynomial.legendre.leggauss(count)
    w = (x + 1) / 2
    return torch.tensor(w**3 * (10 - 15 * w + 6 * w**2)).clamp(1e-12, 1 - 1e-12), torch.tensor(
        weights / 2 * 30 * w**2 * (1 - w) ** 2
    )


def _error(t: Tensor, path: Path) -> Tensor:
    """Exact squared error of x0hat = x_t / 2 for normal data: (alpha/2 - 1)² + sigma²/4."""
    c = path.coefficients(t)
    return (c.alpha / 2 - 1) ** 2 + c.sigma**2 / 4


def test_three_names_of_one_law() -> None:
    """T6: logit-normal(m, s) shifted by a = logit-normal(m + log a, s) = EDM's log-normal on kappa = t/(1 - t)."""
    u, m, s, a = torch.linspace(0.001, 0.999, 997, dtype=torch.float64), -0.3, 0.8, 3.0
    shifted = shift_time(LogNormalSNR(m, s).quantile(u), a)
    torch.testing.assert_close(shifted, LogNormalSNR(m, s, a).quantile(u), rtol=0, atol=1e-15)
    torch.testing.assert_close(shifted, LogNormalSNR(m + math.log(a), s).quantile(u), rtol=0, atol=1e-15)
    kappa = torch.tensor(np.exp(m + math.log(a) + s * norm.ppf(u.numpy())))
    torch.testing.assert_close(shifted, kappa / (1 + kappa), rtol=0, atol=1e-14)
    lam = LinearPath().log_snr(_t(0.1, 0.5, 0.9))
    moved = LinearPath().log_snr(shift_time(_t(0.1, 0.5, 0.9), a))
    torch.testing.assert_close(lam - moved, torch.full((3,), math.log(a), dtype=torch.float64))


@over_paths
def test_a_law_of_the_log_snr_is_a_density_on_every_path(path: Path) -> None:
    """The distribution function of the carried density is the normal one: Phi((-lambda - m)/s)."""
    law = LogNormalSNR(-0.4, 0.9)
    low, high = 0.02, 0.7
    x, weights = np.polynomial.legendre.leggauss(2000)
    t = torch.tensor(low + (high - low) * (x + 1) / 2)
    mass = float((density_on(law, path, t) * torch.tensor(weights)).sum()) * (high - low) / 2
    ends = (-path.log_snr(_t(low, high)).numpy() + 0.4) / 0.9
    assert mass == pytest.approx(norm.cdf(ends[1]) - norm.cdf(ends[0]), rel=1e-4)


def test_on_the_linear_path_it_is_sd3s_weight() -> None:
    t = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    for law in (UniformTime(), LogNormalSNR(0.5, 0.6), Mode(1.29), CosMap()):
        ours = effective_weight(law, LinearPath(), t)
        torch.testing.assert_close(ours, t / (1 - t) * law.density(t), rtol=1e-12, atol=0)


@over_paths
def test_edms_recipe_is_its_formula_in_lambda(path: Path) -> None:
    """w(lambda) = p(log kappa) (kappa²/sigma_d² + 1) whatever the path; any target asks for the same."""
    t = _t(0.1, 0.4, 0.8)
    kappa = torch.exp(-path.log_snr(t)).numpy()
    expected = torch.tensor(norm.pdf(np.log(kappa), -1.2, 1.2) * (kappa**2 / 0.25 + 1))
    law = LogNormalSNR(-1.2, 1.2)
    for target in Prediction:
        found = effective_weight(law, path, t, target, EDM(0.5))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("target", list(Prediction), ids=lambda target: target.value)
def test_errors_of_targets_are_those_of_the_conversion(
    target: Prediction, generator: torch.Generator
) -> None:
    """J² against two noises sent through `convert`: effective weights of a plain loss differ by it."""
    path, t = VPPath(), _t(0.3)
    x, noise, other = torch.randn(3, 1, 5, generator=generator, dtype=torch.float64)
    said = [convert(n, x, t, path, Prediction.EPSILON, target) for n in (noise, other)]
    ratio = (said[0] - said[1]).square().sum() / (noise - other).square().sum()
    plain = effective_weight(UniformTime(), path, t, Prediction.EPSILON)
    weighed = effective_weight(UniformTime(), path, t, target)
    torch.testing.assert_close(weighed / plain, ratio[None], rtol=1e-9, atol=0)


PAIRS: list[tuple[TimeLaw, TimeLaw]] = [
    (CosMap(), UniformTime()),
    (LogNormalSNR(), UniformTime()),
    (LogNormalSNR(0.5, 0.6), LogNormalSNR()),
    (Mode(1.29), CosMap()),
    (UniformTime(), Mode(1.0)),
]


@pytest.mark.parametrize(("law", "sampler"), PAIRS, ids=str)
@pytest.mark.parametrize("path", [LinearPath(), VPPath()], ids=lambda path: type(path).__name__)
def test_a_law_as_weight_has_the_expectation_of_the_law(law: TimeLaw, sampler: TimeLaw, path: Path) -> None:
    """E_law[e(t)] = E_sampler[w(t) e(t)], both by quadrature over the probability, e an exact loss."""
    u, share = _nodes()
    direct = law.on(path, law.quantile(u))
    drawn = sampler.on(path, sampler.quantile(u))
    wanted = float((share * _error(direct, path)).sum())
    weighed = float((share * LawWeight(law, sampler)(drawn, path) * _error(drawn, path)).sum())
    assert weighed == pytest.approx(wanted, rel=1e-6)


def test_the_objective_has_the_expectation_of_the_law() -> None:
    """Regression under uniform times with the weight, and under the law: means of 1500 rows agree within 4 errors."""
    path = LinearPath()
    wrong = GaussianDenoiser(
        torch.zeros(32, dtype=torch.float64), Diagonal(torch.full((32,), 0.3, dtype=torch.float64)), path
    )
    law, x0 = LogNormalSNR(0.3, 0.8), torch.ones(1500, 32, dtype=torch.float64)
    weighted = Regression(path, UniformTime(), weight=LawWeight(law))
    plain = Regression(path, law)
    first = weighted(wrong, x0, generators_of(range(1500))).per_sample
    second = plain(wrong, x0, generators_of(range(1500, 3000))).per_sample
    spread = math.sqrt(float(first.var() + second.var()) / 1500)
    assert abs(float(first.mean() - second.mean())) < 4 * spread
    unweighted = Regression(path, UniformTime())(wrong, x0, generators_of(range(1500))).per_sample
    assert abs(float(unweighted.mean() - second.mean())) > 4 * spread


@pytest.mark.parametrize(
    "law",
    [
        WeightLaw(MinSNR(5.0), LinearPath()),
        WeightLaw(SNR(), VPPath(), Prediction.V),
        WeightLaw(EDM(0.5), TrigonometricPath(), Prediction.V, LogNormalSNR(-0.5, 1.0)),
    ],
    ids=["MinSNR", "SNR", "EDM"],
)
def test_a_weight_as_law_has_the_expectation_of_the_weight(
    law: WeightLaw, generator: torch.Generator
) -> None:
    """mean E_law[e] = E_base[c e] by quadrature, and 5,000 draws follow the density (KS, level 1e-3)."""
    u, share = _nodes(600)
    base = law.base.on(law.path, law.base.quantile(u))
    weighed = float(
        (share * law.weight(base, law.path, Prediction(law.target)) * _error(base, law.path)).sum()
    )
    cells = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    drawn = law.mean * float(_error(law.quantile(cells), law.path).mean())
    assert drawn == pytest.approx(weighed, rel=2e-4)
    draws = law.sample(5_000, generator)
    assert law.quantile(_t(0.0, 0.2, 1.0)).diff().min() > 0
    edges = torch.linspace(1e-6, 1 - 1e-6, 20_001, dtype=torch.float64)
    middle = 0.5 * (edges[1:] + edges[:-1])
    mass = (law.density(middle) * edges.diff()).cumsum(0).numpy()
    assert mass[-1] == pytest.approx(1, abs=2e-3)
    assert kstest(draws.numpy(), lambda t: np.interp(t, edges[1:].numpy(), mass)).pvalue > 1e-3


def test_a_network_learns_where_its_law_looks(generator: torch.Generator) -> None:
    """T27, what is certain of it: a shift towards the noise lowers the error there and raises it near the data.

    Which law makes the better samples is reported in docs/sd3.md and not asserted.
    """
    path = LinearPath()
    angle = torch.arange(8) * (math.pi / 4)
    means = 1.4 * torch.stack([angle.cos(), angle.sin()], 1)
    oracle = MixtureDenoiser(torch.ones(8), means, [Diagonal(torch.full((2,), 0.01))] * 8, path)
    held = means[torch.randint(8, (1000,), generator=generator)]
    noise = torch.randn(1000, 2, generator=generator)
    errors = []
    for law in (LogNormalSNR(), LogNormalSNR(shift=6.0)):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            layers = torch.nn.Sequential(torch.nn.Linear(5, 48), torch.nn.SiLU(), torch.nn.Linear(48, 48))
            layers.extend([torch.nn.SiLU(), torch.nn.Linear(48, 2)])

        def velocity(x: Tensor, t: Tensor, layers: torch.nn.Module = layers) -> Tensor:
            level = path.log_snr(t).float().expand(len(x))[:, None]
            return layers(torch.cat([x, level / 3, level.sin(), level.cos()], 1))

        optimiser = torch.optim.AdamW(layers.parameters(), lr=5e-3)
        for _ in range(250):
            x0 = means[torch.randint(8, (128,), generator=generator)]
            eps, t = torch.randn(128, 2, generator=generator), law.sample(128, generator)
            loss = (velocity(add_noise(path, x0, eps, t), t) - (eps - x0)).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        row = []
        for time in (_t(0.25)[0], _t(0.9)[0]):
            x = add_noise(path, held, noise, time)
            truth = convert(oracle(x, time), x, time, path, Prediction.X0, Prediction.VELOCITY)
            row.append(float((velocity(x, time) - truth).detach().square().mean()))
        errors.append(row)
    (near, far), (near_shifted, far_shifted) = errors
    assert near_shifted > 1.5 * near
    assert far_shifted < far / 1.5


def test_they_survive_json() -> None:
    for thing in (LawWeight(Mode(1.0), CosMap()), WeightLaw(Constant(), VPPath(), Prediction.V, CosMap())):
        assert rebuild(describe(thing)) == thing


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="law with a density"):
        density_on(UniformSteps(10), LinearPath(), _t(0.5))
    with pytest.raises(InputError, match="strictly between"):
        effective_weight(UniformTime(), LinearPath(), _t(0.0))
    with pytest.raises(InputError, match="integrable"):
        WeightLaw(SNR(), LinearPath())
    assert LawWeight(LogNormalSNR())(_t(0.0, 1.0), LinearPath()).tolist() == [0, 0]

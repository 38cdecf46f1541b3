"""The regression: its minimiser in closed form, its weights by hand, and rows that know nothing of each other."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from radiata_core.couplings import IndependentCoupling, Pair
from radiata_core.errors import InputError
from radiata_core.objectives import (
    EDM,
    SNR,
    AbsoluteError,
    Constant,
    MinSNR,
    PseudoHuber,
    Regression,
    SquaredError,
    TruncatedSNR,
)
from radiata_core.paths import DiscreteVPPath, LinearPath, Path, TrigonometricPath, VEPath, VPPath
from radiata_core.predictions import Prediction, convert, target_of
from radiata_core.specs import describe, rebuild
from radiata_core.times import LogNormalSNR, TimeLaw, UniformSteps, UniformTime

PATHS = [LinearPath(), TrigonometricPath(), VPPath(), VEPath(), DiscreteVPPath()]
over_paths = pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
over_targets = pytest.mark.parametrize("target", list(Prediction))
WEIGHTS = [Constant(), SNR(), MinSNR(), MinSNR(0.5), TruncatedSNR(), EDM(), EDM(0.5)]


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@dataclass(frozen=True)
class FixedTime(TimeLaw):
    """The same time for every sample."""

    t: float

    def quantile(self, u: torch.Tensor) -> torch.Tensor:
        return torch.full_like(u, self.t, dtype=torch.float64)

    def density(self, t: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class FourPoints:
    """Pairs the rows (s, s, -s, -s) with noise (1, -1, 1, -1): the second moments of independent normals, exactly."""

    def __call__(self, x0: torch.Tensor, generators: Sequence[torch.Generator] | torch.Generator) -> Pair:
        return Pair(x0, torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=x0.dtype).reshape(4, 1))


@dataclass(frozen=True)
class Whatever:
    """A denoiser on a path that answers with `answer(x, t)`, in units of x0."""

    path: Path
    answer: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.answer(x, t)


@dataclass(frozen=True)
class Raw(Whatever):
    """The same with a raw prediction of its own kind; E[x0|x_t] is never asked for."""

    prediction: Prediction = Prediction.V

    def predict(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.answer(x, t)

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the raw output should have been taken")


@over_paths
@over_targets
@pytest.mark.parametrize("time", [0.05, 0.5, 0.95])
def test_the_minimiser_is_the_posterior_mean(path: Path, target: Prediction, time: float) -> None:
    """Data N(0, s²), denoiser w x: the population loss is least at Wiener's w = alpha s²/(alpha² s² + sigma²).

    Four equally likely pairs have the exact second moments, so the gradient is that of the population.
    """
    s = 1.7
    c = path.coefficients(torch.tensor(time, dtype=torch.float64))
    wiener = (c.alpha * s**2 / (c.alpha**2 * s**2 + c.sigma**2)).item()
    x0 = torch.tensor([[s], [s], [-s], [-s]], dtype=torch.float64)
    for weight in WEIGHTS:
        objective = Regression(path, FixedTime(time), FourPoints(), target, weight, SquaredError())
        gradients = []
        for w in (wiener, wiener + 0.1):
            coefficient = torch.tensor(w, dtype=torch.float64, requires_grad=True)
            denoiser = Whatever(path, lambda x, t, w=coefficient: w * x)
            loss = objective(denoiser, x0, generators(0, 1, 2, 3))
            gradients.append(torch.autograd.grad(loss.value, coefficient)[0].item())
        assert abs(gradients[0]) < 1e-9 * abs(gradients[1])
        assert gradients[1] > 0


@over_paths
def test_the_least_loss_is_the_posterior_variance(path: Path) -> None:
    s, time = 0.6, 0.4
    c = path.coefficients(torch.tensor(time, dtype=torch.float64))
    variance = c.alpha**2 * s**2 + c.sigma**2
    x0 = torch.tensor([[s], [s], [-s], [-s]], dtype=torch.float64)
    denoiser = Whatever(path, lambda x, t: c.alpha * s**2 / variance * x)
    loss = Regression(path, FixedTime(time), FourPoints())(denoiser, x0, generators(0, 1, 2, 3))
    assert loss.value.item() == pytest.approx((s**2 * c.sigma**2 / variance).item(), rel=1e-12)


@over_paths
@over_targets
def test_weights_mean_the_same_for_every_target(path: Path, target: Prediction) -> None:
    """weight(target) J² = W(SNR), with J = d target/d x0 at fixed x_t taken from the conversion."""
    t = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)
    zero, one = torch.zeros_like(t), torch.ones_like(t)
    ends = [convert(value, zero, t, path, Prediction.X0, target) for value in (zero, one)]
    for weight in WEIGHTS[1:]:
        in_x0 = weight(t, path, Prediction.X0)
        torch.testing.assert_close(
            weight(t, path, target) * (ends[1] - ends[0]) ** 2, in_x0, rtol=1e-9, atol=0
        )


def test_min_snr_by_hand() -> None:
    """min(SNR, 5), min(SNR, 5)/SNR and min(SNR, 5)/(SNR + 1) for x0, noise and v on a VP path."""
    t = torch.linspace(0.01, 1, 100, dtype=torch.float64)
    snr = np.exp(2 * VPPath().log_snr(t).numpy())
    least = np.minimum(snr, 5)
    for target, expected in [
        (Prediction.X0, least),
        (Prediction.EPSILON, least / snr),
        (Prediction.V, least / (snr + 1)),
    ]:
        np.testing.assert_allclose(MinSNR(5.0)(t, VPPath(), target), expected, rtol=1e-9)
    assert (snr > 5).any()
    assert (snr < 5).any()


def test_other_weights_by_hand() -> None:
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    kappa = t / (1 - t)
    path = LinearPath()
    torch.testing.assert_close(SNR()(t, path), kappa**-2)
    torch.testing.assert_close(SNR()(t, path, Prediction.EPSILON), torch.ones_like(t))
    torch.testing.assert_close(TruncatedSNR()(t, path), kappa.pow(-2).clamp(min=1))
    torch.testing.assert_close(EDM(0.5)(t, path), (kappa**2 + 0.25) / (kappa * 0.5) ** 2)
    torch.testing.assert_close(EDM(1.0)(t, VPPath(), Prediction.V), torch.ones_like(t))
    assert torch.equal(Constant()(t, path, Prediction.VELOCITY), torch.ones_like(t))


def test_weights_at_the_ends_are_numbers() -> None:
    """Where x0 or noise alone has a limit, the weight has it too: no 0/0."""
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    expected = {
        Prediction.X0: [5.0, 0.0],
        Prediction.EPSILON: [0.0, 1.0],
        Prediction.V: [0.0, 0.0],
        Prediction.FLOW: [0.0, 0.0],
        Prediction.VELOCITY: [0.0, 0.0],
        Prediction.SCORE: [0.0, 1.0],
    }
    for target, values in expected.items():
        assert MinSNR()(ends, LinearPath(), target).tolist() == values


@pytest.mark.parametrize(
    ("target", "in_x0"),
    [
        (Prediction.EPSILON, lambda snr: snr),
        (Prediction.X0, lambda snr: np.ones_like(snr)),
        (Prediction.V, lambda snr: 1 + snr),
        (Prediction.FLOW, lambda snr: (1 + np.sqrt(snr)) ** 2),
    ],
)
def test_medforjs_loss_in_units_of_x0(
    target: Prediction, in_x0: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator
) -> None:
    """A denoiser wrong by 0.1 everywhere: its loss over 0.01 is the last column of MedForJ's table."""
    path = DiscreteVPPath()
    x0 = torch.tensor(rng.standard_normal((30, 1, 2, 3, 2)))
    truth = Whatever(path, lambda x, t: x0 + 0.1)
    loss = Regression(path, UniformSteps(), target=target)(truth, x0, generators(*range(30)))
    snr = np.exp(2 * path.log_snr(loss.t).numpy())
    np.testing.assert_allclose(loss.per_sample.numpy() / 0.01, in_x0(snr), rtol=1e-9)
    index = path.model_time(loss.t)
    torch.testing.assert_close(index, index.round(), atol=1e-9, rtol=0)


def test_rectified_flows_absolute_error_in_units_of_x0(rng: np.random.Generator) -> None:
    path, x0 = LinearPath(), torch.tensor(rng.standard_normal((20, 3)))
    objective = Regression(path, UniformTime(), target=Prediction.VELOCITY, loss=AbsoluteError())
    loss = objective(Whatever(path, lambda x, t: x0 - 0.1), x0, generators(*range(20)))
    torch.testing.assert_close(loss.per_sample, 0.1 / loss.t, rtol=1e-9, atol=0)


def test_edms_loss_written_out(rng: np.random.Generator) -> None:
    """(sigma² + s²)/(sigma s)² |D(y + n) - y|² with ln sigma ~ N(-1.2, 1.2²), sample by sample."""
    path, law = VEPath(1e-4, 1e4), LogNormalSNR(-1.2, 1.2)
    y = torch.tensor(rng.standard_normal((6, 4, 3)))
    denoiser = Whatever(path, lambda x, t: torch.tanh(x))
    loss = Regression(path, law, weight=EDM(0.5))(denoiser, y, generators(*range(6)))
    for i in range(6):
        (g,) = generators(i)
        sigma = math.exp(
            -1.2 + 1.2 * torch.special.ndtri(torch.rand(1, generator=g, dtype=torch.float64)).item()
        )
        noisy = y[i] + sigma * torch.randn((4, 3), generator=g, dtype=torch.float64)
        expected = (sigma**2 + 0.25) / (sigma * 0.5) ** 2 * ((torch.tanh(noisy) - y[i]) ** 2).mean()
        assert loss.per_sample[i].item() == pytest.approx(expected.item(), rel=1e-8)
    assert loss.value.item() == pytest.approx(loss.per_sample.mean().item(), rel=1e-14)


@pytest.mark.parametrize("law", [UniformTime(), LogNormalSNR()], ids=str)
def test_a_samples_loss_depends_on_its_generator_only(law: TimeLaw, rng: np.random.Generator) -> None:
    path, x0 = TrigonometricPath(), torch.tensor(rng.standard_normal((5, 2, 7)))
    denoiser = Raw(path, lambda x, t: torch.sin(3 * x), Prediction.FLOW)
    objective = Regression(path, law, IndependentCoupling(), Prediction.V, MinSNR(), PseudoHuber(0.1))
    batch = objective(denoiser, x0, generators(*range(5)))
    for i in range(5):
        alone = objective(denoiser, x0[i : i + 1], generators(i))
        torch.testing.assert_close(alone.per_sample[0], batch.per_sample[i], rtol=1e-13, atol=0)
        assert torch.equal(alone.t[0], batch.t[i])
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = objective(denoiser, x0[order], generators(*order.tolist()))
    torch.testing.assert_close(shuffled.per_sample, batch.per_sample[order], rtol=1e-13, atol=0)


@over_targets
def test_what_the_network_predicts_does_not_change_the_loss(
    target: Prediction, rng: np.random.Generator
) -> None:
    """The same knowledge in six parameterisations has the same loss, converted to any target."""
    path, x0 = VPPath(), torch.tensor(rng.standard_normal((4, 6)))
    objective = Regression(path, UniformTime(), target=target)
    losses = []
    for source in Prediction:

        def answer(x: torch.Tensor, t: torch.Tensor, source: Prediction = source) -> torch.Tensor:
            return convert(torch.tanh(x), x, t, path, Prediction.X0, source)

        losses.append(objective(Raw(path, answer, source), x0, generators(*range(4))).per_sample)
    for loss in losses[1:]:
        torch.testing.assert_close(loss, losses[0], rtol=1e-8, atol=0)


def test_the_target_itself_has_no_loss_even_at_the_noise_end(rng: np.random.Generator) -> None:
    """At t = 1 of the linear path the noise says nothing of x0; a loss in its own units needs no conversion."""
    path, x0 = LinearPath(), torch.tensor(rng.standard_normal((3, 4)))
    objective = Regression(path, FixedTime(1.0), target=Prediction.EPSILON)
    assert objective(Raw(path, lambda x, t: x, Prediction.EPSILON), x0, generators(0, 1, 2)).value == 0
    with pytest.raises(InputError, match="sample from epsilon"):
        Regression(path, FixedTime(1.0))(
            Raw(path, lambda x, t: x, Prediction.EPSILON), x0, generators(0, 1, 2)
        )


def test_half_precision_outputs_are_compared_in_single_precision(rng: np.random.Generator) -> None:
    path, x0 = LinearPath(), torch.tensor(rng.standard_normal((2, 500)), dtype=torch.float32)
    objective = Regression(path, UniformTime(), target=Prediction.VELOCITY)
    full = objective(Raw(path, lambda x, t: torch.tanh(x), Prediction.VELOCITY), x0, generators(0, 1))
    half = objective(
        Raw(path, lambda x, t: torch.tanh(x).bfloat16(), Prediction.VELOCITY), x0, generators(0, 1)
    )
    assert half.per_sample.dtype == torch.float32
    torch.testing.assert_close(half.per_sample, full.per_sample, rtol=2e-3, atol=0)


def test_conditions_reach_the_network(rng: np.random.Generator) -> None:
    path, x0 = LinearPath(), torch.tensor(rng.standard_normal((3, 2)))

    class Conditional(Whatever):
        def __call__(self, x, t, *, covariates):
            return covariates

    objective = Regression(path, UniformTime())
    loss = objective(Conditional(path, lambda x, t: x), x0, generators(0, 1, 2), covariates=x0)
    assert loss.value == 0


def test_losses_by_hand() -> None:
    d = torch.tensor([[0.3, -0.4, 0.0], [2.0, 0.0, -1.0]], dtype=torch.float64)
    zero = torch.zeros_like(d)
    np.testing.assert_allclose(SquaredError()(d, zero), [0.25 / 3, 5 / 3], rtol=1e-14)
    np.testing.assert_allclose(AbsoluteError()(d, zero), [0.7 / 3, 1.0], rtol=1e-14)
    expected = (np.sqrt(d.numpy() ** 2 + 0.01) - 0.1).mean(1)
    np.testing.assert_allclose(PseudoHuber(0.1)(d, zero), expected, rtol=1e-12)


def test_pseudo_huber_lies_between_squared_and_absolute(rng: np.random.Generator) -> None:
    a, b = torch.tensor(rng.standard_normal((2, 4, 9)))
    torch.testing.assert_close(PseudoHuber(1e-9)(a, b), AbsoluteError()(a, b), rtol=1e-7, atol=0)
    torch.testing.assert_close(2e4 * PseudoHuber(1e4)(a, b), SquaredError()(a, b), rtol=1e-7, atol=0)
    tiny = 1e-6 * a.float()  # sqrt(d² + c²) - c in float32 would be 0 here
    torch.testing.assert_close(
        2 * PseudoHuber(1.0)(tiny, 0 * tiny), SquaredError()(tiny, 0 * tiny), rtol=1e-5, atol=0
    )


def test_absolute_error_is_least_at_the_median(rng: np.random.Generator) -> None:
    values = torch.tensor(rng.gamma(1.0, size=(10_001, 1)))
    guesses = torch.linspace(0.5, 1.2, 701, dtype=torch.float64)
    best = {
        loss: guesses[
            torch.stack([loss(g.expand(10_001, 1), values).mean() for g in guesses]).argmin()
        ].item()
        for loss in (AbsoluteError(), SquaredError())
    }
    assert best[AbsoluteError()] == pytest.approx(values.median().item(), abs=1e-3)
    assert best[SquaredError()] == pytest.approx(values.mean().item(), abs=1e-3)


@pytest.mark.parametrize("part", [*WEIGHTS, SquaredError(), AbsoluteError(), PseudoHuber(0.02)], ids=str)
def test_parts_survive_json(part: object) -> None:
    assert rebuild(describe(part)) == part


def test_a_denoiser_of_another_path_is_refused() -> None:
    denoiser = Whatever(VPPath(), lambda x, t: x)
    with pytest.raises(InputError, match=r"expected a denoiser on LinearPath\(\); got one on VPPath"):
        Regression(LinearPath(), UniformTime())(denoiser, torch.zeros(2, 3), generators(0, 1))


def test_generators_are_counted() -> None:
    denoiser = Whatever(LinearPath(), lambda x, t: x)
    with pytest.raises(InputError, match="expected one generator a sample, 2; got 1"):
        Regression(LinearPath(), UniformTime())(denoiser, torch.zeros(2, 3), generators(0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: MinSNR(0.0),
        lambda: MinSNR(math.nan),
        lambda: TruncatedSNR(-1.0),
        lambda: EDM(0.0),
        lambda: PseudoHuber(0.0),
        lambda: PseudoHuber(math.inf),
    ],
)
def test_impossible_parts_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InputError, match=r"^expected .*; got .*\. "):
        make()


def test_targets_are_those_of_the_table(rng: np.random.Generator) -> None:
    """What the loss compares with is `target_of` the pair the coupling made."""
    path, x0 = LinearPath(), torch.tensor(rng.standard_normal((4, 1)))
    objective = Regression(path, FixedTime(0.25), FourPoints(), Prediction.VELOCITY)
    noise = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]], dtype=torch.float64)
    t = torch.tensor(0.25, dtype=torch.float64)
    perfect = Raw(path, lambda x, _: target_of(x0, noise, t, path, Prediction.VELOCITY), Prediction.VELOCITY)
    assert objective(perfect, x0, generators(0, 1, 2, 3)).value == 0

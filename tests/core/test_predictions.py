"""The one conversion: round trips, MedForJ's table row by row, exact ends, and the score of a mixture by autograd."""

import itertools
import math

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.paths import DiscreteVPPath, LinearPath, Path, TrigonometricPath, VEPath, VPPath, add_noise
from radiata_core.predictions import Prediction, convert, target_of

PATHS = [LinearPath(), TrigonometricPath(), VPPath(), VEPath(), DiscreteVPPath()]
over_paths = pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)


def draw(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    return torch.tensor(rng.standard_normal(shape))


@over_paths
@pytest.mark.parametrize("time", [1e-3, 0.5, 0.999])
def test_every_pair_says_the_same(path: Path, time: float, rng: np.random.Generator) -> None:
    """All 36 conversions of exact values, and there and back, in float64."""
    x0, noise, t = draw(rng, 4, 3, 5), draw(rng, 4, 3, 5), torch.full((4,), time, dtype=torch.float64)
    x = add_noise(path, x0, noise, t)
    for source, target in itertools.product(Prediction, Prediction):
        value = target_of(x0, noise, t, path, source)
        there = convert(value, x, t, path, source, target)
        torch.testing.assert_close(there, target_of(x0, noise, t, path, target), rtol=1e-10, atol=1e-10)
        back = convert(there, x, t, path, target, source)
        torch.testing.assert_close(back, value, rtol=1e-10, atol=1e-10)


@over_paths
def test_round_trips_of_what_is_not_exact(path: Path, rng: np.random.Generator) -> None:
    """An arbitrary output, not made of x0 and the noise of this state, comes back as well."""
    t, x, value = torch.tensor(rng.uniform(0.02, 0.98, 8)), draw(rng, 8, 6), draw(rng, 8, 6)
    for source, target in itertools.product(Prediction, Prediction):
        there = convert(value, x, t, path, source, target)
        torch.testing.assert_close(convert(there, x, t, path, target, source), value, rtol=1e-8, atol=1e-8)


def test_rows_have_their_own_times(rng: np.random.Generator) -> None:
    t, x, value = torch.tensor([0.1, 0.6, 0.9], dtype=torch.float64), draw(rng, 3, 7), draw(rng, 3, 7)
    together = convert(value, x, t, VPPath(), Prediction.V, Prediction.EPSILON)
    for i in range(3):
        alone = convert(value[i : i + 1], x[i : i + 1], t[i], VPPath(), Prediction.V, Prediction.EPSILON)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-14, atol=0)


@pytest.mark.parametrize("index", [0, 1, 200, 500, 998, 999])
def test_medforjs_table(index: int, rng: np.random.Generator) -> None:
    """Target, x0 and noise of MedForJ's five types, as its repository writes them (a, b from its own product)."""
    mean = np.cumprod(1 - np.linspace(1e-4, 2e-2, 1000))[index]
    a, b = math.sqrt(mean), math.sqrt(1 - mean)
    path = DiscreteVPPath()
    t = path.time_of_index(index)
    x0, noise = draw(rng, 2, 9), draw(rng, 2, 9)
    x, out = a * x0 + b * noise, draw(rng, 2, 9)
    table = {
        Prediction.EPSILON: (noise, (x - b * out) / a, out),
        Prediction.X0: (x0, out, (x - a * out) / b),
        Prediction.V: (a * noise - b * x0, a * x - b * out, a * out + b * x),
        Prediction.FLOW: (noise - x0, (x - b * out) / (a + b), (x + a * out) / (a + b)),
    }
    for prediction, (target, clean, eps) in table.items():
        torch.testing.assert_close(target_of(x0, noise, t, path, prediction), target, rtol=1e-10, atol=1e-11)
        torch.testing.assert_close(
            convert(out, x, t, path, prediction, Prediction.X0), clean, rtol=1e-9, atol=1e-10
        )
        torch.testing.assert_close(
            convert(out, x, t, path, prediction, Prediction.EPSILON), eps, rtol=1e-9, atol=1e-10
        )

    # rflow: a = 1 - tau, b = tau; its sign is x0 - noise, the opposite of the velocity dx/dt.
    tau = (index + 0.5) / 1000
    t, x = torch.tensor(tau, dtype=torch.float64), (1 - tau) * x0 + tau * noise
    velocity = -out
    torch.testing.assert_close(target_of(x0, noise, t, LinearPath(), Prediction.VELOCITY), -(x0 - noise))
    for target, expected in [(Prediction.X0, x + tau * out), (Prediction.EPSILON, x - (1 - tau) * out)]:
        torch.testing.assert_close(
            convert(velocity, x, t, LinearPath(), Prediction.VELOCITY, target), expected
        )


def test_v_is_the_velocity_of_the_quarter_circle_only_up_to_its_speed(rng: np.random.Generator) -> None:
    t, x, v = torch.tensor(rng.uniform(0, 1, 5)), draw(rng, 5, 3), draw(rng, 5, 3)
    u = convert(v, x, t, TrigonometricPath(), Prediction.V, Prediction.VELOCITY)
    torch.testing.assert_close(u, math.pi / 2 * v, rtol=1e-12, atol=1e-12)


@over_paths
def test_score_is_the_gradient_of_the_log_density(path: Path, rng: np.random.Generator) -> None:
    """Data at -1 (weight 0.3) and at 2 (weight 0.7): the posterior mean, converted, is autograd of log p_t."""
    points, weights = torch.tensor([-1.0, 2.0]).double(), torch.tensor([0.3, 0.7]).double()
    t = torch.tensor(rng.uniform(0.05, 0.95, 30))
    c = path.coefficients(t)
    x = (draw(rng, 30) * (c.alpha + c.sigma)).requires_grad_()
    logits = torch.log(weights) - 0.5 * ((x - c.alpha * points[:, None]) / c.sigma).T ** 2
    (score,) = torch.autograd.grad(torch.logsumexp(logits, 1).sum(), x)
    clean = (torch.softmax(logits, 1) * points).sum(1).detach()
    found = convert(clean, x.detach(), t, path, Prediction.X0, Prediction.SCORE)
    torch.testing.assert_close(found, score, rtol=1e-8, atol=1e-8)


@over_paths
def test_at_t_0_the_state_is_the_data(path: Path, rng: np.random.Generator) -> None:
    x, junk, zero = draw(rng, 2, 4), draw(rng, 2, 4), torch.zeros((), dtype=torch.float64)
    for source in set(Prediction) - {Prediction.X0}:
        assert torch.equal(convert(junk, x, zero, path, source, Prediction.X0), x)


@over_paths
def test_at_t_0_noise_is_not_in_the_data(path: Path, rng: np.random.Generator) -> None:
    x, zero = draw(rng, 2, 4), torch.zeros((), dtype=torch.float64)
    for target in (Prediction.EPSILON, Prediction.V, Prediction.SCORE, Prediction.VELOCITY, Prediction.FLOW):
        with pytest.raises(
            InputError, match=rf"expected a time at which {target.value} from sample exists on .*t=0"
        ):
            convert(x, x, zero, path, Prediction.X0, target)
    with pytest.raises(InputError, match="score"):
        target_of(x, x, zero, path, Prediction.SCORE)


def test_velocity_of_a_variance_preserving_path_is_infinite_at_t_0(rng: np.random.Generator) -> None:
    x, zero = draw(rng, 2, 4), torch.zeros((), dtype=torch.float64)
    for path in (VPPath(), DiscreteVPPath()):
        with pytest.raises(InputError, match="velocity"):
            target_of(x, x, zero, path, Prediction.VELOCITY)
        with pytest.raises(InputError, match="velocity from v"):
            convert(x, x, zero, path, Prediction.V, Prediction.VELOCITY)


@pytest.mark.parametrize("path", [LinearPath(), TrigonometricPath()], ids=lambda path: type(path).__name__)
def test_at_t_1_the_state_is_the_noise(path: Path, rng: np.random.Generator) -> None:
    x, x0, one = draw(rng, 2, 4), draw(rng, 2, 4), torch.ones((), dtype=torch.float64)
    c = path.coefficients(one)
    exact = {
        Prediction.EPSILON: x,
        Prediction.SCORE: -x,
        Prediction.V: -x0,
        Prediction.FLOW: x - x0,
        Prediction.VELOCITY: c.d_alpha * x0 + c.d_sigma * x,
    }
    for target, expected in exact.items():
        value = convert(x0, x, one, path, Prediction.X0, target)
        torch.testing.assert_close(value, expected, rtol=1e-15, atol=1e-15)
        if target in (Prediction.EPSILON, Prediction.SCORE):
            with pytest.raises(
                InputError, match=f"sample from {target.value} exists .* got t=1, where it is singular"
            ):
                convert(value, x, one, path, target, Prediction.X0)
        else:
            back = convert(value, x, one, path, target, Prediction.X0)
            torch.testing.assert_close(back, x0, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(convert(-x, x, one, path, Prediction.SCORE, Prediction.EPSILON), x)
    torch.testing.assert_close(convert(x, x, one, path, Prediction.EPSILON, Prediction.SCORE), -x)


def test_one_singular_row_is_enough(rng: np.random.Generator) -> None:
    x, t = draw(rng, 2, 4), torch.tensor([0.5, 1.0], dtype=torch.float64)
    with pytest.raises(InputError, match="t=1"):
        convert(x, x, t, LinearPath(), Prediction.EPSILON, Prediction.X0)


def test_single_precision_is_kept_near_the_ends(rng: np.random.Generator) -> None:
    """x0 from velocity, v or flow at t = 0.9999, and the noise from them at t = 1e-4, lose nothing in float32."""
    for time, target in [(0.9999, Prediction.X0), (1e-4, Prediction.EPSILON)]:
        t = torch.tensor(time, dtype=torch.float64)
        x0, noise = draw(rng, 1, 2000).float(), draw(rng, 1, 2000).float()
        x = add_noise(LinearPath(), x0, noise, t)
        truth = x0 if target == Prediction.X0 else noise
        for source in (Prediction.VELOCITY, Prediction.V, Prediction.FLOW):
            value = target_of(x0, noise, t, LinearPath(), source)
            error = convert(value, x, t, LinearPath(), source, target) - truth
            assert error.dtype == torch.float32
            assert error.abs().max() < 2e-6


def test_half_precision_output_follows_the_state(rng: np.random.Generator) -> None:
    x, value, t = draw(rng, 3, 50), draw(rng, 3, 50), torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    low = value.bfloat16()
    exact = convert(low.double(), x, t, LinearPath(), Prediction.VELOCITY, Prediction.X0)
    found = convert(low, x.float(), t, LinearPath(), Prediction.VELOCITY, Prediction.X0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)


def test_conversion_is_differentiable(rng: np.random.Generator) -> None:
    value, x = draw(rng, 2, 3).requires_grad_(), draw(rng, 2, 3).requires_grad_()
    t = torch.tensor([0.3, 0.7], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda a, b: convert(a, b, t, VPPath(), Prediction.V, Prediction.X0), (value, x)
    )


def test_names_are_the_published_ones() -> None:
    assert [str(p) for p in Prediction] == ["sample", "epsilon", "velocity", "v", "score", "medforj-flow"]
    assert Prediction("medforj-flow") is Prediction.FLOW

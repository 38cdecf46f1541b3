"""Sampling a bridge: every diffusion and the ODE have one law; densities; mirrors; errors."""

import math

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.interpolant_oracles import MixtureBridge
from radiata_core.interpolant_samplers import capped_times, diffuse, flow, flow_with_density
from radiata_core.interpolants import (
    Interpolant,
    LinearSchedule,
    MirrorSchedule,
    NetworkBridge,
    SineSquaredGamma,
    SquareRootGamma,
    TrigonometricSchedule,
)
from radiata_core.seeds import generators_of

from .test_interpolants import mixtures

INTERPOLANT = Interpolant(LinearSchedule(), SquareRootGamma(2.0))
N = 2000


def scores(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """z-scores of the difference of means of ten features between two samples."""

    def features(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x**2, torch.sin(x), x[:, :1] * x[:, 1:2]], 1)

    a, b = features(found.double()), features(wanted.double())
    return (a.mean(0) - b.mean(0)) / (a.var(0) / len(a) + b.var(0) / len(b)).sqrt()


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, lambda t: 2.0 * t * (1 - t)], ids=["ode", "half", "parabola"])
def test_every_diffusion_ends_in_the_other_set(epsilon, backward: bool) -> None:
    """T16: ten features of 2000 samples, |z| < 4.5 each: six such tests on a true sampler fail in 1 run of 2000."""
    sets = mixtures()
    bridge = MixtureBridge(*sets, INTERPOLANT)
    g = torch.Generator().manual_seed(3)
    start, wanted = (s.sample(N, g) for s in (reversed(sets) if backward else sets))
    found = diffuse(bridge, start, capped_times(60, 1e-4, backward=backward), epsilon, g)
    assert float(scores(found, wanted).abs().max()) < 4.5


def test_the_error_of_the_ode_falls_with_the_square_of_the_step() -> None:
    bridge = MixtureBridge(*mixtures(), Interpolant(TrigonometricSchedule(), SineSquaredGamma()))
    x = mixtures()[0].sample(100, torch.Generator().manual_seed(4))
    ends = [flow(bridge, x, capped_times(n, 0.0)) for n in (20, 40, 80, 160)]
    errors = [float((end - ends[-1]).norm()) for end in ends[:-1]]
    assert 1.6 < math.log2(errors[0] / errors[1]) < 2.7
    back = flow(bridge, ends[-1], capped_times(160, 0.0, backward=True))
    assert float((back - x).abs().max()) < 1e-2


@pytest.mark.slow
def test_density_follows_the_ode() -> None:
    """log rho_1(end) = log rho_0(start) + change, exactly known on both sides; one fixed probe is unbiased (|z| < 4)."""
    bridge = MixtureBridge(*mixtures(), Interpolant(TrigonometricSchedule(), SineSquaredGamma()))
    g = torch.Generator().manual_seed(5)
    x = mixtures()[0].sample(48, g)
    times = capped_times(120, 0.0)
    end, change = flow_with_density(bridge, x, times)
    wanted = bridge.log_density(end, times[-1]) - bridge.log_density(x, times[0])
    torch.testing.assert_close(change, wanted, atol=1e-2, rtol=0)
    coarse = capped_times(20, 0.0)
    exact = flow_with_density(bridge, x, coarse)[1]
    probes = torch.randint(0, 2, (12, *x.shape), generator=g).double() * 2 - 1
    single = torch.stack([flow_with_density(bridge, x, coarse, probes=p[None])[1] for p in probes])
    errors = (single - exact).flatten()
    assert abs(float(errors.mean() / errors.std() * math.sqrt(len(errors)))) < 4
    together = flow_with_density(bridge, x, coarse, probes=probes)[1]
    torch.testing.assert_close(together, single.mean(0), atol=1e-10, rtol=0)


@pytest.mark.slow
def test_a_mirror_moves_nothing_by_its_ode_and_draws_anew_by_its_diffusion() -> None:
    second = mixtures()[1]
    bridge = MixtureBridge(second, second, Interpolant(MirrorSchedule(), SquareRootGamma(2.0)))
    g = torch.Generator().manual_seed(6)
    x = second.sample(N, g)
    moved = flow(bridge, x[:50], capped_times(400, 1e-4))
    fresh = diffuse(bridge, x, capped_times(80, 1e-4), 2.0, g)
    # u = gamma' eta_z: out along the noise and back in; what is left is the steps' error.
    assert float((moved - x[:50]).norm() / x[:50].norm()) < 0.05
    assert float((fresh - x).norm() / x.norm()) > 0.5
    assert float(scores(fresh, second.sample(N, g)).abs().max()) < 4.5


def test_a_row_depends_on_its_own_generator() -> None:
    bridge = MixtureBridge(*mixtures(), INTERPOLANT)
    x = mixtures()[0].sample(4, torch.Generator().manual_seed(7))
    times = capped_times(10, 1e-2)
    whole = diffuse(bridge, x, times, 1.0, generators_of(range(4)))
    alone = diffuse(bridge, x[2:3], times, 1.0, generators_of([2]))
    torch.testing.assert_close(alone, whole[2:3], atol=1e-10, rtol=0)


def test_networks_of_any_event_run() -> None:
    """Volumes through two modules: shapes, dtype and conditions pass; a zero network stays where it is but for noise."""

    class Zero(torch.nn.Module):
        def forward(self, x, t, label):
            return 0 * x * label.view(-1, 1, 1, 1) * t.view(-1, 1, 1, 1)

    bridge = NetworkBridge(Zero(), Zero(), INTERPOLANT)
    x = torch.ones(2, 3, 4, 5)
    assert torch.equal(flow(bridge, x, capped_times(3), label=torch.ones(2)), x)
    out = diffuse(bridge, x, capped_times(3), 0.5, generators_of([0, 1]), finish=False, label=torch.ones(2))
    assert out.dtype == torch.float32
    assert 0.3 < float((out - x).std()) < 2


@pytest.mark.parametrize(
    ("times", "epsilon", "words"),
    [
        ([0.0, 0.5, 1.0], 1.0, "gamma > 0 wherever"),
        ([0.1, 0.5, 0.4], 0.0, "rise or fall strictly"),
        ([0.1, 1.5], 0.0, r"\[0, 1\]"),
        ([0.1], 0.0, "at least two"),
        ([0.1, 0.5], -1.0, "epsilon >= 0"),
    ],
)
def test_bad_input_is_refused(times: list[float], epsilon: float, words: str) -> None:
    bridge = MixtureBridge(*mixtures(), INTERPOLANT)
    with pytest.raises(InputError, match=words):
        diffuse(bridge, torch.zeros(1, 3).double(), torch.tensor(times), epsilon, generators_of([0]))


def test_a_network_that_breaks_is_reported() -> None:
    class Broken(torch.nn.Module):
        def forward(self, x, t):
            return x / 0.0

    with pytest.raises(InputError, match="finite"):
        flow(NetworkBridge(Broken(), None, INTERPOLANT), torch.zeros(1, 2), capped_times(2))
    with pytest.raises(InputError, match="1 step or more"):
        capped_times(0)

"""The report tells an oracle from a gauge field from a network, row by row, in any shape and any portion."""

import json
import math

import pytest
import torch
from torch import nn

from radiata_core.analytic import GaussianDenoiser, MixtureDenoiser
from radiata_core.conservativity import asymmetry
from radiata_core.covariances import Diagonal
from radiata_core.denoisers import Guided, NetworkDenoiser
from radiata_core.diagnostics import Diagnosis, Measure, Progress, diagnose, level_times
from radiata_core.errors import InputError
from radiata_core.gauge import GaugedDenoiser, GaugeField
from radiata_core.intrinsic_dimension import flipd
from radiata_core.jacobians import jacobian, score_field
from radiata_core.likelihood import log_likelihood
from radiata_core.paths import LinearPath, TrigonometricPath, VEPath, VPPath
from radiata_core.seeds import generators_of, noise_of
from radiata_core.straight_coordinates import FixedSteps
from radiata_core.straightness import curvature, straightness

F64 = torch.float64
PATHS = [LinearPath(), TrigonometricPath(), VPPath(), VEPath()]
VARIANCE = 2.0


def blob(event=(2, 3), path=PATHS[0]):
    """Round Gaussian data of variance 2 about 1."""
    return GaussianDenoiser(
        torch.ones(event, dtype=F64), Diagonal(torch.full(event, VARIANCE, dtype=F64)), path
    )


def data(rows=8, event=(2, 3)):
    return 1 + VARIANCE**0.5 * noise_of(generators_of(range(rows), 5), event, F64)


def seeds(rows=8):
    return generators_of(range(rows))


class Network(nn.Module):
    """A small convolution with dropout and batch norm, which behave otherwise in training."""

    def __init__(self, channels=2):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Conv3d(channels, 6, 3, padding=1),
                nn.BatchNorm3d(6),
                nn.SiLU(),
                nn.Dropout(0.5),
                nn.Conv3d(6, channels, 3, padding=1),
            )

    def forward(self, x, level, shift=None):
        return self.layers(x) if shift is None else self.layers(x) + shift[:, None, None, None, None]


def volumes(rows=5):
    return noise_of(generators_of(range(rows), 5), (2, 4, 5, 3))


@pytest.mark.parametrize(
    ("event", "path"),
    [*(((2, 3), path) for path in PATHS), ((5,), PATHS[0]), ((1, 2, 2, 2), PATHS[-1])],
    ids=lambda given: "x".join(map(str, given)) if isinstance(given, tuple) else type(given).__name__,
)
def test_an_exact_denoiser_is_a_gradient(event, path):
    found = diagnose(blob(event, path), data(6, event), seeds(6), steps=0)
    for level in found.levels:
        for measure in (level.score_asymmetry, level.denoiser_asymmetry, level.block):
            assert measure.value < 1e-24
        assert level.loop.value < 1e-9 and level.gap.value < 1e-9


def test_error_of_an_exact_denoiser_is_the_posterior_sd():
    """sqrt(v sigma^2 / (alpha^2 v + sigma^2)), 2000 rows of 6, within 5 of its own standard errors."""
    found = diagnose(blob(), data(2000), seeds(2000), steps=0, times=level_times(PATHS[0], (0.5, 2.0)))
    for level in found.levels:
        wanted = math.sqrt(VARIANCE * level.kappa**2 / (VARIANCE + level.kappa**2))
        assert abs(level.error.value - wanted) < 5 * level.error.error
        assert level.error.error == pytest.approx(wanted / math.sqrt(2 * 6 * 2000), rel=0.2)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
def test_a_turned_score_is_seen_for_what_it_is(path):
    """Round data: asym s = 2 c^2 / (1 + c^2); D = (1 + sigma^2 J_s) / alpha has 2 b^2 / (a^2 + b^2); the block is 2."""
    law = blob(path=path)
    found = diagnose(GaugedDenoiser(law, GaugeField(law, 3.0)), data(), seeds(), steps=0)
    for level in found.levels:
        turn = 3 / (1 + level.kappa**2)
        assert level.score_asymmetry.value == pytest.approx(2 * turn**2 / (1 + turn**2), rel=1e-6)
        shrink = VARIANCE / (VARIANCE + level.kappa**2)
        push = turn * level.kappa**2 / (VARIANCE + level.kappa**2)
        assert level.denoiser_asymmetry.value == pytest.approx(2 * push**2 / (shrink**2 + push**2), rel=1e-6)
        assert level.block.value == pytest.approx(2, rel=1e-6)
        assert level.loop.value > 0.01 and level.gap.value > 1e-3


def test_numbers_are_those_of_their_modules():
    """A level's block against the whole Jacobian; its asymmetry within what 500 x 4 probes allow; the flow exactly."""
    denoiser, x0, t = (
        NetworkDenoiser(Network(1), PATHS[0], "velocity").double().eval(),
        data(500, (1, 2, 2, 2)),
        0.4,
    )
    time = torch.tensor([t], dtype=F64)
    found = diagnose(denoiser, x0, seeds(500), times=time, probes=4, elements=torch.arange(8), steps=5)
    x = 0.6 * x0 + 0.4 * noise_of(generators_of(range(500), 9), (1, 2, 2, 2), F64)
    exact = jacobian(score_field(denoiser, time[0]), x)
    ratio = float((exact - exact.mT).square().sum() / (2 * exact.square().sum()))
    assert abs(found.levels[0].score_asymmetry.value - ratio) < 5 * found.levels[0].score_asymmetry.error
    assert asymmetry(score_field(denoiser, time[0]), x, seeds(500)).ratio == pytest.approx(ratio, rel=0.2)
    rest = exact - torch.diag_embed(exact.diagonal(dim1=1, dim2=2))
    block = float((rest - rest.mT).square().sum() / (2 * rest.square().sum()))
    assert abs(found.levels[0].block.value - block) < 5 * found.levels[0].block.error
    starts: list[torch.Tensor] = []

    def start(denoiser, x0, generators, **conditions):
        starts.append(noise_of(generators, x0.shape[1:], x0.dtype))
        return torch.zeros(len(x0))

    diagnose(
        denoiser,
        x0,
        seeds(500),
        times=time,
        probes=4,
        elements=torch.arange(8),
        steps=0,
        measures={"start": start},
    )
    s, c = straightness(denoiser, starts[0], 5) / 8, curvature(denoiser, starts[0], 5)
    assert found.flow["straightness (per element)"].value == pytest.approx(float(s.detach().mean()), rel=1e-9)
    assert found.flow["curvature"].value == pytest.approx(float(c.detach().mean()), rel=1e-9)
    assert found.flow["curvature"].error == pytest.approx(float(c.detach().std() / 500**0.5), rel=1e-9)


def numbers(found: Diagnosis) -> torch.Tensor:
    levels = [[m.value for m in vars(level).values() if isinstance(m, Measure)] for level in found.levels]
    return torch.tensor([x for level in levels for x in level] + [m.value for m in found.flow.values()])


def test_portions_change_nothing():
    """5 rows at once, 2 at a time and 1 at a time; conditions go with their rows."""
    denoiser = NetworkDenoiser(Network(), PATHS[0], "velocity").double()
    shift, x0 = torch.linspace(-1, 1, 5, dtype=F64), volumes().double()
    reports = [
        numbers(
            diagnose(
                denoiser,
                x0,
                seeds(5),
                rows=rows,
                steps=3,
                times=level_times(PATHS[0], (0.3, 2.0)),
                shift=shift,
            )
        )
        for rows in (None, 2, 1)
    ]
    assert torch.allclose(reports[0], reports[1], rtol=1e-6) and torch.allclose(
        reports[0], reports[2], rtol=1e-6
    )
    other = diagnose(denoiser, x0, seeds(5), steps=3, times=level_times(PATHS[0], (0.3, 2.0)), shift=-shift)
    assert not torch.allclose(numbers(other), reports[0], rtol=1e-3)


def test_network_is_in_evaluation_mode_meanwhile_and_back_after():
    network = Network()
    network.layers[3].eval()  # one that was not in training stays so
    seen: list[bool] = []

    def watch(denoiser, x0, generators, **conditions):
        seen.append(network.training or network.layers[1].training)
        return torch.zeros(len(x0))

    guided = Guided(NetworkDenoiser(network, PATHS[0], "velocity"))
    diagnose(
        guided, volumes(2), seeds(2), times=level_times(PATHS[0], (1.0,)), steps=0, measures={"watch": watch}
    )
    assert seen == [False]
    assert network.training and network.layers[1].training and not network.layers[3].training
    assert int(network.layers[1].num_batches_tracked) == 0


def test_progress_is_told_part_by_part():
    told: list[Progress] = []
    diagnose(
        blob(),
        data(5),
        seeds(5),
        times=level_times(PATHS[0], (0.5, 1.0)),
        rows=2,
        steps=2,
        callback=told.append,
    )
    assert [p.done for p in told] == list(range(1, 10)) and {p.total for p in told} == {9}
    assert [p.part for p in told][:3] == ["t = 0.333", "t = 0.5", "straightness"]


def test_report_is_text_and_json():
    measures = {"size": lambda denoiser, x0, generators: x0.flatten(1).norm(dim=1)}
    x0 = data(4)
    found = diagnose(blob(), x0, seeds(4), steps=2, measures=measures)
    table = str(found)
    assert table == found.table() and len(table.splitlines()) == 2 + 5 + 3 and "asym s" in table
    assert "4 rows of 6 elements" in table
    again = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert again["levels"][2]["kappa"] == pytest.approx(1) and again["rows"] == 4
    assert again["flow"]["size"]["value"] == pytest.approx(float(x0.flatten(1).norm(dim=1).mean()))
    alone = diagnose(blob(), x0[:1], seeds(1), steps=0)
    assert math.isnan(alone.levels[0].error.error) and "±" not in str(alone.levels[0].error)
    assert json.loads(json.dumps(alone.to_dict(), allow_nan=False))["levels"][0]["error"]["error"] is None


def test_one_element_has_no_loop_and_no_block():
    law = MixtureDenoiser(
        torch.ones(2, dtype=F64),
        torch.tensor([[-1.0], [1.0]], dtype=F64),
        [Diagonal(torch.full((1,), 0.1, dtype=F64))] * 2,
        PATHS[0],
    )
    found = diagnose(law, data(3, (1,)), seeds(3), steps=0)
    assert found.levels[0].loop == found.levels[0].block == Measure(0.0, 0.0)


def test_default_levels_are_levels_of_the_path():
    for path in PATHS:
        c = path.coefficients(level_times(path))
        assert torch.allclose(
            c.sigma / c.alpha, torch.tensor([0.1, 0.3, 1.0, 3.0, 10.0], dtype=F64), rtol=1e-6
        )


class Broken:
    path = PATHS[0]

    def __init__(self, answer):
        self.answer = answer

    def __call__(self, x, t, **conditions):
        return self.answer(x)


def test_bad_input():
    law, x0 = blob(), data(4)
    with pytest.raises(InputError, match="one generator a row; got 4 rows and 3"):
        diagnose(law, x0, seeds(3))
    for times in (torch.tensor([0.0, 0.5]), torch.tensor([1.0]), torch.tensor([])):
        with pytest.raises(InputError, match=r"times inside \(0, 1\)"):
            diagnose(law, x0, seeds(4), times=times.double())
    for wrong in ({"probes": 0}, {"path_points": 0}, {"steps": -1}, {"rows": 0}):
        with pytest.raises(InputError, match="The defaults are"):
            diagnose(law, x0, seeds(4), **wrong)
    with pytest.raises(InputError, match="one row of age a sample, 4"):
        diagnose(law, x0, seeds(4), age=torch.ones(3))
    with pytest.raises(InputError, match=r"t=0\.0909"):
        diagnose(Broken(lambda x: x * torch.nan), x0, seeds(4))
    with pytest.raises(InputError, match="shape"):
        diagnose(Broken(lambda x: x[:, :1]), x0, seeds(4))
    with pytest.raises(InputError, match="points >= 4"):
        diagnose(law, x0, seeds(4), loop_points=2)
    with pytest.raises(InputError, match="measure"):
        diagnose(law, x0, seeds(4), steps=0, measures={"all": lambda denoiser, x0, generators: x0})


def test_likelihood_and_dimension_are_measures():
    """Round data of variance v at kappa: bits of N(1, v + kappa^2) and N v / (v + kappa^2) dimensions at the mean."""
    law, x0 = blob((4,)), data(6, (4,))
    t = level_times(law.path, (0.5,))

    def bits(denoiser, x0, generators, **conditions):
        return log_likelihood(denoiser, x0, solver=FixedSteps(40), t_min=float(t), **conditions).bits_per_dim

    def dimension(denoiser, x0, generators, **conditions):
        return flipd(denoiser, torch.ones_like(x0), t, **conditions).dimension

    found = diagnose(
        law, x0, seeds(6), times=t, steps=0, rows=4, measures={"bits": bits, "dimension": dimension}
    )
    total = VARIANCE + 0.25
    wanted = (0.5 * math.log(2 * math.pi * total) + (x0 - 1).square() / (2 * total)).mean() / math.log(2)
    assert found.flow["bits"].value == pytest.approx(float(wanted), abs=1e-4)
    assert found.flow["dimension"].value == pytest.approx(4 * VARIANCE / total, rel=1e-9)

"""First-order trajectories within segments of time."""

import pytest
import torch

from radiata_core.analytic import GaussianDenoiser
from radiata_core.covariances import Diagonal
from radiata_core.errors import InputError
from radiata_core.flowmaps import euler_jump, sample_flow_map
from radiata_core.paths import LinearPath, TrigonometricPath, VEPath, VPPath
from radiata_core.phases import PhasedRectification, segment_pair
from radiata_core.predictions import Prediction
from radiata_core.seeds import generators_of, noise_of
from radiata_core.solvers import integrate
from radiata_core.tables import ddim

VARIANCES = torch.tensor([4.0, 0.25, 1.0], dtype=torch.float64)


def teacher(path):
    return GaussianDenoiser(torch.zeros(3, dtype=torch.float64), Diagonal(VARIANCES), path)


class Phased:
    """The exact student of `teacher`: x_0 of the first-order trajectory through the state, within its segment."""

    def __init__(self, path, nodes):
        self.path, self.nodes = path, nodes

    def __call__(self, x, t, **conditions):
        t = t.expand(len(x)).double()
        number = (torch.searchsorted(-self.nodes, -t, right=True) - 1).clamp(0, len(self.nodes) - 2)
        late, early = (self.path.coefficients(self.nodes[number + k]) for k in (0, 1))
        here = self.path.coefficients(t)
        spread = [(c.alpha[:, None] ** 2 * VARIANCES + c.sigma[:, None] ** 2).sqrt() for c in (late, early)]
        rho = spread[1] / spread[0]
        p = -early.sigma[:, None] + late.sigma[:, None] * rho
        q = early.alpha[:, None] - late.alpha[:, None] * rho
        return p * x / (here.alpha[:, None] * p + here.sigma[:, None] * q)


@pytest.mark.parametrize("path", [LinearPath(), TrigonometricPath(), VPPath(), VEPath()])
def test_a_segment_pair_passes_through_both_states(path, generator):
    late, early = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    t = torch.tensor([1.0, 0.9, 0.5, 0.3, 0.05], dtype=torch.float64)
    s = torch.tensor([0.7, 0.0, 0.2, 0.0, 0.01], dtype=torch.float64)
    pair = segment_pair(late, early, t, s, path)
    for state, time in ((late, t), (early, s)):
        c = path.coefficients(time)
        again = c.alpha[:, None] * pair.x0 + c.sigma[:, None] * pair.noise
        scale = c.sigma[:, None] * pair.noise.abs() + c.alpha[:, None] * pair.x0.abs()
        assert ((again - state).abs() <= 1e-11 * (1 + scale)).all()


@pytest.mark.parametrize("path", [LinearPath(), VPPath()])
@pytest.mark.parametrize("phases", [1, 4])
@pytest.mark.parametrize("target", [Prediction.X0, Prediction.VELOCITY])
def test_the_exact_phased_student_has_no_loss(path, phases, target):
    """Closed form: for Gaussian data the first-order trajectory of a segment is linear in the state."""
    objective = PhasedRectification(teacher(path), phases, steps=40, target=target)
    x0 = noise_of(generators_of(range(64), 1), (3,), torch.float64) * VARIANCES.sqrt()
    exact = objective(Phased(path, objective.nodes), x0, generators_of(range(64), 2))
    plain = objective(teacher(path), x0, generators_of(range(64), 2))
    assert exact.value < 1e-3 * plain.value
    assert bool((exact.t > 0).all() and (exact.t <= 1).all())


@pytest.mark.parametrize("phases", [1, 2, 5])
def test_one_step_a_phase_samples_the_exact_student(phases):
    """M steps of DDIM end where the teacher's ODE does: at sqrt(variance) times the noise."""
    path = LinearPath()
    nodes = PhasedRectification(teacher(path), phases).nodes
    noise = noise_of(generators_of(range(8)), (3,), torch.float64)
    found = integrate(Phased(path, nodes), noise, ddim(nodes, path))
    assert torch.allclose(found, VARIANCES.sqrt() * noise, atol=1e-10)


class PhasedMap(Phased):
    """The same as a flow map, which must be told the end of the segment of its time."""

    def __call__(self, x, t, s=None, **conditions):
        number = (torch.searchsorted(-self.nodes, -t.expand(len(x)), right=True) - 1).clamp(
            0, len(self.nodes) - 2
        )
        assert torch.equal(s.expand(len(x)), self.nodes[number + 1])
        return super().__call__(x, t)

    def jump(self, x, t, s, **conditions):
        return euler_jump(x, self(x, t, s), t, s, self.path)


@pytest.mark.parametrize("phases", [1, 4])
def test_a_flow_map_is_told_the_end_of_its_segment(phases):
    """It has no loss if exact, and as many jumps as phases end where the teacher's ODE does."""
    path = LinearPath()
    objective = PhasedRectification(teacher(path), phases, steps=40)
    exact = PhasedMap(path, objective.nodes)
    x0 = noise_of(generators_of(range(32), 1), (3,), torch.float64) * VARIANCES.sqrt()
    assert objective(exact, x0, generators_of(range(32), 2)).value < 1e-4
    noise = noise_of(generators_of(range(8)), (3,), torch.float64)
    assert torch.allclose(
        sample_flow_map(exact, noise, objective.nodes), VARIANCES.sqrt() * noise, atol=1e-10
    )


def test_rows_depend_on_their_own_generator():
    objective = PhasedRectification(teacher(LinearPath()), 3, steps=2)
    x0 = noise_of(generators_of(range(6), 1), (3,), torch.float64)
    whole = objective(teacher(LinearPath()), x0, generators_of(range(6)))
    part = objective(teacher(LinearPath()), x0[2:4], generators_of([2, 3]))
    assert torch.allclose(whole.per_sample[2:4], part.per_sample, atol=1e-12)
    assert torch.equal(whole.t[2:4], part.t)


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(InputError, match="at least one phase"):
        PhasedRectification(teacher(LinearPath()), 0)
    with pytest.raises(InputError, match="loss in x0 or velocity"):
        PhasedRectification(teacher(LinearPath()), target=Prediction.EPSILON)
    with pytest.raises(InputError, match="one generator a row, 2"):
        PhasedRectification(teacher(LinearPath()))(
            teacher(LinearPath()), torch.zeros(2, 3).double(), generators_of([1])
        )
    with pytest.raises(InputError, match="expected a student on LinearPath"):
        PhasedRectification(teacher(LinearPath()))(
            teacher(VPPath()), torch.zeros(1, 3).double(), generators_of([1])
        )

"""Noise: its law, that a row belongs to its generator, and who may have which."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.stats import f as fisher
from scipy.stats import kstest, spearmanr
from scipy.stats import t as student
from torch import Tensor

from radiata_core.budget import Budget
from radiata_core.conversion import OnPath
from radiata_core.covariances import fit_low_rank
from radiata_core.denoisers import EDMDenoiser, Guided, NetworkDenoiser
from radiata_core.errors import InputError
from radiata_core.flowmap_objectives import ConsistencyTrajectory, draw_trajectory
from radiata_core.jacobians import score_field
from radiata_core.kernels import GaussianKernel, StudentTKernel, kernel_of, prior
from radiata_core.nets.unet import UNet
from radiata_core.objectives import Regression
from radiata_core.paths import LinearPath, Path, VEPath
from radiata_core.runge_kutta import Churn, adaptive, edm_heun, heun
from radiata_core.search import best_of_n
from radiata_core.seeds import generator_of, generators_of, noise_of
from radiata_core.solvers import ddim, ddpm, integrate, unipc_2
from radiata_core.specs import describe, rebuild
from radiata_core.teleportation import Teleported
from radiata_core.times import LinearGrid, UniformTime
from radiata_core.transitions import exact_transition, stochastic_step


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_noise_is_unit_normal_and_white() -> None:
    """Kolmogorov-Smirnov at level 1e-3, and lag correlations within 4 standard errors (1 seed in 800 would fail)."""
    noise = GaussianKernel().noise(torch.zeros(8, 1, 10, 10, 50, dtype=torch.float64), generators(*range(8)))
    flat = noise.reshape(8, -1)
    assert kstest(flat.flatten().numpy(), "norm").pvalue > 1e-3
    standard_error = flat[0].numel() ** -0.5
    assert ((flat[:, 1:] * flat[:, :-1]).mean(1).abs() < 4 * standard_error).all()
    across = torch.corrcoef(flat) - torch.eye(8, dtype=torch.float64)
    assert across.abs().max() < 4.5 * standard_error


def test_a_row_depends_on_its_generator_only() -> None:
    kernel, x0 = GaussianKernel(), torch.zeros(3, 2, 5)
    batch = kernel.noise(x0, generators(7, 8, 9))
    for i, seed in enumerate((7, 8, 9)):
        assert torch.equal(kernel.noise(x0[:1], generators(seed))[0], batch[i])
    assert torch.equal(kernel.noise(x0, generators(9, 8, 7)), batch.flip(0))


def test_one_generator_fills_the_batch() -> None:
    (generator,) = generators(3)
    noise = GaussianKernel().noise(torch.zeros(4, 6), generator)
    assert torch.equal(noise, GaussianKernel().sample((4, 6), *generators(3)))
    assert noise.unique().numel() == 24


def test_half_precision_noise_is_the_same_noise_rounded() -> None:
    kernel = GaussianKernel()
    fine = kernel.sample((1000,), *generators(5))
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(kernel.sample((1000,), *generators(5), dtype=dtype), fine.to(dtype))


def test_generators_are_counted() -> None:
    with pytest.raises(InputError, match="expected one generator a sample, 3; got 2"):
        GaussianKernel().noise(torch.zeros(3, 2), generators(0, 1))


def test_kernel_survives_json() -> None:
    assert rebuild(describe(GaussianKernel())) == GaussianKernel()


# Student-t ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dof", [0.7, 1.0, 2.5, 8.0, 128.0, 1e7])
def test_one_number_of_student_noise_is_student(dof: float) -> None:
    """The first number of each row against scipy's law, also for D that is no integer: level 1e-3 each."""
    noise = StudentTKernel(dof).noise(torch.zeros(20_000, 2, dtype=torch.float64), *generators(1))
    assert kstest(noise[:, 0].numpy(), student(dof).cdf).pvalue > 1e-3


@pytest.mark.parametrize("dof", [1.5, 8.0, 300.0])
def test_numbers_of_a_row_share_one_chi_square_and_rows_do_not(dof: float) -> None:
    """|x|²/N of a row is Fisher's F of (N, D), which it would not be with a chi-square a number; level 1e-3.

    Two rows are independent: the ranks of their radii have a correlation within 4 standard errors.
    """
    noise = StudentTKernel(dof).noise(torch.zeros(8000, 3, 2, dtype=torch.float64), *generators(2))
    ratio = noise.square().flatten(1).mean(1).numpy()
    assert kstest(ratio, fisher(6, dof).cdf).pvalue > 1e-3
    assert abs(spearmanr(ratio[::2], ratio[1::2]).statistic) < 4 / 4000**0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_infinite_degrees_of_freedom_are_gaussian_to_the_bit(dtype: torch.dtype) -> None:
    """The same numbers, and the generators are left where the Gaussian kernel leaves them."""
    x0, one, other = torch.zeros(3, 4, 5, dtype=dtype), generators(1, 2, 3), generators(1, 2, 3)
    for kernel, drawn in ((StudentTKernel(math.inf), one), (GaussianKernel(), other)):
        kernel.noise(x0, drawn)
    assert torch.equal(StudentTKernel(math.inf).noise(x0, one), GaussianKernel().noise(x0, other))
    assert torch.equal(
        StudentTKernel(math.inf).noise(x0, *generators(4)), GaussianKernel().noise(x0, *generators(4))
    )


def test_a_seed_is_a_continuous_function_of_the_degrees_of_freedom() -> None:
    """Same seed: |x_D - x| falls as D^-1/2, through the switch of formulas at 1e6, up to any D."""
    x0 = torch.zeros(64, 8, dtype=torch.float64)
    limit = GaussianKernel().noise(x0, generators(*range(64)))
    dofs = [10.0**k for k in range(2, 15, 2)]
    gaps = [
        float((StudentTKernel(d).noise(x0, generators(*range(64))) - limit).square().mean()) for d in dofs
    ]
    slopes = torch.tensor(gaps).log10().diff() / 4
    torch.testing.assert_close(slopes, torch.full((6,), -0.5), atol=0.02, rtol=0)
    assert torch.equal(StudentTKernel(1e300).noise(x0, generators(*range(64))), limit)
    below, above = (StudentTKernel(d).noise(x0, generators(*range(64))) for d in (1e6 - 1e-3, 1e6))
    torch.testing.assert_close(below, above, atol=0, rtol=1e-11)


def test_a_student_row_depends_on_its_generator_only() -> None:
    kernel, x0 = StudentTKernel(3.0), torch.zeros(3, 2, 5)
    batch = kernel.noise(x0, generators(7, 8, 9))
    for i, seed in enumerate((7, 8, 9)):
        assert torch.equal(kernel.noise(x0[:1], generators(seed))[0], batch[i])
        assert torch.equal(kernel.sample((2, 5), *generators(seed)), batch[i])
    assert torch.equal(kernel.noise(x0, generators(9, 8, 7)), batch.flip(0))


def test_half_precision_student_noise_is_the_same_noise_rounded() -> None:
    kernel = StudentTKernel(4.0)
    fine = kernel.noise(torch.zeros(50, 4), *generators(5))
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(kernel.noise(torch.zeros(50, 4, dtype=dtype), *generators(5)), fine.to(dtype))


def test_a_prior_is_sigma_times_the_kernel() -> None:
    """On the linear path the Gaussian one is `noise_of`; on VE it has the scale sigma_max; any event."""
    assert torch.equal(
        prior(LinearPath(), generators_of([1, 2]), (3, 4)), noise_of(generators_of([1, 2]), (3, 4))
    )
    kernel, path = StudentTKernel(2.0), VEPath(0.01, 50.0)
    for t, sigma in ((1.0, 50.0), (0.5, 0.01 * (5001**0.5 - 1))):
        drawn = prior(path, generators_of([3, 4]), (2, 2, 2), kernel, t=t, dtype=torch.float64)
        expected = sigma * kernel.noise(torch.zeros(2, 2, 2, 2, dtype=torch.float64), generators_of([3, 4]))
        torch.testing.assert_close(drawn, expected)


def test_bad_degrees_of_freedom_and_priors_are_refused() -> None:
    for dof in (0.0, -1.0, math.nan):
        with pytest.raises(InputError, match="expected degrees of freedom D > 0"):
            StudentTKernel(dof)
    with pytest.raises(InputError, match="expected one generator a sample, 3; got 2"):
        StudentTKernel(8.0).noise(torch.zeros(3, 2), generators(0, 1))
    with pytest.raises(InputError, match="expected at least one generator"):
        prior(LinearPath(), [], (2,))


def test_student_kernels_survive_json() -> None:
    assert rebuild(json.loads(json.dumps(describe(StudentTKernel(128.0))))) == StudentTKernel(128.0)
    assert rebuild(describe(StudentTKernel(math.inf))) == StudentTKernel(math.inf)
    assert describe(StudentTKernel(128)) == describe(StudentTKernel(128.0))


# Who needs Gaussian noise -------------------------------------------------------------------------------------------


class Answer:
    """A denoiser that says zero, for noise of any kernel."""

    def __init__(self, kernel: object, path: Path | None = None) -> None:
        self.kernel, self.path = kernel, path or LinearPath()

    def __call__(self, x: Tensor, t: Tensor, **conditions: Tensor) -> Tensor:
        return torch.zeros_like(x)


GRID = LinearGrid()(4, LinearPath())
NEEDS: dict[str, Callable[[Any], Any]] = {
    "churn": lambda d: edm_heun(d, X, GRID, d.path, churn=Churn(4.0), generators=generators_of([0, 1])),
    "a stochastic solver": lambda d: integrate(d, X, ddpm(GRID, d.path), generators=generators_of([0, 1])),
    "a stochastic step": lambda d: stochastic_step(
        d, X, exact_transition(GRID, d.path), 0, generators_of([0, 1])
    ),
    "a search": lambda d: best_of_n(
        d, X, ddim(GRID, d.path), lambda x: x.sum(1), Budget(9), generators=generators_of([0, 1])
    ),
    "classifier-free guidance": lambda d: Guided(d, 2.0),
    "a jump by the flow of a Gaussian": lambda d: Teleported(
        fit_low_rank(torch.randn(9, 3, generator=generator_of(0)), 2), 0.5, lambda d, x, times: x
    )(d, X, GRID),
    "": lambda d: score_field(d, torch.tensor(0.5, dtype=torch.float64))(X),
    "an anchor": lambda d: NetworkDenoiser(
        torch.nn.Identity(), d.path, "velocity", anchor=torch.nn.Identity(), kernel=d.kernel
    ),
    "a network that predicts the score": lambda d: NetworkDenoiser(
        torch.nn.Identity(), d.path, "score", kernel=d.kernel
    ),
}
X = torch.ones(2, 3)


@pytest.mark.parametrize("what", NEEDS)
def test_what_needs_gaussian_noise_says_so(what: str) -> None:
    """Refused for finite D by name, and through wrappers; accepted for the Gaussian under either name, or unnamed."""
    run = NEEDS[what]
    with pytest.raises(InputError, match=f"expected Gaussian noise.*{what}.*got.*StudentTKernel"):
        run(Answer(StudentTKernel(64.0)))
    if what not in ("an anchor", "a network that predicts the score"):
        with pytest.raises(InputError, match="expected Gaussian noise"):
            run(OnPath(Answer(StudentTKernel(64.0)), LinearPath()))
        with pytest.raises(InputError, match="expected Gaussian noise"):
            run(Guided(Answer(StudentTKernel(64.0))))
    run(Answer(GaussianKernel()))
    if what:
        run(Answer(StudentTKernel(math.inf)))


def test_deterministic_solvers_do_not_look_at_the_kernel() -> None:
    """Byte for byte the same samples for any kernel: tables, Heun, EDM's sampler without churn, Dormand-Prince."""

    class Shrinking(Answer):
        def __call__(self, x: Tensor, t: Tensor, **conditions: Tensor) -> Tensor:
            return torch.tanh(x)

    path = LinearPath()
    for solve in (
        lambda d: integrate(d, X, unipc_2(GRID, path)),
        lambda d: heun(d, X, GRID, path),
        lambda d: edm_heun(d, X, GRID, path),
        lambda d: adaptive(d, X, path).x,
    ):
        assert torch.equal(solve(Shrinking(StudentTKernel(2.0))), solve(Shrinking(GaussianKernel())))


def test_a_denoiser_keeps_its_kernel() -> None:
    """In its description, where it is not Gaussian; files of Gaussian denoisers are as they were."""
    with torch.random.fork_rng(devices=[]):
        net = UNet(dims=1, channels=(4,), down_blocks=(0,), up_blocks=(1,), attention=(False,))
    for make in (
        lambda kernel: NetworkDenoiser(net, VEPath(), "velocity", kernel=kernel),
        lambda kernel: EDMDenoiser(net, VEPath(), 0.5, kernel),
    ):
        told = describe(make(StudentTKernel(128.0)))
        assert told["kernel"] == {"kind": "student-t-kernel", "dof": 128.0}
        with torch.random.fork_rng(devices=[]):
            assert kernel_of(rebuild(told)) == StudentTKernel(128.0)
        for kernel in (None, GaussianKernel(), StudentTKernel(math.inf)):
            assert "kernel" not in describe(make(kernel))
    assert kernel_of(make(None)) == kernel_of(lambda x, t: x) == GaussianKernel()


def test_training_on_other_noise_than_the_denoiser_names_is_refused() -> None:
    x0, net = torch.zeros(2, 3), torch.nn.Identity()
    denoiser = EDMDenoiser(net, LinearPath(), kernel=StudentTKernel(8.0))
    objective = Regression(LinearPath(), UniformTime())
    with pytest.raises(InputError, match="expected noise of the denoiser's kernel"):
        objective(denoiser, x0, generators_of([0, 1]))


def test_a_student_of_a_heavy_tailed_teacher_is_taught_on_its_noise() -> None:
    """The states that are jumped from are the data plus sigma times the teacher's noise, drawn after the node."""

    class Student(Answer):
        def jump(self, x: Tensor, t: Tensor, s: Tensor, **conditions: Tensor) -> Tensor:
            seen.append((x, t))
            return x

    teacher, seen = Answer(StudentTKernel(2.0)), []
    x0, again = torch.zeros(3, 4), generators_of([1, 2, 3])
    objective = ConsistencyTrajectory(teacher, LinearGrid(), steps=4, depth=2)
    objective.jumps(Student(None), x0, generators_of([1, 2, 3]))
    draw_trajectory(4, objective.depth, again, objective.from_noise, objective.to_data)
    x, t = seen[0]
    torch.testing.assert_close(x, (t[:, None] * StudentTKernel(2.0).noise(x0, again)).to(x))

"""Score distillation against its classical form, by autograd, for every prediction on every path."""

import math

import pytest
import torch
from torch import Tensor

from radiata_core.analytic import GaussianDenoiser
from radiata_core.covariances import Dense
from radiata_core.errors import InputError
from radiata_core.kernels import StudentTKernel
from radiata_core.objectives import Constant
from radiata_core.paths import (
    DiscreteVPPath,
    LinearPath,
    Path,
    TrigonometricPath,
    VEPath,
    VPPath,
    add_noise,
    expand,
)
from radiata_core.predictions import Prediction, convert, target_of
from radiata_core.score_distillation import AnnealedTimes, ResidualWeight, ScoreDistillation
from radiata_core.seeds import generator_of, generators_of, noise_of

PATHS = [LinearPath(), TrigonometricPath(), VPPath(), VEPath(sigma_max=8.0), DiscreteVPPath()]


def prior(path: Path, size: int = 6) -> GaussianDenoiser:
    """Correlated data of mean 0.3."""
    root = torch.randn(size, size, generator=generator_of(size), dtype=torch.float64)
    return GaussianDenoiser(torch.full((size,), 0.3).double(), Dense(root @ root.mT / size), path)


def views_of(theta: Tensor) -> Tensor:
    """Any differentiable rendering: four views of six numbers."""
    return torch.stack([(theta * (1 + k) + 0.1 * theta.square()).sin() for k in range(4)])


def theta_of() -> Tensor:
    return torch.randn(6, generator=generator_of(1), dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
@pytest.mark.parametrize("prediction", list(Prediction), ids=lambda p: p.value)
def test_gradient_is_the_classical_one(path: Path, prediction: Prediction) -> None:
    """w (p^ - p) dx/dtheta, with the very noise that was drawn; float64, to rounding."""
    denoiser, theta = prior(path), theta_of()
    weight = ResidualWeight(prediction, lambda c: c.sigma.square())
    times = AnnealedTimes(high=(0.9, 0.1), low=(0.2, 0.05))
    found = ScoreDistillation(denoiser, times, weight)(views_of(theta), 0.3, generators_of(range(4)))
    (gradient,) = torch.autograd.grad(found.value, theta)

    generators = generators_of(range(4))
    low, high = times(0.3)
    t = torch.stack(
        [low + (high - low) * torch.rand((), generator=g, dtype=torch.float64) for g in generators]
    )
    torch.testing.assert_close(found.t, t)
    noise = noise_of(generators, (6,), torch.float64)
    theta = theta_of()
    views = views_of(theta)
    x = add_noise(path, views.detach(), noise, t)
    told = convert(denoiser(x, t), x, t, path, Prediction.X0, prediction)
    residual = told - target_of(views.detach(), noise, t, path, prediction)
    sign = -1 if prediction in (Prediction.X0, Prediction.SCORE) else 1
    w = expand(path.coefficients(t).sigma.square(), views)
    (classical,) = torch.autograd.grad(views, theta, grad_outputs=sign * w * residual)
    error = (gradient - classical).abs().max() / classical.abs().max()
    assert float(error) < 1e-12 * (1 if path.coefficients(t).alpha.min() > 0.1 else 100)


def test_weights_are_the_known_ones() -> None:
    """alpha/sigma for the noise, 1/sigma for v where alpha^2 + sigma^2 = 1, 1/t for the velocity of the straight path."""
    t = torch.tensor([[0.1, 0.5], [0.7, 0.9]], dtype=torch.float64)
    for path in (LinearPath(), TrigonometricPath()):
        c = path.coefficients(t)
        torch.testing.assert_close(ResidualWeight(Prediction.EPSILON)(t, path), c.alpha / c.sigma)
        torch.testing.assert_close(ResidualWeight(Prediction.X0)(t, path), torch.ones_like(t))
    torch.testing.assert_close(ResidualWeight(Prediction.VELOCITY)(t, LinearPath()), 1 / t)
    torch.testing.assert_close(ResidualWeight(Prediction.FLOW)(t, LinearPath()), 1 / t)
    torch.testing.assert_close(ResidualWeight(Prediction.V)(t, TrigonometricPath()), 1 / c.sigma)


def test_descent_ends_at_the_mode() -> None:
    """Gaussian prior N(m, S): the expected pull is (I - G)(m - x), so annealed descent ends at m, whatever the start.

    The fixed point is the mean = the mode, and 40 views from different starts have *no* spread like the prior's: their
    standard deviation is below a tenth of it.
    """
    path, size = LinearPath(), 3
    denoiser = prior(path, size)
    distillation = ScoreDistillation(denoiser, AnnealedTimes(high=(0.7, 0.5), low=(0.7, 0.5)))
    x = 2 * torch.randn(40, size, generator=generator_of(5), dtype=torch.float64)
    x.requires_grad_()
    generators = generators_of(range(40))
    for step in range(80):
        (slope,) = torch.autograd.grad(distillation(x, step / 80, generators).value, x)
        with torch.no_grad():
            x -= 0.3 * (1 - step / 80) * slope
    spread = denoiser.covariance.matrix.diagonal().sqrt()  # type: ignore[attr-defined]
    x = x.detach()
    assert bool(((x.mean(0) - 0.3).abs() < 4 * x.std(0) / math.sqrt(40) + 1e-3).all())
    assert bool((x.std(0) < 0.35 * spread).all())


def test_a_view_does_not_depend_on_the_others() -> None:
    distillation = ScoreDistillation(prior(VPPath()), weight=Constant())
    views = views_of(theta_of().detach())
    together = distillation(views, 0.5, generators_of(range(4)))
    alone = [distillation(views[k : k + 1], 0.5, generators_of([k])) for k in range(4)]
    torch.testing.assert_close(together.per_view, torch.cat([a.per_view for a in alone]))
    torch.testing.assert_close(together.x0, torch.cat([a.x0 for a in alone]))
    torch.testing.assert_close(together.value, together.per_view.sum())
    assert not together.x0.requires_grad


def test_times_fall_with_progress() -> None:
    times = AnnealedTimes(high=(0.8, 0.2), low=(0.4, 0.1))
    assert times(0.0) == pytest.approx((0.4, 0.8))
    assert times(0.5) == pytest.approx((0.2, 0.4))
    assert times(1.0) == pytest.approx((0.1, 0.2))
    distillation = ScoreDistillation(prior(LinearPath()), times)
    views = torch.zeros(500, 6, dtype=torch.float64)
    t = distillation(views, 0.5, [generator_of(7)] * 500).t
    assert 0.2 <= float(t.min()) < 0.205
    assert 0.395 < float(t.max()) <= 0.4


def test_half_precision_and_more_axes() -> None:
    """A rendering in bfloat16, with a channel and two axes, gives a loss near that of float64."""

    class Shrink:
        path = LinearPath()

        def __call__(self, x: Tensor, t: Tensor, **conditions: Tensor | None) -> Tensor:
            return x * expand(1 - t, x).to(x)

    views = torch.randn(2, 1, 5, 4, generator=generator_of(3), dtype=torch.float64)
    found = [
        ScoreDistillation(Shrink())(views.to(d), 0.2, generators_of([0, 1]))
        for d in (torch.float64, torch.bfloat16)
    ]
    assert found[1].x0.dtype == torch.bfloat16
    # float32's noise is not float64's (another stream): only the size of the loss is comparable
    assert 0.2 < float(found[1].value) / float(found[0].value) < 5


def test_bad_input_is_explained() -> None:
    distillation, views = ScoreDistillation(prior(LinearPath())), torch.zeros(2, 6, dtype=torch.float64)
    with pytest.raises(InputError, match="Divide the step"):
        distillation(views, 1.5, generators_of([0, 1]))
    with pytest.raises(InputError, match="one generator a view, 2; got 1"):
        distillation(views, 0.5, generators_of([0]))
    with pytest.raises(InputError, match="0 < low <= high <= 1"):
        AnnealedTimes(high=(0.1, 0.1), low=(0.2, 0.1))
    with pytest.raises(InputError, match="See AnnealedTimes"):
        ScoreDistillation(distillation.denoiser, lambda progress: (0.0, 0.5))(
            views, 0.5, generators_of([0, 1])
        )
    heavy = prior(LinearPath())
    object.__setattr__(heavy, "kernel", StudentTKernel(128))
    with pytest.raises(InputError, match="score distillation"):
        ScoreDistillation(heavy)

"""A denoiser on another path against the exact one there."""

import pytest
import torch

from radiata_core.analytic import MixtureDenoiser
from radiata_core.conversion import OnPath, QuarterCircleGrid
from radiata_core.covariances import Diagonal
from radiata_core.paths import DiscreteVPPath, LinearPath, Path, TrigonometricPath, VEPath, VPPath
from radiata_core.predictions import Prediction, convert
from radiata_core.seeds import generators_of, noise_of
from radiata_core.solvers import integrate
from radiata_core.tables import ddim
from radiata_core.times import LogSNRGrid


def _mixture(path: Path) -> MixtureDenoiser:
    means = torch.tensor([[1.5, 0.0], [-1.0, 1.0], [0.0, -2.0]], dtype=torch.float64)
    blobs = [Diagonal(torch.tensor(v, dtype=torch.float64)) for v in ([0.1, 0.3], [0.2, 0.2], [0.4, 0.05])]
    return MixtureDenoiser(torch.tensor([0.5, 0.3, 0.2]), means, blobs, path)


@pytest.mark.parametrize(
    "target", [VPPath(), TrigonometricPath(), DiscreteVPPath(), VEPath()], ids=lambda p: type(p).__name__
)
def test_converted_linear_velocity_is_the_exact_one(target: Path, generator: torch.Generator) -> None:
    """On a mixture, to 1e-10, at times of all kinds, one a row."""
    t = torch.linspace(0.05, 0.98, 40, dtype=torch.float64)
    x = torch.randn(40, 2, generator=generator, dtype=torch.float64)
    velocities = [
        convert(denoise(x, t), x, t, target, Prediction.X0, Prediction.VELOCITY)
        for denoise in (OnPath(_mixture(LinearPath()), target), _mixture(target))
    ]
    scale = velocities[1].abs().max().clamp_min(1)
    assert float((velocities[0] - velocities[1]).abs().max() / scale) < 1e-10


def test_samples_of_the_converted_denoiser_are_those_of_the_native_one() -> None:
    path = VPPath()
    noise = noise_of(generators_of(range(5)), (2,), torch.float64)
    table = ddim(LogSNRGrid()(12, path), path)
    ours = integrate(OnPath(_mixture(LinearPath()), path), noise, table)
    torch.testing.assert_close(ours, integrate(_mixture(path), noise, table), rtol=0, atol=1e-10)


def test_conditions_and_kernel_go_through() -> None:
    seen = {}

    class Network:
        path = LinearPath()
        kernel = "law"

        def __call__(
            self, x: torch.Tensor, t: torch.Tensor, **conditions: torch.Tensor | None
        ) -> torch.Tensor:
            seen.update(conditions)
            return x

    converted, y = OnPath(Network(), VPPath()), torch.ones(3)
    converted(torch.zeros(3, 2), torch.tensor(0.5), y=y)
    assert seen["y"] is y
    assert converted.kernel == "law"


def test_the_grid_is_a_quarter_circle() -> None:
    """t = sqrt(1 - (1 - u)²) of even times u from 1 to 0."""
    u = torch.linspace(1, 0, 11, dtype=torch.float64)
    torch.testing.assert_close(QuarterCircleGrid()(10, VPPath()), (1 - (1 - u) ** 2).sqrt())

"""The figure and the numbers of docs/operators.md: what each operator measures, and what undoing it takes.

python docs/scripts/operators.py
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor

from radiata_core.conjugate_gradients import conjugate_gradients
from radiata_core.convolution import KernelBlur, gaussian_kernel
from radiata_core.downsampling import AveragePooling, thick_slices
from radiata_core.fourier_sampling import FourierSampling, MultiCoilSampling, coil_sensitivities
from radiata_core.kspace_masks import equispaced_lines, radial_spokes, random_lines
from radiata_core.masking import Masking, lesion
from radiata_core.measurement_noise import GaussianNoise
from radiata_core.operators import LinearOperator, SpectralOperator
from radiata_core.pointwise import Multiplication, bias_field
from radiata_core.projection import ParallelBeam, view_angles
from radiata_core.rigid_motion import MovingSampling, random_motion, shots_of_lines
from radiata_core.seeds import generator_of, generators_of
from radiata_core.separable import gaussian_blur

IMAGE = Path(__file__).resolve().parents[1] / "images" / "operators.png"
SIDE, SEEDS, SIGMA = 96, range(20), 0.02
EVENT = (1, SIDE, SIDE)


def phantom() -> Tensor:
    """Ellipses within ellipses, one number each, edges softened over a voxel."""
    at = (torch.arange(SIDE, dtype=torch.float64) - (SIDE - 1) / 2) / (SIDE / 2)
    image = torch.zeros(SIDE, SIDE, dtype=torch.float64)
    for value, row, column, height, width, degrees in (
        (0.9, 0.0, 0.0, 0.86, 0.68, 0),
        (-0.5, 0.0, 0.0, 0.80, 0.62, 0),
        (0.25, -0.05, 0.0, 0.62, 0.50, 0),
        (-0.45, -0.08, 0.17, 0.26, 0.08, -14),
        (-0.45, -0.08, -0.17, 0.26, 0.08, 14),
        (0.3, 0.42, 0.08, 0.09, 0.12, 30),
        (0.2, -0.45, -0.12, 0.04, 0.10, 0),
        (0.35, 0.28, -0.26, 0.04, 0.04, 0),
    ):
        angle = torch.deg2rad(torch.tensor(float(degrees)))
        rows, columns = at[:, None] - row, at[None] - column
        first = (rows * angle.cos() + columns * angle.sin()) / height
        second = (columns * angle.cos() - rows * angle.sin()) / width
        edge = (1 - torch.hypot(first, second)) * min(height, width) * SIDE / 2
        image = image + value * (edge + 0.5).clamp(0, 1)
    return image.float()[None, None]


@dataclass(frozen=True)
class Case:
    """An operator, and its measurement as a picture."""

    name: str
    operator: LinearOperator
    picture: Callable[[LinearOperator, Tensor], Tensor]


def grid(operator: LinearOperator, y: Tensor) -> Tensor:
    return y[0, 0]


def filled(operator: LinearOperator, y: Tensor) -> Tensor:
    return operator.adjoint(y)[0, 0]


def kspace(operator: LinearOperator, y: Tensor) -> Tensor:
    whole = operator.masking.adjoint(y)[0, 0]
    whole = whole if whole.ndim == 2 else whole[0]
    return (whole.abs() + 1e-3).log()


def cases() -> list[Case]:
    plane = EVENT[1:]
    lines = random_lines(plane, 4, generator_of(0), axis=-2)
    comb = equispaced_lines(plane, 3, axis=-2)
    motion = random_motion(6, 2, generator_of(4), shift=1.5, turn=4.0)
    return [
        Case("bias field", Multiplication(bias_field(plane, generator_of(5), 0.35), EVENT), grid),
        Case("lesions", Masking(lesion(plane, generator_of(3), 9.0, count=3), EVENT), filled),
        Case("Gaussian blur", gaussian_blur((1.5, 1.5), EVENT), grid),
        Case("pooling 4 × 4", AveragePooling((4, 4), EVENT), grid),
        Case("slices of 5 voxels", thick_slices(EVENT, -2, 5.0), grid),
        Case("random lines, R = 4", FourierSampling(lines, EVENT, real=True), kspace),
        Case("20 spokes", FourierSampling(radial_spokes(plane, 20), EVENT, real=True), kspace),
        Case(
            "8 coils, R = 3", MultiCoilSampling(comb, coil_sensitivities(plane, 8), EVENT, real=True), kspace
        ),
        Case("24 views", ParallelBeam(view_angles(24), EVENT), grid),
        Case("motion, 6 shots", MovingSampling(motion, shots_of_lines(SIDE, 6), EVENT, real=True), kspace),
    ]


def relative(found: Tensor, truth: Tensor) -> Tensor:
    return (found - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)


def shown(values: Tensor) -> str:
    return f"{float(values.mean()):.3f} ({float(values.min()):.3f} … {float(values.max()):.3f})"


def main() -> None:
    torch.set_num_threads(1)
    truth, found = phantom(), cases()
    variance = float(truth.square().mean())
    figure, axes = plt.subplots(3, len(found), figsize=(15, 5.2), layout="constrained")
    print(f"phantom {SIDE} x {SIDE}, mean square {variance:.3f}, noise {SIGMA} |A|, {len(SEEDS)} seeds")
    print("relative error: mean (least … most)")
    for column, case in enumerate(found):
        operator = case.operator
        sigma = SIGMA * operator.norm
        clean = operator(truth)
        y = GaussianNoise(sigma)(clean.expand(len(SEEDS), *clean.shape[1:]), generators_of(SEEDS))
        inverse, ridge = operator.pseudo_inverse(y), operator.solve(operator.adjoint(y), sigma**2 / variance)
        steps = ""
        if not isinstance(operator, SpectralOperator):
            steps = "; steps to 1e-5 at rho / |A|² = 1e-1, 1e-2, 1e-3: " + ", ".join(
                str(iterations(operator, y[:1], share)) for share in (1e-1, 1e-2, 1e-3)
            )
        kind = "closed form" if not steps else "conjugate gradients"
        print(
            f"{case.name}: norm {operator.norm:.4f}, {kind}; pseudo-inverse {shown(relative(inverse, truth))}, "
            f"ridge {shown(relative(ridge, truth))}{steps}"
        )
        rows = [(case.picture(operator, y[:1]), case.name), (inverse[0, 0], "A⁺ y"), (ridge[0, 0], "ridge")]
        for row, (picture, title) in enumerate(rows):
            axis = axes[row, column]
            own = row == 0 and case.picture is not filled and case.name != "bias field"
            axis.imshow(picture, cmap="gray", vmin=None if own else 0, vmax=None if own else 1, aspect="auto")
            axis.set(xticks=[], yticks=[])
            axis.set_box_aspect(1)
            axis.set_title(
                title
                if row == 0
                else f"{title}: {float(relative((inverse, ridge)[row - 1][:1], truth)):.2f}",
                fontsize=8,
            )
    for row, label in enumerate(("measurement y", "pseudo-inverse", "ridge, ρ = σ²/mean square")):
        axes[row, 0].set_ylabel(label, fontsize=8)
    figure.savefig(IMAGE, dpi=90)
    boundary(truth)
    print(f"written to {IMAGE.relative_to(IMAGE.parents[2])}")


def iterations(operator: LinearOperator, y: Tensor, share: float) -> int:
    rho = share * operator.norm**2
    found = conjugate_gradients(
        lambda x: operator.normal(x) + rho * x, operator.adjoint(y), tolerance=1e-5, iterations=2000
    )
    return int(found.iterations[0])


def boundary(truth: Tensor) -> None:
    """The same reflecting blur, in closed form and as one of an unknown kernel."""
    closed, general = gaussian_blur((1.5, 1.5), EVENT), KernelBlur(gaussian_kernel([1.5, 1.5]), EVENT)
    y = closed(truth)
    gap = relative(general.prox(0 * truth, y, 0.01), closed.prox(0 * truth, y, 0.01))
    print(
        f"reflecting blur, prox by conjugate gradients and in closed form: apart by {float(gap):.1e} in float32, "
        f"{iterations(general, y, 0.01)} steps"
    )


if __name__ == "__main__":
    main()

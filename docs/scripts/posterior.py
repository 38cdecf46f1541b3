"""The figure and the tables of docs/posterior.md: every preset on a problem whose posterior is known.

python docs/scripts/posterior.py            # about three minutes on one core
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor

from radiata_core.analytic import GaussianDenoiser
from radiata_core.covariances import Dense
from radiata_core.fourier_sampling import FourierSampling
from radiata_core.linear_gaussian_posterior import GaussianPosterior, gaussian_posterior
from radiata_core.masking import Masking
from radiata_core.measurement_noise import GaussianNoise
from radiata_core.operators import LinearOperator
from radiata_core.paths import LinearPath
from radiata_core.posterior import sample_posterior
from radiata_core.posterior_calibration import calibration
from radiata_core.posterior_presets import (
    calibrated,
    ddnm,
    ddrm,
    dds,
    diffpir,
    dps,
    flair,
    flowchef,
    flower,
    mmps,
    pigdm,
    pnp_flow,
    relaxed_prox,
)
from radiata_core.posterior_spread import MeasuredSpread, measured_spread
from radiata_core.posterior_walk import PosteriorMethod
from radiata_core.renoising import AncestralShare
from radiata_core.seeds import generators_of, noise_of
from radiata_core.times import KarrasGrid

DOCS = Path(__file__).resolve().parents[1]
SIDE, NOISE, CASES, DRAWS = 16, 0.1, 12, 19
EVENT, PATH = (1, SIDE, SIDE), LinearPath()


def grid(steps: int) -> Tensor:
    return KarrasGrid(sigma_min=0.02, sigma_max=20.0)(steps, PATH)


def field_covariance() -> Tensor:
    """A Gaussian random field on a torus, unit variance, power falling as (1 + (f/1.5)^2)^-1.5."""
    f = torch.fft.fftfreq(SIDE, 1 / SIDE, dtype=torch.float64)
    power = (1 + (f[:, None].square() + f.square()) / 1.5**2) ** -1.5
    wave = torch.fft.ifft2(power).real
    wave = wave / wave[0, 0]
    index = torch.cartesian_prod(torch.arange(SIDE), torch.arange(SIDE))
    off = (index[:, None] - index[None]) % SIDE
    matrix = wave[off[..., 0], off[..., 1]]
    return (matrix + matrix.mT) / 2


def hole() -> LinearOperator:
    mask = torch.ones(SIDE, SIDE, dtype=torch.bool)
    mask[4:11, 5:12] = False
    return Masking(mask, EVENT)


def kspace() -> LinearOperator:
    """A quarter of the lines of k-space: four in the middle are half of those."""
    lines = torch.zeros(SIDE, dtype=torch.bool)
    lines[[1, 7, 8, 13]] = True
    return FourierSampling(lines.expand(SIDE, SIDE).contiguous(), EVENT, real=True)


@dataclass(frozen=True, eq=False)
class Problem:
    """Measurements of several images, and their exact posterior."""

    covariance: Tensor
    operator: LinearOperator

    @cached_property
    def denoiser(self) -> GaussianDenoiser:
        return GaussianDenoiser(torch.zeros(EVENT, dtype=torch.float64), Dense(self.covariance), PATH)

    def images(self, seeds: range) -> Tensor:
        white = noise_of(generators_of(seeds, 5), (SIDE * SIDE,), torch.float64)
        return (white @ torch.linalg.cholesky(self.covariance).mT).view(-1, *EVENT)

    @cached_property
    def truth(self) -> Tensor:
        return self.images(range(CASES))

    @cached_property
    def y(self) -> Tensor:
        return GaussianNoise(NOISE)(self.operator(self.truth), generators_of(range(CASES), 6))

    @cached_property
    def exact(self) -> GaussianPosterior:
        return gaussian_posterior(
            torch.zeros(EVENT, dtype=torch.float64), self.covariance, self.operator, self.y, NOISE
        )

    @cached_property
    def spread(self) -> MeasuredSpread:
        """From eight images that are not among the cases."""
        return measured_spread(
            self.denoiser, self.images(range(100, 108)), grid(13)[:-1], generators_of(range(8))
        )

    def draws(self, method: PosteriorMethod, steps: int) -> Tensor:
        """(draws, cases, *event)."""
        y = self.y.repeat_interleave(DRAWS, 0)
        x = sample_posterior(
            self.denoiser, self.operator, y, NOISE, grid(steps), method, generators_of(range(len(y)), 7)
        ).x
        return x.view(CASES, DRAWS, *EVENT).transpose(0, 1)

    def exact_draws(self) -> Tensor:
        flat = [self.exact.sample(generators_of(range(k * CASES, (k + 1) * CASES), 8)) for k in range(DRAWS)]
        return torch.stack(flat)


@dataclass(frozen=True)
class Scores:
    """Of 19 draws a case, against the exact posterior and the truth.

    bias: rms of the sampler's mean minus the exact mean, without the noise of 19 draws, over the rms posterior sd. rmse: of
    one result against the truth, over that of the exact mean. ratio and coverage: `posterior_calibration`.
    """

    bias: float
    rmse: float
    ratio: float
    coverage: float

    def __str__(self) -> str:
        return f"{self.bias:.2f} | {self.rmse:.2f} | {self.ratio:.2f} | {100 * self.coverage:.0f} %"


def scores(problem: Problem, draws: Tensor) -> Scores:
    exact, found = problem.exact, calibration(draws, problem.truth)
    squared = (draws.mean(0) - exact.mean).square().mean() - draws.var(0).mean() / DRAWS
    best = (exact.mean - problem.truth).square().mean().sqrt()
    sd = (exact.covariance.trace() / SIDE**2).sqrt()
    return Scores(
        math.sqrt(max(float(squared), 0.0)) / float(sd),
        found.rmse_draw / float(best),
        found.ratio,
        found.coverage,
    )


def methods(problem: Problem) -> dict[str, tuple[PosteriorMethod, int]]:
    """Method and steps. The scale of DPS, the step of FlowChef, and lambda of DiffPIR and DDS are the best of a few here."""
    return {
        "`relaxed_prox`, 8": (relaxed_prox(), 8),
        "`relaxed_prox`, 24": (relaxed_prox(), 24),
        "`calibrated`, 12": (calibrated(problem.spread), 12),
        "`calibrated`, 50": (calibrated(problem.spread), 50),
        "`calibrated`, ancestral": (calibrated(problem.spread, AncestralShare()), 50),
        "`flower`": (flower(), 50),
        "`flower(draw=True)`": (flower(draw=True), 50),
        "`diffpir`": (diffpir(), 50),
        "`diffpir(7, 0.1)`": (diffpir(7.0, 0.1), 50),
        "`ddnm`": (ddnm(), 50),
        "`ddrm`": (ddrm(), 50),
        "`dds`": (dds(), 50),
        "`pnp_flow`": (pnp_flow(), 50),
        "`flair`": (flair(), 50),
        "`flowchef`": (flowchef(), 50),
        "`dps(0.3)`": (dps(0.3), 50),
        "`dps(1)`": (dps(1.0), 50),
        "`pigdm`": (pigdm(problem.spread), 50),
        "`mmps`": (mmps(), 50),
        "`mmps`, 150": (mmps(), 150),
    }


def table(problem: Problem, title: str) -> None:
    print(f"\n{title}: bias | rmse of one | variance/error | coverage of 90 %")
    print(f"{'exact draws':>26} |   0 | {scores(problem, problem.exact_draws())}")
    for name, (method, steps) in methods(problem).items():
        start = time.perf_counter()
        found = scores(problem, problem.draws(method, steps))
        print(
            f"{name:>26} | {method.evaluations(grid(steps)):3d} | {found}  ({time.perf_counter() - start:.1f} s)"
        )


CURVES: dict[str, tuple[Callable[[Problem], PosteriorMethod], str]] = {
    "relaxed prox": (lambda problem: relaxed_prox(), "tab:blue"),
    "calibrated": (lambda problem: calibrated(problem.spread), "tab:red"),
    "calibrated, ancestral": (lambda problem: calibrated(problem.spread, AncestralShare()), "tab:pink"),
    "DiffPIR": (lambda problem: diffpir(), "tab:green"),
    "FLAIR": (lambda problem: flair(), "tab:olive"),
    "FlowChef": (lambda problem: flowchef(), "tab:brown"),
    "DPS (0.3)": (lambda problem: dps(0.3), "tab:grey"),
    "MMPS": (lambda problem: mmps(), "tab:purple"),
}
STEPS = (4, 8, 16, 32, 64)


def curves(problem: Problem, bias: plt.Axes, ratio: plt.Axes) -> None:
    for name, (make, colour) in CURVES.items():
        found = [scores(problem, problem.draws(make(problem), steps)) for steps in STEPS]
        for axis, values in ((bias, [s.bias for s in found]), (ratio, [s.ratio for s in found])):
            axis.plot(STEPS, values, color=colour, marker="o", ms=3, lw=1.3, label=name)
    for axis, label in ((bias, "bias of the mean\n(posterior sd)"), (ratio, "variance / error")):
        axis.set_xscale("log", base=2)
        axis.set_xticks(STEPS, [str(steps) for steps in STEPS])
        axis.set_xlabel("evaluations of the denoiser")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    bias.set_ylim(0, 1.2)
    ratio.set_ylim(0, 1.6)
    ratio.axhline(1, color="black", lw=0.8, ls=":")


def pictures(problem: Problem, axes: list[plt.Axes]) -> None:
    case = 3
    samples, means = problem.draws(calibrated(problem.spread), 24), problem.draws(relaxed_prox(), 24)
    measured = problem.operator.adjoint(problem.y)[case, 0].masked_fill(
        problem.operator.adjoint(torch.ones_like(problem.y))[case, 0] == 0, torch.nan
    )
    shown = [
        ("truth", problem.truth[case, 0]),
        ("measured, s = 0.1", measured),
        ("exact mean", problem.exact.mean[case, 0]),
        ("relaxed prox, 24", means[0, case, 0]),
        ("exact draw", problem.exact_draws()[0, case, 0]),
        ("calibrated, 24", samples[0, case, 0]),
    ]
    for axis, (title, image) in zip(axes, shown, strict=True):
        picture = axis.imshow(image, vmin=-2.5, vmax=2.5, cmap="gray")
        picture.cmap.set_bad("tab:orange")
        axis.set_title(title, fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])


def main() -> None:
    torch.set_num_threads(1)
    covariance = field_covariance()
    inpainting, fourier = Problem(covariance, hole()), Problem(covariance, kspace())
    figure = plt.figure(figsize=(11, 5.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 1.6])
    pictures(inpainting, list(top.subplots(1, 6)))
    axes = bottom.subplots(1, 4)
    curves(inpainting, axes[0], axes[1])
    curves(fourier, axes[2], axes[3])
    for axis, title in zip(
        axes, ["hole", "hole", "k-space, 4 of 16 lines", "k-space, 4 of 16 lines"], strict=True
    ):
        axis.set_title(title, fontsize=10)
    lines, names = axes[0].get_legend_handles_labels()
    bottom.legend(lines, names, loc="outside lower center", fontsize=8, frameon=False, ncols=len(names))
    path = DOCS / "images" / "posterior.png"
    figure.savefig(path, dpi=110)
    print(f"written to {path.relative_to(DOCS.parent)}")
    table(inpainting, "hole")
    table(fourier, "k-space")


if __name__ == "__main__":
    main()

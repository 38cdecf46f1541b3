"""The figure and the numbers of docs/poisson-flows.md, on the exact posterior of 64 smooth pictures of 16 x 16.

python docs/scripts/poisson_flows.py
"""

import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from scipy.special import chdtri
from torch import Tensor

from radiata_core.analytic import EmpiricalDenoiser
from radiata_core.kernels import StudentTKernel, prior
from radiata_core.paths import VEPath
from radiata_core.poisson_flows import EmpiricalPoissonDenoiser, RadiusLaw
from radiata_core.seeds import generator_of, generators_of, noise_of
from radiata_core.times import KarrasGrid

DOCS = Path(__file__).resolve().parents[1]
PATH = VEPath(0.002, 80.0)
DOFS = [1.0, 8.0, 64.0, 512.0, 4096.0, math.inf]
COLOURS = [*(str(c) for c in ("#440154", "#3b528b", "#21918c", "#5ec962", "#d8b000")), "black"]
SIDE, CHARGES = 16, 64


def pictures() -> Tensor:
    """Smooth random pictures of standard deviation 0.5, (64, 1, 16, 16): noise through a Gaussian of 2 pixels."""
    noise = torch.randn(CHARGES, 1, SIDE, SIDE, generator=generator_of(7), dtype=torch.float64)
    wave = torch.fft.fftfreq(SIDE, dtype=torch.float64)
    gain = torch.exp(-2 * (math.pi * 2.0) ** 2 * (wave[:, None] ** 2 + wave**2))
    smooth = torch.fft.ifft2(torch.fft.fft2(noise) * gain).real
    return 0.5 * smooth / smooth.std()


def label(dof: float) -> str:
    return "D = ∞" if math.isinf(dof) else f"D = {dof:.0f}"


def heun(denoiser: EmpiricalPoissonDenoiser, x: Tensor, steps: int, injected: float = 0.0) -> Tensor:
    """EDM's sampler, with white noise of `injected` sigma added to the state after each step, of the same seeds for every D.

    The last step returns the denoised picture.
    """
    times = KarrasGrid()(steps, PATH)
    sigmas = PATH.coefficients(times).sigma.tolist()
    draws = generators_of(range(len(x)), 1)
    for i in range(steps):
        slope = (x - denoiser(x, times[i])) / sigmas[i]
        ahead = x + (sigmas[i + 1] - sigmas[i]) * slope
        if sigmas[i + 1] == 0:
            return ahead
        slope = slope + (ahead - denoiser(ahead, times[i + 1])) / sigmas[i + 1]
        x = x + (sigmas[i + 1] - sigmas[i]) / 2 * slope
        if injected:
            x = x + injected * sigmas[i + 1] * noise_of(draws, x.shape[1:], x.dtype)
    return x


def nearest(samples: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
    """Root mean square distance a number to the nearest picture, and which it is, (rows,) each."""
    apart = torch.cdist(samples.flatten(1), data.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
    found = apart.min(1)
    return found.values / SIDE, found.indices


def half(values: Tensor) -> float:
    """Half of the 95 % interval of the mean."""
    return 1.96 * float(values.std()) / len(values) ** 0.5


def slopes(axis: Axes, data: Tensor) -> None:
    dofs = torch.logspace(0, 7, 15, dtype=torch.float64).tolist()
    for sigma, colour in ((1.0, "#3b528b"), (3.0, "#21918c"), (10.0, "#d8b000")):
        t = PATH.time_of_log_snr(torch.tensor(-math.log(sigma), dtype=torch.float64))
        x = data + sigma * noise_of(generators_of(range(len(data))), data.shape[1:], torch.float64)
        limit = EmpiricalDenoiser(data, PATH)(x, t)
        gap = [
            float(
                (EmpiricalPoissonDenoiser(data, PATH, StudentTKernel(d))(x, t) - limit).square().mean().sqrt()
            )
            for d in dofs
        ]
        axis.loglog(dofs, gap, color=colour, marker=".", label=f"σ = {sigma:g}")
        slope = math.log10(gap[-1] / gap[-5]) / math.log10(dofs[-1] / dofs[-5])
        print(
            f"sigma {sigma:4g}: RMS gap at D = 1, 1e3, 1e7: {gap[0]:.2e} {gap[6]:.2e} {gap[-1]:.2e}; slope {slope:.4f}"
        )
    axis.set_xlabel("D")
    axis.set_ylabel("RMS of D_D − D_∞ (units of the data, sd 0.5)")
    axis.set_title("the limit: slope −1", fontsize=10)


def starts(data: Tensor, dof: float, seeds: int) -> tuple[EmpiricalPoissonDenoiser, Tensor]:
    """The exact denoiser and the first states of the seeds."""
    kernel = StudentTKernel(dof)
    x = prior(PATH, generators_of(range(seeds)), data.shape[1:], kernel, dtype=torch.float64)
    return EmpiricalPoissonDenoiser(data, PATH, kernel), x


def few_steps(axis: Axes, data: Tensor) -> None:
    """Distance to the nearest picture against the number of steps; printed too, how many end elsewhere than with 64."""
    counts = [3, 4, 6, 8, 12, 16, 24, 32]
    print("few steps", counts, ": distance; share that ends elsewhere than with 64 steps")
    for dof, colour in zip(DOFS, COLOURS, strict=True):
        denoiser, x = starts(data, dof, 512)
        _, aim = nearest(heun(denoiser, x, 64), data)
        found = [nearest(heun(denoiser, x, n), data) for n in counts]
        row = shown([distance for distance, _ in found])
        axis.errorbar(
            counts, *zip(*row, strict=True), color=colour, marker=".", capsize=2, lw=1.2, label=label(dof)
        )
        print(f"{label(dof):>9}: {text(row)}")
        print(f"{'':>9}  {text(shown([(where != aim).double() for _, where in found]))}")


def disturbed(axis: Axes, data: Tensor) -> None:
    """How evenly the pictures are hit against the noise in the state; printed too, how many end elsewhere than without."""
    sizes, seeds = [0.0, 0.05, 0.1, 0.2, 0.4, 0.8], 2048
    print(
        "noise in the state",
        sizes,
        ": chi-square of the counts over its 63 degrees; share that ends elsewhere",
    )
    for dof, colour in zip(DOFS, COLOURS, strict=True):
        denoiser, x = starts(data, dof, seeds)
        found = [nearest(heun(denoiser, x, 32, size), data)[1] for size in sizes]
        counts = torch.stack([torch.bincount(where, minlength=CHARGES) for where in found]).double()
        uneven = ((counts - seeds / CHARGES).square() / (seeds / CHARGES)).sum(1) / (CHARGES - 1)
        axis.plot(sizes, uneven, color=colour, marker=".", lw=1.2, label=label(dof))
        print(f"{label(dof):>9}: {' '.join(f'{float(v):8.2f}         ' for v in uneven)}")
        print(f"{'':>9}  {text(shown([(where != found[0]).double() for where in found]))}")
    low, high = (float(chdtri(CHARGES - 1, p)) / (CHARGES - 1) for p in (0.975, 0.025))
    print(f"95 % of even draws are between {low:.2f} and {high:.2f}")
    axis.axhspan(low, high, color="0.85", zorder=0)


def shown(found: list[Tensor]) -> list[tuple[float, float]]:
    """Means and half 95 % intervals over seeds."""
    return [(float(f.mean()), half(f)) for f in found]


def text(row: list[tuple[float, float]]) -> str:
    return " ".join(f"{m:8.4f} ± {h:.4f}" for m, h in row)


def guidance(data: Tensor) -> None:
    """How far the difference of two denoisers is from the gradient of log p(c|x): classes are the halves of the set."""
    every, some = data, data[: CHARGES // 2]
    print(
        "D(x; c) - D(x) beside sigma² times the gradient of log p(c | x): median cosine, ratio of sizes (90 % of rows);"
    )
    print("relative error of Tweedie's score")
    for dof in DOFS:
        kernel = StudentTKernel(dof)
        rows = []
        for sigma in (1.0, 3.0, 10.0):
            t = PATH.time_of_log_snr(torch.tensor(-math.log(sigma), dtype=torch.float64))
            x = every + sigma * kernel.noise(every, generators_of(range(CHARGES), 2))
            given, free = (EmpiricalPoissonDenoiser(d, PATH, kernel) for d in (some, every))
            true = (given.score(x, t) - free.score(x, t)).flatten(1)
            found = (given(x, t) - free(x, t)).flatten(1)
            known = (true.norm(dim=1) > 1e-9) & (found.norm(dim=1) > 1e-9)
            cosine = torch.cosine_similarity(true, found)[known].median()
            ratio = (found.norm(dim=1) / true.norm(dim=1) / sigma**2)[known]
            low, high = ratio.quantile(torch.tensor([0.05, 0.95], dtype=torch.float64)).tolist()
            score = free.score(x, t)
            tweedie = ((free(x, t) - x) / sigma**2 - score).norm() / score.norm()
            rows.append(
                f"sigma {sigma:4g}: {float(cosine):6.3f} ({low:5.2f} … {high:5.2f}) {float(tweedie):7.4f}"
            )
        print(f"{label(dof):>9}: {'   '.join(rows)}")


def main() -> None:
    torch.set_num_threads(1)
    data = pictures()
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    slopes(axes[0], data)
    few_steps(axes[1], data)
    axes[1].set(xlabel="steps of EDM's sampler", xscale="log", title="few steps (512 seeds)")
    axes[1].set_ylabel("RMS distance to the nearest picture")
    axes[1].set_xticks([3, 4, 6, 8, 12, 16, 32], labels=["3", "4", "6", "8", "12", "16", "32"], minor=False)
    axes[1].minorticks_off()
    disturbed(axes[2], data)
    axes[2].set(
        xlabel="noise added after each of 32 steps, in σ",
        yscale="log",
        title="noise in the state (2048 seeds)",
    )
    axes[2].set_ylabel("how uneven the pictures are hit (χ²/63)")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.title.set_fontsize(10)
    axes[0].legend(fontsize=7, frameon=False)
    axes[1].legend(fontsize=7, frameon=False)
    guidance(data)
    print("radius within which 50, 99, 99.9 % of the noise lies, in sigma sqrt(N):")
    for dof in DOFS:
        law = RadiusLaw(SIDE**2, dof)
        quantiles = law.quantile(torch.tensor([0.5, 0.99, 0.999], dtype=torch.float64)) / SIDE
        print(f"{label(dof):>9}: {' '.join(f'{float(q):8.2f}' for q in quantiles)}")
    path = DOCS / "images" / "poisson-flows.png"
    figure.savefig(path, dpi=90)
    print(f"written to {path.relative_to(DOCS.parent)}")


if __name__ == "__main__":
    main()

"""The figure of docs/painters.md: what a jump in closed form costs, and when principal components emerge.

python docs/scripts/painters.py
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor

from radiata_core.analytic import EmpiricalDenoiser
from radiata_core.checkpoint import load_model
from radiata_core.covariances import LowRank, LowRankFit
from radiata_core.gaussian_fits import fit_gaussian, isotropic
from radiata_core.paths import LinearPath
from radiata_core.runge_kutta import edm_heun
from radiata_core.seeds import generators_of, noise_of
from radiata_core.solvers import Step, integrate, unipc_2
from radiata_core.teleportation import Emergence, Teleported, emergence, skip_time
from radiata_core.times import KarrasGrid, LogSNRGrid
from radiata_t1.model.weights import find_model

DOCS = Path(__file__).resolve().parents[1]
PATH = LinearPath()
SETS, ROWS, SIDE = 2, 1024, 16


def blobs(n: int, generator: torch.Generator) -> Tensor:
    """Images of eight random blobs each, standard deviation 0.5."""
    axis = torch.arange(SIDE, dtype=torch.float64)
    place = torch.rand(2, n, 8, 1, generator=generator, dtype=torch.float64) * SIDE
    width = 1.5 + 2 * torch.rand(n, 8, 1, generator=generator, dtype=torch.float64)
    height = 0.5 + torch.rand(n, 8, generator=generator, dtype=torch.float64)
    rows, columns = torch.exp(-((axis - place) ** 2) / (2 * width**2))
    images = torch.einsum("nb,nbi,nbj->nij", height, rows, columns)[:, None]
    return (images - images.mean()) * (0.5 / images.std())


def solve(denoiser: EmpiricalDenoiser, x: Tensor, times: Tensor) -> Tensor:
    return edm_heun(denoiser, x, times, PATH)


def residual(data: Tensor, fit: LowRankFit, kappa: float, generator: torch.Generator) -> float:
    """1 - R²: the part of the score of the images that their Gaussian does not have."""
    x0 = data[torch.randint(len(data), (512,), generator=generator)]
    t = PATH.time_of_log_snr(-torch.tensor(kappa, dtype=torch.float64).log())
    c = PATH.coefficients(t)
    x = c.alpha * x0 + c.sigma * torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    score = EmpiricalDenoiser(data, PATH).score(x, t)
    centred = x - c.alpha * fit.mean
    guess = -fit.covariance.apply(lambda value: 1 / (c.alpha**2 * value + c.sigma**2), centred)
    return float((score - guess).square().sum() / score.square().sum())


def curve() -> tuple[dict[str, dict[int, float]], Emergence]:
    """Pooled error of the ways to spend n evaluations, and a trajectory's components."""
    total: dict[str, dict[int, float]] = {"no jump": {}, "jump": {}, "isotropic jump": {}}
    grid = KarrasGrid()(18, PATH)
    for seed in range(SETS):
        generator = torch.Generator().manual_seed(seed)
        data = blobs(256, generator)
        denoiser = EmpiricalDenoiser(data, PATH)
        fit = fit_gaussian(data.split(64), rank=64, noise=0.002)
        noise = torch.randn(ROWS, 1, SIDE, SIDE, generator=generator, dtype=torch.float64)
        x = noise * PATH.coefficients(grid[0]).sigma
        truth = solve(denoiser, x, KarrasGrid()(60, PATH))

        def add(name: str, count: int, sample: Tensor, truth: Tensor = truth) -> None:
            total[name][count] = total[name].get(count, 0.0) + float((sample - truth).square().mean()) / SETS

        for skipped in (0, 3, 4, 5, 6, 7, 8):
            count = 35 - 2 * skipped
            add("no jump", count, solve(denoiser, x, KarrasGrid()(18 - skipped, PATH)))
            if skipped:
                t_skip = float(grid[skipped])
                add("jump", count, Teleported(fit, t_skip, solve)(denoiser, x, grid))
                add("isotropic jump", count, Teleported(isotropic(fit), t_skip, solve)(denoiser, x, grid))
        if seed == 0:
            for kappa in (20.0, 5.0, 2.0, 0.6):
                gaussian, even = (residual(data, f, kappa, generator) for f in (fit, isotropic(fit)))
                print(
                    f"1 - R² of the score at noise {kappa:4}: Gaussian {gaussian:.1e}, isotropic {even:.1e}"
                )
            steps: list[Step] = []
            edm_heun(denoiser, x[:256], KarrasGrid()(40, PATH), PATH, callback=steps.append)
            seen = emergence(steps, fit, PATH, components=40)
    kappas = torch.exp(-PATH.log_snr(grid))
    free = torch.tensor(skip_time(fit, PATH), dtype=torch.float64)
    print(f"blobs: root mean square distance from the mean {float(torch.exp(-PATH.log_snr(free))):.2f}")
    print("RMSE by evaluations; the jump ends at noise")
    for count in sorted(total["no jump"], reverse=True):
        row = {name: values[count] ** 0.5 for name, values in total.items() if count in values}
        where = float(kappas[(35 - count) // 2])
        print(f"{count:3} {where:6.2f} " + "  ".join(f"{name} {value:.4f}" for name, value in row.items()))
    return {name: {n: v**0.5 for n, v in values.items()} for name, values in total.items()}, seen


def heads() -> Emergence:
    """The shipped T1 model: components of its own anchor, and its jump."""
    denoiser = load_model(find_model("rflow-4mm")).denoiser
    anchor, path = denoiser.anchor, denoiser.path
    coarse = anchor.basis.reshape(-1, 1, *(n // anchor.pool for n in anchor.mean.shape[1:]))
    basis = torch.nn.functional.interpolate(coarse, scale_factor=float(anchor.pool)) / anchor.pool**1.5
    fit = LowRankFit(anchor.mean, LowRank(basis, anchor.eigenvalues, float(anchor.floor)))

    rest = anchor.basis.shape[1] - len(anchor.eigenvalues)
    fine = anchor.mean.numel() - anchor.basis.shape[1]
    distance = float(anchor.eigenvalues.sum() + rest * anchor.floor + fine * anchor.fine) ** 0.5

    def unipc(model: torch.nn.Module, x: Tensor, times: Tensor, **given: Tensor) -> Tensor:
        return integrate(model, x, unipc_2(times, path))

    with torch.no_grad():
        x = noise_of(generators_of([0, 1]), anchor.mean.shape)
        steps: list[Step] = []
        truth = integrate(denoiser, x, unipc_2(LogSNRGrid()(24, path), path), callback=steps.append)
        grid = LogSNRGrid()(12, path)
        print(f"heads: root mean square distance from the mean {distance:.1f}, RMSE to 24 evaluations")
        for skipped in range(4):
            plain = unipc(denoiser, x, LogSNRGrid()(12 - skipped, path))
            line = (
                f"{12 - skipped:3} evaluations: no jump {float((plain - truth).square().mean().sqrt()):.4f}"
            )
            if skipped:
                jumped = Teleported(anchor, float(grid[skipped]), unipc)(denoiser, x, grid)
                kappa = float(torch.exp(-path.log_snr(grid[skipped])))
                line += f", jump to {kappa:.1f} {float((jumped - truth).square().mean().sqrt()):.4f}"
            print(line)
    return emergence(steps, fit, path, components=96)


def show(axis: plt.Axes, seen: Emergence, picks: tuple[int, ...], title: str) -> None:
    for rank, index in enumerate(picks):
        colour = plt.get_cmap("viridis")(rank / len(picks))
        axis.plot(seen.kappa, seen.share[:, index], "o", ms=3, color=colour, label=f"PC {index + 1}")
        axis.plot(seen.kappa, seen.predicted[:, index], color=colour, lw=1)
        axis.plot(seen.variance[index].sqrt(), 0.5**0.5, "|", ms=14, color=colour)
    axis.axhline(0.5**0.5, color="0.7", lw=0.8)
    axis.set(xscale="log", xlabel="noise σ/α  (sampling runs to the right)", title=title, ylim=(-0.1, 1.15))
    axis.set_ylabel("share of the final projection")
    axis.set_xlim(*((60, 0.03) if len(seen.variance) < 50 else (200, 0.1)))
    axis.plot([], [], "k-", lw=1, label="Gaussian")
    axis.legend(fontsize=7, frameon=False, loc="lower right")
    log_ratio = (seen.commit / seen.predicted_commit).log()
    known = log_ratio[~log_ratio.isnan()]
    spread = [float(known.quantile(q).exp()) for q in (0.1, 0.5, 0.9)]
    print(f"{title}: commit / sqrt(variance) 10 %, 50 %, 90 %: " + ", ".join(f"{v:.2f}" for v in spread))


def main() -> None:
    torch.set_num_threads(1)
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    errors, seen = curve()
    for (name, values), style in zip(errors.items(), ("o-", "s-", "^--"), strict=True):
        axes[0].plot(list(values), list(values.values()), style, ms=4, lw=1.2, label=name)
    axes[0].set(
        xlabel="evaluations", ylabel="RMSE to the end of the flow", title="256 blob images, EDM's solver"
    )
    axes[0].set_ylim(0, 0.3)
    axes[0].set_xticks(sorted(errors["no jump"]))
    axes[0].legend(fontsize=8, frameon=False)
    show(axes[1], seen, (0, 3, 9, 19, 39), "blob images")
    show(axes[2], heads(), (0, 3, 15, 47, 95), "T1 heads, shipped model")
    figure.savefig(DOCS / "images" / "painters.png", dpi=110)


if __name__ == "__main__":
    main()

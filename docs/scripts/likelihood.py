"""The figure of docs/likelihood.md: likelihoods, spectra and FLIPD, and the numbers of the page.

python docs/scripts/likelihood.py
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

import radiata_core.straight_coordinates as coordinates
from radiata_core.analytic import GaussianDenoiser, MixtureDenoiser
from radiata_core.covariances import Dense, Diagonal, LowRank
from radiata_core.denoisers import NetworkDenoiser
from radiata_core.intrinsic_dimension import flipd, flow_spectrum, normal_bundle
from radiata_core.jacobians import hutchinson
from radiata_core.likelihood import log_likelihood
from radiata_core.paths import LinearPath
from radiata_core.predictions import Prediction, target_of
from radiata_core.seeds import generator_of, generators_of, noise_of
from radiata_core.straight_coordinates import Adaptive, FixedSteps, interval

DOCS = Path(__file__).resolve().parents[1]
PATH, F64 = LinearPath(), torch.float64
SIZE = 16


def mixture(size: int = SIZE, flat: int = 0) -> MixtureDenoiser:
    """Four Gaussians; `flat` of their principal variances are 0."""
    g = generator_of(3, size)
    means = 1.5 * torch.randn(4, size, generator=g, dtype=F64)
    variances = (0.05 + 0.45 * torch.rand(4, size, generator=g, dtype=F64)).square()
    variances[:, size - flat :] = 0
    turns = torch.linalg.qr(torch.randn(4, size, size, generator=g, dtype=F64)).Q
    covariances = [Dense(u * v @ u.mT) for u, v in zip(turns, variances, strict=True)]
    return MixtureDenoiser(torch.ones(4, dtype=F64), means, covariances, PATH)


def draws(denoiser: MixtureDenoiser, count: int) -> Tensor:
    """Samples of the mixture."""
    z = noise_of(generators_of(range(count), 1), denoiser.means.shape[1:], F64)
    parts = [denoiser.covariances[i % 4].apply(torch.sqrt, z[i : i + 1]) for i in range(count)]
    return denoiser.means[torch.arange(count) % 4] + torch.cat(parts)


def truth(denoiser: MixtureDenoiser, x0: Tensor) -> Tensor:
    """log-density of data plus noise of kappa = 1e-3, nats."""
    t = torch.tensor(interval(PATH, None, 1.0).t_min, dtype=F64)
    alpha = PATH.coefficients(t).alpha
    return denoiser.log_density(alpha * x0, t) + x0[0].numel() * alpha.log()


class Sphere:
    """E[x_0 | x_t] of the uniform law on the unit 2-sphere in the first 3 of 6 dimensions."""

    path = PATH

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        c = self.path.coefficients(t)
        length = x[:, :3].norm(dim=1).clamp_min(1e-12)
        k = (c.alpha / c.sigma.square()) * length
        mean = torch.where(k > 1e-3, 1 / k.clamp_min(1e-3).tanh() - 1 / k.clamp_min(1e-3), k / 3)
        return torch.cat([(mean / length)[:, None] * x[:, :3], torch.zeros_like(x[:, 3:])], 1)


def on_sphere(count: int, key: int) -> Tensor:
    z = torch.randn(count, 3, generator=generator_of(0, key), dtype=F64)
    return torch.cat([nn.functional.normalize(z, dim=1), torch.zeros(count, 3, dtype=F64)], 1)


class Perceptron(nn.Module):
    """A velocity of points in six dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(8, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 6)
        )

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        level = level.expand(len(x))[:, None]
        return self.layers(torch.cat([x, level / 4, torch.sigmoid(level)], 1))


def trained(iterations: int = 3000) -> NetworkDenoiser:
    """A perceptron that saw the sphere."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        denoiser = NetworkDenoiser(Perceptron(), PATH, "velocity")
    optimiser = torch.optim.Adam(denoiser.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, iterations)
    g = generator_of(0, 5)
    for iteration in range(iterations):
        x0 = on_sphere(512, 100 + iteration).float()
        noise = torch.randn(x0.shape, generator=g)
        t = torch.sigmoid(1.5 * torch.randn(512, generator=g) - 1).double()
        c = PATH.coefficients(t)
        x = c.alpha[:, None].float() * x0 + c.sigma[:, None].float() * noise
        loss = (denoiser.predict(x, t) - target_of(x0, noise, t, PATH, Prediction.VELOCITY)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return denoiser.eval().requires_grad_(False).double()


def clocks() -> None:
    """Largest error of log p with 128 evaluations, by the power rho of the clock."""
    kept = coordinates.POWER
    print("rho: error with 32 steps, data with width | two of four widths 0")
    for power in (1.0, 2.0, 3.0, 5.0, 7.0):
        coordinates.POWER = power
        errors = []
        for flat in (0, 2):
            denoiser = mixture(4, flat)
            x0 = draws(denoiser, 24)
            found = log_likelihood(denoiser, x0, solver=FixedSteps(32)).log_likelihood
            errors.append(float((found - truth(denoiser, x0)).abs().max()))
        print(f"{power:3.0f}: {errors[0]:.1e} | {errors[1]:.1e}")
    coordinates.POWER = kept


def likelihoods(axis: plt.Axes) -> None:
    """Panel 1."""
    denoiser = mixture()
    x0 = draws(denoiser, 24)
    wanted = truth(denoiser, x0)
    for tolerance in (1e-3, 1e-5, 1e-7):
        exact = log_likelihood(denoiser, x0, solver=Adaptive(tolerance, tolerance))
        error = float((exact.log_likelihood - wanted).abs().max())
        print(
            f"exact, tolerance {tolerance:.0e}: {exact.evaluations} evaluations, largest error {error:.1e} nats"
        )
    axis.plot(wanted, wanted, color="0.6", lw=1)
    axis.plot(wanted, exact.log_likelihood, "k+", ms=7, label="exact divergence")
    for probes, colour in ((8, "tab:orange"), (32, "tab:blue")):
        found = log_likelihood(denoiser, x0, hutchinson(x0, generators_of(range(24), 2), probes))
        spread = ((found.log_likelihood - wanted) / found.standard_error).square().mean().sqrt()
        axis.errorbar(
            wanted,
            found.log_likelihood,
            found.standard_error,
            fmt=".",
            color=colour,
            lw=1,
            label=f"{probes} probes",
        )
        error = (found.log_likelihood - wanted).square().mean().sqrt()
        print(
            f"{probes} probes: {found.evaluations} evaluations, RMS error {error:.2f} nats, RMS z {spread:.2f}"
        )
    axis.set(
        xlabel="log p in closed form (nats)", ylabel="log p by the flow (nats)", title="A mixture in 16-D"
    )
    axis.legend(fontsize=7, frameon=False)


def spectra(axis: plt.Axes, network: NetworkDenoiser) -> None:
    """Panel 2."""
    basis = torch.linalg.qr(torch.randn(6, 3, generator=generator_of(1), dtype=F64)).Q.mT
    plane = GaussianDenoiser(
        torch.zeros(6, dtype=F64), LowRank(basis, torch.tensor([1.0, 0.5, 0.25], dtype=F64), 0.0), PATH
    )
    noise = noise_of(generators_of(range(4)), (6,), F64)
    index = range(1, 7)
    t = PATH.time_of_log_snr(-torch.tensor(0.1, dtype=F64).log())
    for name, denoiser, colour in (
        ("3-plane", plane, "tab:green"),
        ("2-sphere", Sphere(), "tab:blue"),
        ("2-sphere, trained", network, "tab:red"),
    ):
        flow = flow_spectrum(denoiser, noise, t_min=float(t), block=6)
        bundle = normal_bundle(denoiser, flow.x0, t, generators_of(range(4), 3))
        axis.semilogy(index, flow.values[0], "o-", color=colour, ms=4, lw=1, label=name)
        axis.semilogy(index, bundle.values[0].flip(0), "x--", color=colour, ms=5, lw=1)
        for method, found in (("flow", flow), ("normal bundle", bundle)):
            gaps = f"{found.gap.min():.1f} … {found.gap.max():.1f}"
            print(f"{name:>18}, {method}: dimensions {found.dimension.tolist()}, gaps {gaps}")
    axis.axhline(0.3, color="0.7", lw=1, ls=":")
    axis.set(
        xlabel="direction", ylabel="singular value", title="Spectra in 6-D, κ = 0.1 (● flow, × normal bundle)"
    )
    axis.legend(fontsize=7, frameon=False, loc="center right", bbox_to_anchor=(1, 0.62))


def rates(axis: plt.Axes, network: NetworkDenoiser) -> None:
    """Panel 3."""
    kappas = torch.logspace(-3, 1, 41, dtype=F64)
    times = PATH.time_of_log_snr(-kappas.log())
    three = GaussianDenoiser(
        torch.zeros(6, dtype=F64), Diagonal(torch.tensor([1, 1e-2, 1e-4, 0, 0, 0], dtype=F64)), PATH
    )
    sphere = on_sphere(64, 7)
    for name, denoiser, x0, colour in (
        ("widths 1, 0.1, 0.01", three, torch.zeros(1, 6, dtype=F64), "tab:green"),
        ("2-sphere", Sphere(), sphere, "tab:blue"),
        ("2-sphere, trained", network, sphere, "tab:red"),
    ):
        found = flipd(denoiser, x0, times)
        axis.semilogx(kappas, found.values.mean(1), color=colour, lw=1.4, label=name)
        low, high = found.values.quantile(0.1, 1), found.values.quantile(0.9, 1)
        axis.fill_between(kappas, low, high, color=colour, alpha=0.2, lw=0)
        at = [int((kappas - k).abs().argmin()) for k in (0.001, 0.01, 0.1, 0.3)]
        print(
            f"{name:>20}: FLIPD at κ = 0.001, 0.01, 0.1, 0.3:",
            *(f"{found.values.mean(1)[i]:.2f}" for i in at),
        )
    axis.set(xlabel="κ = σ/α (units of the data)", ylabel="FLIPD (dimensions)", ylim=(-1, 7))
    axis.set_title("FLIPD: mean, 10–90 % of points")
    axis.legend(fontsize=7, frameon=False)


def main() -> None:
    torch.set_num_threads(1)
    clocks()
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    likelihoods(axes[0])
    network = trained()
    spectra(axes[1], network)
    rates(axes[2], network)
    path = DOCS / "images" / "likelihood.png"
    figure.savefig(path, dpi=110)
    print(f"written to {path.relative_to(DOCS.parent)}")


if __name__ == "__main__":
    main()

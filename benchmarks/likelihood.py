"""Likelihood by exact and by Hutchinson's divergence: time and error side by side, against the number of elements.

    python benchmarks/likelihood.py [--quick] [--json FILE]

The density is known: a mixture of five Gaussians of full covariance in closed form, N = 4 ... 128 elements, 8 samples of it,
straight path, 24 fixed steps (96 evaluations) for all, so nothing but the divergence differs. Methods: N reverse products
one by one, the same in blocks of 32, and 1 or 8 fixed probes of random signs. `seconds` is the best of three interleaved
rounds; a `ratio` is time over that of the exact divergence of a round, the median of three. The error is of log p per
element, in nats: root mean square over samples (and, for probes, over 8 draws), with 1.96 standard errors.

Keys, for N elements: `likelihood_seconds_exact_N`, `likelihood_ratio_METHOD_N` and `likelihood_error_METHOD_N` with `_ci`,
METHOD one of exact, block, probes_1, probes_8.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from radiata_core.analytic import MixtureDenoiser
from radiata_core.covariances import Dense
from radiata_core.jacobians import BlockDivergence, Divergence, ExactDivergence, hutchinson
from radiata_core.likelihood import log_likelihood
from radiata_core.paths import LinearPath
from radiata_core.seeds import generator_of, generators_of, noise_of
from radiata_core.straight_coordinates import FixedSteps, interval

SAMPLES, STEPS, COMPONENTS = 8, 24, 5
Maker = Callable[[Tensor, int], Divergence]
METHODS: dict[str, Maker] = {
    "exact": lambda x0, draw: ExactDivergence(),
    "block": lambda x0, draw: BlockDivergence(32),
    "probes_1": lambda x0, draw: hutchinson(x0, generators_of(range(len(x0)), draw), 1),
    "probes_8": lambda x0, draw: hutchinson(x0, generators_of(range(len(x0)), draw), 8),
}


def problem(size: int) -> tuple[MixtureDenoiser, Tensor, Tensor]:
    """A mixture, samples of it, and the log-density that a perfect solver finds at them."""
    g = generator_of(0, size)
    means = torch.randn(COMPONENTS, size, generator=g, dtype=torch.float64)
    deviations = (0.05 + 0.4 * torch.rand(COMPONENTS, size, generator=g, dtype=torch.float64)).sqrt()
    turns = torch.linalg.qr(torch.randn(COMPONENTS, size, size, generator=g, dtype=torch.float64)).Q
    factors = turns * deviations[:, None]
    path, which = LinearPath(), torch.arange(SAMPLES) % COMPONENTS
    denoiser = MixtureDenoiser(
        torch.ones(COMPONENTS, dtype=torch.float64), means, [Dense(f @ f.mT) for f in factors], path
    )
    drawn = noise_of(generators_of(range(SAMPLES), 9), (size,), torch.float64)
    x0 = means[which] + (factors[which] @ drawn[:, :, None])[:, :, 0]
    t = torch.tensor(interval(path, None, 1.0).t_min, dtype=torch.float64)
    alpha = path.coefficients(t).alpha
    return denoiser, x0, denoiser.log_density(alpha * x0, t) + size * alpha.log()


def squared_errors(name: str, size: int, draws: int) -> Tensor:
    """Squared error of log p per element, of every draw and sample."""
    denoiser, x0, truth = problem(size)
    found = [
        log_likelihood(denoiser, x0, METHODS[name](x0, draw), solver=FixedSteps(STEPS)).log_likelihood
        for draw in range(draws)
    ]
    return ((torch.stack(found) - truth) / size).square().flatten()


def seconds(name: str, size: int) -> float:
    """One likelihood of all samples."""
    denoiser, x0, _ = problem(size)
    divergence = METHODS[name](x0, 0)
    begun = time.perf_counter()
    log_likelihood(denoiser, x0, divergence, solver=FixedSteps(STEPS))
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description="Likelihood by exact and by random divergence.")
    parser.add_argument("--quick", action="store_true", help="small sizes, fewer draws")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as one flat JSON object")
    options = parser.parse_args()

    torch.set_num_threads(1)
    sizes, draws = ((4, 16), 2) if options.quick else ((4, 16, 64, 128), 8)
    figures: dict[str, float | list[float]] = {}
    seconds("exact", sizes[0])  # the first call loads what the later ones share
    print(f"{'N':>4} {'method':>9} {'seconds':>8} {'of exact':>9} {'error, nats an element':>24}")
    for size in sizes:
        rounds = [{name: seconds(name, size) for name in METHODS} for _ in range(3)]
        figures[f"likelihood_seconds_exact_{size}"] = min(r["exact"] for r in rounds)
        for name in METHODS:
            ratio = statistics.median(r[name] / r["exact"] for r in rounds)
            squares = squared_errors(name, size, draws if name.startswith("probes") else 1)
            error = float(squares.mean().sqrt())
            half = 1.96 * float(squares.std()) / len(squares) ** 0.5 / (2 * error)
            figures[f"likelihood_ratio_{name}_{size}"] = ratio
            figures[f"likelihood_error_{name}_{size}"] = error
            figures[f"likelihood_error_{name}_{size}_ci"] = [error - half, error + half]
            best = min(r[name] for r in rounds)
            print(f"{size:4d} {name:>9} {best:8.3f} {ratio:9.3f} {error:12.2e} ± {half:9.1e}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
        print(f"written to {options.json}")


if __name__ == "__main__":
    main()

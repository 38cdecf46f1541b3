"""Reward that each search reaches with 500 evaluations of an exact velocity: mixtures of Gaussians, 8-D and 32-D.

    python benchmarks/search.py [--quick] [--json FILE]

The network is the posterior mean of a mixture in closed form, so nothing but the search is compared. Two rewards of a sample
x: *near*, minus the root mean square distance to a target that is itself a draw of the mixture, and *linear*, the
component of x in a random direction (unbounded). Ten steps; the flow of the straight path made stochastic by

    g3         g = 3 t², exact step (best-of-n and search over paths: the deterministic flow)
    ancestral  the forward diffusion's own noise
    vp         the denoiser carried to the VP path, quarter-circle grid, g = 3 t²

A figure is the mean over fixed problems (mixture, target, direction); its interval is 1.96 standard errors over seeds, of
the averages over problems. `gain` is paired with best-of-n of the same column, `evaluations` what a chain spent. Keys:
`reward_METHOD` (8-D, near, g3), with `_32d`, `_ancestral`, `_vp`, `_linear` for the others, each with `_ci`.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from radiata_core.analytic import MixtureDenoiser
from radiata_core.conversion import OnPath, QuarterCircleGrid
from radiata_core.covariances import Diagonal
from radiata_core.paths import LinearPath, VPPath
from radiata_core.search import (
    Budget,
    SearchResult,
    best_of_n,
    code,
    rollover_budget,
    search_over_paths,
    smc,
    svdd,
)
from radiata_core.seeds import generator_of, generators_of, noise_of
from radiata_core.times import LinearGrid
from radiata_core.transitions import AncestralDiffusion, PowerDiffusion, exact_transition

EVALUATIONS, STEPS, COMPONENTS = 500, 10, 5
SEARCHES: dict[str, Callable[..., SearchResult]] = {
    "best_of_n": best_of_n,
    "search_over_paths": search_over_paths,
    "svdd": svdd,
    "code": code,
    "smc": smc,
    "rbf": rollover_budget,
}
SETTINGS = ("", "_ancestral", "_vp", "_linear")
Reward = Callable[[Tensor], Tensor]


def problem(size: int, index: int) -> tuple[MixtureDenoiser, Reward, Reward]:
    """A mixture on the straight path and its two rewards."""
    g = generator_of(index, size)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    means = 1.5 * normal(COMPONENTS, size)
    variances = 0.05 + 0.4 * torch.rand(COMPONENTS, size, generator=g, dtype=torch.float64)
    weights = 0.2 + torch.rand(COMPONENTS, generator=g, dtype=torch.float64)
    target = means[0] + variances[0].sqrt() * normal(size)
    direction = torch.nn.functional.normalize(normal(size), dim=0)
    denoiser = MixtureDenoiser(weights, means, [Diagonal(v) for v in variances], LinearPath())
    return denoiser, lambda x: -(x - target).square().mean(1).sqrt(), lambda x: x @ direction


def searched(name: str, setting: str, size: int, index: int, seeds: range) -> SearchResult:
    """One search of every seed on one problem."""
    denoiser, near, linear = problem(size, index)
    path = VPPath() if setting == "_vp" else denoiser.path
    grid = QuarterCircleGrid() if setting == "_vp" else LinearGrid()
    g = AncestralDiffusion() if setting == "_ancestral" else PowerDiffusion()
    if name in ("best_of_n", "search_over_paths"):
        g = PowerDiffusion(0.0)
    return SEARCHES[name](
        OnPath(denoiser, path) if setting == "_vp" else denoiser,
        noise_of(generators_of(seeds, 0), (size,), torch.float64),
        exact_transition(grid(STEPS, path), path, g),
        linear if setting == "_linear" else near,
        Budget(EVALUATIONS),
        generators=generators_of(seeds, 1),
    )


def mean_and_half(values: Tensor) -> tuple[float, float]:
    """Mean over seeds and 1.96 of its standard errors."""
    return float(values.mean()), 1.96 * float(values.std()) / len(values) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description="Reward of searches at equal evaluations.")
    parser.add_argument("--quick", action="store_true", help="one problem, few seeds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as one flat JSON object")
    options = parser.parse_args()

    torch.set_num_threads(1)
    problems, seeds = (1, range(8)) if options.quick else (3, range(24))
    figures: dict[str, float | list[float]] = {"evaluations": EVALUATIONS}
    print(
        f"{'size':>4} {'setting':>10} {'method':>18} {'reward':>17} {'gain':>17} {'evaluations':>12} {'seconds':>8}"
    )
    for size in (8, 32):
        for setting in SETTINGS:
            draws = torch.zeros(len(seeds), dtype=torch.float64)
            for name in SEARCHES:
                begun = time.perf_counter()
                found = [searched(name, setting, size, index, seeds) for index in range(problems)]
                seconds = time.perf_counter() - begun
                rewards = torch.stack([f.reward for f in found]).mean(0)
                if name == "best_of_n":
                    draws = rewards
                (mean, half), (gain, around) = mean_and_half(rewards), mean_and_half(rewards - draws)
                key = f"reward_{name}{setting}{'_32d' if size == 32 else ''}"
                figures[key], figures[f"{key}_ci"] = mean, [mean - half, mean + half]
                print(
                    f"{size:4d} {setting.strip('_') or 'g3':>10} {name:>18} {mean:8.3f} ± {half:5.3f}"
                    f" {gain:9.3f} ± {around:5.3f} {found[0].evaluations:12d} {seconds:8.1f}"
                )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
        print(f"written to {options.json}")


if __name__ == "__main__":
    main()

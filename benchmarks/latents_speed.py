"""What a training step of the released LangevinFlow costs as a literal loop, and as `paper_flow` computes the same function.

    python benchmarks/latents_speed.py [--quick] [--json FILE]

Both have the same numbers, spikes, masks and noise, drawn before the clock starts; loss and gradients agree to rounding
(the largest relative difference is printed). Repetitions take turns, so a busy machine hurts them alike; a ratio is the
median of paired ratios, literal over ours, its interval the 2.5–97.5 percentiles of a bootstrap of that median. Forwards
and backwards:

    step        the whole training step without the optimiser: encoder, dynamics, decoder, loss, gradients
    recurrence  force and dynamics only: start and noise in, all z and v out, gradients of start and kernel

`step_ratio_equal_function` is the step of the Lorenz shape as released (dropout inside the encoder's recurrence), with the
suffixes `_wide` (H = 280), `_maze` (180 bins of 5 ms, H = 280); `recurrence_ratio_equal_function` likewise. `_outside` is
dropout of the encoder's output, where one GRU call suffices. The decoder, the same in both, takes most of a step.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from radiata_core.seeds import generators_of
from radiata_latents.model.coordinated_dropout import count_masks
from radiata_latents.model.linear_scan import langevin_scan
from radiata_latents.model.paper_flow import PaperLangevinFlow
from radiata_latents.model.paper_objective import PaperBound
from radiata_latents.model.paper_reference import ReferenceFlow
from radiata_latents.model.paper_switches import PaperSwitches


@dataclass(frozen=True)
class Shape:
    """Of one batch: rows, observed and forward bins, held-in neurons of all, latents."""

    rows: int
    bins: int
    forward: int
    heldin: int
    neurons: int
    hidden: int
    inner: int


SHAPES = {
    "": Shape(64, 50, 0, 22, 29, 64, 256),
    "_wide": Shape(16, 50, 10, 137, 182, 280, 512),
    "_maze": Shape(8, 140, 40, 137, 182, 280, 512),
}
"""Lorenz, a batch of 20 ms bins and one of 5 ms bins of MC_Maze's size."""


def steps(
    shape: Shape, switches: PaperSwitches
) -> tuple[Callable[[], list[Tensor]], Callable[[], list[Tensor]]]:
    """(literal, ours): one training step each; they return the loss and the gradients in one order."""
    torch.manual_seed(0)
    model = PaperLangevinFlow(
        shape.neurons, shape.heldin, shape.bins, shape.forward, shape.hidden, shape.inner, switches
    )
    reference, bound = ReferenceFlow(model), PaperBound()
    generators = generators_of(range(shape.rows))
    counts = torch.poisson(
        torch.full((shape.rows, shape.bins + shape.forward, shape.neurons), 0.26),
        generator=torch.Generator().manual_seed(1),
    )
    masks = count_masks(
        generators, shape.bins, shape.heldin, switches.shown, pass_through=switches.pass_through
    )
    draws = model.draw(generators, dropout=True)

    def literal() -> list[Tensor]:
        reference.zero_grad(set_to_none=True)
        loss = reference(counts, masks, draws, bound.weight(model))[1]
        loss.backward()
        return [loss.detach(), *(mine.grad for mine, _, _ in reference.pairs(model))]

    def ours() -> list[Tensor]:
        model.zero_grad(set_to_none=True)
        loss = bound.given(model, counts, masks, draws).value
        loss.backward()
        return [loss.detach(), *(theirs.grad[rows] for _, theirs, rows in reference.pairs(model))]

    return literal, ours


def recurrences(
    shape: Shape, switches: PaperSwitches
) -> tuple[Callable[[], list[Tensor]], Callable[[], list[Tensor]]]:
    """(literal, ours): force and dynamics alone."""
    torch.manual_seed(0)
    model = PaperLangevinFlow(
        shape.neurons, shape.heldin, shape.bins, shape.forward, shape.hidden, 8, switches
    )
    reference = ReferenceFlow(model)
    draws = model.draw(generators_of(range(shape.rows)))
    start = draws.start.clone().requires_grad_(True)
    pull = torch.randn(2, shape.rows, shape.bins + shape.forward, shape.hidden)
    deviation = switches.noise_variance**0.5

    def literal() -> list[Tensor]:
        start.grad = reference.kernel.grad = None
        z, v, _ = reference.dynamics(start[:, 0], start[:, 1], draws.noise)
        states = torch.stack([torch.stack(z, 1), torch.stack(v, 1)])
        (states * pull).sum().backward()
        return [states.detach(), start.grad, reference.kernel.grad]

    def ours() -> list[Tensor]:
        start.grad = model.potential.kernel.grad = None
        states = langevin_scan(
            start, deviation * draws.noise, model.potential.coupling(), switches.step, 1 - switches.gamma
        )
        (states * pull).sum().backward()
        return [states.detach(), start.grad, model.potential.kernel.grad]

    return literal, ours


def difference(literal: list[Tensor], ours: list[Tensor]) -> float:
    """Largest difference of any part, relative to the largest number of that part."""
    return max(
        float((a - b).abs().max() / a.abs().max().clamp_min(1e-12))
        for a, b in zip(literal, ours, strict=True)
    )


def milliseconds(run: Callable[[], list[Tensor]]) -> float:
    begun = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - begun)


def median_and_interval(values: np.ndarray, rng: np.random.Generator) -> tuple[float, list[float]]:
    resampled = np.median(rng.choice(values, (2000, len(values))), axis=1)
    return float(np.median(values)), [float(q) for q in np.percentile(resampled, [2.5, 97.5])]


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Training step of the released LangevinFlow: literal loop against ours."
    )
    parser.add_argument("--quick", action="store_true", help="the Lorenz shape only, fewer repetitions")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as one flat JSON object")
    options = parser.parse_args()

    torch.set_num_threads(1)
    rng, figures = np.random.default_rng(0), dict[str, float | list[float]]()
    print(f"{'what':>26} {'literal ms':>11} {'ours ms':>9} {'literal/ours':>25} {'largest difference':>19}")
    for suffix, shape in SHAPES.items():
        if options.quick and suffix:
            continue
        # Kernels away from 0, where the released normalisation has a gradient of 1e12 and rounding decides.
        released = PaperSwitches(kernel_spread=1.0)
        outside = PaperSwitches(kernel_spread=1.0, dropout_inside=False)
        pairs = {
            "recurrence": recurrences(shape, released),
            "step": steps(shape, released),
            "step_outside": steps(shape, outside),
        }
        for name, (literal, ours) in pairs.items():
            apart = difference(literal(), ours())
            count = (5 if options.quick else 15) * (3 if name == "recurrence" else 1)
            times = np.array([(milliseconds(literal), milliseconds(ours)) for _ in range(count)])
            ratio, interval = median_and_interval(times[:, 0] / times[:, 1], rng)
            what, _, form = name.partition("_")
            key = f"{what}_ratio_equal_function{'_' + form if form else ''}{suffix}"
            figures[key], figures[f"{key}_ci"], figures[f"{key}_difference"] = ratio, interval, apart
            slow, fast = np.median(times, 0)
            figures[f"{name}{suffix}_literal_ms"], figures[f"{name}{suffix}_ours_ms"] = (
                float(slow),
                float(fast),
            )
            print(
                f"{name + suffix:>26} {slow:11.1f} {fast:9.1f} {ratio:9.2f} ({interval[0]:5.2f} – {interval[1]:5.2f})"
                f" {apart:19.1e}"
            )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
        print(f"written to {options.json}")


if __name__ == "__main__":
    main()

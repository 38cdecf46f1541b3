"""Stages of a cascade, few evaluations against many: each alone on held-out heads, and one after another on drawn ones.

    python benchmarks/t1_stages.py STORE --arm many=cascade-1mm --arm few=runs/few.safetensors [--heads 24] [--draws 16]
        [--only stages chain] [--steps many=4 ...] [--json FILE]

STORE holds renderings at 1 mm; its validation and test people (four, none in training) are the held-out set. An arm is a
cascade, or the runs of its stages with commas between, coarsest first; it takes the evaluations that its file says, or as
many a stage as `--steps ARM=N`. A stage that two arms share is measured once.

    stages    Each stage is given the box means of held-out heads, so that what is judged is what it adds:
              band_db        mean log power drawn less real in the octave the stage adds, dB, with a 95 % bootstrap interval
                             over heads (paired); below_db: in the octave before
              energy_ratio   rms(real - drawn) / rms(drawn - drawn again), one coarse head: 1 where the law is right, more
                             where draws are off or too alike
              kid            random convolutions at the stage's spacing, standardised by training heads: drawn against
                             held out, interval over heads
              tail           share of voxels further than four sd (of real residuals) from interpolation, over the real share
              seconds        processor seconds of a head, one thread
    chain     Heads of `rflow-4mm`, averaged to the first grid, go through the stages down to `--until`: the same KID, the
              spectrum by octave (0 ends at the Nyquist frequency, 1 at half of it), Wasserstein-1 of intensities, seconds of
              all stages. Floor: validation people against test people.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from t1_1mm import array_of, mean_and_interval, spread_over

GRID = (192, 224, 192)
BASE, TRAINED = 4.0, 48


def arms_of(named: Sequence[str], steps: Sequence[str]) -> dict[str, Any]:
    """The cascades of the arms, with the evaluations asked for."""
    from radiata_core.checkpoint import load_model
    from radiata_core.refinement import Cascade
    from radiata_t1.model.cascades import joined
    from radiata_t1.model.weights import find_model

    wanted = dict(pair.split("=", 1) for pair in steps)
    arms = {}
    for name, models in (pair.split("=", 1) for pair in named):
        cascade, _, _ = joined([load_model(find_model(model)) for model in models.split(",")])
        if name in wanted:
            numbers = [int(n) for n in wanted[name].split(",")]
            numbers = numbers * len(cascade.stages) if len(numbers) == 1 else numbers
            options = cascade.options | {"steps": numbers}
            cascade = Cascade(**options)
        arms[name] = cascade.eval()
    return arms


class Judge:
    """Features, spectra and intensities at one spacing, against held-out heads."""

    def __init__(self, store: Any, held: Sequence[int], train: Sequence[int], spacing: float) -> None:
        import numpy as np

        from radiata_imaging.features import RandomConvFeatures, Standardised
        from radiata_imaging.spectra import RadialBins

        self.spacing, self.store = spacing, store
        grid = tuple(round(n / spacing) for n in GRID)
        self.shells, self.network = RadialBins(grid, (spacing,) * 3), RandomConvFeatures()  # type: ignore[arg-type]
        self.scale = Standardised.fit(np.stack([self.network(self.real(row)) for row in train]))
        self.people = [str(store.subjects[row]) for row in held]
        reals = [self.real(row) for row in held]
        self.features = self.scale(np.stack([self.network(head) for head in reals]))
        self.power = np.stack([self.decibels(head) for head in reals])
        self.values = np.sort(np.concatenate([head[::2, ::2, ::2].ravel() for head in reals]))

    def real(self, row: int, factor: int = 1) -> Any:
        """A head of the store at the judge's spacing times `factor`, on the scale of the generator."""
        from radiata_core.refinement import box_mean
        from radiata_t1.data.blocks import scaled_head

        return (
            box_mean(scaled_head(self.store, row), round(self.spacing * factor))[0, 0].clamp(-1, 1.5).numpy()
        )

    def decibels(self, head: Any) -> Any:
        """Log power by shell up to the Nyquist frequency."""
        from radiata_imaging.spectra import log_power

        return log_power(self.shells.power(head)[self.shells.shown])

    def octave(self, power: Any, number: int) -> Any:
        """Mean over the octave that ends at the Nyquist frequency (0), or an earlier one (1, 2, ...)."""
        frequency = self.shells.frequency[self.shells.shown]
        high = self.shells.nyquist / 2**number
        return power[:, (frequency > high / 2) & (frequency <= high)].mean(1)

    def kid(self, features: Any) -> list[float]:
        """KID of random convolutions with its interval over heads and the p of a permutation of people."""
        import numpy as np

        from radiata_imaging.two_sample import PolynomialKernel, compare

        found = compare(
            features,
            self.features,
            PolynomialKernel(),
            np.random.default_rng(0),
            blocks_y=self.people,
            permutations=199,
        )
        return [round(float(v), 3) for v in (found.value, *found.interval, found.p_value)]

    def of(self, heads: Sequence[Any]) -> dict[str, Any]:
        """What is said of heads that were drawn."""
        import numpy as np
        from scipy.stats import wasserstein_distance

        power = np.stack([self.decibels(head) for head in heads])
        values = np.concatenate([head[::2, ::2, ::2].ravel() for head in heads])
        rng = np.random.default_rng(0)
        some = [rng.choice(v, 200_000) for v in (values, self.values)]
        octaves = {}
        for number in range(3):
            ours, theirs = self.octave(power, number), self.octave(self.power, number)
            octaves[f"octave_{number}_db"] = mean_and_interval(ours - theirs.mean())
        return {
            "kid": self.kid(self.scale(np.stack([self.network(head) for head in heads]))),
            **octaves,
            "intensities": round(float(wasserstein_distance(*some)), 4),
        }


def stage_alone(
    stage: Any, how: dict[str, Any], coarse_mm: float, judge: Judge, held: Sequence[int]
) -> dict[str, Any]:
    """One stage on the box means of held-out heads."""
    import numpy as np
    import torch

    from radiata_core.refinement import interpolated, refine

    drawn, off, apart, tails, real_tails = [], [], [], [], []
    seconds = 0.0
    for number, row in enumerate(held):
        real = torch.from_numpy(judge.real(row))[None, None]
        coarse = torch.from_numpy(judge.real(row, stage.factor))[None, None]
        began = time.process_time()
        with torch.inference_mode():
            one = refine(stage, coarse, [number], spacing=coarse_mm, **how)
            seconds += time.process_time() - began
            two = refine(stage, coarse, [1000 + number], spacing=coarse_mm, **how)
            smooth = interpolated(coarse, stage.factor)
        one, two = one.clamp(-1, 1.5), two.clamp(-1, 1.5)
        off.append(float((real - one).square().mean()))
        apart.append(float((one - two).square().mean()))
        bound = 4 * float((real - smooth).std())
        tails.append(float(((one - smooth).abs() > bound).double().mean()))
        real_tails.append(float(((real - smooth).abs() > bound).double().mean()))
        drawn.append(one[0, 0].numpy())
    power = np.stack([judge.decibels(head) for head in drawn])
    return {
        "band_db": mean_and_interval(judge.octave(power, 0) - judge.octave(judge.power, 0)),
        "below_db": mean_and_interval(judge.octave(power, 1) - judge.octave(judge.power, 1)),
        "energy_ratio": round(float(np.sqrt(np.mean(off) / np.mean(apart))), 3),
        "kid": judge.kid(judge.scale(np.stack([judge.network(head) for head in drawn]))),
        "tail": round(float(np.mean(tails) / np.mean(real_tails)), 3),
        "seconds": round(seconds / len(held), 2),
    }


def base_heads(number: int, spacing: float) -> Any:
    """Heads of `rflow-4mm` of seeds 0 .. number - 1, averaged to the first grid."""
    import tempfile

    import torch

    from radiata_core.refinement import box_mean
    from radiata_t1.experiment.sample import Sample, file_name

    heads = []
    with tempfile.TemporaryDirectory() as folder:
        Sample(out=Path(folder), seeds=tuple(range(number)), model="rflow-4mm", dtype="float32").run()
        for seed in range(number):
            heads.append(torch.from_numpy(array_of(Path(folder) / file_name(seed))).float())
    return box_mean(torch.stack(heads)[:, None], round(spacing / BASE))


def chain(cascade: Any, coarse: Any, until: float, judge: Judge) -> dict[str, Any]:
    """All stages one after another on drawn heads."""
    import torch

    heads, began = [], time.process_time()
    with torch.inference_mode():
        for seed, row in enumerate(coarse):
            heads.append(cascade(row[None], [seed], until=until)[0, 0].clamp(-1, 1.5).numpy())
    seconds = round((time.process_time() - began) / len(coarse), 2)
    return {"steps": cascade.steps, "seconds": seconds} | judge.of(heads)


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("--arm", action="append", default=[], help="NAME=CASCADE or NAME=STAGE,STAGE,...")
    parser.add_argument("--steps", nargs="*", default=[], help="NAME=N or NAME=N,N,...")
    parser.add_argument("--only", nargs="*", default=["stages", "chain"])
    parser.add_argument(
        "--spacings", nargs="*", type=float, help="of stages to be judged alone, mm; all by default"
    )
    parser.add_argument("--heads", type=int, default=24)
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--until", type=float, default=2.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    import torch

    from radiata_imaging.store import Store

    torch.set_num_threads(1)
    store = Store(options.store, GRID)
    held = spread_over([*store.indices("validation"), *store.indices("test")], options.heads)
    train = spread_over(store.indices("train"), TRAINED)
    arms = arms_of(options.arm or ["shipped=cascade-1mm"], options.steps)
    judges: dict[float, Judge] = {}
    found: dict[str, Any] = {}

    def say(name: str, figures: dict[str, Any]) -> None:
        found[name] = figures
        print(f"{name:28s} " + "  ".join(f"{key} {value}" for key, value in figures.items()), flush=True)
        if options.json:
            options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    def judge_at(spacing: float) -> Judge:
        if spacing not in judges:
            judges[spacing] = Judge(store, held, train, spacing)
        return judges[spacing]

    if "stages" in options.only:
        for number, spacing in enumerate(next(iter(arms.values())).spacings()):
            if options.spacings is not None and spacing not in options.spacings:
                continue
            for name, cascade in arms.items():
                how = {
                    "steps": cascade.steps[number],
                    "corruption": cascade.corruptions[number],
                    "stochastic": cascade.stochastic[number],
                }
                stage = cascade.stages[number]
                figures = stage_alone(stage, how, spacing * stage.factor, judge_at(spacing), held)
                say(f"{spacing:g} mm, {name}, {how['steps']}", figures)
    if "chain" in options.only:
        coarse = base_heads(options.draws, next(iter(arms.values())).spacing)
        judge = judge_at(options.until)
        validation, test = (
            spread_over(store.indices(split), options.heads) for split in ("validation", "test")
        )
        floor = Judge(store, test, train, options.until)
        say("floor, validation to test", floor.of([judge.real(row) for row in validation]))
        for name, cascade in arms.items():
            say(f"chain, {name}", chain(cascade, coarse, options.until, judge))


if __name__ == "__main__":
    main()

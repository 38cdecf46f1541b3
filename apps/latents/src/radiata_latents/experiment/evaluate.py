"""`radiata-latents evaluate`: models and baselines in one table, scored alike, with intervals over trials."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from radiata_core.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

    from radiata_latents.experiment.predictions import Sources

__all__ = ["Evaluate"]

SHOWN = ("co_bps", "fp_bps", "heldin_bps", "r2_expected", "behaviour_r2", "psth_r2")
"""Columns that are printed; all are in the files."""


@dataclass(frozen=True)
class Evaluate:
    """Score models beside every baseline: co-smoothing, forward prediction, rates, behaviour, histograms, calibration.

    Writes evaluation.json and scores.csv, each score with a 95 % interval over trials; a score that this population cannot
    have is a dash, and the reason stands below the table. Baselines are fitted on training trials only.

    Example: radiata-latents evaluate lorenz.h5 --model lorenz --model runs/gru --out evaluation

    Example: radiata-latents evaluate maze.h5 --model runs/maze --few-shot --out evaluation

    Example: radiata-latents evaluate maze.h5 --rates rates.h5 --no-baselines --out evaluation
    """

    population: Annotated[Path, tyro.conf.Positional]
    """Population written by prepare."""
    out: Path
    """Folder to write to."""
    model: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A shipped model's name, a .safetensors file, a run's or an ensemble's folder; again for each further one."""
    rates: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """A file of rates written by infer, in place of a model; again for each further one."""
    baselines: bool = True
    """Mean rate, smoothing, GPFA, condition average and oracle stand in the table; --no-baselines leaves them out, which
    saves up to minutes."""
    split: Literal["validation", "test"] = "validation"
    """Which trials are scored. Choose models on validation; test is for a last number."""
    few_shot: bool = False
    """Also refit the read-out of held-out neurons on few trials: a curve for each model with held-out neurons."""
    kernel_ms: float | None = None
    """Standard deviation of the kernel that smooths conditions' histograms, ms; by default the preset's, or none."""
    passes: int = 0
    """Draws of the posterior that rates are averaged over; 0 is one pass along its mean."""
    draws: int = 200
    """Resamples of trials behind an interval, at least 20."""
    batch_size: int = 64
    """Trials at once."""
    seed: int = 0
    """Of posterior draws, the bootstrap and the few trials."""
    device: Literal["cpu", "auto"] = "cpu"
    """Where to compute; auto takes a GPU if there is one."""
    overwrite: bool = False
    """Replace an earlier evaluation in the folder."""

    def run(self) -> None:
        """Do it.

        Raises:
            InputError: files that cannot be used or do not belong together, nothing to score, or a folder that has content.
        """
        from radiata_core.runs import Run, sha256
        from radiata_latents.data.population import load_population
        from radiata_latents.experiment.predictions import sources_of
        from radiata_latents.experiment.score_table import Scored

        self._check()
        cells = load_population(self.population)
        Scored(cells, self.split, self.kernel_ms)
        sources = sources_of(cells, self.model, self.rates)
        data = {self.population.name: sha256(self.population)} | sources.checksums
        with Run(
            self.out, "radiata-latents evaluate", self, seed=self.seed, data=data, overwrite=self.overwrite
        ):
            result = self._evaluated(cells, sources)
            _write(self.out, result)
        for line in _lines(result):
            print(line)
        print(self.out)

    def _check(self) -> None:
        if not (self.model or self.rates or self.baselines):
            raise InputError("expected --model, --rates or baselines to score; got none. Name a model.")
        if self.draws < 20 or self.passes < 0 or self.batch_size < 1 or (self.kernel_ms or 0) < 0:
            raise InputError(
                f"expected --draws of 20 or more, --passes and --kernel-ms >= 0 and --batch-size >= 1; got {self.draws}, "
                f"{self.passes}, {self.kernel_ms} and {self.batch_size}."
            )

    def _evaluated(self, cells: "xr.Dataset", sources: "Sources") -> dict[str, Any]:
        import numpy as np

        from radiata_core.logs import Progress
        from radiata_latents.experiment.baselines import Baselines, fit_baselines
        from radiata_latents.experiment.devices import device_of
        from radiata_latents.experiment.findings import calibrations, collapses, few_shots
        from radiata_latents.experiment.score_table import SCORES, Scored, score_rows

        found = sources.predictions(
            ("train", self.split), self.passes, self.seed, self.batch_size, device_of(self.device)
        )
        fitted = Baselines({}, {})
        if self.baselines:
            with Progress(None, "baselines", unit="fit") as bar:
                fitted = fit_baselines(cells, say=lambda name: bar.update(now=name))
        rates = fitted.rates | {one.name: one.rates for one in found}
        scored = Scored(cells, self.split, self.kernel_ms)
        rows = score_rows(
            cells, rates, self.split, np.random.default_rng(self.seed),
            heldin_scored=[one.name for one in found if one.coordinated],
            kernel_ms=self.kernel_ms, draws=self.draws,
        )  # fmt: skip
        return {
            "format": "radiata-latents-evaluation/1",
            "split": self.split,
            "trials": len(scored.trials),
            "synthetic": bool(cells.attrs.get("synthetic", 0)),
            "columns": SCORES,
            "rows": rows,
            "why_not": scored.why,
            "baselines": list(fitted.rates),
            "left_out": fitted.left_out,
            "collapse": collapses(found, scored),
            "calibration": calibrations(rates, scored, self.seed, self.draws),
            "few_shot": few_shots(found, scored, self.seed) if self.few_shot else {},
        }


def _write(folder: Path, result: dict[str, Any]) -> None:
    from radiata_core.runs import write_json
    from radiata_latents.experiment.tables import write_csv

    write_csv(folder / "scores.csv", result["rows"])
    write_json(folder / "evaluation.json", result)


def _lines(result: dict[str, Any]) -> list[str]:
    from radiata_latents.experiment.tables import aligned

    rows = result["rows"]
    columns = [c for c in SHOWN if any(row[c] is not None for row in rows)]
    absent = [c for c in ("co_bps",) if c not in columns]
    cells = [[row["name"], *(_cell(row, column) for column in [*absent, *columns])] for row in rows]
    lines = [f"{result['trials']} {result['split']} trials, 95 % intervals over trials"]
    lines += aligned(["", *[*absent, *columns]], cells)
    for why in dict.fromkeys(result["why_not"].values()):
        lines.append(f"– {', '.join(c for c, reason in result['why_not'].items() if reason == why)}: {why}")
    lines += [f"left out {name}: {why}" for name, why in result["left_out"].items()]
    for name, one in result["collapse"].items():
        lines.append(
            f"{name}: KL {one['total']:.3g} nats a trial, {one['active']} of {len(one['kl'])} latents active, "
            f"{one['effective']:.1f} effective"
        )
    if result["split"] == "test":
        lines.append("these are test trials: a last number, not one to choose by")
    return lines


def _cell(row: dict[str, Any], column: str) -> str:
    if row[column] is None:
        return "–"
    if row[f"{column}_low"] is None:
        return f"{row[column]:.3f}"
    return f"{row[column]:.3f} [{row[f'{column}_low']:.3f}, {row[f'{column}_high']:.3f}]"

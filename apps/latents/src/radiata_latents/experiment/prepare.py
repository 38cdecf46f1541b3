"""`radiata-latents prepare`: recordings, arrays or a simulation in, one population out.

    sources → recording or arrays → trials on bins → held-out neurons, split → population (.h5) + sidecar (.json)

What is left out – bins that were not observed, neurons, windows – is counted, printed and written to the sidecar.
`experiment.cuts` does the cutting.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from radiata_core.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Prepare"]


@dataclass(frozen=True)
class Prepare:
    """Make a population of spike counts from recordings, arrays or a simulation.

    Sources: NWB files, MATLAB cells or structs of spike times (.mat), LFADS files, arrays (.npz, .npy, .h5, .nc). Several
    NWB files are joined: one recording on one clock.

    Example: radiata-latents prepare sub-Jenkins_*.nwb --preset nlb:mc_maze_small --bin 5ms --out small.h5

    Example: radiata-latents prepare any.nwb --align trials.start_time --window 0 1.5 --bin 20ms --holdout 0.25 --out any.h5

    Example: radiata-latents prepare spikes.mat --positions track.videoPositionTracking --parked --complete --out ca1.h5

    Example: radiata-latents prepare counts.npz --bin 10ms --split-by block --out trials.h5

    Example: radiata-latents prepare --preset lorenz --holdout 0.25 --out lorenz.h5
    """

    out: Path
    """The population to write, ending in .h5; a sidecar of the same name ends in .json."""
    source: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Files to read; none for a simulation."""
    preset: str | None = None
    """nlb:mc_maze, nlb:mc_maze_{large,medium,small}, nlb:mc_rtt, nlb:area2_bump or nlb:dmfc_rsg: how the benchmark cuts its
    files. lorenz, lfads_demo_2017, lfads_demo_2019, chaotic-rnn, oscillators or ring: a simulation."""
    bin: str | None = None
    """Width of a bin with its unit, such as 20ms or 0.005s. By default 20ms, 5ms for nlb presets, or what a file says."""
    align: str | None = None
    """Column of the trials that windows are aligned to, such as trials.start_time; without it windows lie end to end."""
    window: tuple[float, float] | None = None
    """Beginning and end of a window around the event, in seconds; without --align, 0 and its length (by default 0 1)."""
    forward: str = "0ms"
    """Length of the forward window after it, with its unit: bins that are predicted, never seen."""
    behaviour: tuple[str, ...] = ()
    """Traces to keep, by path or end of path, averaged in every bin; those measured at the same times stand side by side."""
    lag: str = "0ms"
    """The behaviour of a bin is that of so much later, with its unit; write a negative one as --lag=-20ms."""
    angle: bool = False
    """The behaviour is angles in radians: keep their cosine and sine."""
    complete: bool = False
    """Leave out windows in which the behaviour is not known throughout."""
    positions: Path | None = None
    """Video tracking beside a .mat file (.videoPositionTracking); it becomes the behaviour `position`."""
    pixels_per_cm: float | None = None
    """Scale of the tracking; by default its header's."""
    parked: bool = False
    """Leave out windows in which the tracker stands still, to the last digit, for 5 s or more."""
    variable: str = "spikes"
    """Name of the variable in a .mat file."""
    condition: str | None = None
    """Column of the trials that tells conditions apart."""
    holdout: tuple[str, ...] = ()
    """Share of the neurons to hold out, such as 0.25, or their names; by default those that the source holds out."""
    overlap: bool = False
    """Windows may share time; they are then split by block."""
    drop_silent: bool = False
    """Leave out neurons without a spike."""
    least_spikes: int = 0
    """Leave out neurons with fewer spikes than this in all trials kept."""
    split_by: Annotated[str | None, tyro.conf.arg(metavar="trial|condition|block")] = None
    """What stays together in the split; by default that of the source, block for windows that touch or overlap, or trial."""
    validation: float | None = None
    """Share for validation; by default that of the source, or 0.2."""
    test: float | None = None
    """Share for test; by default that of the source, or 0."""
    jitter: bool = False
    """Of nlb:dmfc_rsg: let training and validation windows end up to 300 ms later, by --seed."""
    set_to_go: bool = False
    """Of nlb:dmfc_rsg: evaluate from the set cue to go; bins before it are not observed."""
    trials: int | None = None
    """Of a simulation: trials, or trials a condition where it has conditions."""
    conditions: int | None = None
    """Of a simulation: different trajectories."""
    neurons: int | None = None
    """Of a simulation."""
    seed: int = 0
    """Of the split, the neurons held out, jitter and simulations."""
    overwrite: bool = False
    """Replace an existing population."""
    dry_run: bool = False
    """Read and cut, print sizes, write nothing."""

    def run(self) -> None:
        """Do it.

        Raises:
            InputError: a source or an option that cannot be used, or the population exists.
        """
        self._check()
        from radiata_latents.experiment.cuts import cut

        made, notes = cut(self)
        facts = _facts(made) | notes
        for line in _lines(facts):
            print(line)
        if self.dry_run:
            print(f"dry run: {self.out} was not written")
            return
        self._write(made, facts)
        print(f"{facts['trials']} trials in {self.out}")

    def _check(self) -> None:
        if self.out.suffix != ".h5":
            raise InputError(f"expected a name ending in .h5; got {self.out}. Rename --out.")
        self._check_free()
        for path in (*self.source, *([self.positions] if self.positions else [])):
            if not path.is_file():
                raise InputError(f"expected a file to read; got no such file: {path}. Check the path.")
            if path.resolve() == self.out.resolve():
                raise InputError(f"expected --out to be another file than the source {path}. Rename --out.")
        if not self.source and self.preset is None:
            raise InputError("expected a file or --preset; got neither. Name an NWB, .mat or array file.")
        if self.seed < 0 or self.least_spikes < 0:
            raise InputError(
                f"expected --seed and --least-spikes of 0 or more; got {self.seed} and {self.least_spikes}."
            )
        if self.split_by not in (None, "trial", "condition", "block"):
            raise InputError(f"expected --split-by trial, condition or block; got {self.split_by!r}.")
        if self.overlap and self.split_by == "trial":
            raise InputError(
                "expected --split-by block or condition with --overlap; got trial: windows that share time would stand "
                "on both sides. Leave --split-by out."
            )

    def _check_free(self) -> None:
        from radiata_core.sidecars import in_the_way

        taken = in_the_way(self.out, self.out.with_suffix(".json"))
        if taken is not None and not self.overwrite and not self.dry_run:
            raise InputError(
                f"expected a new file; {taken} exists. Choose another --out, or pass --overwrite."
            )

    def _write(self, made: "xr.Dataset", facts: dict[str, Any]) -> None:
        from radiata_core.runs import provenance, sha256, sole_writer
        from radiata_latents.data.population import save_population

        read = [*self.source, *([self.positions] if self.positions else [])]
        sources = [{"Name": path.name, "SHA256": sha256(path)} for path in read]
        record = {
            "Description": "Spike counts of trials (trial, time, neuron); rates are expected counts a bin.",
            "SyntheticData": facts["synthetic"],
            "Sources": sources,
            "GeneratedBy": [{"Name": "radiata-latents", "Version": _version()}],
            "options": asdict(self),
            **facts,
            **provenance(),
        }
        card = self.out.with_suffix(".json"), lambda part: record | {"sha256": sha256(part)}
        with sole_writer(self.out):
            self._check_free()  # another process may have been faster
            save_population(made, self.out, card)


def _version() -> str:
    from importlib.metadata import version

    return version("radiata-latents")


def _facts(made: "xr.Dataset") -> dict[str, Any]:
    """What the population holds, in numbers."""
    import numpy as np

    counts, observed = made["counts"].values, made["observed"].values
    conditions = made["condition"].values
    words, numbers = np.unique(made["split"].values, return_counts=True)
    seconds = float(observed.sum()) * made.attrs["bin_s"]
    held = int(made["heldout"].sum())
    unknown = None
    if "behaviour" in made:
        unknown = int((~np.isfinite(made["behaviour"].values)).any(2).sum())
    return {
        "source": str(made.attrs["source"]),
        "synthetic": bool(str(made.attrs["source"]).startswith("synthetic")),
        "trials": made.sizes["trial"],
        "splits": dict(zip(words.tolist(), numbers.tolist(), strict=True)),
        "bins": int((~made["forward"].values).sum()),
        "forward_bins": int(made["forward"].values.sum()),
        "bin_s": made.attrs["bin_s"],
        "neurons": made.sizes["neuron"],
        "neurons_heldout": held,
        "conditions": len(np.unique(conditions[conditions >= 0])),
        "spikes": int(counts.sum(dtype=np.int64)),
        "mean_hz": float(counts.sum(dtype=np.int64)) / (seconds * made.sizes["neuron"]),
        "masked_bins": int((~observed).sum()),
        "behaviour": [str(c) for c in made["channel"].values] if "behaviour" in made else [],
        "behaviour_unknown_bins": unknown,
        "trials_withheld": int(made["withheld"].sum()) if "withheld" in made.coords else 0,
    }


def _lines(facts: dict[str, Any]) -> list[str]:
    """The same for people."""
    from radiata_latents.experiment.durations import milliseconds

    all_bins = facts["trials"] * (facts["bins"] + facts["forward_bins"])
    parts = [
        f"{name} {facts['splits'][name]}"
        for name in ("train", "validation", "test")
        if name in facts["splits"]
    ]
    lines = [
        f"{facts['source']}: {facts['trials']} trials ({', '.join(parts)}), {facts['conditions'] or 'no'} conditions",
        f"{facts['bins']} bins of {milliseconds(facts['bin_s'])} and {facts['forward_bins']} forward; "
        f"{facts['masked_bins']} of {all_bins} not observed",
        f"{facts['neurons'] - facts['neurons_heldout']} neurons held in, {facts['neurons_heldout']} out; "
        f"{facts['spikes']} spikes, {facts['mean_hz']:.3g} Hz a neuron",
    ]
    if facts["behaviour"]:
        lines.append(
            f"behaviour {', '.join(facts['behaviour'])}: unknown in {facts['behaviour_unknown_bins']} of {all_bins} bins"
        )
    if facts["trials_withheld"]:
        lines.append(
            f"{facts['trials_withheld']} trials without the neurons held out: they can be predicted, not scored"
        )
    lines += [f"left out: {facts[name]} {words}" for name, words in _LEFT_OUT.items() if facts.get(name)]
    return lines


_LEFT_OUT = {
    "neurons_left_out": "neurons that fire too rarely",
    "windows_parked": "windows in which the tracker stands still",
    "windows_incomplete": "windows in which the behaviour is not known throughout",
}

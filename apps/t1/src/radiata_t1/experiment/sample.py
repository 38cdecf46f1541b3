"""`radiata-t1 sample`: heads from seeds, one file a seed, resumable."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from radiata_core.errors import InputError

if TYPE_CHECKING:
    from radiata_core.checkpoint import LoadedModel
    from radiata_t1.model.cascades import Finer
    from radiata_t1.model.samplers import Sampler

__all__ = ["Sample", "file_name"]

SamplerWord = Literal[
    "dpmpp-2m",
    "unipc-2",
    "ddim",
    "ddpm",
    "ab2",
    "sde-dpmpp-2m",
    "heun",
    "adaptive",
    "flow-map",
    "medforj-2025",
    "medforj-2026",
]


def file_name(seed: int) -> str:
    """BIDS-derivative name of the head drawn from this seed."""
    return f"sub-syn{seed:04d}_desc-synthetic_T1w.nii.gz"


@dataclass(frozen=True)
class Sample:
    """Draw synthetic T1 heads: one NIfTI with sidecar for each seed.

    A seed gives the same head alone and in a batch, byte for byte; on another device, to rounding. A stopped command goes on
    where it was: finished heads with the same settings are kept. Every file says that it is synthetic; not for clinical use.

    Example: radiata-t1 sample --seeds 0 1 2 3 --condition ventricles_ml=60 brain_ml=1100 --out heads
    """

    out: Path
    """Folder to write to."""
    model: str | None = None
    """A shipped model's name, a .safetensors file, or a training run's folder; by default rflow-4mm, or with at most
    4 steps and no sampler named its student few-step-4mm."""
    resolution: Literal["1mm", "2mm", "4mm"] | None = None
    """Voxels of the heads. 1mm where no model is named: the model's head of 4 mm is drawn finer by the stages of --cascade;
    4mm is the model's own head. A model that is named draws on its own grid unless this says otherwise."""
    cascade: tuple[str, ...] = ("cascade-1mm",)
    """The stages that draw finer: a shipped cascade, a file, or the runs of train --stage or distil, coarsest first."""
    cascade_steps: tuple[int, ...] = ()
    """Evaluations of each stage, coarsest first; by default those that the stages come with."""
    seeds: tuple[int, ...] = (0,)
    """One head a seed."""
    steps: int | None = None
    """Solver steps; 60 for sde-dpmpp-2m and ddpm, 64 and 256 for medforj-2025 and medforj-2026, 4 for flow-map, else 20."""
    sampler: SamplerWord | None = None
    """Solver; sde-dpmpp-2m by default, which was chosen by eye (see the model card; deterministic ones need a third of the
    steps), and for a distilled model the one it was made for: flow-map jumps, one evaluation a step.
    medforj-2025 and medforj-2026 repeat MedForJ's programs step by step."""
    grid: Literal["log-snr", "linear"] | None = None
    """Where the solver evaluates: even in log-SNR (default) or in time (default of heun)."""
    condition: tuple[str, ...] = field(default=())
    """Covariates as NAME=VALUE in their own units; those not given stay free."""
    fresh: float = 0.0
    """Share of the noise that flow-map draws anew between two jumps, 0 to 1."""
    guidance: float = 1.0
    """Classifier-free guidance weight on the conditions; 1 is none and costs half."""
    batch_size: int | Literal["auto"] = 2
    """Rows the network sees at once, always filled up: a head has the same bytes alone and among others; another size
    changes the last bits only. auto: as many as fit into the memory that is free, by two evaluations measured."""
    processes: int = 1
    """Batches at once, each in a process of its own with a share of the cores; of several GPUs each takes the next. The same
    bytes as with one process of as many threads."""
    scheduler: str | None = None
    """Address of a dask scheduler, as tcp://10.0.0.1:8786, or its file: its workers draw, over a shared file system."""
    max_memory: str | None = None
    """Memory of the whole program, as 4GiB: MedForJ's networks then go in slabs, with maps on disk if need be, the stages
    of a cascade in blocks; the heads stay the same to rounding."""
    dtype: Literal["int16", "uint16", "float32"] = "int16"
    """Stored type; the intensity scale is fixed: background 0, brightest tissue 1000."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1, mps."""
    bids: bool = False
    """Lay the folder out as a BIDS derivative: each head in sub-synSEED/anat/."""
    overwrite: bool = False
    """Draw again what is already there."""
    dry_run: bool = False
    """Print the resolved options, the estimate of time and memory, and stop."""

    def run(self) -> None:
        self.draw("radiata-t1 sample")

    def draw(self, command: str) -> None:
        """Do it, as part of `command`, whose name goes into run.json."""
        from radiata_core.runs import Progress, Run, sha256
        from radiata_imaging.bids import write_derivative_description
        from radiata_imaging.scale_out import Workers, completed
        from radiata_t1.experiment.draw_many import Ready, drawn, here
        from radiata_t1.model.estimates import clock

        self._check()
        workers = Workers(self.processes, self.scheduler)
        ready = Ready.of(self)
        file, finer = ready.file, ready.finer
        for warning in ready.scale.outside(self.conditions()):
            print(f"{command}: warning: {warning}; the head is an extrapolation", file=sys.stderr)
        todo = [seed for seed in self.seeds if self.overwrite or not self._done(seed, ready.settings)]
        rows = ready.rows(self.batch_size, len(todo), self.processes)
        estimate = ready.estimate(rows)
        batches = -(-len(todo) // rows)
        seconds, mebibytes = estimate.seconds * batches, estimate.mebibytes
        if finer is not None:
            seconds, mebibytes = (
                seconds + len(todo) * finer.seconds(),
                mebibytes + finer.mebibytes(ready.tile),
            )
        at_once = min(self.processes, max(1, batches))
        evaluations = ready.sampler.evaluations(ready.row is not None)
        print(
            f"{len(todo)} of {len(self.seeds)} heads to draw, {evaluations} evaluations each"
            f"{'' if finer is None else ' and ' + finer.said}, about {clock(seconds / at_once)} and {mebibytes:.0f} MiB"
            f"{f' in each of {at_once} processes' if at_once > 1 else ''}"
        )
        if self.dry_run:
            for key, value in ready.settings.items():
                print(f"{key}: {value}")
            return
        options = {key: value for key, value in self.__dict__.items() if key not in ("overwrite", "dry_run")}
        groups = [tuple(todo[start : start + rows]) for start in range(0, len(todo), rows)]
        with Run(
            self.out,
            command,
            options,
            seed=list(self.seeds),
            data={file.name: sha256(file)},
            resume=True,
        ) as run:
            write_derivative_description(
                self.out,
                "radiata-t1",
                "Synthetic T1-weighted heads",
                "Every image is synthetic. Not for clinical use.",
            )
            _write_bundle(self.out, ready.loaded)
            with Progress(len(self.seeds), "draw", unit="head", start=len(self.seeds) - len(todo)) as bar:
                if workers.at_most(len(groups)).here:
                    for seed in here(groups, self, rows, ready):
                        run.log.write(seed=seed, file=self.place_of(seed).as_posix())
                        bar.update(1)
                else:

                    def noted(outcome: Any) -> None:
                        for seed in outcome.value or ():
                            run.log.write(seed=seed, file=self.place_of(seed).as_posix())

                    completed(
                        drawn, groups, (self, rows, ready.settings), workers=workers, bar=bar, size=len,
                        name=lambda seeds: f"seeds {' '.join(map(str, seeds))}", each=noted,
                    )  # fmt: skip
        print(self.out)

    def place_of(self, seed: int) -> Path:
        """Where the head of a seed goes, below the folder."""
        return Path(f"sub-syn{seed:04d}", "anat", file_name(seed)) if self.bids else Path(file_name(seed))

    def conditions(self) -> dict[str, float]:
        """Name to value of the covariates given.

        Raises:
            InputError: words of another form.
        """
        given = {}
        for text in self.condition:
            name, equals, value = text.partition("=")
            try:
                given[name] = float(value)
            except ValueError:
                equals = ""
            if not equals or name == "":
                raise InputError(f"expected conditions as NAME=VALUE, e.g. ventricles_ml=60; got {text!r}.")
        return given

    def _check(self) -> None:
        if not self.seeds:
            raise InputError("expected at least one seed; got none. Give --seeds 0 1 2.")
        if len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise InputError(f"expected different seeds of 0 or more; got {' '.join(map(str, self.seeds))}.")
        if not 0 <= self.fresh <= 1:
            raise InputError(f"expected --fresh in [0, 1]; got {self.fresh}.")
        if self.batch_size != "auto" and self.batch_size < 1:
            raise InputError(f"expected --batch-size of at least 1, or auto; got {self.batch_size}.")
        self.conditions()

    def model_name(self) -> str:
        """The model meant: the one named, or the default for so many steps."""
        from radiata_t1.model.weights import DEFAULT, FEW, FEW_STEPS

        few = self.steps is not None and self.steps <= FEW and self.sampler is None and self.guidance == 1.0
        return self.model or (FEW_STEPS if few else DEFAULT)

    def stages(self, loaded: "LoadedModel", device: str) -> "Finer | None":
        """The stages to draw finer with, on their device; None where the model's own heads are wanted."""
        from radiata_t1.experiment.draw_many import spec_of
        from radiata_t1.model.cascades import Finer, resolution_mm

        base = spec_of(loaded)
        word = self.resolution or ("1mm" if self.model is None else None)
        if word is None or resolution_mm(word) == base.spacing:
            if self.cascade_steps:
                raise InputError(
                    "expected --cascade-steps for heads that are drawn finer; got the model's own grid. Add --resolution."
                )
            return None
        finer = Finer.of(self.cascade, resolution_mm(word), base, self.cascade_steps)
        finer.prepare(device)
        return finer

    def solver(self, metadata: dict[str, Any]) -> "Sampler":
        """How the heads are drawn by a model with this metadata."""
        from radiata_t1.model.samplers import GridName, Sampler, SamplerName

        # A distilled model says what it was made for; what the command line says goes first.
        made_for = metadata.get("sampling", {}) if self.sampler is None else {}
        name = self.sampler or made_for.get("sampler", "sde-dpmpp-2m")
        grid = self.grid or made_for.get("grid")
        steps = self.steps if self.steps is not None else made_for.get("steps")
        return Sampler(
            SamplerName(name), steps, None if grid is None else GridName(grid), self.guidance, self.fresh
        )

    def settings(self, file: Path, sampler: "Sampler") -> dict[str, Any]:
        """What decides the voxels of a head besides its seed."""
        from radiata_core.runs import sha256

        return {
            "Model": file.stem,
            "ModelSHA256": sha256(file),
            "Sampler": sampler.name.value,
            "Steps": sampler.count,
            "Grid": "default" if sampler.grid is None else sampler.grid.value,
            "Guidance": self.guidance,
            **({"Fresh": self.fresh} if self.fresh else {}),
            "Conditions": self.conditions(),
            "DType": self.dtype,
        }

    def _done(self, seed: int, settings: dict[str, Any]) -> bool:
        from radiata_core.runs import read_json
        from radiata_imaging.nifti import sidecar_path

        path = self.out / self.place_of(seed)
        if not (path.is_file() and sidecar_path(path).is_file()):
            return False
        kept = read_json(sidecar_path(path))
        differing = [key for key, value in settings.items() if kept.get(key) != value]
        if differing:
            raise InputError(
                f"expected heads drawn with the same settings in {self.out}; {path.name} differs in {differing[0]} "
                f"({kept.get(differing[0])}, now {settings[differing[0]]}). Choose another --out or pass --overwrite."
            )
        return True


def _write_bundle(folder: Path, loaded: "LoadedModel") -> None:
    """MONAI's bundle metadata of the model that drew the heads."""
    from radiata_core.runs import write_json
    from radiata_t1.experiment.draw_many import spec_of
    from radiata_t1.model.bundle import metadata_of_model

    write_json(folder / "configs" / "metadata.json", metadata_of_model("radiata-t1", loaded, spec_of(loaded)))

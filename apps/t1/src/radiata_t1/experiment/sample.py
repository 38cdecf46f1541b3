"""`radiata-t1 sample`: heads from seeds, one file a seed, resumable."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from radiata_core.errors import InputError

if TYPE_CHECKING:
    import torch

    from radiata_core.checkpoint import LoadedModel
    from radiata_imaging.preprocess import PreprocessSpec
    from radiata_t1.data.covariates import CovariateScale
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
    """The stages that draw finer: a shipped cascade, a file, or the runs of train --stage, coarsest first."""
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
    batch_size: int = 2
    """Rows the network sees at once, always filled up: a head has the same bytes alone and among others; another size
    changes the last bits only."""
    max_memory: str | None = None
    """Memory of the whole program, as 4GiB: MedForJ's networks then go in slabs, with maps on disk if need be, the stages
    of a cascade in blocks; the heads stay the same to rounding."""
    dtype: Literal["int16", "uint16", "float32"] = "int16"
    """Stored type; the intensity scale is fixed: background 0, brightest tissue 1000."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1, mps."""
    overwrite: bool = False
    """Draw again what is already there."""
    dry_run: bool = False
    """Print the resolved options, the estimate of time and memory, and stop."""

    def run(self) -> None:
        self.draw("radiata-t1 sample")

    def draw(self, command: str) -> None:
        """Do it, as part of `command`, whose name goes into run.json."""
        import torch

        from radiata_core.checkpoint import load_model
        from radiata_core.runs import Progress, Run, sha256
        from radiata_t1.data.covariates import CovariateScale
        from radiata_t1.model.estimates import clock, estimate_of
        from radiata_t1.model.memory import limit_memory
        from radiata_t1.model.weights import find_model

        conditions = self._conditions()
        self._check()
        file = find_model(self._model())
        loaded = load_model(file)
        scale = CovariateScale.from_metadata(loaded.metadata)
        sampler = self._sampler(loaded.metadata)
        finer = self._finer(loaded)
        denoiser: Any = loaded.denoiser.eval().to(torch.device(self.device))
        if torch.device(self.device).type == "cpu":
            # oneDNN's channels-last kernels train and sample about three times faster than its defaults on one thread.
            denoiser.network.to(memory_format=torch.channels_last_3d)
        sampler.check(denoiser)
        tile = finer.tile_for(self.max_memory) if finer is not None and self.max_memory is not None else 0
        if self.max_memory is not None and finer is None:
            limit_memory(denoiser, self.max_memory)
        row = torch.from_numpy(scale.row(conditions)) if conditions else None
        for warning in scale.outside(conditions):
            print(f"{command}: warning: {warning}; the head is an extrapolation", file=sys.stderr)
        settings = self._settings(file, conditions, sampler) | ({} if finer is None else finer.settings)
        todo = [seed for seed in self.seeds if self.overwrite or not self._done(seed, settings)]
        joint = hasattr(denoiser, "modalities")
        estimate = estimate_of(
            sampler,
            denoiser,
            _event(loaded),
            self.batch_size,
            _covariates(None if joint else row, 1, self.device),
        )
        batches = -(-len(todo) // self.batch_size)
        seconds, mebibytes = estimate.seconds * batches, estimate.mebibytes
        if finer is not None:
            seconds, mebibytes = seconds + len(todo) * finer.seconds(), mebibytes + finer.mebibytes(tile)
        print(
            f"{len(todo)} of {len(self.seeds)} heads to draw, {sampler.evaluations(row is not None)} evaluations each"
            f"{'' if finer is None else ' and ' + finer.said}, about {clock(seconds)} and {mebibytes:.0f} MiB"
        )
        if self.dry_run:
            for key, value in settings.items():
                print(f"{key}: {value}")
            return
        options = {key: value for key, value in self.__dict__.items() if key not in ("overwrite", "dry_run")}
        with Run(
            self.out,
            command,
            options,
            seed=list(self.seeds),
            data={file.name: sha256(file)},
            resume=True,
        ) as run:
            _write_description(self.out)
            _write_bundle(self.out, loaded)
            with Progress(len(self.seeds), "draw", unit="head", start=len(self.seeds) - len(todo)) as bar:
                for start in range(0, len(todo), self.batch_size):
                    seeds = todo[start : start + self.batch_size]
                    # A kernel may round differently for another number of rows: the last batch is filled up.
                    rows = seeds + seeds[-1:] * (self.batch_size - len(seeds))
                    heads, values = _draw(sampler, denoiser, rows, loaded, row, self.device)
                    for place, seed in enumerate(seeds):
                        more = {} if values is None else {"Covariates": _named(scale, values[place])}
                        head, spec = heads[place], _spec(loaded)
                        if finer is not None:
                            head, spec = finer(head, seed, tile), finer.spec
                        self._write(seed, head, spec, settings | more, sampler)
                        run.log.write(seed=seed, file=file_name(seed))
                        bar.update(1)
        print(self.out)

    def _conditions(self) -> dict[str, float]:
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
        if self.batch_size < 1:
            raise InputError(f"expected --batch-size of at least 1; got {self.batch_size}.")

    def _model(self) -> str:
        """The model meant: the one named, or the default for so many steps."""
        from radiata_t1.model.weights import DEFAULT, FEW, FEW_STEPS

        few = self.steps is not None and self.steps <= FEW and self.sampler is None and self.guidance == 1.0
        return self.model or (FEW_STEPS if few else DEFAULT)

    def _finer(self, loaded: "LoadedModel") -> "Finer | None":
        """The stages to draw finer with; None where the model's own heads are wanted."""
        from radiata_t1.model.cascades import Finer, resolution_mm

        base = _spec(loaded)
        word = self.resolution or ("1mm" if self.model is None else None)
        if word is None or resolution_mm(word) == base.spacing:
            return None
        finer = Finer.of(self.cascade, resolution_mm(word), base)
        finer.prepare(self.device)
        return finer

    def _sampler(self, metadata: dict[str, Any]) -> "Sampler":
        from radiata_t1.model.samplers import GridName, Sampler, SamplerName

        # A distilled model says what it was made for; what the command line says goes first.
        made_for = metadata.get("sampling", {}) if self.sampler is None else {}
        name = self.sampler or made_for.get("sampler", "sde-dpmpp-2m")
        grid = self.grid or made_for.get("grid")
        steps = self.steps if self.steps is not None else made_for.get("steps")
        return Sampler(
            SamplerName(name), steps, None if grid is None else GridName(grid), self.guidance, self.fresh
        )

    def _settings(self, file: Path, conditions: dict[str, float], sampler: "Sampler") -> dict[str, Any]:
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
            "Conditions": conditions,
            "DType": self.dtype,
        }

    def _done(self, seed: int, settings: dict[str, Any]) -> bool:
        from radiata_core.runs import read_json
        from radiata_imaging.nifti import sidecar_path

        path = self.out / file_name(seed)
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

    def _write(
        self,
        seed: int,
        head: "torch.Tensor",
        spec: "PreprocessSpec",
        settings: dict[str, Any],
        sampler: "Sampler",
    ) -> None:
        from importlib.metadata import version

        from radiata_imaging.nifti import Intensity, write_volume
        from radiata_imaging.preprocess import canonical_affine
        from radiata_imaging.volume import Volume

        volume = Volume(head.numpy(), canonical_affine(spec))
        write_volume(
            self.out / file_name(seed),
            volume,
            description=f"synthetic, not for clinical use; radiata-t1 seed {seed}",
            dtype=self.dtype,
            intensity=Intensity(),
            sidecar={
                "SyntheticImage": True,
                "NotForClinicalUse": True,
                "Modality": "MR",
                "Seed": seed,
                **settings,
                "BatchRows": self.batch_size,
                "Evaluations": sampler.evaluations(bool(settings["Conditions"])),
                "Sources": [],
                "GeneratedBy": [{"Name": "radiata-t1", "Version": version("radiata-t1")}],
            },
        )


def _spec(loaded: "LoadedModel") -> "PreprocessSpec":
    """The grid a model draws on."""
    from radiata_imaging.preprocess import PreprocessSpec

    try:
        sizes, shape = loaded.metadata["voxel_size_mm"], loaded.metadata["shape"]
        return PreprocessSpec(loaded.metadata.get("axcodes", "LPS"), float(sizes[0]), tuple(shape))
    except (KeyError, IndexError, TypeError):
        raise InputError(
            "expected a model with voxel_size_mm and shape in its .json; got none. Train or convert it with radiata-t1."
        ) from None


def _event(loaded: "LoadedModel") -> tuple[int, ...]:
    return (getattr(loaded.denoiser, "latent", 1), *_spec(loaded).shape)


def _named(scale: "CovariateScale", row: "torch.Tensor") -> dict[str, float]:
    """Standardised covariates in their own units, by name."""
    units = zip(scale.names, row.tolist(), scale.mean, scale.sd, strict=True)
    return {name: round(value * sd + mean, 4) for name, value, mean, sd in units}


def _covariates(row: "torch.Tensor | None", count: int, device: str) -> dict[str, Any]:
    return {} if row is None else {"covariates": row.to(device).expand(count, -1)}


def _draw(
    sampler: "Sampler",
    denoiser: Any,
    seeds: list[int],
    loaded: "LoadedModel",
    row: "torch.Tensor | None",
    device: str,
) -> "tuple[torch.Tensor, torch.Tensor | None]":
    """Heads `(n, x, y, z)` in [-1, 1] on the CPU, and the covariates drawn with them `(n, K)`, of a joint model."""
    import torch

    values = None
    with torch.inference_mode():
        if hasattr(denoiser, "modalities"):
            from radiata_t1.model.jointly import draw

            heads, values = draw(denoiser, sampler, seeds, _event(loaded)[1:], row)
        else:
            heads = sampler(
                denoiser, seeds, _event(loaded), device=device, **_covariates(row, len(seeds), device)
            )
    return heads[:, 0].float().clamp(-1.0, 1.0).cpu(), values


def _write_bundle(folder: Path, loaded: "LoadedModel") -> None:
    """MONAI's bundle metadata of the model that drew the heads."""
    from importlib.metadata import version

    from radiata_core.runs import write_json
    from radiata_t1.model.bundle import bundle_metadata

    spec = _spec(loaded)
    metadata = bundle_metadata(
        name="radiata-t1",
        version=version("radiata-t1"),
        description="Synthetic T1-weighted heads drawn by a diffusion or flow model in voxel space.",
        shape=spec.shape,
        spacing=(spec.spacing,) * 3,
        prediction=str(loaded.metadata.get("prediction", "unknown")),
        noise_level=(-8.0, 8.0),
        axcodes=spec.axcodes,
        covariates=loaded.metadata.get("covariates", {}).get("names", ()),
        extra={"model_sha256": loaded.sha256},
    )
    write_json(folder / "configs" / "metadata.json", metadata)


def _write_description(folder: Path) -> None:
    """BIDS: what kind of data set this folder is."""
    from importlib.metadata import version

    from radiata_core.runs import write_json

    write_json(
        folder / "dataset_description.json",
        {
            "Name": "Synthetic T1-weighted heads",
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "radiata-t1", "Version": version("radiata-t1")}],
            "License": "Apache-2.0",
            "Description": "Every image is synthetic. Not for clinical use.",
        },
    )

"""Batches of seeds, drawn and written here or by other processes: what `sample` does for its heads.

A batch is an item of `radiata_imaging.scale_out`: (seeds, options, rows) → files. A process that works for others loads the
model once, checks that it is the one the command found, and keeps it for its next batches; of several GPUs worker i takes
number i modulo how many there are. A head depends on its seed and the number of rows alone, never on who draws it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from radiata_core.checkpoint import LoadedModel, load_model
from radiata_core.errors import InputError
from radiata_imaging.nifti import Intensity, write_volume
from radiata_imaging.preprocess import PreprocessSpec, canonical_affine
from radiata_imaging.scale_out import device_of_worker, warm
from radiata_imaging.volume import Volume
from radiata_t1.data.covariates import CovariateScale
from radiata_t1.model.batch_rows import SHARE, free_bytes, measured_bytes, rows_that_fit
from radiata_t1.model.cascades import Finer
from radiata_t1.model.estimates import Estimate, estimate_of
from radiata_t1.model.memory import limit_memory
from radiata_t1.model.samplers import Sampler
from radiata_t1.model.weights import find_model

if TYPE_CHECKING:
    from radiata_t1.experiment.sample import Sample

__all__ = ["Ready", "drawn", "here", "spec_of"]

_MOST = 64  # rows beyond which nothing is gained


@dataclass(frozen=True, eq=False)
class Ready:
    """What a process needs to draw, loaded and where it works.

    Attributes:
        file: The model's file.
        loaded: The model.
        scale: Its covariates.
        sampler: How it is drawn from.
        denoiser: The model's, on its device.
        finer: Stages that draw finer, or None.
        tile: Their blocks; 0 for the whole.
        row: Standardised conditions `(1, K)`, or None.
        device: Where.
        settings: What decides the voxels of a head besides its seed.
    """

    file: Path
    loaded: LoadedModel
    scale: CovariateScale
    sampler: Sampler
    denoiser: Any
    finer: Finer | None
    tile: int
    row: Tensor | None
    device: str
    settings: dict[str, Any]

    @classmethod
    def of(cls, verb: "Sample") -> "Ready":
        """All of it for the options of a command.

        Raises:
            InputError: no such model or stages, or options that do not fit them.
        """
        device = device_of_worker(verb.device)
        conditions = verb.conditions()
        file = find_model(verb.model_name())
        loaded = load_model(file)
        scale = CovariateScale.from_metadata(loaded.metadata)
        sampler = verb.solver(loaded.metadata)
        finer = verb.stages(loaded, device)
        denoiser: Any = loaded.denoiser.eval().to(torch.device(device))
        if torch.device(device).type == "cpu":
            # oneDNN's channels-last kernels train and sample about three times faster than its defaults on one thread.
            denoiser.network.to(memory_format=torch.channels_last_3d)
        sampler.check(denoiser)
        tile = finer.tile_for(verb.max_memory) if finer is not None and verb.max_memory is not None else 0
        if verb.max_memory is not None and finer is None:
            limit_memory(denoiser, verb.max_memory)
        row = torch.from_numpy(scale.row(conditions)) if conditions else None
        settings = verb.settings(file, sampler) | ({} if finer is None else finer.settings)
        return cls(file, loaded, scale, sampler, denoiser, finer, tile, row, device, settings)

    @property
    def event(self) -> tuple[int, ...]:
        """Shape of a row."""
        return (getattr(self.loaded.denoiser, "latent", 1), *spec_of(self.loaded).shape)

    @property
    def joint(self) -> bool:
        """Whether the model draws covariates with the heads."""
        return hasattr(self.denoiser, "modalities")

    def covariates(self, count: int) -> dict[str, Any]:
        """Conditions of so many rows, as keywords of a denoiser."""
        return {} if self.row is None else {"covariates": self.row.to(self.device).expand(count, -1)}

    def rows(self, asked: "int | Literal['auto']", heads: int, processes: int) -> int:
        """Rows of a batch.

        Args:
            asked: Their number, or auto: as many as fit.
            heads: How many are to be drawn.
            processes: That share the memory, and the heads.
        """
        if asked != "auto":
            return asked
        given = {} if self.joint else self.covariates(1)
        free = SHARE * free_bytes(torch.device(self.device)) / processes
        return rows_that_fit(
            lambda rows: measured_bytes(self.denoiser, self.event, given, rows),
            free,
            max(1, min(_MOST, -(-heads // processes))),
        )

    def estimate(self, rows: int) -> Estimate:
        """Time and memory of a batch."""
        given = {} if self.joint else self.covariates(1)
        return estimate_of(self.sampler, self.denoiser, self.event, rows, given)

    def heads(self, seeds: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Heads `(n, x, y, z)` in [-1, 1] on the CPU, and the covariates drawn with them `(n, K)`, of a joint model."""
        values = None
        with torch.inference_mode():
            if self.joint:
                from radiata_t1.model.jointly import draw

                heads, values = draw(self.denoiser, self.sampler, list(seeds), self.event[1:], self.row)
            else:
                heads = self.sampler(
                    self.denoiser, list(seeds), self.event, device=self.device, **self.covariates(len(seeds))
                )
        return heads[:, 0].float().clamp(-1.0, 1.0).cpu(), values


def here(groups: Sequence[Sequence[int]], verb: "Sample", rows: int, ready: Ready) -> Iterator[int]:
    """Draw and write batches one after the other; each seed when its file is there."""
    for seeds in groups:
        yield from _written(seeds, verb, rows, ready)


def drawn(seeds: Sequence[int], verb: "Sample", rows: int, settings: dict[str, Any]) -> tuple[int, ...]:
    """Draw and write one batch in a worker: the seeds.

    Args:
        seeds: At most `rows`.
        verb: The command's options.
        rows: Of the batch, which is filled up.
        settings: What the command found to decide the voxels.

    Raises:
        InputError: this machine has another model than the command.
    """
    like = replace(verb, out=Path(), seeds=(0,), processes=1, scheduler=None, overwrite=False, dry_run=False)
    ready = warm(_ready, like, str(settings["ModelSHA256"]), str(settings.get("CascadeSHA256")))
    if ready.settings != settings:
        raise InputError(
            f"expected the model {settings['Model']} of the command on all machines; got another one. Install one version."
        )
    return tuple(_written(seeds, verb, rows, ready))


def _ready(verb: "Sample", *checksums: str) -> Ready:
    """What is kept in a worker; the checksums tell a file that has changed from the one before."""
    return Ready.of(verb)


def _written(seeds: Sequence[int], verb: "Sample", rows: int, ready: Ready) -> Iterator[int]:
    # A kernel may round differently for another number of rows: the last batch is filled up.
    heads, values = ready.heads([*seeds, *[seeds[-1]] * (rows - len(seeds))])
    for place, seed in enumerate(seeds):
        more = {} if values is None else {"Covariates": _named(ready.scale, values[place])}
        head, spec = heads[place], spec_of(ready.loaded)
        if ready.finer is not None:
            head, spec = ready.finer(head, seed, ready.tile), ready.finer.spec
        _write(verb, seed, rows, Volume(head.numpy(), canonical_affine(spec)), ready, more)
        yield seed


def _write(verb: "Sample", seed: int, rows: int, volume: Volume, ready: Ready, more: dict[str, Any]) -> None:
    write_volume(
        verb.out / verb.place_of(seed),
        volume,
        description=f"synthetic, not for clinical use; radiata-t1 seed {seed}",
        dtype=verb.dtype,
        intensity=Intensity(),
        sidecar={
            "SyntheticImage": True,
            "NotForClinicalUse": True,
            "Modality": "MR",
            "Seed": seed,
            **ready.settings,
            **more,
            "BatchRows": rows,
            "Evaluations": ready.sampler.evaluations(bool(ready.settings["Conditions"])),
            "SkullStripped": False,
            "Sources": [],
            "GeneratedBy": [{"Name": "radiata-t1", "Version": version("radiata-t1")}],
        },
    )


def spec_of(loaded: LoadedModel) -> PreprocessSpec:
    """The grid a model draws on."""
    try:
        sizes, shape = loaded.metadata["voxel_size_mm"], loaded.metadata["shape"]
        return PreprocessSpec(loaded.metadata.get("axcodes", "LPS"), float(sizes[0]), tuple(shape))
    except (KeyError, IndexError, TypeError):
        raise InputError(
            "expected a model with voxel_size_mm and shape in its .json; got none. Train or convert it with radiata-t1."
        ) from None


def _named(scale: CovariateScale, row: Tensor) -> dict[str, float]:
    """Standardised covariates in their own units, by name."""
    units = zip(scale.names, row.tolist(), scale.mean, scale.sd, strict=True)
    return {name: round(value * sd + mean, 4) for name, value, mean, sd in units}

"""From a base head of 4 mm to one of 1 mm: the stages of `radiata_core.refinement` behind `sample --resolution`.

    base head, 4 mm ──box mean──► 16 mm ──stage──► 8 mm ──stage──► 4 mm ──stage──► 2 mm ──stage──► 1 mm

What the stages keep of the base is what their first grid shows of it: where everything is, and how large. What is smaller
they draw anew, since they were trained on cleaner and many more blocks than the base on heads.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from radiata_core.checkpoint import LoadedModel, load_model
from radiata_core.errors import InputError
from radiata_core.provenance import peak_memory_mib
from radiata_core.refinement import Cascade, Refinement, box_mean, refine
from radiata_core.specs import describe, rebuild
from radiata_imaging.preprocess import PreprocessSpec
from radiata_imaging.volume import times
from radiata_t1.model.memory import bytes_of
from radiata_t1.model.weights import find_model

__all__ = ["BRIGHTEST", "CASCADE", "Finer", "guided", "joined", "resolution_mm"]

CASCADE = "cascade-1mm"
"""The stages that `sample` takes when none are named."""

BRIGHTEST = 1.5
"""Largest value kept at 1 and 2 mm: 1 is the brightest of 4 mm, and small bright things lie above it."""


HALO = 32
"""Coarse voxels around a block that are computed with it; what the stages see of their surroundings."""

_PROBE, _TILE, _MAPS = 56, 16, 5.0


def resolution_mm(word: str) -> float:
    """Millimetres of a word such as 1mm."""
    return float(word.removesuffix("mm"))


def joined(models: Sequence[LoadedModel]) -> tuple[Cascade, dict[str, Any], str]:
    """One cascade of a file that holds one, or of the stages of several runs, with its metadata and checksum.

    A stage that says nothing of its sampling takes 4 evaluations and a third of the largest corruption of its training.

    Raises:
        InputError: another kind of model, or stages that do not follow one another.
    """
    first = models[0]
    if len(models) == 1 and isinstance(first.denoiser, Cascade):
        return first.denoiser, first.metadata, first.sha256
    spacings = []
    for model in models:
        if not isinstance(model.denoiser, Refinement) or "coarse_spacing_mm" not in model.metadata:
            raise InputError(
                f"expected one cascade, or stages that radiata-t1 train --stage made; got {type(model.denoiser).__name__}. "
                "Name them with --cascade, coarsest first."
            )
        spacings.append(float(model.metadata["coarse_spacing_mm"]))
    stages: list[Any] = [model.denoiser for model in models]
    ends = [spacing / stage.factor for spacing, stage in zip(spacings, stages, strict=True)]
    if any(abs(a - b) > 1e-3 for a, b in zip(ends, spacings[1:], strict=False)):
        raise InputError(
            f"expected each stage to begin where the one before ends; got starts of {times(spacings)} mm. "
            "Name them coarsest first."
        )
    sampling = [model.metadata.get("sampling", {}) for model in models]
    steps = [int(s.get("steps", 4)) for s in sampling]
    corruptions = [
        float(s.get("corruption", stage.corruption / 3)) for s, stage in zip(sampling, stages, strict=True)
    ]
    checksum = hashlib.sha256("".join(model.sha256 for model in models).encode()).hexdigest()
    stochastic = [bool(s.get("stochastic", False)) for s in sampling]
    return Cascade(stages, spacings[0], steps, corruptions, stochastic), dict(first.metadata), checksum


def guided(model: LoadedModel, worse: LoadedModel, weight: float) -> LoadedModel:
    """The stage of a run, guided by the denoiser of an earlier or smaller run of it (`denoisers.Autoguided`).

    Args:
        model: The run of a stage.
        worse: Another, told the same.
        weight: Of the guidance, 1 for none.

    Raises:
        InputError: models that are not stages told the same.
    """
    better, other = model.denoiser, worse.denoiser
    if (
        not isinstance(better, Refinement)
        or not isinstance(other, Refinement)
        or better.told_like != other.told_like
    ):
        raise InputError(
            "expected two runs of one stage, of the same factor, scale, corruption and positions; got others. "
            "Train the worse one with --init, or with the options of the better."
        )
    with torch.random.fork_rng(devices=[]):
        stage = rebuild(describe(better) | {"worse": describe(other.denoiser), "guidance": weight})
    stage.denoiser.load_state_dict(better.denoiser.state_dict())
    stage.worse.load_state_dict(other.denoiser.state_dict())
    note = {"sha256": worse.sha256, "step": worse.metadata.get("step"), "guidance": weight}
    return replace(model, denoiser=stage.eval(), metadata=model.metadata | {"worse": note})


@dataclass(frozen=True)
class Finer:
    """Stages and how far to go.

    Attributes:
        cascade: The stages.
        name: What they are called.
        metadata: What was stored with them.
        sha256: Checksum of the file, or of the files' checksums.
        spacing: Of the heads asked for, mm.
        base: Grid of the base heads.
    """

    cascade: Cascade
    name: str
    metadata: dict[str, Any]
    sha256: str
    spacing: float
    base: PreprocessSpec

    @classmethod
    def of(
        cls, names: Sequence[str], spacing: float, base: PreprocessSpec, steps: Sequence[int] = ()
    ) -> "Finer":
        """The stages called `names` for base heads on the grid `base`.

        Args:
            names: A cascade (shipped, a file, a run folder), or stages of one, coarsest first.
            spacing: Of the heads asked for, mm.
            base: Grid of the base heads.
            steps: Evaluations of each stage; none: those the stages come with.

        Raises:
            InputError: no such stages, another kind of model, a base of another grid, a spacing they do not make, not one
                number >= 1 a stage.
        """
        files = [find_model(name) for name in names]
        cascade, metadata, checksum = joined([load_model(file) for file in files])
        pool = cascade.spacing / base.spacing
        field = [n * base.spacing for n in base.shape]
        wanted = [float(n) for n in metadata.get("field_mm", field)]
        if abs(pool - round(pool)) > 1e-3 or round(pool) < 1 or field != wanted:
            raise InputError(
                f"expected a base model of {times(wanted)} mm at {cascade.spacing:g} mm or a whole fraction of it; got "
                f"{times(field)} mm at {base.spacing:g} mm. Drop --resolution, or --model."
            )
        if not any(abs(spacing - s) < 1e-3 for s in cascade.spacings()):
            made = ", ".join(f"{s:g}mm" for s in cascade.spacings())
            raise InputError(
                f"expected a resolution out of {made}; got {spacing:g}mm. {files[0].name} makes no other."
            )

        def listed(numbers: Sequence[int]) -> str:
            return " ".join(map(str, numbers))

        if steps and (len(steps) != len(cascade.steps) or min(steps) < 1):
            raise InputError(
                f"expected --cascade-steps of {len(cascade.steps)} numbers >= 1, one a stage; got {listed(steps)}. "
                f"They come with {listed(cascade.steps)}."
            )
        cascade.steps = tuple(steps) or cascade.steps
        name = "+".join(file.stem if len(files) == 1 else file.parent.name for file in files)
        return cls(cascade.eval(), name, metadata, checksum, spacing, base)

    @property
    def spec(self) -> PreprocessSpec:
        """The grid of the heads asked for."""
        x, y, z = (round(n * self.base.spacing / self.spacing) for n in self.base.shape)
        return PreprocessSpec(self.base.axcodes, self.spacing, (x, y, z))

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the voxels besides the base head and the seed."""
        made = [s for s in self.cascade.spacings() if s >= self.spacing * (1 - 1e-6)]
        return {
            "Cascade": self.name,
            "CascadeSHA256": self.sha256,
            "CascadeSteps": list(self.cascade.steps[: len(made)]),
            "CascadeCorruptions": list(self.cascade.corruptions[: len(made)]),
            "CascadeStochastic": list(self.cascade.stochastic[: len(made)]),
            "CascadeGuidances": [float(stage.guidance) for stage in list(self.cascade.stages)[: len(made)]],  # type: ignore[arg-type]
            "ResolutionMM": self.spacing,
        }

    @property
    def said(self) -> str:
        """What an estimate says of the stages."""
        return f"{'+'.join(map(str, self.settings['CascadeSteps']))} of its stages"

    def prepare(self, device: str) -> None:
        """Put the stages where they work, in the memory format that is fastest there."""
        self.cascade.to(torch.device(device))
        if torch.device(device).type == "cpu":
            self.cascade.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def seconds(self) -> float:
        """What one head takes, foretold by one evaluation of each stage, on the whole grid or a block of it."""
        total, device = 0.0, next(self.cascade.parameters()).device
        for (stage, spacing), steps in zip(self._made(), self.cascade.steps, strict=False):
            grid = [min(round(n * self.base.spacing / spacing), _PROBE) for n in self.base.shape]
            coarse = torch.zeros(1, 1, *grid, device=device)
            with torch.inference_mode():
                refine(stage, coarse, [0], steps=1, spacing=spacing)  # first calls choose kernels
                began = time.perf_counter()
                refine(stage, coarse, [0], steps=1, spacing=spacing)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
            total += steps * (time.perf_counter() - began) * self._voxels(spacing) / coarse.numel()
        return total

    def mebibytes(self, tile: int = 0) -> float:
        """What the largest stage takes besides the program, as the shipped one was seen to; in blocks with a tile."""
        stage, spacing = self._made()[-1]
        whole = self._voxels(spacing)
        block = min(whole, (tile + 2 * HALO) ** 3) if tile else whole
        widest = next(m.weight.shape[0] for m in stage.modules() if isinstance(m, torch.nn.Conv3d))
        # Fine grids of the whole: noise, state, what is found, the head; maps of a block: a few of the first level's width.
        return (4 * 8 * 6 * whole + 4 * widest * _MAPS * block) / 2**20

    def tile_for(self, text: str) -> int:
        """The largest tile with which the program keeps within a size of memory such as 2GiB; 0 where the whole does.

        Raises:
            InputError: not a size, or too little for the smallest tile.
        """
        free = bytes_of(text) / 2**20 - peak_memory_mib()["process"]
        if self.mebibytes() <= free:
            return 0
        fitting = [tile for tile in range(_TILE, 200, _TILE) if self.mebibytes(tile) <= free]
        if not fitting:
            least = peak_memory_mib()["process"] + self.mebibytes(_TILE)
            raise InputError(f"expected --max-memory of at least {least:.0f} MiB; got {text}. Allow more.")
        return fitting[-1]

    def _made(self) -> list[tuple[Any, float]]:
        """The stages that are used, each with the spacing it starts from."""
        starts = [self.cascade.spacing, *self.cascade.spacings()[:-1]]
        stages: list[Any] = list(self.cascade.stages)
        return [
            (stage, start)
            for stage, start in zip(stages, starts, strict=True)
            if start > self.spacing * 1.001
        ]

    def _voxels(self, spacing: float) -> float:
        """Coarse voxels of the whole field of view."""
        return float(torch.tensor(self.base.shape).prod()) * (self.base.spacing / spacing) ** 3

    def __call__(self, head: Tensor, seed: int, tile: int = 0) -> Tensor:
        """The fine head `(x, y, z)` of a base head `(x, y, z)` in [-1, 1] and its seed, on the CPU.

        Args:
            head: Base head.
            seed: Its seed.
            tile: Coarse voxels of a block along each axis, to save memory; 0 for the whole.
        """
        device = next(self.cascade.parameters()).device
        coarse = box_mean(head[None, None].to(device), round(self.cascade.spacing / self.base.spacing))
        with torch.inference_mode():
            fine = self.cascade(coarse, [seed], until=self.spacing, tile=tile, halo=HALO)
        return fine[0, 0].float().clamp(-1.0, BRIGHTEST).cpu()

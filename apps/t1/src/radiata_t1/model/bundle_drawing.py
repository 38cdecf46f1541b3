"""What runs in a MONAI bundle of ours: seeds in, synthetic heads as NIfTI files out.

`Draw` is the bundle's inferer, `DrawHeads` its evaluator; both are made from the bundle's `configs/inference.json`. A head
is the same as that of `radiata-t1 sample` with the same model, sampler and seed, drawn alone.
"""

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from radiata_core.checkpoint import LoadedModel
from radiata_imaging.monai_bundle import write_bundle
from radiata_imaging.nifti import Intensity, write_volume
from radiata_imaging.preprocess import PreprocessSpec, canonical_affine
from radiata_imaging.volume import Volume
from radiata_t1.model.bundle import metadata_of_model
from radiata_t1.model.samplers import GridName, Sampler, SamplerName

__all__ = ["Draw", "DrawHeads", "write_head_bundle"]


class Draw:
    """Draws a head from a seed: the inferer of a bundle.

    Args:
        sampler: Name of the solver.
        steps: Of it; None: its own number.
        grid: Of times; None: its own.
        shape: Voxels of a head.
    """

    def __init__(self, sampler: str, steps: int | None, grid: str | None, shape: Iterable[int]) -> None:
        self.sampler = Sampler(SamplerName(sampler), steps, None if grid is None else GridName(grid))
        x, y, z = shape
        self.shape = (x, y, z)

    def __call__(self, seed: int, network: torch.nn.Module, device: str | torch.device = "cpu") -> Tensor:
        """The head of a seed, (x, y, z) in [-1, 1], on the CPU."""
        model: Any = network
        event = (getattr(model, "latent", 1), *self.shape)
        with torch.inference_mode():
            return self.sampler(model, [seed], event, device=device)[0, 0].float().clamp(-1.0, 1.0).cpu()


class DrawHeads:
    """Draws the head of every seed of a data set and writes it: the evaluator of a bundle.

    Args:
        network: With its weights.
        inferer: Draws.
        dataset: Items with `seed`.
        device: Where.
        output_dir: Where the files go.
        spacing: Voxel edge, mm.
        axcodes: Of the axes.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        inferer: Draw,
        dataset: Any,
        device: str | torch.device,
        output_dir: str,
        spacing: float,
        axcodes: str = "LPS",
    ) -> None:
        self.network, self.inferer, self.dataset = network, inferer, dataset
        self.device, self.output_dir = device, Path(output_dir)
        self.spec = PreprocessSpec(axcodes, spacing, self.inferer.shape)

    def run(self) -> list[Path]:
        """The files."""
        return [self._written(int(item["seed"])) for item in self.dataset]

    def _written(self, seed: int) -> Path:
        head = self.inferer(seed, self.network, self.device)
        return write_volume(
            self.output_dir / f"sub-syn{seed:04d}_desc-synthetic_T1w.nii.gz",
            Volume(head.numpy(), canonical_affine(self.spec)),
            description=f"synthetic, not for clinical use; radiata-t1 seed {seed}",
            dtype="int16",
            intensity=Intensity(),
            sidecar={
                "SyntheticImage": True,
                "NotForClinicalUse": True,
                "Seed": seed,
                "GeneratedBy": [{"Name": "radiata-t1", "Version": version("radiata-t1")}],
            },
        )


def write_head_bundle(
    folder: Path, name: str, loaded: LoadedModel, spec: PreprocessSpec, sampler: Sampler
) -> Path:
    """A bundle of a model; its folder.

    Args:
        folder: Made if absent; the files of a bundle that is there are replaced.
        name: Of the model.
        loaded: The model.
        spec: Its grid.
        sampler: How it is drawn from.
    """
    drawn: Mapping[str, Any] = {
        "_target_": f"{__name__}.Draw",
        "sampler": sampler.name.value,
        "steps": sampler.count,
        "grid": None if sampler.grid is None else sampler.grid.value,
        "shape": list(spec.shape),
    }
    work = {
        "_target_": f"{__name__}.DrawHeads",
        "network": "@network",
        "inferer": "@inferer",
        "dataset": "@dataset",
        "device": "@device",
        "output_dir": "@output_dir",
        "spacing": spec.spacing,
        "axcodes": spec.axcodes,
    }
    data = {"_target_": "monai.data.Dataset", "data": "$[{'seed': seed} for seed in @seeds]"}
    return write_bundle(
        folder,
        loaded.denoiser,
        metadata_of_model(name, loaded, spec),
        dataset=data,
        inferer=drawn,
        evaluator=work,
        more={"seeds": [0]},
        imports=(__name__,),
    )

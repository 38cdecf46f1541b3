"""`radiata-t1 convert`: released weights of MedForJ or MONAI GenerativeModels become a model of ours.

source file → tensors under our names → network, checked name by name and shape by shape → OUT/model.safetensors with
OUT/model.json (which rebuilds it), OUT/configs/metadata.json (MONAI bundle) and OUT/run.json (where it came from).

With `--to` a model of ours becomes a MONAI bundle, or a head that was drawn a DICOM series (`exporting`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

__all__ = ["Convert"]


@dataclass(frozen=True)
class Convert:
    """Turn released weights (MedForJ, MONAI GenerativeModels) into a model that `sample` can use; models and heads go out.

    Nothing in the file is executed: pickles that hold more than tensors are refused.

    For example: radiata-t1 convert MedForj-weights-rflow_ema.safetensors --out medforj-rflow

    For example: radiata-t1 convert rflow-4mm --to monai-bundle --out bundles/rflow-4mm

    For example: radiata-t1 convert heads/sub-syn0000_desc-synthetic_T1w.nii.gz --to dicom-series --out dicom
    """

    source: Annotated[Path, tyro.conf.Positional]
    """The weights: .safetensors or .pt (a state dictionary, or one under "model", "ema" or "state_dict"); for a bundle a
    model as in `sample`; for DICOM a head that was drawn."""

    out: Path
    """Folder for the model, the bundle or the slices; made if absent."""

    to: Literal["model", "monai-bundle", "dicom-series", "dicom-pictures"] = "model"
    """model: one that `sample` can use; monai-bundle: what monai.bundle loads and runs; dicom-series: an image a slice, of
    no patient; dicom-pictures: the same with the statement burned in."""

    prediction: Literal["sample", "epsilon", "velocity", "flow", "rflow"] | None = None
    """What the network predicts (clean = sample, noise = epsilon). Default: what the file's name says."""

    norm_eps: float | None = None
    """Epsilon of the normalisations, > 0. Default: 1e-5 for files of MedForJ's fork of MONAI, else 1e-6."""

    architecture: Path | None = None
    """JSON file of arguments that differ from MedForJ's network, e.g. {"channels": [32, 64, 128]}."""

    shape: tuple[int, int, int] = (192, 224, 192)
    """Voxels along x, y, z of what the network draws. Default: MedForJ's."""

    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Size of a voxel along x, y, z, mm. Default: MedForJ's."""

    overwrite: bool = False
    """Replace a model that is already in the folder."""

    def run(self) -> None:
        from radiata_core.checkpoint import save_model
        from radiata_core.files import sha256, write_json
        from radiata_core.nets.medforj import MEDFORJ
        from radiata_core.runs import Run
        from radiata_t1.model.bundle import INTENDED_USE
        from radiata_t1.model.medforj_weights import (
            STRATEGIES,
            medforj_denoiser,
            read_released,
            strategy_named_in,
        )

        if self.to != "model":
            self._export()
            return
        self._check()
        architecture = dict(MEDFORJ) | self._difference()
        strategy = STRATEGIES[self.prediction] if self.prediction else strategy_named_in(self.source.name)
        weights = read_released(self.source)
        denoiser = medforj_denoiser(weights, strategy, self.norm_eps, architecture)
        made: Any = denoiser.network.options
        checksum = sha256(self.source)
        told = {
            "file": self.source.name,
            "bytes": self.source.stat().st_size,
            "sha256": checksum,
            "scheme": weights.scheme,
            "branch": weights.branch,
            "prediction": strategy.name,
            "prediction_from": "option" if self.prediction else "file name",
            "norm_eps": made["norm_eps"],
            "norm_eps_from": "key names" if self.norm_eps is None else "option",
        }
        with Run(
            self.out, "radiata-t1 convert", self, data={self.source.name: checksum}, overwrite=self.overwrite
        ):
            metadata = {
                "source": told,
                "prediction": strategy.name,
                "voxel_size_mm": self.spacing,
                "shape": self.shape,
                "axcodes": "LPS",
            }
            metadata |= {"value_range": (-1.0, 1.0), "intended_use": INTENDED_USE}
            save_model(self.out / "model.safetensors", denoiser, metadata=metadata)
            bundle = self._bundle(made, strategy.name, told)
            write_json(self.out / "configs" / "metadata.json", bundle)
        size = sum(parameter.numel() for parameter in denoiser.parameters())
        print(f"{size:,} parameters, {strategy.name} prediction, names of {weights.scheme}: {self.out}")

    def _export(self) -> None:
        from radiata_core.runs import sole_writer
        from radiata_t1.experiment.exporting import export_bundle, export_head

        with sole_writer(self.out):
            if self.to == "monai-bundle":
                export_bundle(str(self.source), self.out, self.overwrite)
            else:
                export_head(self.source, self.out, self.overwrite, picture=self.to == "dicom-pictures")
        print(self.out)

    def _check(self) -> None:
        from radiata_core.errors import InputError

        if self.norm_eps is not None and not 0 < self.norm_eps < 1:
            raise InputError(f"expected --norm-eps in (0, 1); got {self.norm_eps:g}. It is 1e-5 or 1e-6.")
        if not self.source.is_file():
            raise InputError(f"expected a weights file; got {self.source}, which is no file. Check the path.")

    def _difference(self) -> dict[str, Any]:
        from radiata_core.errors import InputError
        from radiata_core.files import read_json
        from radiata_core.nets.medforj import MedForJUNet

        if self.architecture is None:
            return {}
        given = read_json(self.architecture)
        known = MedForJUNet.__init__.__annotations__
        if not isinstance(given, Mapping) or not set(given) <= set(known) - {"return"}:
            raise InputError(
                f"expected an object with some of {', '.join(sorted(set(known) - {'return'}))} in {self.architecture}; "
                f"got {sorted(given) if isinstance(given, Mapping) else type(given).__name__}. Correct the file."
            )
        return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}

    def _bundle(
        self, options: Mapping[str, Any], prediction: str, source: Mapping[str, Any]
    ) -> dict[str, Any]:
        from radiata_t1.model.bundle import bundle_metadata

        return bundle_metadata(
            name="MedForJ T1-weighted head",
            version="0.1.0",
            description="MedForJ's network for whole heads in voxel space, converted from the authors' release.",
            shape=self.shape,
            spacing=self.spacing,
            prediction=prediction,
            noise_level=(0.0, 1000.0 if prediction == "rflow" else 999.0),
            network={"_target_": "radiata_core.nets.medforj.MedForJUNet", **options},
            authors="The authors of MedForJ (weights); radiata (conversion)",
            copyright="See the licence of the released weights",
            data_source="38 public collections of T1-weighted heads, see the publication",
            references=("MedForJ, 2025, https://arxiv.org/abs/2510.26834",),
            extra={"source": dict(source)},
        )

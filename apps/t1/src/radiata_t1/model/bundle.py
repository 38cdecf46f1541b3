"""What MONAI wants to know of a model: the metadata of a bundle.

A MONAI bundle is a folder whose `configs/metadata.json` says in a fixed form what a network takes and gives, what it is
for, and with which versions it was made. Programs that know bundles (MONAI Deploy, MONAI Label, the model zoo) can so show
and check a model of ours. Three things a person needs are said there as well: the size of a voxel in mm, the range of the
values, and that no clinical decision may rest on it.

References:
    MONAI Bundle Specification. https://docs.monai.io/en/latest/mb_specification.html
"""

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

from radiata_core.checkpoint import LoadedModel
from radiata_core.errors import InputError
from radiata_core.files import plain
from radiata_imaging.preprocess import PreprocessSpec

__all__ = ["INTENDED_USE", "REQUIRED_KEYS", "bundle_metadata", "metadata_of_model"]

SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
)
INTENDED_USE = "Research and teaching: draws synthetic T1-weighted head images. Not for clinical use."
REQUIRED_KEYS = (
    *("version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version"),
    *("task", "description", "authors", "copyright", "network_data_format"),
)


def bundle_metadata(
    *,
    name: str,
    version: str,
    description: str,
    shape: Sequence[int],
    spacing: Sequence[float],
    prediction: str,
    noise_level: tuple[float, float],
    value_range: tuple[float, float] = (-1.0, 1.0),
    axcodes: str = "LPS",
    covariates: Sequence[str] = (),
    network: Mapping[str, Any] | None = None,
    authors: str = "The authors of radiata",
    copyright: str = "Apache-2.0",
    data_source: str = "",
    references: Sequence[str] = (),
    changelog: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Content of a bundle's `configs/metadata.json`, plain JSON.

    Args:
        name: Name of the model.
        version: Version of the model, e.g. "0.1.0".
        description: A sentence or two about it.
        shape: Voxels along x, y, z of what it draws, > 0.
        spacing: Size of a voxel along x, y, z, mm, > 0.
        prediction: What the network's output means, e.g. "velocity".
        noise_level: Smallest and largest noise level the network is given.
        value_range: Intensities of a drawn head, before any are mapped to a file.
        axcodes: Directions in which the voxel axes run, e.g. LPS: to the left, to the back, up.
        covariates: Names of the covariates, in order.
        network: MONAI's `_target_` and arguments that make the network, if it is to be found there.
        authors: Who made the weights.
        copyright: Their licence.
        data_source: What they were trained on.
        references: Publications.
        changelog: Version → what changed.
        extra: Further entries, e.g. provenance.

    Raises:
        InputError: shape, spacing or a range does not make sense.
    """
    _check(shape, spacing, value_range)
    tensor = {
        "type": "image",
        "modality": "MR",
        "num_channels": 1,
        "spatial_shape": list(shape),
        "dtype": "float32",
        "is_patch_data": False,
    }
    inputs: dict[str, Any] = {
        "image": tensor
        | {"format": "magnitude", "value_range": [], "channel_def": {"0": "T1-weighted head, noisy"}},
        "noise_level": _row("timesteps", ["noise level"], list(noise_level)),
    }
    if covariates:
        inputs["covariates"] = _row("covariates", covariates, [])
    meaning = {"0": f"prediction of type {prediction}"}
    metadata = {
        "schema": SCHEMA,
        "version": version,
        "changelog": dict(changelog or {version: "exported by radiata-t1"}),
        "monai_version": importlib.metadata.version("monai"),
        "pytorch_version": importlib.metadata.version("torch"),
        "numpy_version": importlib.metadata.version("numpy"),
        "required_packages_version": {
            package: importlib.metadata.version(package)
            for package in ("nibabel", "safetensors", "radiata-t1")
        },
        "name": name,
        "task": "Synthesis of T1-weighted head MRI",
        "description": description,
        "authors": authors,
        "copyright": copyright,
        "data_source": data_source,
        "data_type": "nibabel",
        "image_classes": f"T1-weighted head, {' x '.join(f'{size:g}' for size in spacing)} mm, axes {axcodes}",
        "intended_use": INTENDED_USE,
        "references": list(references),
        "network_data_format": {
            "inputs": inputs,
            "outputs": {"pred": tensor | {"format": "magnitude", "value_range": [], "channel_def": meaning}},
        },
        "generated_image": {
            "voxel_size_mm": [float(size) for size in spacing],
            "spatial_shape": list(shape),
            "axcodes": axcodes,
            "value_range": list(value_range),
            "dtype": "float32",
            "synthetic": True,
        },
        **({"network_def": dict(network)} if network else {}),
        **(extra or {}),
    }
    return plain(metadata)


def _row(kind: str, names: Sequence[str], value_range: list[float]) -> dict[str, Any]:
    return {
        "type": "vector",
        "format": kind,
        "modality": "n/a",
        "num_channels": len(names),
        "spatial_shape": [],
        "dtype": "float32",
        "value_range": value_range,
        "is_patch_data": False,
        "channel_def": {str(i): name for i, name in enumerate(names)},
    }


def _check(shape: Sequence[int], spacing: Sequence[float], value_range: tuple[float, float]) -> None:
    if len(shape) != 3 or len(spacing) != 3 or min(shape) < 1 or not min(spacing) > 0:
        raise InputError(
            f"expected three sizes > 0 and three spacings > 0 mm; got {tuple(shape)} and {tuple(spacing)}. "
            "State the grid that the model draws on."
        )
    if not value_range[0] < value_range[1]:
        raise InputError(f"expected a range of values, low < high; got {value_range}. MedForJ's is (-1, 1).")


def metadata_of_model(name: str, loaded: LoadedModel, spec: PreprocessSpec) -> dict[str, Any]:
    """`bundle_metadata` of one of our models of heads.

    Args:
        name: What it is called.
        loaded: The model.
        spec: Its grid.
    """
    return bundle_metadata(
        name=name,
        version=importlib.metadata.version("radiata-t1"),
        description="Synthetic T1-weighted heads drawn by a diffusion or flow model in voxel space.",
        shape=spec.shape,
        spacing=(spec.spacing,) * 3,
        prediction=str(loaded.metadata.get("prediction", "unknown")),
        noise_level=(-8.0, 8.0),
        axcodes=spec.axcodes,
        covariates=loaded.metadata.get("covariates", {}).get("names", ()),
        extra={"model_sha256": loaded.sha256},
    )

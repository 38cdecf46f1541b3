"""The whole-head segmenter as a MONAI bundle: scans in, label maps with names, colours and a card out.

`SegmentScan` is the bundle's inferer, `SegmentScans` its evaluator; both are made from its `configs/inference.json`.
A label map is the one of `radiata-medical segment` with the same model and one pass.
"""

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from radiata_core.checkpoint import LoadedModel, load_model
from radiata_core.errors import InputError
from radiata_imaging.monai_bundle import write_bundle
from radiata_medical.data.scans import case_of, output_path, read_scan
from radiata_medical.experiment.outputs import APPLICATION, Facts, sources_of, write_labels
from radiata_medical.experiment.segmenting_models import Segmented, network_segmenter
from radiata_medical.model.segmenter import SegmenterOptions
from radiata_medical.model.segmenter_network import SegmenterNetwork
from radiata_medical.model.weights import find_model

__all__ = ["SegmentScan", "SegmentScans", "write_segmenter_bundle"]


class SegmentScan:
    """Segments the scan of a file: the inferer of a bundle.

    Args:
        metadata: Of the model: table of labels and temperature, as far as it has them.
        window: Longest edge of a window, voxels.
    """

    def __init__(self, metadata: Mapping[str, Any], window: int = 128) -> None:
        self.metadata, self.window = dict(metadata), window

    def __call__(self, scan: Any, network: torch.nn.Module, device: str | torch.device = "cpu") -> Segmented:
        """What is found in a scan, a `Volume`."""
        temperature = float(self.metadata.get("temperature", 1.0))
        options = SegmenterOptions(window=self.window, temperature=temperature, device=str(device))
        loaded = LoadedModel(network, self.metadata, "")
        return network_segmenter([("network", loaded)], options).segment(scan)


class SegmentScans:
    """Segments every scan of a data set and writes its label map: the evaluator of a bundle.

    Args:
        network: With its weights.
        inferer: Segments.
        dataset: Items with `image`, the path of a scan.
        device: Where.
        output_dir: Where the files go.
        sha256: Of the weights, for the cards.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        inferer: SegmentScan,
        dataset: Any,
        device: str | torch.device,
        output_dir: str,
        sha256: str,
    ) -> None:
        self.network, self.inferer, self.dataset = network, inferer, dataset
        self.device, self.output_dir, self.sha256 = device, Path(output_dir), sha256
        loaded = LoadedModel(network, inferer.metadata, sha256)
        self.names = network_segmenter([("network", loaded)], SegmenterOptions()).table.names

    def run(self) -> list[Path]:
        """The label maps."""
        return [self._written(Path(item["image"])) for item in self.dataset]

    def _written(self, path: Path) -> Path:
        scan = read_scan(path)
        found = self.inferer(scan, self.network, self.device).segmentation
        facts = Facts(
            f"{APPLICATION} bundle", "segmentation", sources_of(path), {"network": self.sha256},
            figures={"VolumesMl": found.volumes_ml, "Quality": found.quality}, generated=False,
        )  # fmt: skip
        out = output_path(self.output_dir, case_of(path, path.parent), "dseg")
        return write_labels(out, found.codes, scan, facts, self.names)


def write_segmenter_bundle(folder: Path, name: str) -> Path:
    """A bundle of a segmenter; its folder.

    Args:
        folder: Made if absent; the files of a bundle that is there are replaced.
        name: A shipped model's name, a file or a run's folder.

    Raises:
        InputError: no such model, or one of another kind.
    """
    file = find_model(name)
    loaded = load_model(file)
    if not isinstance(loaded.denoiser, SegmenterNetwork):
        raise InputError(
            f"expected a segmenter; got {name}, a {type(loaded.denoiser).__name__}. Name another."
        )
    kept = {key: loaded.metadata[key] for key in ("labels", "temperature") if key in loaded.metadata}
    inferer = {"_target_": f"{__name__}.SegmentScan", "metadata": kept, "window": 128}
    work = {
        "_target_": f"{__name__}.SegmentScans",
        "network": "@network",
        "inferer": "@inferer",
        "dataset": "@dataset",
        "device": "@device",
        "output_dir": "@output_dir",
        "sha256": loaded.sha256,
    }
    data = {"_target_": "monai.data.Dataset", "data": "$[{'image': path} for path in @images]"}
    return write_bundle(
        folder, loaded.denoiser, _metadata(file.stem, loaded), dataset=data, inferer=inferer, evaluator=work,
        more={"images": []}, imports=(__name__,),
    )  # fmt: skip


def _metadata(name: str, loaded: LoadedModel) -> dict[str, Any]:
    network: Any = loaded.denoiser
    size = [128] * network.dims
    image = {
        "type": "image", "modality": "MR", "format": "magnitude", "num_channels": 1, "spatial_shape": size,
        "dtype": "float32", "value_range": [0, 2], "is_patch_data": True,
        "channel_def": {"0": "intensity over that of white matter, 1 mm, LPS"},
    }  # fmt: skip
    labels = network_segmenter([("network", loaded)], SegmenterOptions()).table.names
    classes = {str(place): one[0] for place, one in enumerate(labels.values())}
    logits = image | {
        "format": "segmentation",
        "num_channels": network.classes,
        "value_range": [],
        "channel_def": classes,
    }
    versions = {
        package: importlib.metadata.version(package) for package in ("monai", "torch", "numpy", APPLICATION)
    }
    return {
        "version": versions[APPLICATION],
        "changelog": {versions[APPLICATION]: f"exported by {APPLICATION}"},
        "monai_version": versions["monai"],
        "pytorch_version": versions["torch"],
        "numpy_version": versions["numpy"],
        "required_packages_version": {APPLICATION: versions[APPLICATION]},
        "name": name,
        "task": "Segmentation of whole heads",
        "description": "Structures of a head, from scans of any contrast.",
        "authors": "The authors of radiata",
        "copyright": "Apache-2.0",
        "intended_use": "Research and teaching. Not for clinical use.",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": logits}},
        "model_sha256": loaded.sha256,
    }

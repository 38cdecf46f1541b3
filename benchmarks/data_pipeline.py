"""Volumes a second of the data pipeline, beside a plain MONAI pipeline that does the same work, in one run.

Same files, same steps: read, LPS, 2 mm isotropic with smoothing before it, percentiles to [−1, 1], crop or pad around
the head, float32. *prepare* is the first pass (from files), *epoch* every later one: ours from an HDF5 store of uint16
(on disk, and held in memory at half the size), MONAI's from its `CacheDataset` of float32 in memory. The two take
turns, so that a busy machine slows both; the interval is a bootstrap over the repetitions.

    python benchmarks/data_pipeline.py [--quick] [--json FILE]
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from monai.data import CacheDataset, ThreadDataLoader
from monai.transforms import (
    Compose,
    CropForegroundd,
    EnsureChannelFirstd,
    EnsureTyped,
    GaussianSmoothd,
    LoadImaged,
    Orientationd,
    ResizeWithPadOrCropd,
    ScaleIntensityRangePercentilesd,
    Spacingd,
)

from radiata_imaging.nifti import read_volume, write_volume
from radiata_imaging.preprocess import PreprocessSpec, prepare_volume
from radiata_imaging.store import Item, StoreDataset, StoreWriter
from radiata_imaging.volume import Volume, centred_affine


def write_heads(folder: Path, count: int, shape: tuple[int, int, int]) -> list[Path]:
    """Noisy ellipsoids with structure, the size of a head, 1 mm, RAS, uint8-like intensities."""
    rng = np.random.default_rng(0)
    grid = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in shape], indexing="ij", sparse=True)
    paths = []
    for index in range(count):
        a, b, c = np.array(shape) * rng.uniform(0.36, 0.42, 3)
        inside = (grid[0] / a) ** 2 + (grid[1] / b) ** 2 + (grid[2] / c) ** 2 < 1
        texture = 110 + 50 * np.sin(grid[0] / 7) * np.cos(grid[1] / 9) * np.sin(grid[2] / 8)
        array = np.rint(np.clip(np.where(inside, texture, 4) + rng.normal(0, 6, shape), 0, 255))
        volume = Volume(array, centred_affine(shape, 1.0, "RAS"))
        paths.append(write_volume(folder / f"{index}.nii.gz", volume, dtype="uint16"))
    return paths


def monai_transforms(spec: PreprocessSpec) -> Compose:
    """The specification in MONAI's own transforms: smoothing of the same variance, bilinear, foreground above zero."""
    sigma = float(np.sqrt((spec.spacing**2 - 1) / 12))
    return Compose(
        [
            LoadImaged("image", reader="NibabelReader"),
            EnsureChannelFirstd("image"),
            Orientationd("image", axcodes=spec.axcodes, labels=(("L", "R"), ("P", "A"), ("I", "S"))),
            GaussianSmoothd("image", sigma=sigma),
            Spacingd("image", pixdim=(spec.spacing,) * 3, mode="bilinear"),
            ScaleIntensityRangePercentilesd("image", *spec.percentiles, -1.0, 1.0, clip=True),
            CropForegroundd("image", source_key="image", select_fn=lambda x: x > -0.5, allow_smaller=True),
            ResizeWithPadOrCropd("image", spec.shape, value=-1.0),
            EnsureTyped("image", dtype=torch.float32, track_meta=False),
        ]
    )


def volumes_per_second(work: Callable[[], int]) -> float:
    """Volumes a second of one call that says how many it made."""
    began = time.perf_counter()
    count = work()
    return count / (time.perf_counter() - began)


def interval(values: list[float]) -> tuple[float, list[float]]:
    """Median and its 95 % bootstrap interval."""
    rng = np.random.default_rng(1)
    medians = np.median(rng.choice(values, (2000, len(values))), axis=1)
    return float(np.median(values)), [float(q) for q in np.percentile(medians, [2.5, 97.5])]


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer and smaller heads, fewer repetitions")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    count, shape, repetitions = (3, (96, 112, 96), 4) if options.quick else (6, (192, 224, 192), 8)
    spec = PreprocessSpec(spacing=2.0, shape=tuple(n // 2 for n in shape))
    figures: dict[str, list[float]] = {
        name: [] for name in ("ours", "monai", "ours_epoch", "ours_memory_epoch", "monai_epoch")
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_heads(folder, count, shape)
        items = [{"image": str(path)} for path in paths]
        writer = StoreWriter(folder / "heads.h5", spec.shape, spec)
        for index, path in enumerate(paths):
            writer.append(Item(prepare_volume(read_volume(path), spec).array, str(index)))
        store = StoreDataset(writer.finish())
        memory = StoreDataset(store.store, in_memory=True)
        cached = CacheDataset(items, monai_transforms(spec), progress=False)

        def ours() -> int:
            return sum(prepare_volume(read_volume(path), spec).array.ndim == 3 for path in paths)

        def monai() -> int:
            return len(CacheDataset(items, monai_transforms(spec), progress=False))

        def epoch(dataset: torch.utils.data.Dataset) -> int:
            generator = torch.Generator().manual_seed(0)
            loader = ThreadDataLoader(dataset, batch_size=2, shuffle=True, generator=generator, num_workers=0)
            return sum(len(batch["image"]) for _ in range(4) for batch in loader)

        ours(), monai(), epoch(store), epoch(memory), epoch(cached)  # warm the disk cache and the libraries
        for _ in range(repetitions):
            figures["ours"].append(volumes_per_second(ours))
            figures["monai"].append(volumes_per_second(monai))
            figures["ours_epoch"].append(volumes_per_second(lambda: epoch(store)))
            figures["ours_memory_epoch"].append(volumes_per_second(lambda: epoch(memory)))
            figures["monai_epoch"].append(volumes_per_second(lambda: epoch(cached)))
        figures["prepare_ratio"] = [a / b for a, b in zip(figures["ours"], figures["monai"], strict=True)]
        figures["epoch_ratio"] = [
            a / b for a, b in zip(figures["ours_epoch"], figures["monai_epoch"], strict=True)
        ]
    names = {
        "ours": "ours_volumes_per_s",
        "monai": "monai_volumes_per_s",
        "ours_epoch": "ours_epoch_volumes_per_s",
        "ours_memory_epoch": "ours_memory_epoch_volumes_per_s",
        "monai_epoch": "monai_epoch_volumes_per_s",
    }
    record: dict[str, object] = {}
    print(
        f"{count} heads of {'×'.join(map(str, shape))}, {repetitions} repetitions, {torch.get_num_threads()} thread(s)"
    )
    for key, values in figures.items():
        middle, bounds = interval(values)
        name = names.get(key, key)
        record |= {name: middle, f"{name}_ci": bounds}
        print(f"{name:<28} {middle:9.3f}  [{bounds[0]:.3f}, {bounds[1]:.3f}]")
    record |= {"heads": count, "repetitions": repetitions, "threads": torch.get_num_threads()}
    if options.json:
        options.json.write_text(json.dumps(record, indent=2) + "\n")
        print(options.json)


if __name__ == "__main__":
    main()

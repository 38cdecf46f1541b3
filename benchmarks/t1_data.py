"""Heads of a cohort and prepared heads a second, beside plain pipelines of MONAI's (and torchio's) transforms, in one run.

    python benchmarks/t1_data.py [--quick] [--only cohort prepare] [--labels FILE] [--repeats 3] [--json FILE]

    cohort    label map -> affine -> smooth warp (nearest voxel) -> class intensities with texture -> blur at 1 mm, mean of
              eight sub-voxels at 2 mm -> bias field -> Rician noise -> percentiles to [-1, 1]. Ours is `render_head`, which
              also checks that the warp does not fold and measures the volumes of regions. Theirs: RandAffine,
              RandSmoothDeform (the cheaper of MONAI's two warps), a table of intensities, GaussianSmooth or mean pooling,
              RandBiasField, RandRicianNoise, ScaleIntensityRangePercentiles; with torchio where it is installed:
              RandomAffine, RandomElasticDeformation, RandomBiasField, and the same between and after
    prepare   NIfTI -> LPS -> smoothing and resampling -> percentiles -> crop or pad -> stored: ours into a store of 16 bits,
              MONAI's Compose (`data_pipeline.py`) into a file of float32, neither compressed; the arm `lzf` is ours with the
              compression that `prepare` has by default

One thread; processor seconds of this process; the arms take turns, ratios are made within a repeat, and the figure is their
median with the least and the largest. Whether both do the same is checked with everything random but the texture switched
off: correlation of the two heads (`cohort_correlation_*`) and, for whole fields of view, of the two prepared volumes, with
the largest difference at 1 mm, where nothing is interpolated (`prepare_max_difference_1mm`).

Keys, `_1mm` and `_2mm`: `cohort_ratio`, `prepare_ratio` (theirs over ours), `cohort_seconds`, `prepare_seconds`.
"""

import argparse
import dataclasses
import importlib.util
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai import transforms as mt

from data_pipeline import monai_transforms, write_heads
from radiata_imaging.cohort import Anatomy, CohortSpec, render_head
from radiata_imaging.contrast import T1_CLASSES
from radiata_imaging.nifti import read_volume
from radiata_imaging.orientation import reorient
from radiata_imaging.preprocess import PreprocessSpec, prepare_volume
from radiata_imaging.store import Item, StoreWriter

BAR = 3.0
SHAPE = (192, 224, 192)
"""Of the label map and the heads, at 1 mm."""


def label_map(path: Path | None, shape: tuple[int, int, int]) -> np.ndarray:
    """A map at 1 mm cut around its brain: that of a file, or ellipsoids of scalp, bone, fluid, cortex, white matter."""
    if path is not None:
        labels = np.rint(reorient(read_volume(path), "LPS").array).astype(np.int16)
        centre = np.rint(Anatomy(labels, 1.0, path.name).centre).astype(int)
        padded = np.pad(labels, [(n, n) for n in shape])
        return padded[
            tuple(slice(c + n - n // 2, c + n - n // 2 + n) for c, n in zip(centre, shape, strict=True))
        ]
    axes = [(np.arange(n) - (n - 1) / 2) / n for n in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    radius = np.sqrt((x / 0.36) ** 2 + (y / 0.38) ** 2 + (z / 0.34) ** 2)
    labels = np.zeros(shape, np.int16)
    for edge, code in ((1.25, 511), (1.15, 515), (1.05, 24), (1.0, 3), (0.85, 2)):
        labels[radius < edge] = code
    labels[(x / 0.1) ** 2 + (y / 0.12) ** 2 + (z / 0.05) ** 2 < 1] = 4
    return labels


def still(spec: CohortSpec) -> CohortSpec:
    """Nothing moves, and the scanner adds nothing."""
    zero = (0.0, 0.0)
    return dataclasses.replace(
        spec, rotation=0.0, translation=0.0, head_scale=(1.0, 1.0), brain_scale=zero, ventricle_growth=zero,
        cortical_thinning=zero, warp_amplitude=0.0, bias=zero, noise=zero,
    )  # fmt: skip


def drawn(labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Intensities of a label map `(1, x, y, z)`: one mean a class, one normal a voxel."""
    mean, texture = torch.full((600,), 94.0), torch.full((600,), 14.0)
    for tissue in T1_CLASSES.values():
        codes = list(tissue.labels)
        mean[codes] = tissue.mean + tissue.spread * float(torch.randn((), generator=generator))
        texture[codes] = tissue.texture
    index = labels.long()
    return (mean[index] + texture[index] * torch.randn(labels.shape, generator=generator)).clamp(min=0)


def plain_pipeline(
    peer: str, spec: CohortSpec, shape: tuple[int, int, int], moving: bool
) -> Callable[[Any, int], Any]:
    """One head of a label map `(1, x, y, z)` and a seed, by transforms of the peer."""
    p, angle = float(moving), float(np.deg2rad(spec.rotation))
    warp: list[Any]
    if peer == "torchio":
        import torchio as tio

        warp = [
            tio.RandomAffine(
                scales=spec.head_scale, degrees=spec.rotation, translation=spec.translation,
                image_interpolation="nearest", p=p,
            ),
            tio.RandomElasticDeformation(num_control_points=9, max_displacement=6, image_interpolation="nearest", p=p),
        ]  # fmt: skip
        bias: Any = tio.RandomBiasField(coefficients=0.2, order=3, p=p)
    else:
        warp = [
            mt.RandAffine(
                prob=p, rotate_range=angle, translate_range=spec.translation, scale_range=0.07, spatial_size=shape,
                mode="nearest", padding_mode="zeros",
            ),
            mt.RandSmoothDeform(shape, tuple(n // 15 for n in shape), prob=p, def_range=0.05, field_mode="trilinear"),
        ]  # fmt: skip
        bias = mt.RandBiasField(prob=p, degree=3, coeff_range=(-0.1, 0.1))
    noise = mt.RandRicianNoise(prob=p, std=3.0)
    blur = mt.GaussianSmooth(sigma=spec.psf)
    scale = mt.ScaleIntensityRangePercentiles(*spec.percentiles, -1.0, 1.0, clip=True)

    def head(labels: torch.Tensor, seed: int) -> torch.Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for transform in [*warp, bias, noise]:
                if isinstance(transform, mt.Randomizable):
                    transform.set_random_state(seed)
            for transform in warp:
                labels = transform(labels)
            image = drawn(torch.as_tensor(labels), torch.Generator().manual_seed(seed))
            image = blur(image) if spec.psf > 0 else torch.nn.functional.avg_pool3d(image, spec.supersample)
            return torch.as_tensor(scale(noise(bias(image))))[0]

    return head


def alternated(arms: dict[str, Callable[[int], Any]], repeats: int) -> dict[str, list[float]]:
    """Processor seconds of each arm at each repeat, in turn; each is called once before."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for repeat in range(-1, repeats):
        for name, arm in arms.items():
            began = time.process_time()
            arm(repeat + 1)
            if repeat >= 0:
                seconds[name].append(time.process_time() - began)
    return seconds


def figures(task: str, place: str, seconds: dict[str, list[float]]) -> dict[str, float]:
    """Seconds, and ratios within a repeat: median, least and largest."""
    found: dict[str, float] = {}
    for name, values in seconds.items():
        arm = "" if name == "ours" else f"_{name}"
        found[f"{task}_seconds{arm}_{place}"] = statistics.median(values)
        if name != "ours":
            ratios = [theirs / ours for theirs, ours in zip(values, seconds["ours"], strict=True)]
            suffix = "" if name == "monai" else f"_{name}"
            found[f"{task}_ratio{suffix}_{place}"] = statistics.median(ratios)
            found |= {f"{task}_ratio{suffix}_{place}_{f.__name__}": f(ratios) for f in (min, max)}
    return found


def correlation(a: Any, b: Any) -> float:
    """Pearson's, of all voxels."""
    return float(np.corrcoef(np.asarray(a).ravel(), np.asarray(b).ravel())[0, 1])


def cohort(given: argparse.Namespace) -> dict[str, float]:
    """Heads from one label map."""
    shape = tuple(n // 2 for n in SHAPE) if given.quick else SHAPE
    labels = label_map(given.labels, shape)
    anatomy, plain = Anatomy(labels, 1.0, "benchmark"), torch.from_numpy(labels).float()[None]
    anatomy.centre = (np.array(shape) - 1) / 2
    found: dict[str, float] = {}
    for spacing in (1, 2):
        x, y, z = (n // spacing for n in shape)
        spec = dataclasses.replace(CohortSpec.of_spacing(spacing), shape=(x, y, z))
        place = f"{spacing}mm"
        arms = {"ours": lambda seed, spec=spec: render_head(anatomy, spec, np.random.default_rng(seed))}
        for peer in ["monai", *(["torchio"] if importlib.util.find_spec("torchio") else [])]:
            pipeline = plain_pipeline(peer, spec, shape, moving=True)
            arms[peer] = lambda seed, pipeline=pipeline: pipeline(plain, seed)
            theirs = plain_pipeline(peer, spec, shape, moving=False)(plain, 0)
            ours = render_head(anatomy, still(spec), np.random.default_rng(0)).image
            name = "" if peer == "monai" else f"_{peer}"
            found[f"cohort_correlation{name}_{place}"] = correlation(ours, theirs)
        found |= figures("cohort", place, alternated(arms, given.repeats))
    return found


def prepare(given: argparse.Namespace) -> dict[str, float]:
    """Heads from NIfTI files into what a training reads."""
    shape = tuple(n // 2 for n in SHAPE) if given.quick else SHAPE
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = write_heads(folder, 1, shape)[0]
        for spacing in (1, 2):
            x, y, z = (n // spacing for n in shape)
            spec, place = PreprocessSpec(spacing=float(spacing), shape=(x, y, z)), f"{spacing}mm"
            transforms = monai_transforms(spec)
            whole = mt.Compose([t for t in transforms.transforms if not isinstance(t, mt.CropForegroundd)])
            ours = prepare_volume(read_volume(path), dataclasses.replace(spec, around_head=False)).array
            theirs = np.asarray(whole({"image": str(path)})["image"])[0]
            found[f"prepare_correlation_{place}"] = correlation(ours, theirs)
            if spacing == 1:
                found["prepare_max_difference_1mm"] = float(np.abs(ours - theirs).max())

            def store(
                turn: int, spec: PreprocessSpec = spec, place: str = place, kept: str | None = None
            ) -> None:
                writer = StoreWriter(folder / f"{place}-{turn}-{kept}.h5", spec.shape, spec, compression=kept)
                writer.append(Item(prepare_volume(read_volume(path), spec).array, "head"))
                writer.finish()

            def save(turn: int, transforms: Any = transforms, place: str = place) -> None:
                torch.save(transforms({"image": str(path)})["image"], folder / f"{place}-{turn}.pt")

            arms = {"ours": store, "monai": save, "lzf": lambda turn, store=store: store(turn, kept="lzf")}
            found |= figures("prepare", place, alternated(arms, given.repeats))
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sections = {"cohort": cohort, "prepare": prepare}
    parser.add_argument("--only", nargs="+", choices=sections, default=list(sections))
    parser.add_argument("--quick", action="store_true", help="an eighth of the voxels")
    parser.add_argument(
        "--labels", type=Path, help="label map, FreeSurfer's codes at 1 mm; ellipsoids without"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, float] = {}
    for name in given.only:
        new = sections[name](given)
        for key, value in new.items():
            barred = key in (f"{name}_ratio_1mm", f"{name}_ratio_2mm")
            met = f">= {BAR:g}  {'met' if value >= BAR else 'NOT MET'}" if barred else ""
            print(f"{key:34} {value:12.4g}  {met}".rstrip(), flush=True)
        found |= new
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

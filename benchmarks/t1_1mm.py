"""Heads at 1 mm against held-out people: spectrum, features, volumes, edges, seams, copies; beside them the real floor.

    python benchmarks/t1_1mm.py STORE --heads FOLDER [--number 16] [--only sets edges seams copies volumes structures]
        [--meshnet ../shared/data/weights/brainchop/model20chan3cls] [--json FILE]

FOLDER holds what `radiata-t1 sample --seeds 0 1 ... --out FOLDER` drew; what is missing of `--number` heads is drawn first.
STORE holds renderings at 1 mm; its validation and test people (four, none in training) are the held-out set. Real heads are
put on the generator's scale of intensities (`radiata_t1.data.blocks.scaled_head`) and clipped as its heads are.

    sets      `radiata_imaging.evaluation`: KID and MMD on named features, intensities, power spectrum; each with interval,
              permutation p and the floor between halves of the held-out people; and the spectrum by octave
    edges     sharpness of the ribbon: mean gradient where the head crosses half-way between grey and white matter, as a
              share of their difference per mm; and the least over largest roughness of the eight places of a voxel of 2 mm,
              which a network of folded voxels could tell apart (1 in a real head)
    seams     one head drawn in blocks against the same drawn whole: largest difference at the borders of blocks and inside
    copies    nearest training against nearest held-out heads, with a positive control
    volumes   millilitres of the classes of MeshNet, which saw neither generator nor renderings; share of the brain's voxels
    structures  the same of 34 structures by `radiata-medical segment`'s network, left and right added, with its own quality
              (expected mean Dice); it learned from renderings of ten people, of random contrast, and never saw the generator
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

GRID, SPACING = (192, 224, 192), (1.0, 1.0, 1.0)
OCTAVES = ((0.0, 0.0625), (0.0625, 0.125), (0.125, 0.25), (0.25, 0.5))


def drawn(folder: Path, number: int) -> list[Path]:
    """The files of seeds 0 .. number - 1; what is missing is drawn by the command's default."""
    from radiata_t1.experiment.sample import Sample, file_name

    paths = [folder / file_name(seed) for seed in range(number)]
    if not all(path.is_file() for path in paths):
        Sample(out=folder, seeds=tuple(range(number)), batch_size=1).run()
    return paths


def array_of(path: Path) -> Any:
    """A drawn head on the network's scale of intensities."""
    from radiata_core.runs import read_json
    from radiata_imaging.nifti import Intensity, read_volume, sidecar_path

    scale = read_json(sidecar_path(path))["IntensityMap"]
    return Intensity(*(float(scale[key]) for key in ("low", "high", "top"))).from_file(
        read_volume(path).array
    )


def real(store: Any, rows: Sequence[int]) -> Any:
    """Heads of a store on the generator's scale, one at a time."""
    from radiata_t1.data.blocks import scaled_head

    return (scaled_head(store, row)[0, 0].clamp(-1.0, 1.5).numpy() for row in rows)


def spread_over(indices: Any, number: int) -> list[int]:
    """At most `number` rows, evenly spaced."""
    import numpy as np

    return [int(indices[i]) for i in np.linspace(0, len(indices) - 1, min(number, len(indices))).astype(int)]


def ribbon(head: Any) -> float:
    """Mean gradient on the surface half-way between grey and white matter, per mm, as a share of their difference."""
    import numpy as np
    from sklearn.mixture import GaussianMixture

    x, y, z = (n // 4 for n in head.shape)
    box = head[x:-x, y:-y, int(1.6 * z) : -int(0.8 * z)]
    inside = box[box > -0.7].reshape(-1, 1)
    mixture = GaussianMixture(3, random_state=0).fit(inside[:: max(1, len(inside) // 40_000)])
    _, grey, white = sorted(mixture.means_[:, 0])
    steep = np.sqrt(sum(g**2 for g in np.gradient(box)))
    crossing = np.abs(box - (grey + white) / 2) < 0.1 * (white - grey)
    return float(steep[crossing].mean() / (white - grey))


def phases(head: Any) -> float:
    """Least over largest mean square of the discrete Laplacian in the eight places of a folded voxel."""
    import numpy as np

    inner = head[1:-1, 1:-1, 1:-1]
    rough = -6.0 * inner
    for axis in range(3):
        for shift in (0, 2):
            cut: list[Any] = [slice(1, -1)] * 3
            cut[axis] = slice(shift, head.shape[axis] - 2 + shift)
            rough = rough + head[tuple(cut)]
    rough = np.where(inner > -0.7, rough, 0.0) ** 2
    means = [rough[a::2, b::2, c::2].mean() for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    return float(min(means) / max(means))


def mean_and_interval(values: Sequence[float]) -> list[float]:
    """Mean and 95 % bootstrap interval."""
    import numpy as np

    rng, rows = np.random.default_rng(0), np.asarray(values)
    means = rows[rng.integers(len(rows), size=(2000, len(rows)))].mean(1)
    return [round(float(v), 4) for v in (rows.mean(), *np.percentile(means, [2.5, 97.5]))]


def sets(paths: list[Path], store: Any, kept: dict[str, Any]) -> dict[str, Any]:
    """Distances of sets, and the spectrum by octave."""
    import numpy as np

    from radiata_imaging.evaluation import Instruments, compare_sets, feature_tables, measure

    tools = Instruments.of(GRID, SPACING)
    held = [*store.indices("validation"), *store.indices("test")]
    train = spread_over(store.indices("train"), 60)
    of = lambda rows: [str(store.subjects[i]) for i in rows]  # noqa: E731
    measured = {
        "train": measure(real(store, train), of(train), tools),
        "synthetic": measure((array_of(path) for path in paths), None, tools),
        "held out": measure(real(store, held), of(held), tools),
    }
    kept["measured"] = measured
    tables = feature_tables(measured["train"], [measured["synthetic"], measured["held out"]], tools)
    found = compare_sets(
        measured["synthetic"], measured["held out"], tables, tools, np.random.default_rng(0), permutations=199
    )
    rows = {
        f"{f.measure}; {f.features}": [f.value, *f.interval, f.p_value, f.floor, *f.floor_interval]
        for f in found
    }
    frequency = tools.shells.frequency[tools.shells.shown]
    octaves = {}
    for low, high in OCTAVES:
        band = (frequency > low) & (frequency <= high)
        ours, theirs = (measured[name].spectrum[:, band].mean(1) for name in ("synthetic", "held out"))
        octaves[f"{low:g} to {high:g} cycles/mm, dB"] = mean_and_interval((ours - theirs.mean()).tolist())
        octaves[f"{low:g} to {high:g} cycles/mm, sd of held-out heads, dB"] = round(float(theirs.std()), 2)
    return {name: [round(float(v), 4) for v in row] for name, row in rows.items()} | octaves


def edges(paths: list[Path], store: Any, kept: dict[str, Any]) -> dict[str, Any]:
    """Sharpness of the ribbon and evenness of the places, drawn and held out."""
    held = spread_over([*store.indices("validation"), *store.indices("test")], 12)
    found: dict[str, Any] = {}
    for name, heads in (("drawn", [array_of(p) for p in paths[:12]]), ("held out", list(real(store, held)))):
        found[f"ribbon, per mm, {name}"] = mean_and_interval([ribbon(head) for head in heads])
        found[f"places, least over largest, {name}"] = mean_and_interval([phases(head) for head in heads])
    return found


def seams(paths: list[Path], store: Any, kept: dict[str, Any]) -> dict[str, Any]:
    """Blocks against the whole, of the last stage, on a held-out head's own 2 mm."""
    import torch

    from radiata_core.checkpoint import load_model
    from radiata_core.refinement import box_mean, refine
    from radiata_core.tiling import blocks_of_line
    from radiata_t1.data.blocks import scaled_head
    from radiata_t1.model.cascades import CASCADE, joined
    from radiata_t1.model.weights import find_model

    cascade, _, _ = joined([load_model(find_model(CASCADE))])
    stage: Any = cascade.stages[-1]
    two = box_mean(scaled_head(store, int(store.indices("test")[0])), 2)
    found: dict[str, Any] = {}
    tile = 32
    with torch.inference_mode():
        whole = refine(stage, two, [0], steps=cascade.steps[-1])
        for halo in (0, 8, 32):
            cut = refine(stage, two, [0], steps=cascade.steps[-1], tile=tile, halo=halo)
            off = (cut - whole).abs()[0, 0]
            border = torch.zeros(GRID, dtype=torch.bool)
            for axis, n in enumerate(two.shape[2:]):
                for _, middle, _ in blocks_of_line(int(n), tile, halo, stage.multiple)[1:]:
                    index = [slice(None)] * 3
                    index[axis] = slice(2 * middle.start - 1, 2 * middle.start + 1)
                    border[tuple(index)] = True
            found[f"halo {halo}: largest at borders"] = float(off[border].max())
            found[f"halo {halo}: largest inside"] = float(off[~border].max())
            found[f"halo {halo}: mean at borders"] = float(off[border].mean())
            found[f"halo {halo}: mean inside"] = float(off[~border].mean())
    return {name: float(f"{value:.3g}") for name, value in found.items()}


def copies(paths: list[Path], store: Any, kept: dict[str, Any]) -> dict[str, Any]:
    """Nearest neighbours of the drawn heads among training and held-out heads, on averaged voxels."""
    import numpy as np

    from radiata_imaging.features import PCAFeatures
    from radiata_imaging.memorisation import memorisation

    if "measured" not in kept:
        sets(paths, store, kept)
    train, ours, held = (kept["measured"][name] for name in ("train", "synthetic", "held out"))
    from radiata_imaging.evaluation import Instruments

    pooled = Instruments.of(GRID, SPACING).pooled
    components = PCAFeatures.fit(train.pooled, pooled, len(train) // 4)
    rows = [components.project(each.pooled) for each in (ours, train, held)]
    rng = np.random.default_rng(0)
    noisy = train.pooled[::4] + 0.01 * rng.standard_normal(train.pooled[::4].shape).astype(np.float32)
    result = memorisation(
        *rows, components.project(noisy), rng, train_people=train.people, held_out_people=held.people
    )
    return {
        "nearest training over nearest held-out": mean_and_interval(result.ratio.tolist()),
        "the same of held-out heads": mean_and_interval(result.real_ratio.tolist()),
        "flagged": float(result.flagged.mean()),
        "control found": result.control_detected,
        "nearer to training people, equal numbers": round(result.nearer_to_train, 3),
    }


def volumes(paths: list[Path], store: Any, kept: dict[str, Any]) -> dict[str, Any]:
    """Millilitres by MeshNet, six heads a set."""
    from radiata_imaging.meshnet import meshnet_volumes, read_meshnet, segment

    model = read_meshnet(kept["meshnet"])
    return compared(paths, store, lambda head: meshnet_volumes(segment(head, model, margin=8), model))


def structures(paths: list[Path], store: Any, kept: dict[str, Any]) -> dict[str, Any]:
    """Millilitres by the medical application's network, six heads a set."""
    from radiata_medical.experiment.segmenting_models import load_segmenter

    segmenter = load_segmenter("network")

    def sizes(head: Any) -> dict[str, float]:
        found = segmenter.segment(head).segmentation
        summed: dict[str, float] = {"intracranial": found.intracranial_ml}
        for name, ml in found.volumes_ml.items():
            both = name.removeprefix("left ").removeprefix("right ")
            summed[both] = summed.get(both, 0.0) + ml
        return summed | {"quality (no ml)": found.quality}

    return compared(paths, store, sizes)


def compared(
    paths: list[Path], store: Any, measure: Callable[[Any], dict[str, float]], number: int = 6
) -> dict[str, Any]:
    """What is measured of so many drawn and so many held-out heads: means with intervals, and spreads."""
    import numpy as np

    from radiata_imaging.nifti import read_volume
    from radiata_imaging.preprocess import PreprocessSpec, canonical_affine
    from radiata_imaging.volume import Volume

    affine = canonical_affine(PreprocessSpec("LPS", 1.0, GRID))
    held = spread_over([*store.indices("validation"), *store.indices("test")], number)
    tables = {
        "drawn": [measure(read_volume(path)) for path in paths[:number]],
        "held out": [measure(Volume(head, affine)) for head in real(store, held)],
    }
    found: dict[str, Any] = {}
    for region in tables["drawn"][0]:
        for name, rows in tables.items():
            found[f"{region}, ml, {name}"] = mean_and_interval([row[region] for row in rows])
        found[f"{region}, sd, ml, drawn and held out"] = [
            round(float(np.std([row[region] for row in rows])), 3) for rows in tables.values()
        ]
    return found


SECTIONS = {
    "sets": sets, "edges": edges, "seams": seams, "copies": copies, "volumes": volumes, "structures": structures,
}  # fmt: skip


def main() -> None:
    """Draw what is missing, measure, print and keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("--heads", type=Path, required=True)
    parser.add_argument("--number", type=int, default=16)
    parser.add_argument("--only", nargs="*", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--meshnet", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    from radiata_imaging.store import Store

    paths, store = drawn(options.heads, options.number), Store(options.store, GRID)
    kept: dict[str, Any] = {"meshnet": options.meshnet}
    found: dict[str, Any] = {}
    for name in options.only:
        if name == "volumes" and options.meshnet is None:
            continue
        began = time.perf_counter()
        found[name] = SECTIONS[name](paths, store, kept)
        print(f"\n{name} ({time.perf_counter() - began:.0f} s)")
        for row, value in found[name].items():
            print(f"  {row:95s} {value}", flush=True)
        if options.json:
            options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

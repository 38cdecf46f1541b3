"""The figure of docs/t1-1mm.md: heads drawn at 1 mm, a rendering of a held-out person, and a real scan.

python docs/scripts/t1_1mm.py [LABELS]

LABELS is the label map of a person outside training (`training_seg_06.nii.gz` of SynthSeg's); without it that column is left
out. The real scan is Colin27, which ships with radiata-medical for its demo.
"""

import sys
import tempfile
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from radiata_core.checkpoint import load_model
from radiata_core.refinement import refine
from radiata_imaging.cohort import Anatomy, CohortSpec, render_head
from radiata_imaging.nifti import Intensity, read_volume
from radiata_imaging.orientation import reorient
from radiata_imaging.plots import grid, save
from radiata_imaging.preprocess import PreprocessSpec, canonical_affine, prepare_volume
from radiata_imaging.volume import Volume
from radiata_t1.experiment.sample import Sample, file_name
from radiata_t1.model.cascades import CASCADE, joined
from radiata_t1.model.weights import find_model

DOCS = Path(__file__).resolve().parents[1]
SEEDS = (0, 1, 2)
SPEC = PreprocessSpec("LPS", 1.0, (192, 224, 192))


def operations() -> None:
    """Print the GFLOP of one evaluation of each stage on the whole field of view, counted on a block and scaled."""
    cascade, _, _ = joined([load_model(find_model(CASCADE))])
    stages: list[Any] = list(cascade.stages)
    spacing = cascade.spacing
    for stage in stages:
        edge = 24
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            refine(stage, torch.zeros(1, 1, edge, edge, edge), [0], steps=1, spacing=spacing)
        voxels = np.prod([n / spacing for n in (192, 224, 192)])
        gflop = counter.get_total_flops() * voxels / edge**3 / 1e9
        print(f"{spacing:g} to {spacing / stage.factor:g} mm: {gflop:.0f} GFLOP an evaluation")
        spacing /= stage.factor


def main() -> None:
    operations()
    affine = canonical_affine(SPEC)
    with tempfile.TemporaryDirectory() as folder:
        Sample(out=Path(folder), seeds=SEEDS, batch_size=1).run()
        columns = [read_volume(Path(folder) / file_name(seed)) for seed in SEEDS]
    labels = [f"drawn, seed {seed}" for seed in SEEDS]
    if len(sys.argv) > 1:
        volume = reorient(read_volume(Path(sys.argv[1])), "LPS")
        anatomy = Anatomy(np.rint(volume.array).astype(np.int16), 1.0, "held out")
        head = render_head(anatomy, CohortSpec.of_spacing(1.0), np.random.default_rng(1)).image
        columns.append(Volume(Intensity().to_file(head), affine))
        labels.append("rendering, held out")
    with as_file(files("radiata_medical") / "example" / "colin27.nii.gz") as path:
        scan = prepare_volume(read_volume(path), SPEC)
    columns.append(Volume(Intensity().to_file(scan.array), affine))
    labels.append("Colin27, a real scan")
    picture = grid(
        columns, labels, title="radiata-t1 at 1 mm, and what is real", synthetic=True, limits=(0.0, 1050.0)
    )
    path = DOCS / "images" / "t1-1mm.png"
    save(picture, path)
    print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()

"""What `radiata-decode encode` leaves in its folder.

    encoding.tsv    a row a voxel: noise ceiling; for each space r, R², both over the ceiling, p, penalty; unique parts
    regions.tsv     a row a region and space: means, the interval of R² over voxels, share of voxels with p < .05
    unique.tsv      with --partition: what a space explains alone in a region; interval over stimuli, p, q (FDR)
    encoding.h5     predicted (space, stimulus, voxel) and measured (stimulus, voxel), float32: test stimuli only
    encoding.json   its card
    flat.png, ...   R² on the flat map, of the first space and, flat-NAME.png, of each other
    regions.png     R² by region, beside the ceiling

Every figure lies beside the numbers it shows (.json, .csv).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pandas as pd

from radiata_core.errors import InputError
from radiata_core.files import atomic_path, sha256
from radiata_core.seeds import rng_of
from radiata_decode.data.image_features import SPACES
from radiata_decode.data.sidecar import write_sidecar
from radiata_decode.data.stimuli import read_stimuli
from radiata_decode.data.subject import Subject
from radiata_decode.data.tables import write_table
from radiata_decode.experiment.encoding import Encoded, EncodingOptions, encode_subject, region_table
from radiata_decode.experiment.encoding_figures import flat_map_figure, region_figure
from radiata_imaging.hdf5 import new_hdf5
from radiata_imaging.plots import save

if TYPE_CHECKING:
    from radiata_decode.experiment.encode import Encode

__all__ = ["checked_sources", "write_encoding"]

FORMAT = "radiata-encoding/1"
INTERVALS = 43  # key of random numbers
OWN = ("encoding.*", "regions.*", "unique.tsv", "flat.*", "flat-*.png", "flat-*.json")


def checked_sources(subject: Subject, features: tuple[str, ...]) -> dict[str, str]:
    """Name -> SHA-256 of what the models are made from; refuses what would stop the work later.

    Raises:
        InputError: no stimuli, no training or test trials, a space that is neither known nor on this disk.
    """
    read_stimuli(subject.folder)
    for split in ("train", "test"):
        subject.rows(split)
    sources = {subject.folder.name: subject.sha256}
    for name in features:
        if name in SPACES:
            continue
        path = Path(name)
        if not path.exists():
            raise InputError(
                f"expected features of {', '.join(SPACES)}, a file (.npy, .h5) or a folder of transformers; got {name}, "
                "which is none of them. Check the path."
            )
        files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
        sources |= {
            f"{path.name}/{file.name}" if path.is_dir() else file.name: sha256(file) for file in files
        }
    return sources


def write_encoding(subject: Subject, task: "Encode", sources: dict[str, str]) -> dict[str, Any]:
    """Fit, score and write; returns what the run's record keeps.

    Raises:
        InputError: features that do not fit the subject.
    """
    options = EncodingOptions(
        task.features, task.partition, task.zscore, task.penalty, task.repeats, task.permutations, task.seed, _device(task)
    )  # fmt: skip
    found = encode_subject(subject, options)
    for path in (path for pattern in OWN for path in task.out.glob(pattern)):
        path.unlink()  # of an earlier encoding with other spaces
    regions = {"all": np.ones(len(subject.voxels), bool)} | subject.rois
    intervals = _draw_regions(subject, found, regions, task)
    write_table(found.table, task.out / "encoding.tsv")
    write_table(_with_intervals(region_table(found, subject.rois), intervals), task.out / "regions.tsv")
    if found.tests:
        write_table(_test_table(found), task.out / "unique.tsv")
    unmapped = _draw_maps(subject, found, task.out)
    _write_predictions(task.out / "encoding.h5", found)
    about: dict[str, Any] = {
        "Description": "responses to test stimuli, measured and predicted from features; not for clinical use",
        "SyntheticData": _simulated(subject),
        "Features": list(task.features),
        "Options": {"zscore": task.zscore, "penalty": task.penalty, "repeats": task.repeats},
        "Seed": task.seed,
    }
    write_sidecar(task.out / "encoding.h5", sources, **about)
    mean = {name: round(float(scores.r2.mean()), 5) for name, scores in found.scores.items()}
    return {"r2": mean, "stimuli": len(found.stimulus)} | ({"flat_map": unmapped} if unmapped else {})


def _device(task: "Encode") -> str:
    if task.device == "cpu":
        return "cpu"
    from radiata_decode.experiment.image_decoding import device_of

    return device_of(task.device)


def _simulated(subject: Subject) -> bool:
    return bool(subject.manifest.get("SyntheticData", False))


def _write_predictions(path: Path, found: Encoded) -> None:
    """Atomically; spaces in the order of the attribute `features`."""
    words = h5py.string_dtype("utf-8")
    predicted = np.stack(list(found.predicted.values())).astype(np.float32)
    with atomic_path(path) as part, new_hdf5(part) as opened:
        opened.attrs["format"] = FORMAT
        opened.attrs["features"] = np.array(list(found.predicted), dtype=words)
        opened.create_dataset("stimulus", data=np.array(found.stimulus, dtype=words))
        opened.create_dataset("predicted", data=predicted, compression="gzip", shuffle=True)
        opened.create_dataset(
            "measured", data=found.measured.astype(np.float32), compression="gzip", shuffle=True
        )


def _draw_regions(
    subject: Subject, found: Encoded, regions: dict[str, np.ndarray], task: "Encode"
) -> dict[str, list[Any]]:
    """regions.png; returns the columns region, bar, mean, low, high of what it shows."""
    ceiling = found.table["noise_ceiling"].to_numpy(np.float64)
    figure = region_figure(
        {name: scores.r2 for name, scores in found.scores.items()}, regions, rng_of(task.seed, INTERVALS),
        ceiling=ceiling if np.isfinite(ceiling).any() else None, synthetic=_simulated(subject),
    )  # fmt: skip
    save(figure, task.out / "regions.png")
    return dict(figure.numbers["columns"])


def _with_intervals(table: pd.DataFrame, intervals: dict[str, list[Any]]) -> pd.DataFrame:
    """The table of regions with the 95 % interval of mean R² over voxels after it."""
    known = pd.DataFrame(intervals).rename(columns={"bar": "features", "low": "r2_low", "high": "r2_high"})
    merged = table.merge(known.drop(columns="mean"), on=["region", "features"], how="left")
    names = [name for name in merged if name not in ("r2_low", "r2_high")]
    names[names.index("r2") + 1 : names.index("r2") + 1] = ["r2_low", "r2_high"]
    return merged[names]


def _test_table(found: Encoded) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "region": test.region, "features": test.space, "unique_r2": test.gain.mean, "low": test.gain.low,
            "high": test.gain.high, "p": test.p, "q": test.q,
        }
        for test in found.tests
    )  # fmt: skip


def _draw_maps(subject: Subject, found: Encoded, out: Path) -> str:
    """Flat maps, one a space; returns why there are none, where voxels have no places."""
    for number, (name, scores) in enumerate(found.scores.items()):
        word = Path(name).stem
        try:
            figure = flat_map_figure(
                scores.r2, subject.voxels, label=f"R² of {word}", synthetic=_simulated(subject)
            )
        except InputError as error:
            return f"none: {error}"
        save(figure, out / (f"flat-{word}.png" if number else "flat.png"))
    return ""

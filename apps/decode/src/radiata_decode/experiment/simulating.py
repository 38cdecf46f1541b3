"""A simulated subject as a folder: real pictures or films, simulated responses, and the truth beside them.

Everybody of one `seed` sees the same stimuli; `subject` says who answers. Every stimulus is shown once in a session, in
a new order each time, train and test mixed and cut into runs as in the Natural Scenes Dataset. `signal.h5` holds the
responses without noise, one row a stimulus: what a decoder could reach at best is measured with them, and no training may
read them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from radiata_core.errors import InputError
from radiata_core.files import atomic_path, sha256
from radiata_core.foreign_files import foreign
from radiata_core.seeds import rng_of

if TYPE_CHECKING:
    import pandas as pd

    from radiata_decode.data.simulated_cortex import SimulatedCortex
    from radiata_decode.data.stimuli import StimulusArrays
    from radiata_decode.data.subject import Subject

__all__ = ["FRAMES_PER_S", "noise_free", "simulated_stimuli", "write_simulated_subject"]

FRAMES_PER_S = 4.0  # eight frames last one volume of 2 s
RUN = 64  # trials of a run, at most
TRAIN_STIMULI, TEST_STIMULI, ORDER, NOISE = 11, 12, 13, 14  # keys of the random numbers


def write_simulated_subject(
    folder: Path,
    kind: str = "image",
    *,
    train: int = 1000,
    test: int = 200,
    repeats: int = 3,
    voxels: int = 2000,
    subject: int = 0,
    seed: int = 0,
    size: int = 32,
    frames: int = 8,
    areas: Sequence[str] | None = None,
    films: Sequence[Path] = (),
    overwrite: bool = False,
) -> "Subject":
    """Write a simulated subject with its stimuli, and return it.

    Args:
        folder: To come: a subject folder, and signal.h5 in it.
        kind: image (photographs; V1 to V4) or motion (moved photographs with exact flow; V1 to V4 and MT).
        train: Stimuli from the left 70 % of the photographs (the first 70 % of films).
        test: Stimuli from the rest.
        repeats: Showings of each stimulus.
        voxels: Of the person.
        subject: Who: other numbers are other people who saw the same.
        seed: Of all: stimuli, people, noise.
        size: Side of the pictures, pixels.
        frames: Of a film.
        areas: Of `data.cortical_layout.AREAS`; None: those of the kind.
        films: Real film files, instead of moved photographs; their flow is not known and is not written.
        overwrite: Replace a folder that exists.

    Raises:
        InputError: a number that does not go, films for a kind without motion, a folder that exists.
    """
    import pandas as pd

    from radiata_decode.data.cortical_layout import AREAS, IMAGE_AREAS
    from radiata_decode.data.simulated_cortex import SimulatedCortex
    from radiata_decode.data.subject import SubjectWriter

    _check(kind, train, test, repeats, films)
    options = {
        "kind": kind, "train": train, "test": test, "repeats": repeats, "voxels": voxels, "subject": subject,
        "seed": seed, "size": size, "frames": frames, "areas": areas, "films": [Path(film).name for film in films],
    }  # fmt: skip
    writer = SubjectWriter(folder, options, overwrite=overwrite)
    try:
        stimuli = simulated_stimuli(kind, train, test, size=size, frames=frames, seed=seed, films=films)
        chosen = tuple(areas) if areas else (IMAGE_AREAS if kind == "image" else AREAS)
        cortex = SimulatedCortex(seed, voxels=voxels, subject=subject, size=size, areas=chosen)
        signal = cortex.signal(stimuli.images) if kind == "image" else cortex.motion_signal(stimuli.movies)
        names = stimuli.table["stimulus"].to_numpy()
        split = np.array(["train"] * train + ["test"] * test)
        for session in range(repeats):
            order = rng_of(seed, subject, ORDER, session).permutation(len(names))
            noise = cortex.noise(signal.shape, rng_of(seed, subject, NOISE, session))
            trials = pd.DataFrame(
                {
                    "stimulus": names[order],
                    "session": session + 1,
                    "run": np.arange(len(order)) // RUN + 1,
                    "repeat": session + 1,
                    "split": split[order],
                }
            )
            writer.append(f"session-{session + 1:02d}", signal[order] + noise, trials)
        about = {
            "source": f"simulated {kind} subject {subject}",
            "layout": f"simulate-{kind}",
            "options": options,
            "zscore": "none: signal and noise of a trial have variance 1 together",
            "repetition_time_s": 2.0,
            "SyntheticData": True,
            "Sources": {Path(film).name: sha256(Path(film)) for film in films},
        }
        return writer.finish(
            cortex.voxels, about, stimuli,
            beside=lambda made: _write_signal(made / "signal.h5", signal, stimuli.table, cortex, options),
        )  # fmt: skip
    finally:
        writer.discard()


def simulated_stimuli(
    kind: str,
    train: int,
    test: int,
    *,
    size: int = 32,
    frames: int = 8,
    seed: int = 0,
    films: Sequence[Path] = (),
) -> "StimulusArrays":
    """What everybody of one seed sees: training stimuli first, then test stimuli.

    The column `group` of its table is the photograph (the film), `category` the kind of motion, and `split` the part.
    """
    import pandas as pd

    from radiata_decode.data.film_stretches import film_stretches
    from radiata_decode.data.moving_pictures import moving_pictures
    from radiata_decode.data.photographs import photograph_crops
    from radiata_decode.data.stimuli import StimulusArrays

    parts = [("train", train, rng_of(seed, TRAIN_STIMULI)), ("test", test, rng_of(seed, TEST_STIMULI))]
    names = [f"{part}-{number:05d}" for part, count, _ in parts for number in range(count)]
    table = pd.DataFrame({"stimulus": names, "split": [name.split("-")[0] for name in names]})
    if kind == "image":
        crops = [photograph_crops(count, part, size, rng) for part, count, rng in parts]
        table["group"] = [name for crop in crops for name in crop.photograph]
        boxes = np.concatenate([crop.boxes for crop in crops])
        table[["box_top", "box_left", "box_side"]] = boxes
        return StimulusArrays(table, images=np.concatenate([crop.pictures for crop in crops]))
    if films:
        cut = [film_stretches(films, count, part, size, frames, rng) for part, count, rng in parts]
        table["group"] = [name for stretch in cut for name in stretch.film]
        table["start_s"] = np.concatenate([stretch.start_s for stretch in cut])
        movies = np.concatenate([stretch.movies for stretch in cut])
        return StimulusArrays(table, movies=movies, frames_per_s=FRAMES_PER_S)
    moved = [moving_pictures(count, part, size, frames, rng) for part, count, rng in parts]
    table["group"] = [name for film in moved for name in film.photograph]
    table["category"] = [name for film in moved for name in film.kind]
    return StimulusArrays(
        table,
        movies=np.concatenate([film.movies for film in moved]),
        flow=np.concatenate([film.flow for film in moved]),
        frames_per_s=FRAMES_PER_S,
    )


def noise_free(subject: "Subject", ids: Sequence[str]) -> np.ndarray:
    """Responses of a simulated subject without noise, (stimulus, voxel) float32, in the order asked for.

    Raises:
        InputError: a subject that was not simulated, or a stimulus it did not see.
    """
    from radiata_imaging.hdf5 import open_hdf5, whole_array

    file = subject.folder / "signal.h5"
    if not file.is_file():
        raise InputError(
            f"expected signal.h5 in {subject.folder}, as simulated subjects have; got none. Noise-free responses are "
            "known of simulations only."
        )
    with foreign(f"expected signals by stimulus in {file}; got something else"), open_hdf5(file) as opened:
        names = opened["stimulus"].asstr()[()].tolist()
        places = {name: row for row, name in enumerate(names)}
        missing = [name for name in ids if name not in places]
        if missing:
            raise InputError(f"expected stimuli of {file}; got {missing[0]}, which was not shown.")
        return whole_array(opened["signal"])[[places[name] for name in ids]]


def _write_signal(
    path: Path,
    signal: np.ndarray,
    table: "pd.DataFrame",
    cortex: "SimulatedCortex",
    options: dict[str, object],
) -> None:
    import h5py

    from radiata_decode.data.sidecar import write_sidecar
    from radiata_imaging.hdf5 import new_hdf5

    with atomic_path(path) as part, new_hdf5(part) as opened:
        opened.create_dataset("signal", data=signal, chunks=(min(64, len(signal)), signal.shape[1]))
        opened.create_dataset("stimulus", data=table["stimulus"].tolist(), dtype=h5py.string_dtype())
        opened.create_dataset("tuning", data=np.concatenate([cortex.tuning, cortex.motion_tuning], axis=1))
    write_sidecar(
        path, {}, SyntheticData=True, Options=options, Description="Simulated responses without noise."
    )


def _check(kind: str, train: int, test: int, repeats: int, films: Sequence[Path]) -> None:
    if kind not in ("image", "motion"):
        raise InputError(f"expected a kind of image or motion; got {kind}.")
    if min(train, test, repeats) < 1:
        raise InputError(
            f"expected at least one training stimulus, test stimulus and showing; got {train}, {test} and {repeats}."
        )
    if films and kind == "image":
        raise InputError("expected no films for pictures; got some. Simulate motion, or leave them out.")
    for film in films:
        if not Path(film).is_file():
            raise InputError(f"expected a film; got no such file: {film}. Check the path.")

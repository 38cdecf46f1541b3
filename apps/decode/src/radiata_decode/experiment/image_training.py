"""The route of Brain-Diffuser, trained: codec latents and embeddings of the pictures, regressed on averaged responses.

    subject -> standardised averages of training trials -> one shared ridge -> latents of a codec, embeddings -> run folder

    codec.safetensors      principal components (shipped basis, or of the training pictures)
    ridge, targets         weights, leave-one-out R2, penalties
    training.safetensors   leave-one-out predictions of the training pictures: what a generator may be conditioned on, and
                           the responses that retrieval looks among
    posterior.safetensors  where asked for: the posterior mean, learnt from simulated responses (`picture_decoding`)

Voxels count with the root of their noise ceiling and trials with their repeats, where both are known.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radiata_core.errors import InputError
from radiata_core.foreign_files import foreign

if TYPE_CHECKING:
    from radiata_decode.data.repeats import Averaged
    from radiata_decode.data.subject import Subject

__all__ = ["ImageOptions", "train_images"]

LEAST_FOR_POSTERIOR = 400
"""On one simulated subject the joined guess had PixCorr .414 with 150 pictures (ridge .442), .503 with 400 (ridge .499)."""


@dataclass(frozen=True)
class ImageOptions:
    """Options of the route.

    Attributes:
        size: Side of the pictures, pixels.
        components: Of the codec.
        basis: shipped, training, or the folder of a diffusers vae.
        embeddings: Name -> file (.npy or .h5) with a row for each row of stimuli.tsv.
        zscore: Rule of `data.normalisation`.
        rois: Regions to read; none: all voxels.
        count: Repeats to average; None: all.
        weighted: Voxels count with their noise ceiling, trials with their repeats.
        seed: Of the basis and the subset of targets that penalties are chosen on.
        posterior: Learn the posterior mean as well.
        steps: Of its training; None: the default.
    """

    size: int = 32
    components: int = 300
    basis: str = "shipped"
    embeddings: tuple[str, ...] = ()
    zscore: str = "train"
    rois: tuple[str, ...] = ()
    count: int | None = None
    weighted: bool = True
    seed: int = 0
    posterior: bool = False
    steps: int | None = None


def train_images(subject: "Subject", options: ImageOptions, out: Path) -> dict[str, Any]:
    """Fit and write a decoder; returns what was measured on the training stimuli, each left out once.

    Raises:
        InputError: no pictures, too few training stimuli, embeddings that do not fit.
    """
    import torch

    from radiata_core.files import atomic_path
    from radiata_core.weights import write_tensors
    from radiata_decode.data.loading import unit_images
    from radiata_decode.data.normalisation import subject_standardiser
    from radiata_decode.data.stimuli import read_stimuli
    from radiata_decode.experiment.image_codecs import fitted_codec, keep_codec
    from radiata_decode.experiment.trained_models import chosen_voxels, standardised, write_card
    from radiata_decode.model.image_decoder import fit_image_decoder
    from radiata_decode.model.ridge import SharedRidge

    stimuli = read_stimuli(subject.folder)
    voxels = chosen_voxels(subject, options.rois)
    statistics = subject_standardiser(subject, options.zscore, voxels)
    train = standardised(subject, "train", statistics, voxels, options.count)
    if options.posterior and options.basis not in ("shipped", "training"):
        raise InputError(
            f"expected --basis shipped or training with --posterior; got {options.basis}. Leave one of them out."
        )
    if options.posterior and len(train.stimulus) < LEAST_FOR_POSTERIOR:
        raise InputError(
            f"expected {LEAST_FOR_POSTERIOR} training pictures or more for --posterior; got {len(train.stimulus)}: with "
            "fewer it is farther from the pictures than the ridge. Leave it out."
        )
    pictures = unit_images(stimuli.images(train.stimulus), options.size)
    codec = fitted_codec(options.basis, options.components, pictures, options.seed)
    shared = SharedRidge(train.responses, **_weights(subject, train, voxels, options.weighted))
    found = fit_image_decoder(
        shared,
        codec.encode(pictures),
        read_embeddings(options.embeddings, stimuli.table["stimulus"].tolist(), train.stimulus),
        latent_groups=codec.groups,
        generator=torch.Generator().manual_seed(options.seed),
    )
    kept_codec = keep_codec(codec, options.basis, out)
    found.decoder.save(out)
    kept = {"low_level": found.training.low_level, "responses": torch.from_numpy(train.responses)}
    with atomic_path(out / "training.safetensors") as part:
        write_tensors(part, {name: value.contiguous() for name, value in kept.items()})
    if options.posterior:
        from radiata_decode.experiment.picture_decoding import PosteriorOptions, fit_picture_posterior

        how = PosteriorOptions(seed=options.seed)
        how = how if options.steps is None else replace(how, steps=options.steps)
        fit_picture_posterior(pictures, train.responses, codec, how).save(out / "posterior.safetensors")
    r2 = found.decoder.loo_r2[: found.decoder.latents]
    power = found.decoder.sd[: found.decoder.latents].square()
    measured = {
        "loo_r2_all": float((r2.clamp(min=0) * power).sum() / power.sum()),
        "loo_r2_latents": [round(float(value), 4) for value in r2[:20]],
        "embedding_r2": {name: float(value.mean()) for name, value in found.training.embedding_r2.items()},
    }
    facts = {
        "subject": subject.folder.name,
        "subject_sha256": subject.sha256,
        "subject_voxels": len(subject.voxels),
        "voxels": len(voxels),
        "rois": list(options.rois),
        "size": options.size,
        "synthetic": bool(subject.manifest.get("SyntheticData", False)),
        "training_stimuli": train.stimulus,
        "basis": options.basis,
        "codec": kept_codec,
        "measured": measured,
    }
    write_card(out, "image", statistics, facts)
    return measured


def _weights(subject: "Subject", train: "Averaged", voxels: np.ndarray, weighted: bool) -> dict[str, Any]:
    from radiata_decode.model.reliability_weights import repeat_weights, voxel_weights

    ceiling = subject.noise_ceiling
    if not weighted or ceiling is None or not (np.nan_to_num(ceiling[voxels]) > 0).any():
        return {}
    ratio = np.sqrt(ceiling[voxels] / np.maximum(1 - ceiling[voxels], 1e-3))
    return {
        "voxel_weights": voxel_weights(ceiling[voxels]),
        "sample_weights": repeat_weights(train.repeats, np.nan_to_num(ratio)),
    }


def read_embeddings(given: tuple[str, ...], table: list[str], wanted: list[str]) -> dict[str, np.ndarray]:
    """Embeddings of the wanted stimuli, name -> (n, tokens, dimensions), from NAME=FILE words.

    Args:
        given: NAME=FILE with FILE a .npy or an .h5 (dataset NAME, or the only one), a row for each stimulus of the table.
        table: Stimuli in the order of the rows.
        wanted: Whose rows.

    Raises:
        InputError: a word without =, a file that is missing, broken, of another length or with NaN.
    """
    rows = {name: row for row, name in enumerate(table)}
    index = np.array([rows[name] for name in wanted])
    found = {}
    for word in given:
        name, _, file = word.partition("=")
        if not name or not file:
            raise InputError(f"expected embeddings as NAME=FILE; got {word}. Write e.g. clip=clip.npy.")
        values = _array(Path(file), name)
        if values.ndim not in (2, 3) or len(values) != len(table):
            raise InputError(
                f"expected {len(table)} rows, one a stimulus, (stimulus, [token,] dimension) in {file}; got {values.shape}."
            )
        part = np.asarray(values[index], np.float32)
        if not np.isfinite(part).all():
            raise InputError(
                f"expected finite embeddings in {file}; got NaN or infinity. Compute them again."
            )
        found[name] = part if part.ndim == 3 else part[:, None]
    return found


def _array(path: Path, name: str) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"expected a file of embeddings; got no such file: {path}. Check the path.")
    with foreign(f"expected a .npy or .h5 file of embeddings; got {path}, which cannot be read"):
        from radiata_imaging.hdf5 import open_hdf5, whole_array
        from radiata_imaging.numpy_files import npy_array

        if path.suffix == ".npy":
            return npy_array(path, lazy=True)

        with open_hdf5(path) as opened:
            words = list(opened)
            return np.asarray(whole_array(opened[name if name in words else words[0]]))

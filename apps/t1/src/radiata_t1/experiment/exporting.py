"""What leaves in other people's formats: a model as a MONAI bundle, a drawn head as a DICOM series of no patient."""

from pathlib import Path

from radiata_core.checkpoint import load_model
from radiata_core.errors import InputError
from radiata_core.files import sha256
from radiata_imaging.dicom_images import CARD, write_dicom_series
from radiata_imaging.dicom_origin import Origin
from radiata_imaging.nifti import read_volume
from radiata_t1.experiment.draw_many import spec_of
from radiata_t1.experiment.sample import Sample
from radiata_t1.model.bundle_drawing import write_head_bundle
from radiata_t1.model.weights import find_model

__all__ = ["export_bundle", "export_head"]


def export_bundle(name: str, out: Path, overwrite: bool) -> Path:
    """Write a bundle of a model, drawn from as `sample` does by default; its folder.

    Args:
        name: A shipped model's name, a file or a run's folder.
        out: The folder.
        overwrite: Replace a bundle that is there.

    Raises:
        InputError: no such model, one that draws covariates too, or something else in the folder.
    """
    _require_free(out, overwrite, Path("configs", "inference.json"))
    file = find_model(name)
    loaded = load_model(file)
    if hasattr(loaded.denoiser, "modalities"):
        raise InputError(
            f"expected a model of heads alone; got {name}, which draws covariates too. Export another."
        )
    sampler = Sample(out=out).solver(loaded.metadata)
    return write_head_bundle(out, file.stem, loaded, spec_of(loaded), sampler)


def export_head(source: Path, out: Path, overwrite: bool, *, picture: bool) -> Path:
    """Write a drawn head as DICOM slices; their folder.

    Args:
        source: The head.
        out: The folder.
        overwrite: Replace a series that is there.
        picture: Burn the statement into the slices.

    Raises:
        InputError: no such head, or something else in the folder.
    """
    _require_free(out, overwrite, Path(CARD))
    volume = read_volume(source)
    origin = Origin("radiata-t1", source.name, sha256(source), "T1-weighted head", synthetic=True)
    return write_dicom_series(volume, out, origin, picture=picture)


def _require_free(out: Path, overwrite: bool, mark: Path) -> None:
    """The folder is new, empty, or holds what may be replaced: `mark` tells."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not overwrite or not (out / mark).is_file():
        raise InputError(
            f"expected a new folder; got {out}, which exists. Choose another --out"
            + (", or pass --overwrite." if (out / mark).is_file() else ".")
        )

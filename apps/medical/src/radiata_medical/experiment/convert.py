"""`radiata-medical convert`: label maps and images that this program wrote, as DICOM objects beside the scan they belong to.

NIfTI file and its card → volume on the axes of the reference series → DICOM-SEG, a derived series, or pictures of it.
Or → one netCDF file with all maps and draws of a scan. The other way, a DICOM series → NIfTI with the sidecar of its
acquisition, by dcm2niix where it is installed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from radiata_core.errors import InputError

if TYPE_CHECKING:
    from radiata_imaging.dicom import DicomSeries
    from radiata_imaging.dicom_origin import Origin

__all__ = ["Convert"]


@dataclass(frozen=True)
class Convert:
    """Turn a label map or an image into DICOM or netCDF, or a DICOM series into NIfTI. Not for clinical use.

    The objects take patient and study from the reference series and say that they are derived, what made them from which
    file, and that they are not for clinical use.

    Example: radiata-medical convert segmented/head_dseg.nii.gz --reference scans/head/ --out head_dseg.dcm

    Example: radiata-medical convert restored/head_restored.nii.gz --to dicom-series --reference scans/head/ --out restored
    """

    source: Annotated[Path, tyro.conf.Positional]
    """The label map or image (.nii, .nii.gz); with --to nifti the folder of a DICOM series; for a bundle the name
    or file of a segmenter."""
    out: Path
    """dicom-seg, netcdf, nifti: the file, ending in .dcm, .nc or .nii.gz; else a folder for the slices."""
    to: Literal["dicom-seg", "dicom-series", "dicom-pictures", "netcdf", "nifti", "monai-bundle"] = (
        "dicom-seg"
    )
    """dicom-seg: one segmentation object; dicom-series: an image a slice; dicom-pictures: the same with the statement burned
    in; netcdf: the image with all other maps and draws of its scan, for xarray; nifti: a DICOM series with its sidecar;
    monai-bundle: a segmenter that monai.bundle loads and runs."""
    reference: Path | None = None
    """Folder of the DICOM series the scan came from; dicom-seg needs it, an image without it belongs to no patient."""
    overwrite: bool = False
    """Replace what is there."""

    def run(self) -> None:
        from radiata_core.runs import sole_writer

        self._check()
        with sole_writer(self.out):
            self._check_free()
            self._write()
        print(self.out)

    def _write(self) -> None:
        from radiata_imaging.dicom import read_dicom_series

        series = None if self.reference is None else read_dicom_series(self.reference)
        if self.to == "monai-bundle":
            from radiata_medical.experiment.segmenter_bundle import write_segmenter_bundle

            write_segmenter_bundle(self.out, str(self.source))
        elif self.to == "nifti":
            self._nifti()
        elif self.to == "netcdf":
            self._netcdf()
        elif self.to == "dicom-seg":
            assert series is not None  # by _check
            self._segmentation(series)
        else:
            self._series(series)

    def _nifti(self) -> None:
        from radiata_imaging.dcm2niix import is_installed, read_with_dcm2niix
        from radiata_imaging.headers import checksum
        from radiata_imaging.nifti import read_volume, write_volume
        from radiata_medical.experiment.outputs import generated_by

        sidecar = {}
        if is_installed():
            converted = read_with_dcm2niix(self.source)
            volume, sidecar = converted.volume, converted.sidecar
        else:
            volume = read_volume(self.source)
        told = {
            "GeneratedBy": generated_by(),
            "SourceFiles": [{"Name": self.source.name, "SHA256": checksum(self.source)}],
        }
        description = "measured, converted by radiata-medical, not for clinical use"
        write_volume(self.out, volume, description=description, dtype="float32", sidecar=sidecar | told)

    def _netcdf(self) -> None:
        from radiata_core.sidecars import card_of
        from radiata_imaging.volume_dataset import volume_dataset, write_netcdf
        from radiata_medical.experiment.outputs import APPLICATION
        from radiata_medical.experiment.result_maps import volumes_beside

        maps, draws = volumes_beside(self.source)
        told, origin = self._card(), self._origin("maps", synthetic=True)
        units = "units of the scan"
        about = {
            "title": f"{told.get('What', 'results')} of {origin.file}",
            "source": origin.file,
            "sha256": origin.sha256,
        }
        made = {"history": f"{told.get('Command', 'unknown')}; {APPLICATION} {origin.version} convert"}
        dataset = volume_dataset(maps, draws, units=units, **about, **made)
        card = card_of(self.out, APPLICATION, {origin.file: origin.sha256}, NotForClinicalUse=True)
        write_netcdf(dataset, self.out, card)

    def _segmentation(self, series: "DicomSeries") -> None:
        from radiata_core.sidecars import card_of
        from radiata_imaging.dicom_segmentation import write_dicom_segmentation
        from radiata_imaging.nifti import sidecar_path
        from radiata_medical.data.label_reading import label_names, read_whole_numbers
        from radiata_medical.experiment.outputs import APPLICATION

        labels = read_whole_numbers(self.source)
        origin = self._origin("segmentation", synthetic=False)
        names = label_names(sidecar_path(self.source).with_suffix(".tsv"))
        facts = {"What": "segmentation", "NotForClinicalUse": True, "SyntheticData": False}
        card = card_of(self.out, APPLICATION, {origin.file: origin.sha256}, **facts)
        write_dicom_segmentation(labels, self.out, origin, series, names, card=card)

    def _series(self, series: "DicomSeries | None") -> None:
        from radiata_imaging.dicom_images import write_dicom_series
        from radiata_imaging.nifti import read_volume

        volume = read_volume(self.source, min_axis=1)
        told = self._card()
        origin = self._origin(
            str(told.get("What", "image")), synthetic=bool(told.get("GeneratedPixels", True))
        )
        picture = self.to == "dicom-pictures"
        write_dicom_series(volume, self.out, origin, reference=series, picture=picture)

    def _card(self) -> dict[str, object]:
        """What the card beside the source says; nothing where there is none: such an image counts as synthetic."""
        from radiata_core.files import read_json
        from radiata_imaging.nifti import sidecar_path

        card = sidecar_path(self.source)
        found = read_json(card) if card.is_file() else {}
        return found if isinstance(found, dict) else {}

    def _origin(self, what: str, *, synthetic: bool) -> "Origin":
        from radiata_core.files import sha256
        from radiata_imaging.dicom_origin import Origin
        from radiata_medical.experiment.outputs import APPLICATION

        return Origin(APPLICATION, self.source.name, sha256(self.source), what, synthetic)

    def _check(self) -> None:
        if self.to == "nifti" and not self.source.is_dir():
            raise InputError(f"expected the folder of a DICOM series; got {self.source}. Check the path.")
        if self.to not in ("nifti", "monai-bundle") and not self.source.is_file():
            raise InputError(f"expected a label map or an image; got no file {self.source}. Check the path.")
        if self.to == "nifti" and not self.out.name.endswith((".nii", ".nii.gz")):
            raise InputError(f"expected a name ending in .nii or .nii.gz; got {self.out}. Rename the output.")
        if self.to == "netcdf" and self.out.suffix != ".nc":
            raise InputError(f"expected a name ending in .nc; got {self.out}. Rename the output.")
        if self.to == "dicom-seg" and self.out.suffix.lower() != ".dcm":
            raise InputError(f"expected a name ending in .dcm; got {self.out}. Rename the output.")
        if self.to == "dicom-seg" and self.reference is None:
            raise InputError("expected --reference FOLDER, the DICOM series that was segmented; got none.")
        if self.reference is not None and not self.reference.is_dir():
            raise InputError(
                f"expected a folder with a DICOM series; got {self.reference}. Check --reference."
            )

    def _check_free(self) -> None:
        from radiata_imaging.dicom_images import CARD

        if not self.out.exists():
            return
        if not self.overwrite:
            raise InputError(
                f"expected a new name; got {self.out}, which exists. Choose another --out, or pass --overwrite."
            )
        marks = (CARD, "configs/inference.json")
        if (
            self.out.is_dir()
            and any(self.out.iterdir())
            and not any((self.out / one).is_file() for one in marks)
        ):
            raise InputError(
                f"expected a series that convert wrote; got another folder {self.out}. Choose another --out."
            )

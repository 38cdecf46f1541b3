"""A label map as one DICOM-SEG object that refers to the series it was made from.

Label map (x, y, z) on the grid of the series, axes in any order → one binary segment a label, in the order of the codes →
`highdicom`. Each segment has its name, a coded meaning (`anatomical_codes`), the colour of the label table and, in its
description, the number it had in the label map.

`highdicom` (MIT, 1 MB) writes what the standard asks of an enhanced multi-frame object – dimensions, functional groups,
referenced instances – which is some 3000 lines; without it this one function says how to install it.

References:
    DICOM PS3.3, A.51 (segmentation), C.8.20.2 (segmentation image module).
    Bridge et al., "Highdicom", J. Digit. Imaging 2022, https://doi.org/10.1007/s10278-022-00683-y.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from radiata_core.errors import InputError
from radiata_core.files import atomic_path
from radiata_imaging.anatomical_codes import Code, meaning_of
from radiata_imaging.dicom import DicomSeries
from radiata_imaging.dicom_images import like_the_reference, same_places
from radiata_imaging.dicom_origin import STATEMENT, Origin, derived_uid, describe, require_reference
from radiata_imaging.volume import Volume, times

__all__ = ["Label", "write_dicom_segmentation"]

Label = tuple[str, tuple[int, int, int]]
"""Name and colour (red, green, blue, 0-255) of a label."""


def write_dicom_segmentation(
    labels: Volume,
    out: Path,
    origin: Origin,
    reference: DicomSeries,
    names: Mapping[int, Label],
    *,
    when: datetime | None = None,
    card: tuple[Path, Any] | None = None,
) -> Path:
    """Write the object; its path.

    Args:
        labels: Whole codes >= 0; 0 is background.
        out: The file, `.dcm`.
        origin: Where the map came from.
        reference: The series of the scan that was segmented.
        names: Code -> name and colour; a code that is not there is called "label CODE".
        when: It is made; now unless given.
        card: Of the file, as `radiata_core.files.atomic_path` takes it.

    Raises:
        InputError: highdicom is not installed, the map is not on the grid of the series, or it is empty.
    """
    highdicom = _highdicom()
    require_reference(reference.slices, "the reference")
    placed = like_the_reference(labels, reference)
    if not same_places(placed, reference.volume):
        raise InputError(
            f"expected a label map on the grid of the DICOM series, {_grid(reference.volume)}; got {_grid(placed)}, not the "
            "same places. Give the series it was made from, or resample the map to it."
        )
    codes = np.rint(placed.array).astype(np.int64)
    present = [code for code in np.unique(codes).tolist() if code]
    if not present:
        raise InputError("expected labels; got a map of background alone. Give another segmentation.")
    numbers = np.zeros(max(present) + 1, np.uint16 if len(present) > 255 else np.uint8)
    numbers[present] = np.arange(1, len(present) + 1)
    told = [_segment(highdicom, n, code, names, origin) for n, code in enumerate(present, start=1)]
    series = derived_uid("segmentation", origin.sha256, str(reference.slices[0].SeriesInstanceUID))
    item = highdicom.seg.Segmentation(
        source_images=list(reference.slices),
        pixel_array=np.ascontiguousarray(numbers[codes].transpose(2, 1, 0)),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=told,
        series_instance_uid=series,
        series_number=9001,
        sop_instance_uid=derived_uid(series, "0"),
        instance_number=1,
        manufacturer="Radiata",
        manufacturer_model_name=origin.application,
        software_versions=origin.version,
        device_serial_number=origin.sha256[:16],
        content_description=f"{origin.what[:40]}, {STATEMENT}",
        content_label="SEGMENTATION",
    )
    when = when or datetime.now()
    describe(item, origin, when)
    _follow(item, derived_uid(series, "dimensions"), when)
    with atomic_path(out, card) as part:
        item.save_as(part, enforce_file_format=True)
    return out


def _follow(item: Any, organisation: str, when: datetime) -> None:
    """What highdicom draws by chance or takes from the clock follows from the source and `when`."""

    def put(place: Any, element: Any) -> None:
        if element.keyword == "DimensionOrganizationUID":
            element.value = organisation
        elif element.keyword == "ContributionDateTime":
            element.value = when.strftime("%Y%m%d%H%M%S.%f")

    item.walk(put)


def _highdicom() -> Any:
    try:
        import highdicom
        import highdicom.seg
    except ImportError:
        raise InputError(
            'expected highdicom, which writes DICOM segmentations; got none. pip install "radiata-imaging[dicom]".'
        ) from None
    return highdicom


def _segment(highdicom: Any, number: int, code: int, names: Mapping[int, Label], origin: Origin) -> Any:
    """The description of a segment."""
    name, colour = names.get(code, (f"label {code}", (128, 128, 128)))
    meaning = meaning_of(name, code)

    def concept(one: Code) -> Any:
        return highdicom.sr.CodedConcept(one.value, one.scheme, one.meaning)

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=origin.application,
        version=origin.version,
        family=highdicom.sr.CodedConcept("123110", "DCM", "Artificial Intelligence"),
    )
    told = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name[:64],
        segmented_property_category=concept(meaning.category),
        segmented_property_type=concept(meaning.kind),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        display_color=highdicom.color.CIELabColor.from_rgb(*colour),
    )
    told.SegmentDescription = f"label {code} of {origin.file}; {STATEMENT}"
    if meaning.side is not None:
        told.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
            concept(meaning.side)
        ]
    return told


def _grid(volume: Volume) -> str:
    return f"{times(volume.shape)} voxels of {times(np.round(volume.spacing, 3))} mm"

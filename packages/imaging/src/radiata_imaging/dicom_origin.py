"""What every DICOM object that leaves says of itself: whose study it belongs to, which program made it from what, and that
it is not for clinical use.

    SyntheticData            YES where a model drew voxels, NO where they were measured or labelled
    ContentQualification     RESEARCH
    DerivationDescription    program, file and SHA-256 it was made from, the statement
    SeriesDescription        what it is, and the statement

UIDs are 2.25 followed by a name-based UUID of what the object was made from: the same file and the same reference give the
same UIDs, so that an archive recognises an object that is sent twice.

References:
    DICOM PS3.3, C.12.1 (SOP common: Synthetic Data, Content Qualification), C.7.6.1 (derivation); PS3.5, B.2 (UUIDs).
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from radiata_core.errors import InputError

__all__ = ["STATEMENT", "Origin", "derived_uid", "describe", "describe_patient", "require_reference"]

STATEMENT = "not for clinical use"

_SPACE = uuid.UUID("6c1f2d0e-52c5-5b8f-9c53-7d1f0d8f4a61")  # any fixed one: the names are ours
_PATIENT = (
    "SpecificCharacterSet", "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID",
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
_IDENTIFIERS = (
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "SOPClassUID",
    "FrameOfReferenceUID",
    "Modality",
)


@dataclass(frozen=True)
class Origin:
    """Where an object came from.

    Attributes:
        application: The program, as it is installed: radiata-medical.
        file: Name of the file it was made from.
        sha256: Of that file.
        what: In a word or a few: "segmentation", "restored", "synthetic T1-weighted head".
        synthetic: Whether a model drew voxels.
    """

    application: str
    file: str
    sha256: str
    what: str
    synthetic: bool

    @property
    def version(self) -> str:
        """Of the program."""
        try:
            return version(self.application)
        except PackageNotFoundError:
            return "unknown"

    @property
    def description(self) -> str:
        """For the series, at most 64 characters."""
        kind = f"SYNTHETIC {self.what}" if self.synthetic else self.what
        return f"{kind[: 62 - len(STATEMENT)]}, {STATEMENT}"


def derived_uid(*words: str) -> str:
    """The UID that follows from these words."""
    return f"2.25.{uuid.uuid5(_SPACE, chr(0).join(words)).int}"


def describe(item: Any, origin: Origin, when: datetime) -> None:
    """Put the statements into an object.

    Args:
        item: The pydicom data set.
        origin: Where it came from.
        when: It was made.
    """
    item.SyntheticData = "YES" if origin.synthetic else "NO"
    item.ContentQualification = "RESEARCH"
    item.SeriesDescription = origin.description
    item.DerivationDescription = (
        f"{origin.what}; {origin.application} {origin.version} from {origin.file}, SHA-256 {origin.sha256}; {STATEMENT}"
    )[:1024]
    item.Manufacturer, item.ManufacturerModelName = "Radiata", origin.application
    item.SoftwareVersions = origin.version
    day, time = when.strftime("%Y%m%d"), when.strftime("%H%M%S.%f")
    for name in ("Content", "Series", "InstanceCreation"):
        setattr(item, f"{name}Date", day)
        setattr(item, f"{name}Time", time)


def describe_patient(item: Any, origin: Origin, reference: Any = None) -> None:
    """Put patient and study into an object: the reference's, or nobody's.

    Args:
        item: The pydicom data set.
        origin: Where it came from.
        reference: A slice of the series it belongs to; None: a study of its own, of a patient who says that there is none.
    """
    if reference is not None:
        for name in _PATIENT:
            if name in reference or name != "SpecificCharacterSet":
                setattr(item, name, reference.get(name, ""))
        return
    item.SpecificCharacterSet = "ISO_IR 192"
    item.PatientName = "SYNTHETIC^RADIATA" if origin.synthetic else "UNKNOWN^RADIATA"
    item.PatientID = f"RADIATA-{origin.sha256[:16]}"
    item.PatientBirthDate = item.PatientSex = item.StudyDate = item.StudyTime = ""
    item.AccessionNumber = item.ReferringPhysicianName = ""
    item.StudyInstanceUID, item.StudyID = derived_uid("study", origin.sha256), origin.sha256[:16]


def require_reference(slices: Sequence[Any], place: object) -> None:
    """The identifiers that a derived object refers to are there; what else may be empty is made so.

    Args:
        slices: Of the series.
        place: Its folder, for the message.

    Raises:
        InputError: one is missing.
    """
    for item in slices:
        missing = [name for name in _IDENTIFIERS if not item.get(name)]
        if missing:
            raise InputError(
                f"expected {', '.join(missing)} in each slice of {place}; got none. Give the series as the scanner or the "
                "archive exported it."
            )
        for name in _PATIENT[1:]:
            if name not in item:
                setattr(item, name, "")

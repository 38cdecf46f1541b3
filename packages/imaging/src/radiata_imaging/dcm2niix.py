"""A DICOM series through dcm2niix: what our own reader refuses, and the sidecar of the acquisition.

`dicom` reads a classic series in Python, starts nothing, and is what a command uses of itself. dcm2niix (BSD-2, 3 MB, of the
extra `dicom`) also reads multi-frame objects, compressed pixels and tilted gantries, and knows what vendors
write where; but it is a C++ program that parses foreign bytes. So it runs only where it is asked for, `RADIATA_DICOM_READER=
dcm2niix` or `convert --to nifti`, and then

    as a child without a shell, in a temporary folder of its own that is all it is told to write to,
    with no input, no environment but PATH, and the user's defaults ignored,
    for at most `SECONDS`, with `RADIATA_MAX_BYTES` as its limit of memory and of a file.

Its grid may have other axes than our reader's; the places are the same, which a test compares.

References:
    Li et al., "The first step for neuroimaging data analysis: DICOM to NIfTI conversion", J. Neurosci. Methods 2016,
        https://doi.org/10.1016/j.jneumeth.2016.03.001.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radiata_core.errors import InputError
from radiata_core.files import read_json
from radiata_core.foreign_files import allowed_bytes, check_declared
from radiata_imaging.nifti import read_volume, sidecar_path
from radiata_imaging.volume import Volume

__all__ = ["READER", "SECONDS", "Converted", "is_asked_for", "is_installed", "read_with_dcm2niix"]

READER = "RADIATA_DICOM_READER"
"""The variable of the environment that chooses the reader of DICOM folders: `own` or `dcm2niix`."""

SECONDS = 300.0
"""A series may take so long."""

_OPTIONS = ("-b", "y", "-ba", "y", "-z", "n", "-g", "i", "-d", "0", "-f", "series")
"""Sidecar, without names; uncompressed; the user's defaults ignored; this folder alone; one name."""


@dataclass(frozen=True, eq=False)
class Converted:
    """A series.

    Attributes:
        volume: Its voxels, scaled, and their places.
        sidecar: What dcm2niix says of the acquisition, in BIDS' words; no names of people.
    """

    volume: Volume
    sidecar: dict[str, Any]


def is_asked_for() -> bool:
    """Whether DICOM folders are to be read by dcm2niix.

    Raises:
        InputError: the environment names a reader that does not exist.
    """
    word = os.environ.get(READER, "own")
    if word not in ("own", "dcm2niix"):
        raise InputError(f"expected {READER}=own or dcm2niix; got {word!r}. Change the environment.")
    return word == "dcm2niix"


def is_installed() -> bool:
    """Whether there is a dcm2niix: the package's, or one on PATH."""
    return _found() is not None


def read_with_dcm2niix(folder: Path, *, seconds: float = SECONDS) -> Converted:
    """The one volume that dcm2niix makes of a folder.

    Args:
        folder: With one series; folders in it are not looked into.
        seconds: It may take.

    Raises:
        InputError: dcm2niix is not installed, takes too long, fails, or makes no volume or several.
    """
    program = _program()
    check_declared(sum(path.stat().st_size for path in folder.iterdir() if path.is_file()), folder, "files")
    with tempfile.TemporaryDirectory(prefix="radiata-") as place:
        said = _run([program, *_OPTIONS, "-o", place, str(folder.resolve())], Path(place), folder, seconds)
        made = _made(Path(place), folder, said)
        try:
            volume = read_volume(made, min_axis=1)
            sidecar = read_json(sidecar_path(made)) if sidecar_path(made).is_file() else {}
        except InputError as error:  # the temporary name means nothing to a user
            raise InputError(str(error).replace(str(made), f"what dcm2niix made of {folder}")) from None
    return Converted(volume, sidecar if isinstance(sidecar, dict) else {})


def _found() -> str | None:
    with contextlib.suppress(ImportError):
        import dcm2niix

        return str(dcm2niix.bin)
    return shutil.which("dcm2niix")


def _program() -> str:
    found = _found()
    if found is None:
        raise InputError('expected dcm2niix; got none. pip install "radiata-imaging[dicom]".')
    return found


def _run(call: list[str], place: Path, folder: Path, seconds: float) -> str:
    """What the program said; it is ended with all it started."""
    log = place / "said.txt"
    with log.open("wb") as stream:
        child = subprocess.Popen(
            call, cwd=place, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True,
            env={"PATH": os.environ.get("PATH", "")},
        )  # fmt: skip
        _limit(child.pid)
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise InputError(
                f"expected dcm2niix to end within {seconds:g} s; got none from {folder}. Convert the series by hand."
            ) from None
        finally:
            if child.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    with log.open("rb") as read:
        return read.read(100_000).decode(errors="replace")


def _limit(process: int) -> None:
    """Memory and the size of a file, where the system can; a process that has ended needs none."""
    try:
        import resource

        limit = resource.prlimit
    except (ImportError, AttributeError):
        return
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE):
        with contextlib.suppress(ProcessLookupError, ValueError, PermissionError):
            limit(process, kind, (allowed_bytes(), allowed_bytes()))


def _made(place: Path, folder: Path, said: str) -> Path:
    """The one file; of a tilted or unevenly sliced series the one that was made even."""
    files = sorted(place.glob("*.nii"))
    even = [path for path in files if path.stem.endswith(("_Eq_1", "_Tilt_1"))]
    if len(even) == 1:
        files = even
    if len(files) == 1:
        return files[0]
    if files:
        names = ", ".join(path.stem for path in files[:4])
        raise InputError(
            f"expected one volume in {folder}; got {len(files)} from dcm2niix ({names}). Give each series its own folder."
        )
    lines = [line for line in said.splitlines() if line.strip() and "version v1" not in line]
    last = lines[-1].strip()[:140] if lines else "no word"
    raise InputError(
        f"expected a series that dcm2niix can convert; got none from {folder} ({last}). Export it again."
    )

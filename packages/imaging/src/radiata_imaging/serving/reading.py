"""Read one file that somebody gave, in a process of its own with limits on memory and time, and say what it is.

    python -m radiata_imaging.serving.reading volume SOURCE TARGET NAME KIND UNIT TABLE     a volume, packed for the viewer
    python -m radiata_imaging.serving.reading check MODULE:FUNCTION SOURCE                  any other file

The first writes TARGET (packed voxels, see `viewer`) and TARGET.json (shape, spacing, what the viewer wants). A file that
claims to be large, unpacks for ever or crashes a library ends this process, not the server; what the house's readers refuse
becomes one line on standard error, and exit code 1.
"""

import importlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from radiata_core.errors import InputError

__all__ = ["checked", "main", "packed"]

MEMORY = 8 * 2**30  # bytes of address space; a head of 0.5 mm and the libraries take 5 GiB
SECONDS = 120
MAX_VOXELS = 2**27


def packed(
    source: Path, target: Path, name: str, kind: str = "image", unit: str = "", table: Path | None = None
) -> dict[str, Any]:
    """What the viewer knows of a volume, read in a child; its voxels are in `target`.

    Raises:
        InputError: what the child refused, or that it ended without a word.
    """
    words = [str(source), str(target), name, kind, unit, "" if table is None else str(table)]
    _child(["volume", *words])
    found = json.loads(target.with_name(target.name + ".json").read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise InputError("expected a description of the volume; got something else.")
    return found


def checked(source: Path, function: str) -> None:
    """Nothing, if the reader accepts the file.

    Args:
        source: The file.
        function: "module:function" that takes its path.

    Raises:
        InputError: as `packed`.
    """
    _child(["check", function, str(source)])


def _child(words: Sequence[str]) -> None:
    call = [sys.executable, "-m", "radiata_imaging.serving.reading", *words]
    try:
        done = subprocess.run(call, capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise InputError(f"expected a file that is read within {SECONDS} s; got none of that kind.") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("expected")]
        raise InputError(
            said[-1] if said else "expected a file that can be read; got one that ended its reader."
        )


def main(arguments: Sequence[str]) -> int:
    """Exit code of the child."""
    _limit()
    try:
        if arguments[0] == "volume":
            _pack(*arguments[1:])
        else:
            module, _, function = arguments[1].partition(":")
            getattr(importlib.import_module(module), function)(Path(arguments[2]))
    except InputError as error:
        print(_without_paths(" ".join(str(error).split()), arguments), file=sys.stderr)
        return 1
    except MemoryError:
        print("expected a file that fits into the memory of a reader; got a larger one.", file=sys.stderr)
        return 1
    except Exception as error:
        kind = type(error).__name__
        print(f"expected a file that can be read; got one that cannot ({kind}).", file=sys.stderr)
        return 1
    return 0


def _pack(source: str, target: str, name: str, kind: str, unit: str, table: str) -> None:
    import numpy as np

    from radiata_core.files import atomic_path
    from radiata_imaging.nifti import open_image, read_volume
    from radiata_imaging.viewer import embedded
    from radiata_imaging.volume import times

    shape = open_image(Path(source)).shape
    if int(np.prod(shape, dtype=object)) > MAX_VOXELS:
        raise InputError(
            f"expected at most {MAX_VOXELS:,} voxels; got {times(shape)}. Use the command line for it."
        )
    volume = read_volume(Path(source), allow_constant=kind != "image")
    item = embedded(name, volume, kind, colours=_colours(table), unit=unit)
    with atomic_path(Path(target)) as part:
        part.write_bytes(item.pop("data"))
    item["facts"] = (
        f"{times(volume.shape)} voxels of {times(np.round(volume.spacing, 3))} mm, {volume.axcodes}"
    )
    with atomic_path(Path(target + ".json")) as part:
        part.write_text(json.dumps(item), encoding="utf-8")


def _colours(table: str) -> dict[int, tuple[str, tuple[int, int, int]]]:
    """Names and colours of a BIDS table of labels (index, name, color); none if there is no such table."""
    if not table or not Path(table).is_file():
        return {}
    from radiata_imaging.manifest import read_rows

    found = {}
    for row in read_rows(Path(table)):
        red, green, blue = bytes.fromhex(row["color"].removeprefix("#"))
        found[int(row["index"])] = (row["name"], (red, green, blue))
    return found


def _without_paths(text: str, arguments: Sequence[str]) -> str:
    """A message for the page: it names "the file", not where the server keeps it."""
    for word in arguments[1:]:
        if word.startswith("/"):
            text = text.replace(word, "the file").replace(Path(word).name, "the file")
    return text


def _limit() -> None:
    """Memory and processor time of this process; none where the system knows no such limits."""
    try:
        import resource
    except ImportError:
        return
    for what, most in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CPU, SECONDS)):
        _, hard = resource.getrlimit(what)
        resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Files that come in: counted while they come, kept under names of our own, read by the house's readers before use.

Of the name that a browser sends only the ending is looked at, and only to choose among those that the reader lists; the
rest is a label, shown as text. A file lies in a folder of the server's temporary one, named by a random number:

    TEMPORARY/uploads/9f3c…/scan.nii.gz
"""

import secrets
import shutil
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from radiata_core.errors import InputError
from radiata_imaging.serving.presets import Reader
from radiata_imaging.serving.reading import checked, packed

__all__ = ["Intake", "TooLarge", "Upload"]

_KEPT = 8
_LABEL = 80


class TooLarge(InputError):
    """More bytes than are taken."""


@dataclass(frozen=True, eq=False)
class Upload:
    """A file that was accepted.

    Attributes:
        key: Random, in requests.
        label: What the browser called it: text for people, never a path.
        reader: What kind it is.
        path: Where it lies.
        item: What the viewer knows of it; empty if it is no volume.
        view: Its voxels, packed; None if it is no volume.
    """

    key: str
    label: str
    reader: str
    path: Path
    item: dict[str, Any] = field(default_factory=dict)
    view: Path | None = None

    def card(self) -> dict[str, Any]:
        """For the page."""
        item = {key: value for key, value in self.item.items() if key != "facts"}
        if item:
            item["url"] = f"/api/uploads/{self.key}/volume"
        facts = self.item.get("facts", "")
        return {
            "key": self.key,
            "label": self.label,
            "reader": self.reader,
            "facts": facts,
            "volume": item or None,
        }


class Intake:
    """Where uploads go; the eight newest are kept.

    Args:
        folder: Of the server's own.
        readers: What is accepted.
        limit: Most bytes of a file.
    """

    def __init__(self, folder: Path, readers: dict[str, Reader], limit: int) -> None:
        self.folder, self.readers, self.limit = folder, readers, limit
        self.uploads: OrderedDict[str, Upload] = OrderedDict()

    async def receive(self, body: AsyncIterator[bytes], reader: Reader, name: str) -> tuple[Path, str]:
        """The body in a file of our own, and the label; nothing is read yet.

        Raises:
            InputError: an ending that the reader does not take, or an empty file.
            TooLarge: more bytes than `limit`; what came is removed.
        """
        label = "".join(c for c in name if c.isprintable()).strip()[-_LABEL:] or "unnamed"
        suffix = next((end for end in reader.suffixes if label.lower().endswith(end)), None)
        if suffix is None:
            raise InputError(f"expected {reader.label}; got another kind of file. Convert it first.")
        folder = self.folder / secrets.token_hex(8)
        folder.mkdir(parents=True)
        path, count = folder / f"scan{suffix}", 0
        try:
            with path.open("xb") as file:
                async for block in body:
                    count += len(block)
                    if count > self.limit:
                        raise TooLarge(self.refusal("more"))
                    file.write(block)
            if count == 0:
                raise InputError("expected a file; got an empty one (0 bytes). Choose it again.")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return path, label

    def refusal(self, size: str) -> str:
        """Said of a file that is too large."""
        most = self.limit / 2**20
        return f"expected a file of at most {most:g} MiB; got {size}. Start the server with a larger --max-upload."

    def accept(self, path: Path, reader: Reader, label: str) -> Upload:
        """Read what came, in a child; it is kept if the house's reader takes it.

        Raises:
            InputError: it does not; the file is removed.
        """
        view, item = None, {}
        try:
            if reader.check:
                checked(path, reader.check)
            else:
                view = path.parent / "view"
                item = packed(path, view, label)
        except BaseException:
            shutil.rmtree(path.parent, ignore_errors=True)
            raise
        upload = Upload(path.parent.name, label, reader.name, path, item, view)
        self.uploads[upload.key] = upload
        return upload

    def forget(self, busy: set[str]) -> None:
        """Remove the oldest beyond eight that no job needs."""
        for key in list(self.uploads)[:-_KEPT]:
            if key not in busy:
                shutil.rmtree(self.uploads.pop(key).path.parent, ignore_errors=True)

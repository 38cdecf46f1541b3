"""`radiata-decode report FOLDER`: one page of a folder that train, decode, encode, synthesize or evaluate wrote."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from radiata_core.errors import InputError

__all__ = ["Report"]


@dataclass(frozen=True)
class Report:
    """Write one self-contained HTML page of a folder: scores beside controls, galleries, flat maps, training, provenance.

    What a folder is, its files say. A folder of such folders gives one page of all. The page holds its pictures and opens
    without a network. Not for clinical use.

    Example: radiata-decode report scores

    Example: radiata-decode report decoded --out decoded.html
    """

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder that train, decode, encode, synthesize or evaluate wrote to, or one that holds such folders."""
    out: Path | None = None
    """File to write; report.html in the folder by default."""
    title: str = ""
    """Title of the page; the folder's name by default."""
    limit: int = 24
    """Most decoded stimuli with pictures, drawn at random."""
    seed: int = 0
    """Of the stimuli that are drawn."""
    overwrite: bool = False
    """Replace an existing page."""

    def run(self) -> None:
        """Do it.

        Raises:
            InputError: nothing to report, or the page exists.
        """
        if not self.folder.is_dir():
            raise InputError(
                f"expected a folder that a verb of radiata-decode wrote; got {self.folder}. Check the path."
            )
        if self.limit < 1 or self.seed < 0:
            raise InputError(
                f"expected --limit of 1 or more and --seed >= 0; got {self.limit} and {self.seed}."
            )
        page = self.out or self.folder / "report.html"
        self._check_new(page)
        from radiata_core.runs import sole_writer
        from radiata_decode.experiment.report_pages import page_of
        from radiata_imaging.report import write_report

        made = page_of(self.folder, limit=self.limit, seed=self.seed)
        title = self.title or f"radiata-decode: {self.folder.resolve().name}"
        with sole_writer(page):
            self._check_new(page)  # another process may have been faster
            print(write_report(page, title, made.sections, synthetic=made.synthetic))

    def _check_new(self, page: Path) -> None:
        if page.exists() and not self.overwrite:
            raise InputError(
                f"expected a new file; got {page}, which exists. Choose another --out, or pass --overwrite."
            )

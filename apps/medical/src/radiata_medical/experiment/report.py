"""`radiata-medical report`: one page for a folder of results: restored scans, segmentations, an evaluation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from radiata_core.errors import InputError

__all__ = ["Report"]


@dataclass(frozen=True)
class Report:
    """Write one self-contained HTML page of results: before and after, labels over scans, scores, warnings, provenance.

    The page holds its pictures and data and opens without a network. Not for clinical use.

    Example: radiata-medical report restored/ --scans scans/

    Example: radiata-medical report evaluation/ --out evaluation.html
    """

    results: Annotated[Path, tyro.conf.Positional]
    """Folder that restore, segment, translate, anomaly, evaluate or demo wrote to."""
    scans: Path | None = None
    """Folder or file of the scans they were made from, for before and after; by default where the run found
    them, if they are still there."""
    out: Path | None = None
    """File to write; report.html in the folder by default."""
    title: str = ""
    """Title of the page; the folder's name by default."""
    limit: int = 12
    """Most cases with pictures, evenly spaced; tables have all."""
    viewers: int = 2
    """Most cases of a kind with an interactive view; a volume of 1 mm takes 4 to 6 MB of the page."""
    radiological: bool = False
    """Show the patient's left on the right of pictures."""
    overwrite: bool = False
    """Replace an existing page."""

    def run(self) -> None:
        """Do it.

        Raises:
            InputError: nothing to report, or the page exists.
        """
        if not self.results.is_dir():
            raise InputError(f"expected a folder of results; got {self.results}. Check the path.")
        if self.limit < 0 or self.viewers < 0:
            raise InputError(
                f"expected --limit and --viewers >= 0; got {self.limit} and {self.viewers}. Leave the defaults."
            )
        page = self.out or self.results / "report.html"
        from radiata_core.runs import sole_writer
        from radiata_medical.experiment.report_pages import write_page

        with sole_writer(page):
            if page.exists() and not self.overwrite:
                raise InputError(
                    f"expected a new file; got {page}, which exists. Choose another --out, or pass --overwrite."
                )
            print(write_page(self, page))

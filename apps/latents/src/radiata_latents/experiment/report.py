"""`radiata-latents report`: one page for a folder or a file, whatever stands in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from radiata_core.errors import InputError

if TYPE_CHECKING:
    from radiata_latents.experiment.pictures import Picture

__all__ = ["Report"]


@dataclass(frozen=True)
class Report:
    """Write one self-contained HTML page of a run: training, scores, rates, latents, potential, provenance.

    The page holds its pictures and opens without a network.

    Example: radiata-latents report runs/lorenz

    Example: radiata-latents report rates.h5 --population lorenz.h5
    """

    place: tyro.conf.Positional[Path]
    """Folder of train, infer, evaluate or demo; or a file of a population or of rates."""
    population: Path | None = None
    """Population that the rates are of, if it is not beside them."""
    out: Path | None = None
    """File to write; report.html in the folder by default, FILE.html for a file."""
    pictures: Path | None = None
    """Folder to write the figures to as well, each as .png with its numbers as .json; by default none."""
    title: str = ""
    """Title of the page; the name of the folder or file by default."""
    overwrite: bool = False
    """Replace an existing page."""

    def run(self) -> None:
        """Do it.

        Raises:
            InputError: nothing to report, or the page exists.
        """
        print(self.write())

    def write(self) -> Path:
        """Write the page, and the pictures if they are asked for; returns where the page is.

        Raises:
            InputError: as `run`.
        """
        if not self.place.exists():
            raise InputError(
                f"expected the folder of a run, or a file of rates; got nothing at {self.place}. Check the path."
            )
        page = self.out or (
            self.place / "report.html" if self.place.is_dir() else self.place.with_suffix(".html")
        )
        self._check_new(page)
        from radiata_core.runs import sole_writer
        from radiata_imaging.report import write_report
        from radiata_latents.experiment.folder_page import page_of

        made = page_of(self.place, self.population)
        title = self.title or f"radiata-latents: {self.place.resolve().name}"
        with sole_writer(page):
            self._check_new(page)  # another process may have been faster
            if self.pictures is not None:
                self._save(made.pictures, self.pictures)
            return write_report(page, title, made.sections, synthetic=made.synthetic)

    def _check_new(self, page: Path) -> None:
        if page.exists() and not self.overwrite:
            raise InputError(
                f"expected a new file; {page} exists. Choose another --out, or pass --overwrite."
            )

    def _save(self, pictures: "Sequence[Picture]", folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        taken = [other for picture in pictures if (other := picture.in_the_way(folder)) is not None]
        if taken and not self.overwrite:
            raise InputError(
                f"expected new files in {folder}; {taken[0].name} exists and shows something else. Choose another "
                "--pictures, or pass --overwrite."
            )
        for picture in pictures:
            picture.save(folder)

"""`radiata-t1 report`: one page for a folder, whatever stands in it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from radiata_core.errors import InputError

__all__ = ["Report"]


@dataclass(frozen=True)
class Report:
    """Write one self-contained HTML page of a run: training curves, sampled heads with a viewer, an evaluation.

    The page holds its pictures and data and opens without a network.

    Example: radiata-t1 report heads/

    Example: radiata-t1 report heads/ --real scan.nii.gz
    """

    folder: tyro.conf.Positional[Path]
    """Folder of radiata-t1 train, sample or evaluate, or any folder of volumes."""
    out: Path | None = None
    """File to write; report.html in the folder by default."""
    title: str = ""
    """Title of the page; the folder's name by default."""
    real: Path | None = None
    """A real head (.nii, .nii.gz, .mgz) to see beside the sampled ones, left of the slider."""
    overwrite: bool = False
    """Replace an existing page."""

    def run(self) -> None:
        """Do it.

        Raises:
            InputError: nothing to report, or the page exists.
        """
        if not self.folder.is_dir():
            raise InputError(f"expected the folder of a run; got {self.folder}. Check the path.")
        from radiata_core.runs import sole_writer

        page = self.out or self.folder / "report.html"
        with sole_writer(page):
            if page.exists() and not self.overwrite:
                raise InputError(
                    f"expected a new file; {page} exists. Choose another --out, or pass --overwrite."
                )
            self._write(page)

    def _write(self, page: Path) -> None:
        from radiata_imaging.report import Section, Text, write_report

        sections, synthetic = self._sections()
        if not sections:
            raise InputError(
                f"expected log.jsonl, evaluation.json or volumes (.nii, .nii.gz) in {self.folder}; got none of them. "
                "Give the folder that a command wrote to."
            )
        record = _run_record(self.folder)
        sections.append(Section("Provenance", [_provenance(record)]))
        if record.get("state") not in (None, "done"):
            text = f"This run is {record['state']}: what stands here may not be its end."
            sections.insert(0, Section("State", [Text(text, warning=True)]))
        print(
            write_report(page, self.title or f"radiata-t1: {self.folder.name}", sections, synthetic=synthetic)
        )

    def _sections(self) -> tuple[list[Any], bool]:
        from radiata_core.runs import read_json, read_log
        from radiata_imaging.nifti import is_volume_path
        from radiata_imaging.report import Image, Section
        from radiata_t1.experiment.pages import CAPTIONS, evaluation_sections, sample_sections, train_sections

        sections: list[Any] = []
        synthetic = False
        if any("loss" in record for record in read_log(self.folder / "log.jsonl")):
            sections += train_sections(self.folder)
        if any(path.is_file() and is_volume_path(path) for path in self.folder.iterdir()):
            sections += sample_sections(self.folder, self.real)
            synthetic = any(getattr(block, "synthetic", False) for s in sections for block in s.blocks)
        if (self.folder / "evaluation.json").is_file():
            sections += evaluation_sections(read_json(self.folder / "evaluation.json"))
            pictures = [(self.folder / f"{name}.png", caption) for name, caption in CAPTIONS.items()]
            images = [Image(path.read_bytes(), caption) for path, caption in pictures if path.is_file()]
            sections.append(Section("Pictures", images))
            synthetic = True
        return sections, synthetic


def _run_record(folder: Path) -> dict[str, Any]:
    from radiata_core.runs import read_json

    return read_json(folder / "run.json") if (folder / "run.json").is_file() else {}


def _provenance(record: dict[str, Any]) -> Any:
    from radiata_core.runs import provenance
    from radiata_imaging.report import Provenance

    return Provenance({"run": record or "no run.json in the folder", "page made by": provenance()})

"""`radiata-medical anomaly`: what of a scan a prior of healthy heads did not expect. Research only."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from radiata_core.errors import InputError

if TYPE_CHECKING:
    from radiata_medical.data.scans import Case
    from radiata_medical.experiment.anatomy import Anatomist
    from radiata_medical.experiment.seeking_anomalies import Asked
    from radiata_medical.model.anomaly_calibration import AnomalyCalibration
    from radiata_medical.model.pseudo_healthy import Evidence
    from radiata_medical.model.restorer import Restorer

__all__ = ["Anomaly"]


@dataclass(frozen=True)
class Anomaly:
    """Mark what a prior of healthy heads did not expect in a scan: pseudo-healthy image, z-map, clusters. Research only.

    It finds a small part of what a radiologist finds and marks healthy tissue. Scores are calibrated on healthy scans of the
    same kind (--healthy, best from the same scanner), or, weaker, on the scan itself. Not for clinical use.

    Example: radiata-medical anomaly patients/ --healthy controls/ --out findings

    Example: radiata-medical anomaly head.nii.gz --calibration findings/calibration.json --labels head_dseg.nii.gz --out one
    """

    source: Annotated[Path, tyro.conf.Positional]
    """A scan, a folder of scans, a BIDS tree or a DICOM folder."""
    out: Path
    """Folder for the results."""
    healthy: Path | None = None
    """Healthy scans of the same contrast, as a source; the calibration made of them is kept in OUT/calibration.json."""
    calibration: Path | None = None
    """A calibration made before, in place of healthy scans."""
    labels: Path | None = None
    """Label map of the scan, or a folder that segment wrote; without it the segmenter is run."""
    healthy_labels: Path | None = None
    """The same for the healthy scans."""
    model: str | None = None
    """A prior: a shipped name, a .safetensors file or a run's folder; by default prior-2d or prior-3d."""
    segmenter: str = "segmenter"
    """The segmenter, where there are no labels."""
    dims: Literal[2, 3] = 2
    """2: slice by slice, axial; 3: the whole volume in blocks."""
    score: Literal["combined", "smooth", "z", "residual", "features"] = "combined"
    """Which score is thresholded; features needs --dims 2."""
    false_positives: float = 0.001
    """Share of healthy voxels above the threshold."""
    smallest_ml: float = 0.05
    """Smaller clusters are left out, ml."""
    level: float = 0.6
    """Noise that is to drown a lesion, units of white."""
    draws: int = 4
    """Noises whose results are averaged; one evaluation each."""
    window: float = 1.5
    """Sd of the smoothing of z, voxels."""
    features: bool = True
    """Compare the prior's activations too (slices only); --no-features compares intensities alone, in half the time."""
    tile: int = 64
    """Voxels an axis of a block, for --dims 3."""
    batch_size: int = 8
    """Slices at once."""
    seed: int = 0
    """Of the noise."""
    device: Literal["cpu", "auto"] = "cpu"
    """Where to compute; auto takes a GPU if there is one."""
    assume_axcodes: str | None = None
    """Orientation (such as RAS) of scans whose header carries none."""
    overwrite: bool = False
    """Make again what is already there."""

    def run(self) -> None:
        """Do it.

        Raises:
            InputError: options, scans or models that cannot be used.
        """
        if self.healthy is not None and self.calibration is not None:
            raise InputError(
                "expected --healthy or --calibration; got both. A calibration is made of healthy scans."
            )
        if not 0 < self.false_positives <= 0.5:
            raise InputError(
                f"expected --false-positives in (0, 0.5]; got {self.false_positives}. Try 0.001."
            )
        if not (self.level > 0 and self.draws >= 1 and self.window > 0 and self.batch_size >= 1):
            raise InputError(
                f"expected --level and --window > 0, --draws and --batch-size >= 1; got {self.level}, {self.window}, "
                f"{self.draws} and {self.batch_size}."
            )
        if self.score == "features" and (self.dims == 3 or not self.features):
            raise InputError(
                "expected --dims 2 and features for --score features; got none. Take --score smooth."
            )
        from radiata_medical.data.scans import find_cases

        cases = find_cases(self.source)
        from radiata_medical.experiment.anatomy import Anatomist
        from radiata_medical.experiment.one_by_one import each_case
        from radiata_medical.experiment.seeking_anomalies import Asked
        from radiata_medical.model.restorer import load_restorer

        device = self._device()
        restorer = load_restorer(self.dims, self.model, "none", device)
        features = self.features and self.dims == 2
        asked = Asked(self.level, self.draws, features, self.tile, self.batch_size, self.seed)
        table = self._calibration(restorer, asked, device)
        anatomist = Anatomist(self.labels, self.segmenter, device)

        def work(case: "Case") -> None:
            self._one(case, anatomist, restorer, asked, table)

        each_case(cases, work, self.out, "radiata-medical anomaly")
        print(self.out)

    def _device(self) -> str:
        if self.device == "cpu":
            return "cpu"
        from accelerate import Accelerator

        return str(Accelerator().device)

    def _about(self, restorer: "Restorer", asked: "Asked") -> dict[str, object]:
        """What a calibration holds for."""
        return {
            "models": dict(restorer.checksums), "level": asked.level, "draws": asked.draws, "features": asked.features,
            "dims": self.dims,
        }  # fmt: skip

    def _calibration(self, restorer: "Restorer", asked: "Asked", device: str) -> "AnomalyCalibration | None":
        """From healthy scans or from a file; None: each scan is its own reference."""
        from radiata_medical.model.anomaly_calibration import (
            fit_calibration,
            load_calibration,
            save_calibration,
        )

        about = self._about(restorer, asked)
        if self.calibration is not None:
            table = load_calibration(self.calibration)
            for name, value in about.items():
                if table.about.get(name) != value:
                    raise InputError(
                        f"expected a calibration for {name} {value}; got one for {table.about.get(name)} in "
                        f"{self.calibration}. Use its settings, or make another with --healthy."
                    )
            return table
        if self.healthy is None:
            return None
        from radiata_core.files import plain
        from radiata_core.logs import progress
        from radiata_core.runs import sole_writer
        from radiata_imaging.headers import checksum
        from radiata_medical.data.scans import find_cases
        from radiata_medical.experiment.anatomy import Anatomist

        anatomist = Anatomist(self.healthy_labels, self.segmenter, device)
        cases = find_cases(self.healthy)
        about |= {
            "healthy": {case.name: checksum(case.path) for case in cases},
            "anatomy": {case.name: anatomist.checksums(case) for case in cases},
            "axcodes": self.assume_axcodes,
        }
        path = self.out / "calibration.json"
        with sole_writer(path):
            if path.is_file() and not self.overwrite:  # of a run that was stopped
                table = load_calibration(path)
                if table.window != self.window or plain(table.about) != plain(about):
                    raise InputError(
                        f"expected the calibration of these healthy scans and options; got {path}, made from others or with "
                        "others. Choose another --out, or pass --overwrite."
                    )
                return table
            known = [
                self._evidence(case, anatomist, restorer, asked)
                for case in progress(cases, "healthy scans", unit="scan")
            ]
            table = fit_calibration(known, window=self.window, about=about)
            save_calibration(path, table)
            return table

    def _evidence(
        self, case: "Case", anatomist: "Anatomist", restorer: "Restorer", asked: "Asked"
    ) -> "Evidence":
        from radiata_medical.data.intensity_scale import IntensityScale
        from radiata_medical.data.scans import read_scan
        from radiata_medical.experiment.seeking_anomalies import evidence_of

        scan = read_scan(case.path, assume_axcodes=self.assume_axcodes)
        scale = IntensityScale.of(scan.array)
        return evidence_of(scan, scale, anatomist.of(case, scan, scale), restorer, asked)

    def _one(
        self,
        case: "Case",
        anatomist: "Anatomist",
        restorer: "Restorer",
        asked: "Asked",
        table: "AnomalyCalibration | None",
    ) -> None:
        import time

        from radiata_imaging.orientation import reorient
        from radiata_medical.data.intensity_scale import IntensityScale
        from radiata_medical.data.scans import output_path, read_scan
        from radiata_medical.experiment.outputs import Facts, free_path, is_finished, sources_of
        from radiata_medical.experiment.seeking_anomalies import evidence_of, seek, write_findings
        from radiata_medical.model.anomaly_calibration import fit_calibration

        began = time.monotonic()
        reference = "itself" if table is None else table.about.get("healthy", {})
        facts = Facts(
            "radiata-medical anomaly",
            "anomaly",
            sources_of(case.path),
            restorer.checksums,
            {
                **self._about(restorer, asked), "reference": reference, "score": self.score, "window": self.window,
                "false_positives": self.false_positives, "smallest_ml": self.smallest_ml, "seed": self.seed,
                "labels": None if self.labels is None else self.labels.name, "segmenter": self.segmenter,
            },
        )  # fmt: skip
        words = ("clusters", "pseudohealthy", "zmap", "anomaly")
        if is_finished(output_path(self.out, case, words[0]), facts) and not self.overwrite:
            return
        for word in words:
            path = output_path(self.out, case, word)
            if not is_finished(
                path, facts
            ):  # a map of this very search, which was stopped before its clusters
                free_path(path, self.overwrite, facts)
        scan = read_scan(case.path, assume_axcodes=self.assume_axcodes)
        scale = IntensityScale.of(scan.array)
        anatomy = anatomist.of(case, scan, scale)
        evidence = evidence_of(scan, scale, anatomy, restorer, asked)
        own = table or fit_calibration([evidence], window=self.window, robust=True)
        score, labels, threshold, clusters = seek(
            evidence, own, self.score, self.false_positives, self.smallest_ml, reorient(scan).affine
        )
        told = replace(facts, figures={
            "ResearchOnly": True, "Threshold": threshold, "OwnReference": table is None, "White": scale.white,
            "Anatomy": anatomy.checksums, "MarkedMl": sum(c.size_ml for c in clusters),
        })  # fmt: skip
        write_findings(
            self.out,
            case,
            scan,
            scale,
            anatomy,
            evidence,
            (own.z(evidence), score, labels),
            clusters,
            told,
            began,
        )

"""`radiata-medical translate`: scans in another contrast, named or that of a reference."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from radiata_core.errors import InputError

if TYPE_CHECKING:
    from radiata_medical.data.scans import Case
    from radiata_medical.experiment.anatomy import Anatomist
    from radiata_medical.experiment.translating import Target
    from radiata_medical.model.restorer import Restorer
    from radiata_medical.model.translation import TranslationOptions

__all__ = ["Translate"]


@dataclass(frozen=True)
class Translate:
    """Show a scan in another contrast: T1 as T2, or as the scanner of a reference would have shown it.

    The anatomy comes from a segmentation, the intensities from the wanted contrast; a prior makes the result plausible. What
    only the wanted contrast would have shown is not there. Results are synthetic, on the scan's grid, and say so; finished
    scans are kept. Not for clinical use.

    Example: radiata-medical translate head_T1w.nii.gz --to t2 --out translated

    Example: radiata-medical translate bids/ --like site-b/reference.nii.gz --labels segmented/ --out harmonised
    """

    source: Annotated[Path, tyro.conf.Positional]
    """A scan, a folder of scans, a BIDS tree or a DICOM folder."""
    out: Path
    """Folder for the results."""
    to: Literal["t1", "t2", "flair", "pd"] | None = None
    """The contrast wanted, by name."""
    like: Path | None = None
    """A scan whose contrast is wanted, in place of a name."""
    method: Literal["prior", "curve", "paint", "histogram"] = "prior"
    """prior; or a baseline: curve (a curve through the tissue means), paint (the means alone), histogram (needs --like)."""
    labels: Path | None = None
    """Label map of the scan, or a folder that segment wrote; without it the segmenter is run."""
    like_labels: Path | None = None
    """Label map of the reference; without it the segmenter is run."""
    model: str | None = None
    """A prior: a shipped name, a .safetensors file or a run's folder; by default prior-2d or prior-3d."""
    segmenter: str = "segmenter"
    """The segmenter, where there are no labels."""
    guide: str | None = None
    """A joint model that holds the tissue map in place (slices only); by default none."""
    dims: Literal[2, 3] = 2
    """2: slice by slice, axial; 3: the whole volume in blocks."""
    detail: float = 0.5
    """Part of the scan's own detail that is kept, 0 to 1; 1 for harmonising scans of one contrast."""
    level: float = 0.06
    """Noise level the prior starts from, in units of white: more forgets more of the scan; 0 is --method curve."""
    steps: int = 1
    """Evaluations of the prior from there."""
    draws: int = 0
    """Noises of that level whose results are averaged; 0 adds none, and takes the errors of the curve for the noise."""
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
        if (self.to is None) == (self.like is None):
            raise InputError(
                "expected one of --to and --like; got " + ("none." if self.to is None else "both.")
            )
        if self.method == "histogram" and self.like is None:
            raise InputError("expected --like REFERENCE with --method histogram; got none. Name a scan.")
        if not 0 <= self.detail <= 1:
            raise InputError(f"expected --detail in [0, 1]; got {self.detail}. 0.5 is usual.")
        if self.batch_size < 1:
            raise InputError(f"expected --batch-size of at least 1; got {self.batch_size}.")
        from radiata_medical.data.scans import find_cases
        from radiata_medical.model.translation import TranslationOptions

        options = TranslationOptions(self.level, self.steps, self.draws)
        cases = find_cases(self.source)
        from radiata_medical.experiment.anatomy import Anatomist
        from radiata_medical.experiment.one_by_one import each_case

        device = self._device()
        restorer = self._prior(device)
        anatomist = Anatomist(self.labels, self.segmenter, device)
        target = self._target(device)
        joint, checksums = self._guide(device)
        checksums = checksums | ({} if restorer is None else restorer.checksums)

        def work(case: "Case") -> None:
            self._one(case, anatomist, target, options, restorer, joint, checksums)

        each_case(cases, work, self.out, "radiata-medical translate")
        print(self.out)

    def _device(self) -> str:
        if self.device == "cpu":
            return "cpu"
        from accelerate import Accelerator

        return str(Accelerator().device)

    def _prior(self, device: str) -> "Restorer | None":
        if self.method != "prior" or self.level == 0:
            return None
        from radiata_medical.model.restorer import load_restorer

        return load_restorer(self.dims, self.model, "none", device)

    def _guide(self, device: str) -> tuple[Any, dict[str, str]]:
        if self.guide is None:
            return None, {}
        from radiata_core.checkpoint import load_model
        from radiata_core.joint_denoisers import JointDenoiser
        from radiata_medical.experiment.anatomy import TISSUE_COUNT
        from radiata_medical.model.weights import find_model

        loaded = load_model(find_model(self.guide))
        joint = loaded.denoiser
        if not isinstance(joint, JointDenoiser) or joint.labels.channels != TISSUE_COUNT or self.dims == 3:
            raise InputError(
                f"expected a joint model of slices with {TISSUE_COUNT} classes, and --dims 2, for --guide; got {self.guide}."
            )
        return joint.to(device), {self.guide: loaded.sha256}

    def _target(self, device: str) -> "Target":
        from radiata_medical.data.intensity_scale import IntensityScale
        from radiata_medical.data.scans import case_of, read_scan
        from radiata_medical.experiment.anatomy import Anatomist
        from radiata_medical.experiment.outputs import sources_of
        from radiata_medical.experiment.translating import named_target, reference_target

        if self.like is None:
            return named_target(str(self.to))
        scan = read_scan(self.like, assume_axcodes=self.assume_axcodes)
        scale = IntensityScale.of(scan.array)
        case = case_of(self.like, self.like.parent)
        anatomy = Anatomist(self.like_labels, self.segmenter, device).of(case, scan, scale)
        return reference_target(case.name, scan, scale, anatomy, sources_of(self.like))

    def _one(
        self,
        case: "Case",
        anatomist: "Anatomist",
        target: "Target",
        options: "TranslationOptions",
        restorer: "Restorer | None",
        joint: Any,
        checksums: dict[str, str],
    ) -> None:
        import time

        from radiata_medical.data.intensity_scale import IntensityScale
        from radiata_medical.data.scans import output_path, read_scan
        from radiata_medical.experiment.outputs import Facts, free_path, is_finished, sources_of
        from radiata_medical.experiment.translating import translate_case, write_translation

        began = time.monotonic()
        facts = Facts(
            "radiata-medical translate",
            f"translated to {target.name}"[:32],
            sources_of(case.path) | target.sources,
            checksums,
            {
                "to": self.to, "like": None if self.like is None else self.like.name, "method": self.method,
                "labels": None if self.labels is None else self.labels.name, "segmenter": self.segmenter,
                "detail": self.detail,
                "level": self.level, "steps": self.steps, "draws": self.draws, "dims": self.dims, "seed": self.seed,
                "tile": self.tile if self.dims == 3 else None, "guide": self.guide,
            },
        )  # fmt: skip
        path = output_path(self.out, case, "translated")
        if is_finished(path, facts) and not self.overwrite:
            return
        free_path(path, self.overwrite, facts)
        scan = read_scan(case.path, assume_axcodes=self.assume_axcodes)
        scale = IntensityScale.of(scan.array)
        anatomy = anatomist.of(case, scan, scale)
        values, figures = translate_case(
            scan, scale, anatomy, target, self.method, options, restorer,
            joint=joint, detail=self.detail, tile=self.tile, batch_size=self.batch_size, seed=self.seed,
        )  # fmt: skip
        from dataclasses import replace

        told = replace(facts, figures={**figures, "Anatomy": anatomy.checksums})
        write_translation(self.out, case, scan, values, figures["White"], told, began)

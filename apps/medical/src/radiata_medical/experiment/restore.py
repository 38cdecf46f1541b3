"""`radiata-medical restore`: denoise, refine, fill, deblur, reconstruct; and how far the data determine the result."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from radiata_core.errors import InputError
from radiata_imaging.scale_out import Workers

if TYPE_CHECKING:
    from radiata_medical.data.degradations import Degradation

__all__ = ["Restore"]


@dataclass(frozen=True)
class Restore:
    """Restore scans: noise, thick slices, holes, blur, under-sampled k-space, bias fields, motion, few projections.

    The source is a scan, a folder, a BIDS tree, a DICOM folder, or real k-space (.npy, .h5). Results lie on the scan's grid
    (sr: on a finer one with the same outer faces) and say how far they explain the data. A stopped command goes on where it
    was; a case that fails is listed in failures.json, and the others are kept. Restored voxels are a model's estimate and no
    measurement. Not for clinical use.

    Example: radiata-medical restore scans/ --task denoise --out denoised

    Example: radiata-medical restore thick.nii.gz --task sr --spacing 1 --mode sample --out fine

    Example: radiata-medical restore head.nii.gz --task inpaint --mask lesion.nii.gz --dilate 2 --out filled

    Example: radiata-medical restore kspace.npy --task kspace --out reconstructed

    Example: radiata-medical restore head.nii.gz --task kspace --simulate --acceleration 4 --out test
    """

    source: Annotated[Path, tyro.conf.Positional]
    """Scan, folder, BIDS tree, DICOM folder, or k-space."""
    out: Path
    """Folder to write to."""
    task: Literal["denoise", "sr", "inpaint", "deblur", "kspace", "bias", "motion", "ct"] = "denoise"
    """What is to be undone."""
    mode: Literal["mean", "fast", "sample"] = "mean"
    """mean: the best single image, of volumes by networks of slices in two or three directions; fast: of volumes by one of
    blocks, several times as fast; sample: draws, their mean and spread."""
    draws: int = 8
    """Draws of the posterior, in mode sample."""
    simulate: bool = False
    """The scans are the truth: measure them by the task first, then restore, and report PSNR."""
    spec: Path | None = None
    """A .toml or .json file that describes the degradation, or a chain of them, in place of --task and its options."""
    noise: float | None = None
    """Standard deviation of the noise in percent of white (ct: of the longest line integral); by default estimated from the
    scan, and 2 in simulations (denoise 10)."""
    rician: bool = False
    """Noise is Rician, as in magnitude images: its bias is removed first."""
    spacing: tuple[float, ...] = (1.0,)
    """sr: voxel edges wanted, mm; one or three."""
    measured_spacing: tuple[float, ...] = (4.0,)
    """sr --simulate: edges of the measurement along --axis, mm."""
    thickness: float = 0.0
    """sr: thickness of slices, mm; 0 is their spacing."""
    profile: Literal["box", "gaussian"] = "box"
    """sr: how a slice weighs what lies across it."""
    axis: Literal["i", "j", "k", "auto"] = "auto"
    """Array axis of thick or lost slices (auto: k), or of phase encoding (auto: j; of slices their second)."""
    mask: Path | None = None
    """inpaint: mask of what is missing or wrong, on the scan's grid; or a folder with one for each scan, of the same name or
    ending in _mask."""
    dilate: float = 0.0
    """inpaint: margin around the mask, mm."""
    lost_slices: tuple[int, ...] = ()
    """inpaint: indices of lost slices across --axis."""
    radius: float = 0.0
    """inpaint --simulate: radius of a lesion-shaped hole, mm."""
    keep_measured: bool = True
    """inpaint: voxels outside of the hole stay as they are; --no-keep-measured removes their noise too."""
    fwhm: tuple[float, ...] = (2.0,)
    """deblur: full width at half maximum of the blur, mm; one or three."""
    acceleration: float = 4.0
    """kspace --simulate: voxels over samples, above 1."""
    pattern: Literal["auto", "lines", "equispaced", "points", "spokes"] = "auto"
    """kspace --simulate: which samples; auto: lines of slices, points in the plane of two phase encodes of volumes."""
    coils: int = 1
    """kspace --simulate: coils."""
    sensitivities: Path | None = None
    """kspace: coil sensitivities (.npy, .h5); by default in the file, or estimated from the middle of k-space."""
    kspace_axcodes: str = ""
    """kspace: which way the axes run; by default PL for slices, LPS for volumes."""
    voxel: tuple[float, ...] = (1.0,)
    """kspace: voxel edges, mm, which files do not tell; one or three."""
    field: Path | None = None
    """bias: volume of the field on the scan's grid; by default estimated from the scan."""
    strength: float = 0.2
    """bias --simulate: standard deviation of the field's logarithm."""
    shots: int = 8
    """motion --simulate: blocks of lines between which the head moves."""
    shift: float = 2.0
    """motion --simulate: standard deviation of its position, mm."""
    turn: float = 2.0
    """motion --simulate: standard deviation of its angles, degrees."""
    views: int = 60
    """ct --simulate: projections."""
    span: float = 180.0
    """ct --simulate: range of their angles, degrees."""
    slices: Literal["i", "j", "k", "no"] = "no"
    """Restore slice by slice across this axis, with the models for slices; no: volumes at once."""
    model: str | None = None
    """Prior: a shipped name, a .safetensors file or a run; by default prior-2d for slices and in mode mean, else prior-3d.
    One of slices goes through volumes by planes."""
    restorer: str | None = None
    """Unrolled restorer, likewise; none: do without. By default the shipped one, if the prior is."""
    evaluations: int | None = None
    """Evaluations of the prior, of each draw; by default 24 (mean), 8 (fast), 12 (sample). A restorer has its own."""
    save: tuple[Literal["residual", "invented", "measured", "draws", "field"], ...] = ("residual",)
    """What is written besides the image and, in mode sample, its sd: what the image leaves unexplained; what the measurement
    does not determine; what it shows alone; the draws; the bias field."""
    batch_size: int = 1
    """Slices or draws that the network sees at once."""
    planes: tuple[Literal["i", "j", "k"], ...] = ()
    """Axes across which a network of slices cuts a volume. By default two, whose slices contain the axis that was measured
    coarsely; for noise all three. Each costs as much again."""
    tile: int = 192
    """Voxels along each axis of the blocks that a volume goes through a network of volumes in; 0: all at once. A whole head
    takes 1.2 GB. Memory that does not suffice halves them, and says so."""
    halo: int = 16
    """Overlap of blocks on each side, voxels."""
    seed: int = 0
    """Of draws, and of masks, holes and noise in simulations."""
    device: Literal["cpu", "auto"] = "cpu"
    """Where the networks are; auto takes a GPU if there is one."""
    processes: int = 1
    """Scans at once, each in a process of its own with models of its own. One that is killed loses nothing."""
    scheduler: str | None = None
    """Address of a dask scheduler, as tcp://10.0.0.1:8786, or its file: its workers restore, over a shared file system."""
    assume_axcodes: str | None = None
    """Orientation (such as RAS) of scans whose header carries none."""
    overwrite: bool = False
    """Restore again what is already there."""
    dry_run: bool = False
    """Read the scans and say what would be done; write nothing."""

    def run(self) -> None:
        """Do it.

        Raises:
            InputError: source, models or options that cannot be used, or a case that failed.
        """
        self._check()
        from radiata_medical.experiment.restoring_runs import run_cases

        run_cases(self)

    def _check(self) -> None:
        if self.out.name.endswith((".nii", ".nii.gz")):
            raise InputError(f"expected a folder as --out; got {self.out}. Files are named after the scans.")
        if self.draws < 2 or self.batch_size < 1 or min(self.tile, self.halo, self.seed) < 0:
            raise InputError(
                "expected --draws >= 2, --batch-size >= 1, --tile, --halo and --seed >= 0; got "
                f"{self.draws}, {self.batch_size}, {self.tile}, {self.halo} and {self.seed}. Change them."
            )
        Workers(self.processes, self.scheduler)
        if len(set(self.planes)) != len(self.planes):
            raise InputError(
                f"expected different axes as --planes; got {' '.join(self.planes)}. Leave it out for the best two."
            )
        if self.noise is not None and not 0 <= self.noise < 100:
            raise InputError(f"expected --noise in [0, 100) percent of white; got {self.noise}. 5 is noisy.")

    def degradation(self) -> "Degradation":
        """What the options describe; maps (mask, field) come with each scan.

        Raises:
            InputError: a number out of range.
        """
        from radiata_medical.data.degradation_chains import read_degradation
        from radiata_medical.data.degradations import Bias, Blur, Hole, Noise
        from radiata_medical.data.raw_data import KSpace, Moved, Views
        from radiata_medical.data.thick_slices import ThickSlices

        if self.spec is not None:
            return read_degradation(self.spec)
        slab = "k" if self.axis == "auto" else self.axis
        phase = ("k" if self.slices == "j" else "j") if self.axis == "auto" else self.axis
        if self.slices == "k" and self.axis == "auto":
            slab = "j"
        if self.task == "sr":
            measured = self.measured_spacing if self.simulate else ()
            across = slab if len(measured) == 1 else ""
            return ThickSlices(self.spacing, measured, across, self.thickness, self.profile)
        if self.task == "inpaint":
            name = "" if self.mask is None else self.mask.name
            return Hole(name, self.dilate, self.lost_slices, slab, self.radius if self.simulate else 0.0)
        if self.task == "deblur":
            return Blur(self.fwhm)
        if self.task == "kspace":
            return KSpace(self.acceleration, self.pattern, phase, coils=self.coils)
        if self.task == "bias":
            return Bias("" if self.field is None else self.field.name, self.strength)
        if self.task == "motion":
            return Moved(self.shots, self.shift, self.turn, phase)
        return Views(self.views, self.span) if self.task == "ct" else Noise()

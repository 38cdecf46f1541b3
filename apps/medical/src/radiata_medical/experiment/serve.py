"""`radiata-medical serve`: segment and restore a scan from a page on this machine."""

from dataclasses import dataclass

from radiata_imaging.serving.presets import VOLUME, Choice, Number, Offer, Preset, Shown
from radiata_imaging.serving.server import ServeOptions

__all__ = ["OFFER", "Serve"]

_REPORT = ("report", "{out}", "--scans", "{scan}")
_RESTORED = (Shown("*_restored.nii.gz", "restored"), Shown("*_sd.nii.gz", "standard deviation", "spread"))
_MODE = Choice(
    "mode",
    "how",
    {"fast": "fast", "mean": "best image (slower)", "sample": "draws and their spread (slowest)"},
)

OFFER = Offer(
    "radiata-medical",
    "radiata_medical.cli",
    "Segment and restore a scan of a head. Restored voxels are a model's estimate and no measurement.",
    (
        Preset(
            "segment", "Segment", "34 structures of a whole head of any contrast, with their volumes and what is unsure.",
            (("segment", "{scan}", "--out", "{out}", "--tta", "{tta}", "--entropy"), _REPORT),
            reads="volume", fields=(Number("tta", "passes (more are slower, surer)", 1, 6, 1),),
            shows=(Shown("*_dseg.nii.gz", "labels", "labels"), Shown("*_entropy.nii.gz", "entropy", "spread", "nats")),
        ),
        Preset(
            "denoise", "Denoise", "The noise is estimated from the scan itself.",
            (("restore", "{scan}", "--out", "{out}", "--task", "denoise", "--mode", "{mode}"), _REPORT),
            reads="volume", fields=(_MODE,), shows=_RESTORED, compare=True,
        ),
        Preset(
            "sr", "Thick slices to thin ones", "A scan with thick slices on a fine grid with the same outer faces.",
            (("restore", "{scan}", "--out", "{out}", "--task", "sr", "--spacing", "{spacing}", "--mode", "{mode}"), _REPORT),
            reads="volume", fields=(Number("spacing", "voxel edge, mm", 0.7, 3, 1, whole=False), _MODE), shows=_RESTORED,
            compare=True,
        ),
        Preset(
            "bias", "Even out the brightness", "Removes a smooth field of brightness that the coil brings in.",
            (("restore", "{scan}", "--out", "{out}", "--task", "bias", "--mode", "{mode}"), _REPORT),
            reads="volume", fields=(_MODE,), shows=_RESTORED, compare=True,
        ),
    ),
    readers=(VOLUME,),
)  # fmt: skip


@dataclass(frozen=True)
class Serve(ServeOptions):
    """Open a page on this machine: drop a scan, segment or restore it, look at it, download NIfTI.

    For one person at this machine: it listens on 127.0.0.1 alone and lets in who has the link, once. Scans stay on this
    machine. Ctrl-C stops it and removes what was uploaded and what was not downloaded. Not for clinical use.

    Example: radiata-medical serve --no-browser

    Example: radiata-medical serve --folder restored/ --max-upload 256
    """

    def offer(self) -> Offer:
        """What is served."""
        return OFFER

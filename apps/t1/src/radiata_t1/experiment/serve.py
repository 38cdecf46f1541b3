"""`radiata-t1 serve`: synthetic heads from a page on this machine."""

from dataclasses import dataclass

from radiata_imaging.serving.presets import Number, Offer, Preset, Shown
from radiata_imaging.serving.server import ServeOptions

__all__ = ["OFFER", "Serve"]

_SEED = Number("seed", "seed", 0, 2**31 - 1, 0)
_HEADS = (Shown("sub-syn*_T1w.nii.gz", "head"),)
_DRAW = ("--seeds", "{seed}", "--out", "{out}")
_REPORT = ("report", "{out}")

OFFER = Offer(
    "radiata-t1",
    "radiata_t1.cli",
    "Synthetic T1-weighted heads at 4 and 1 mm, drawn by a generator that learned from renderings of a dozen people.",
    (
        Preset(
            "few", "A head in seconds", "Four evaluations of the distilled network. Softer than the next one.",
            (("sample", "--model", "few-step-4mm", "--steps", "4", *_DRAW), _REPORT),
            fields=(_SEED,), shows=_HEADS,
        ),
        Preset(
            "fine", "A head at 1 mm", "192 x 224 x 192 voxels: the generator's head drawn finer, in a quarter of a minute.",
            (("sample", "--resolution", "1mm", "--batch-size", "1", *_DRAW), _REPORT),
            fields=(_SEED,), shows=_HEADS,
        ),
        Preset(
            "best", "A head", "The generator that ships, with its own sampler: the best it can do.",
            (("sample", "--model", "rflow-4mm", "--steps", "{steps}", *_DRAW), _REPORT),
            fields=(_SEED, Number("steps", "steps", 8, 200, 60)), shows=_HEADS,
        ),
        Preset(
            "asked", "A head as asked for", "The same, told how large the ventricles are: three times as long.",
            (
                ("sample", "--model", "rflow-4mm", "--guidance", "2", "--condition", "ventricles_ml={ventricles}", *_DRAW),
                _REPORT,
            ),
            fields=(_SEED, Number("ventricles", "ventricles, ml", 8, 150, 50, whole=False)), shows=_HEADS,
        ),
    ),
    readers=(),
)  # fmt: skip


@dataclass(frozen=True)
class Serve(ServeOptions):
    """Open a page on this machine that draws synthetic heads, shows them and hands them out as NIfTI.

    For one person at this machine: it listens on 127.0.0.1 alone and lets in who has the link, once. Ctrl-C stops it and
    removes what it kept. Not for clinical use.

    Example: radiata-t1 serve --no-browser

    Example: radiata-t1 serve --folder runs/ --port 8765
    """

    def offer(self) -> Offer:
        """What is served."""
        return OFFER

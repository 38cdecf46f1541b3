"""`radiata-decode serve`: the demo, and reports of decoded runs, from a page on this machine."""

from dataclasses import dataclass

from radiata_imaging.serving.presets import Choice, Number, Offer, Preset
from radiata_imaging.serving.server import ServeOptions

__all__ = ["OFFER", "Serve"]

OFFER = Offer(
    "radiata-decode",
    "radiata_decode.cli",
    "Pictures and motion from fMRI. Outputs of a model, not photographs of thoughts.",
    (
        Preset(
            "demo", "The demo", "A simulated cortex decoded into pictures or motion, or one real slice into categories.",
            (("demo", "--out", "{out}", "--parts", "{part}", "--train", "{train}"),),
            fields=(
                Choice("part", "what", {"images": "pictures", "motion": "motion", "haxby": "categories"}),
                Number("train", "training pictures", 60, 1000, 300),
            ),
        ),
    ),
    readers=(),
)  # fmt: skip


@dataclass(frozen=True)
class Serve(ServeOptions):
    """Open a page on this machine that shows the reports of a folder of runs and runs the demo.

    A decoder belongs to one person and one scanner, so nothing is decoded from an uploaded file. For one person at this
    machine: it listens on 127.0.0.1 alone and lets in who has the link, once. Not for clinical use.

    Example: radiata-decode serve --folder runs/
    """

    def offer(self) -> Offer:
        """What is served."""
        return OFFER

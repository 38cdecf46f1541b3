"""`radiata-latents serve`: rates and latents of an uploaded population, the demo, and reports, from a page."""

from dataclasses import dataclass

from radiata_imaging.serving.presets import Number, Offer, Preset, Reader
from radiata_imaging.serving.server import ServeOptions

__all__ = ["OFFER", "Serve"]

OFFER = Offer(
    "radiata-latents",
    "radiata_latents.cli",
    "Latent dynamics of neural populations: rates and oscillating latents from spikes.",
    (
        Preset(
            "infer", "Infer rates", "Rates and latents of a population of the Lorenz system, by the network that ships.",
            (
                ("infer", "{scan}", "--model", "lorenz", "--out", "{out}/rates.h5", "--passes", "{passes}"),
                ("report", "{out}/rates.h5", "--population", "{scan}", "--out", "{out}/report.html"),
            ),
            reads="population", fields=(Number("passes", "draws (0: the mean)", 0, 64, 0),),
        ),
        Preset(
            "demo", "The demo", "A simulated population: rates by the network that ships, beside baselines. No training.",
            (("demo", "--out", "{out}", "--train-steps", "0", "--trials", "{trials}"),),
            fields=(Number("trials", "trials a condition", 2, 8, 4),),
        ),
    ),
    readers=(
        Reader(
            "population", "a population (.h5, .nc)", (".h5", ".nc"), "radiata_latents.data.population:load_population"
        ),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Serve(ServeOptions):
    """Open a page on this machine: infer rates of a population, run the demo, look at reports.

    For one person at this machine: it listens on 127.0.0.1 alone and lets in who has the link, once. Ctrl-C stops it and
    removes what was uploaded. Not for clinical use.

    Example: radiata-latents serve --folder runs/
    """

    def offer(self) -> Offer:
        """What is served."""
        return OFFER

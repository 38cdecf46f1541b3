"""The command line of radiata-latents: twelve verbs, each a frozen dataclass of its own module."""

import sys
from collections.abc import Sequence

from radiata_core import commands
from radiata_latents.experiment.decode import Decode
from radiata_latents.experiment.demo import Demo
from radiata_latents.experiment.evaluate import Evaluate
from radiata_latents.experiment.forecast import Forecast
from radiata_latents.experiment.infer import Infer
from radiata_latents.experiment.prepare import Prepare
from radiata_latents.experiment.report import Report
from radiata_latents.experiment.sample import Sample
from radiata_latents.experiment.score import Score
from radiata_latents.experiment.serve import Serve
from radiata_latents.experiment.sweep import Sweep
from radiata_latents.experiment.train import Train

__all__ = ["VERBS", "main", "run"]

SUMMARY = (
    "Latent dynamics of neural populations: rates, oscillating latents and forecasts from spikes. "
    "Not for clinical use."
)

VERBS: dict[str, type] = {
    "prepare": Prepare,
    "train": Train,
    "sweep": Sweep,
    "infer": Infer,
    "evaluate": Evaluate,
    "sample": Sample,
    "forecast": Forecast,
    "decode": Decode,
    "score": Score,
    "report": Report,
    "serve": Serve,
    "demo": Demo,
}


def run(argv: Sequence[str] | None = None) -> int:
    """Exit code of `radiata-latents argv...`."""
    return commands.main("radiata-latents", SUMMARY, VERBS, argv)


def main() -> None:
    """Entry point of the command `radiata-latents`."""
    sys.exit(run())

"""The command line of radiata-medical: its verbs, each a frozen dataclass of its own module."""

import sys
from collections.abc import Sequence

from radiata_core import commands
from radiata_medical.experiment.anomaly import Anomaly
from radiata_medical.experiment.convert import Convert
from radiata_medical.experiment.demo import Demo
from radiata_medical.experiment.evaluate import Evaluate
from radiata_medical.experiment.prepare import Prepare
from radiata_medical.experiment.report import Report
from radiata_medical.experiment.restore import Restore
from radiata_medical.experiment.segment import Segment
from radiata_medical.experiment.serve import Serve
from radiata_medical.experiment.train import Train
from radiata_medical.experiment.translate import Translate

__all__ = ["VERBS", "main", "run"]

SUMMARY = (
    "Restoration and segmentation of medical images and volumes with generative priors. Not for clinical use."
)

VERBS: dict[str, type] = {
    "prepare": Prepare,
    "train": Train,
    "restore": Restore,
    "translate": Translate,
    "anomaly": Anomaly,
    "segment": Segment,
    "evaluate": Evaluate,
    "convert": Convert,
    "report": Report,
    "serve": Serve,
    "demo": Demo,
}


def run(argv: Sequence[str] | None = None) -> int:
    """Exit code of `radiata-medical argv...`."""
    return commands.main("radiata-medical", SUMMARY, VERBS, argv)


def main() -> None:
    """Entry point of the command `radiata-medical`."""
    sys.exit(run())

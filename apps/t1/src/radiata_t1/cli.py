"""The command line of radiata-t1: ten verbs, each a frozen dataclass of its own module."""

import sys
from collections.abc import Sequence

from radiata_core import commands
from radiata_t1.experiment.cohort import Cohort
from radiata_t1.experiment.convert import Convert
from radiata_t1.experiment.demo import Demo
from radiata_t1.experiment.distil import Distil
from radiata_t1.experiment.evaluate import Evaluate
from radiata_t1.experiment.prepare import Prepare
from radiata_t1.experiment.report import Report
from radiata_t1.experiment.sample import Sample
from radiata_t1.experiment.serve import Serve
from radiata_t1.experiment.train import Train

__all__ = ["VERBS", "main", "run"]

SUMMARY = (
    "3-D non-latent T1 brain MRI generation: synthetic whole heads with their affine. Not for clinical use."
)

VERBS: dict[str, type] = {
    "prepare": Prepare,
    "cohort": Cohort,
    "train": Train,
    "distil": Distil,
    "sample": Sample,
    "evaluate": Evaluate,
    "convert": Convert,
    "report": Report,
    "serve": Serve,
    "demo": Demo,
}


def run(argv: Sequence[str] | None = None) -> int:
    """Exit code of `radiata-t1 argv...`."""
    return commands.main("radiata-t1", SUMMARY, VERBS, argv)


def main() -> None:
    """Entry point of the command `radiata-t1`."""
    sys.exit(run())

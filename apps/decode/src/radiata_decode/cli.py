"""The command line of radiata-decode: its verbs, each a frozen dataclass of its own module."""

import sys
from collections.abc import Sequence

from radiata_core import commands
from radiata_decode.experiment.decode import Decode
from radiata_decode.experiment.demo import Demo
from radiata_decode.experiment.encode import Encode
from radiata_decode.experiment.evaluate import Evaluate
from radiata_decode.experiment.prepare import Prepare
from radiata_decode.experiment.report import Report
from radiata_decode.experiment.serve import Serve
from radiata_decode.experiment.synthesize import Synthesize
from radiata_decode.experiment.train import Train

__all__ = ["VERBS", "main", "run"]

SUMMARY = "Images and motion from fMRI, and back, with every control in the table. Not for clinical use."

VERBS: dict[str, type] = {
    "prepare": Prepare,
    "train": Train,
    "decode": Decode,
    "encode": Encode,
    "synthesize": Synthesize,
    "evaluate": Evaluate,
    "report": Report,
    "serve": Serve,
    "demo": Demo,
}


def run(argv: Sequence[str] | None = None) -> int:
    """Exit code of `radiata-decode argv...`."""
    return commands.main("radiata-decode", SUMMARY, VERBS, argv)


def main() -> None:
    """Entry point of the command `radiata-decode`."""
    sys.exit(run())

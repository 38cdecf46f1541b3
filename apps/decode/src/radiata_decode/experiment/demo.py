"""`radiata-decode demo`: a simulated cortex decoded into pictures and motion, and real BOLD into categories."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from radiata_core.errors import InputError

__all__ = ["Demo"]


@dataclass(frozen=True)
class Demo:
    """Decode pictures and motion from a simulated cortex, and categories from real fMRI, with every control: report.html.

    Pictures are real photographs, motion is theirs, the cortex that sees them is simulated; the fMRI of the third part is
    one slice of Haxby et al. (2001), which comes with the package. Under four minutes on two cores, without a network.
    Outputs of a model, not photographs of thoughts; not for clinical use.

    Example: radiata-decode demo --out demo

    Example: radiata-decode demo --out demo --parts images haxby --train 300
    """

    out: Path = Path("demo")
    """Folder to write to; simulated subjects and trained decoders stay in it, to try the other commands on."""
    parts: tuple[Literal["images", "motion", "haxby"], ...] = ("images", "motion", "haxby")
    """What is decoded."""
    train: int = 1000
    """Training pictures of the simulated subject; films are half as many."""
    test: int = 100
    """Test pictures; films are half as many."""
    voxels: int = 2000
    """Of the simulated cortex."""
    draws: int = 4
    """Samples of the generator a picture."""
    generator: str = "own"
    """own, the small generator that ships, or none."""
    permutations: int = 1000
    """Of the tests."""
    seed: int = 0
    """Of pictures, cortex, noise and draws."""
    overwrite: bool = False
    """Replace an earlier demo."""

    def run(self) -> None:
        """Do it.

        Raises:
            InputError: numbers out of range, or a folder with content.
        """
        if (
            not self.parts or self.train < 40 or self.test < 8 or self.voxels < 50 or self.draws < 1
            or self.permutations < 1 or self.seed < 0
        ):  # fmt: skip
            raise InputError(
                f"expected --parts, --train >= 40, --test >= 8, --voxels >= 50, --draws and --permutations >= 1 and --seed "
                f">= 0; got {self.train}, {self.test}, {self.voxels}, {self.draws}, {self.permutations} and {self.seed}."
            )
        from radiata_decode.experiment.demo_run import demonstrate

        demonstrate(self)

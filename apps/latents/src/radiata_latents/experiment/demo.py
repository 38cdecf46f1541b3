"""`radiata-latents demo`: a simulated population, the shipped network on it, one trained beside it, and all of it scored."""

from dataclasses import dataclass
from pathlib import Path

from radiata_core.errors import InputError

__all__ = ["Demo"]


@dataclass(frozen=True)
class Demo:
    """Infer rates of a simulated population, train a network on it, score both beside baselines: report.html.

    Spikes follow a Lorenz system, on trajectories that no network saw. Under three minutes on two cores; the first picture
    comes within seconds, from the shipped network. Synthetic; not for clinical use.

    Example: radiata-latents demo --out demo

    Example: radiata-latents demo --out demo --train-steps 0
    """

    out: Path = Path("demo")
    """Folder to write to."""
    model: str = "lorenz"
    """Trained network that the first pictures are of: a name of shipped weights, a file or a run folder."""
    train_steps: int = 800
    """Optimiser steps of the network that is trained here; 0 trains none."""
    trials: int = 8
    """Trials a condition; there are 65 conditions, 13 of them kept from training."""
    passes: int = 16
    """Draws of each posterior that rates are averaged over."""
    seed: int = 0
    """Of training and draws. The population is always the same."""
    overwrite: bool = False
    """Replace an earlier demo."""

    def run(self) -> None:
        """Do it.

        Raises:
            InputError: numbers out of range, a model of another population, or a folder with content.
        """
        if self.train_steps < 0 or self.trials < 2 or self.passes < 1 or self.seed < 0:
            raise InputError(
                f"expected --train-steps and --seed >= 0, --trials >= 2 and --passes >= 1; got {self.train_steps}, "
                f"{self.seed}, {self.trials} and {self.passes}. Leave the defaults."
            )
        from radiata_latents.experiment.demo_run import demonstrate

        demonstrate(self)

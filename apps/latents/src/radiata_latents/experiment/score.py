"""`radiata-latents score`: the Neural Latents Benchmark's leaderboard, offline."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from radiata_core.errors import InputError

__all__ = ["Score"]


@dataclass(frozen=True)
class Score:
    """Score a submission against the benchmark's targets, with the numbers of its own leaderboard.

    The targets, eval_data_test.h5, are at github.com/neurallatents/nlb_tools. Test scores are for a last number: choose
    models on validation trials.

    Example: radiata-latents score sub.h5 --targets eval_data_test.h5 --json scores.json
    """

    submission: Annotated[Path, tyro.conf.Positional]
    """File of predictions, of infer --submission or of another program."""
    targets: Path
    """The benchmark's file of targets."""
    json: Path | None = None
    """Also write the scores to this file, ending in .json."""
    overwrite: bool = False
    """Replace a file that exists."""

    def run(self) -> None:
        """Do it.

        Raises:
            InputError: a file that cannot be read, targets without the data set, rates in Hz, a file that exists.
        """
        from radiata_core.runs import sha256, sole_writer, write_json
        from radiata_latents.data.sidecar import free_path
        from radiata_latents.experiment.benchmark_score import score_submission

        if self.json is not None:
            free_path(self.json, self.overwrite, (".json",))
            if self.json.resolve() in (self.submission.resolve(), self.targets.resolve()):
                raise InputError(f"expected --json to be another file; got {self.json}. Choose another name.")
        found = score_submission(self.submission, self.targets)
        if not found:
            raise InputError(
                f"expected a data set of the benchmark in {self.submission}; got none. Infer again."
            )
        for split, scores in found.items():
            print(split)
            for name, value in scores.items():
                print(f"  {name:12} {value:8.4f}")
        if self.json is not None:
            sources = {path.name: sha256(path) for path in (self.submission, self.targets)}
            with sole_writer(self.json):
                free_path(self.json, self.overwrite, (".json",))  # another process may have been faster
                write_json(
                    self.json, {"format": "radiata-benchmark-scores/1", "sources": sources, "scores": found}
                )
            print(self.json)
        else:
            print("these are test trials: a last number, not one to choose by")

r"""Responses in units of each voxel's own spread, with statistics that no test trial ever touched.

$$ z = (x - \bar x_\text{train}) / s_\text{train} $$

Rules: `none` leaves responses as they are; `train` uses mean and standard deviation (ddof = 1) of all training trials;
`session` those of the training trials of the trial's own session, which takes out drifts of gain and baseline between
days. A session without two training trials – a new day, a test-only session – falls back on all training trials
together. Nothing is estimated from what is to be decoded: one trial alone gets the same numbers as within a thousand.

A voxel that never changes in training (s = 0) is centred and not divided.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from radiata_core.errors import InputError
from radiata_decode.data.subject import Subject

__all__ = ["RULES", "Standardiser", "standardiser", "subject_standardiser"]

RULES = ("none", "train", "session")


@dataclass(frozen=True)
class Standardiser:
    """Statistics of training trials.

    Attributes:
        rule: none, train or session.
        mean: (voxel,) float32, of all training trials.
        sd: (voxel,) float32, ddof = 1; 1 for a voxel that never changes.
        trials: How many training trials there were.
        sessions: Session → its own (mean, sd), for the rule `session`.
    """

    rule: str
    mean: np.ndarray
    sd: np.ndarray
    trials: int
    sessions: Mapping[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def apply(self, responses: np.ndarray, sessions: np.ndarray | None = None) -> np.ndarray:
        """Standardised responses, (trial, voxel) float32.

        Args:
            responses: (trial, voxel), as they were measured.
            sessions: Session of each trial, for the rule `session`; trials of unknown ones use all training trials.

        Raises:
            InputError: another number of voxels, or no sessions where they are needed.
        """
        values = np.asarray(responses, np.float32)
        if values.ndim != 2 or values.shape[1] != len(self.mean):
            raise InputError(
                f"expected responses of (trial, {len(self.mean)} voxels); got {values.shape}. Use the voxels of training."
            )
        if self.rule == "none":
            return values
        if self.rule == "train":
            return (values - self.mean) / self.sd
        if sessions is None or len(sessions) != len(values):
            raise InputError(
                f"expected the session of each of {len(values)} trials for the rule session; got "
                f"{'none' if sessions is None else len(sessions)}. Pass the column session."
            )
        result = np.empty_like(values)
        labels = np.asarray(sessions)
        for session in np.unique(labels):
            mean, sd = self.sessions.get(int(session), (self.mean, self.sd))
            here = labels == session
            result[here] = (values[here] - mean) / sd
        return result

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything but the rule, to be kept with a model."""
        kept = {"mean": self.mean, "sd": self.sd, "trials": np.array([self.trials])}
        for session, (mean, sd) in self.sessions.items():
            kept |= {f"mean_{session}": mean, f"sd_{session}": sd}
        return kept

    @classmethod
    def from_arrays(cls, rule: str, arrays: Mapping[str, np.ndarray]) -> "Standardiser":
        """The inverse of `arrays`."""
        numbers = [int(name.removeprefix("mean_")) for name in arrays if name.startswith("mean_")]
        sessions = {
            number: (np.asarray(arrays[f"mean_{number}"]), np.asarray(arrays[f"sd_{number}"]))
            for number in numbers
        }
        trials = int(np.asarray(arrays["trials"]).reshape(-1)[0])
        return cls(rule, np.asarray(arrays["mean"]), np.asarray(arrays["sd"]), trials, sessions)


@dataclass
class _Moments:
    """Running mean and sum of squared deviations, merged block by block in float64.

    References:
        T. Chan, G. Golub, R. LeVeque (1983). Algorithms for computing the sample variance. The American Statistician
        37(3), section on updating.
    """

    count: int = 0
    mean: np.ndarray | float = 0.0
    squares: np.ndarray | float = 0.0

    def add(self, block: np.ndarray) -> None:
        if not len(block):
            return
        values = block.astype(np.float64)
        mean = values.mean(0)
        squares = ((values - mean) ** 2).sum(0)
        total = self.count + len(values)
        shift = mean - self.mean
        self.squares = self.squares + squares + shift**2 * (self.count * len(values) / total)
        self.mean = self.mean + shift * (len(values) / total)
        self.count = total

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        mean = np.asarray(self.mean)
        sd = np.sqrt(np.asarray(self.squares) / max(1, self.count - 1))
        # Rounding of a constant leaves about 1e-16 of it, which must not become a divisor.
        flat = sd <= 1e-6 * np.maximum(np.abs(mean), np.finfo(np.float32).tiny)
        return mean.astype(np.float32), np.where(flat, 1.0, sd).astype(np.float32)


def standardiser(
    blocks: Iterable[np.ndarray], rule: str = "train", sessions: np.ndarray | None = None
) -> Standardiser:
    """Statistics of training responses that come block by block.

    Args:
        blocks: Of training trials, (trial, voxel) each.
        rule: One of `RULES`.
        sessions: Session of each training trial, for the rule `session`.

    Raises:
        InputError: an unknown rule, fewer than two trials, no sessions where they are needed.
    """
    if rule not in RULES:
        raise InputError(f"expected a rule of {', '.join(RULES)}; got {rule}.")
    if rule == "session" and sessions is None:
        raise InputError("expected the session of each training trial for the rule session; got none.")
    parts: dict[int, _Moments] = {}
    whole, start = _Moments(), 0
    for block in blocks:
        whole.add(block)
        if rule == "session":
            labels = np.asarray(sessions)[start : start + len(block)]
            for session in np.unique(labels):
                parts.setdefault(int(session), _Moments()).add(block[labels == session])
        start += len(block)
    if whole.count < 2 and rule != "none":
        raise InputError(f"expected at least two training trials; got {whole.count}. Use the rule none.")
    if not whole.count:
        raise InputError("expected training trials; got none.")
    mean, sd = whole.result()
    kept = {session: part.result() for session, part in parts.items() if part.count >= 2}
    return Standardiser(rule, mean, sd, whole.count, kept)


def subject_standardiser(
    subject: Subject, rule: str = "train", voxels: np.ndarray | None = None
) -> Standardiser:
    """Statistics of a subject's training trials, read in blocks.

    Raises:
        InputError: see `standardiser`; a subject without training trials.
    """
    rows = subject.rows("train")
    return standardiser(subject.blocks(rows, voxels), rule, subject.trials["session"].to_numpy()[rows])

"""Rates looked up by condition: the average training trial of the same label.

A model needs none of a trial's spikes to reach this, only the label that others must infer; where trials of a condition
repeat, it is what a latent model has to beat, and on conditions that never occurred it has nothing to say.
"""

from dataclasses import dataclass

import numpy as np

from radiata_core.errors import InputError
from radiata_latents.model.smoothing import smooth

__all__ = ["ConditionAverage", "fit_condition_average"]


@dataclass(frozen=True)
class ConditionAverage:
    """Averages of conditions.

    Attributes:
        labels: (condition,) in order.
        averages: (condition, time, neuron), expected counts a bin.
    """

    labels: np.ndarray
    averages: np.ndarray

    def rates(self, condition: np.ndarray) -> np.ndarray:
        """(trial, time, neuron) of trials with these labels.

        Raises:
            InputError: a label that training had not.
        """
        condition = np.asarray(condition)
        unknown = np.setdiff1d(condition, self.labels)
        if len(unknown):
            raise InputError(
                f"expected conditions that occurred in training; got {unknown[:5]}. Leave this baseline out."
            )
        return self.averages[np.searchsorted(self.labels, condition)]


def fit_condition_average(
    counts: np.ndarray, condition: np.ndarray, width_bins: float = 0.0
) -> ConditionAverage:
    """The average trial of each label, smoothed within the trial.

    Args:
        counts: (trial, time, neuron) of training trials.
        condition: Label a trial.
        width_bins: Standard deviation of the kernel, bins, >= 0.

    Raises:
        InputError: another number of labels than of trials, or a bad width.
    """
    counts, condition = np.asarray(counts, float), np.asarray(condition)
    if len(condition) != len(counts) or not len(counts):
        raise InputError(f"expected a label a trial; got {len(condition)} and {len(counts)} trials.")
    labels = np.unique(condition)
    return ConditionAverage(
        labels, smooth(np.stack([counts[condition == label].mean(0) for label in labels]), width_bins)
    )

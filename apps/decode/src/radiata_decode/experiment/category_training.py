"""The category route, trained: a ridge classifier of standardised responses, and how it does on runs left out.

    subject -> leave-one-run-out accuracy with chance and permutation p -> a classifier of all training trials -> run folder

The penalty is chosen by leave-one-out error. Scores become probabilities by a softmax whose temperature is fitted on
leave-one-out scores: probabilities are then honest about training trials, each left out once.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radiata_core.errors import InputError

if TYPE_CHECKING:
    from radiata_decode.data.subject import Subject

__all__ = ["train_categories"]


def train_categories(
    subject: "Subject", rois: tuple[str, ...], zscore: str, seed: int, out: Path, *, permutations: int = 1000
) -> dict[str, Any]:
    """Fit and write a classifier; returns accuracy on runs left out.

    Raises:
        InputError: trials without categories, or fewer than two of them.
    """
    import torch

    from radiata_decode.data.normalisation import subject_standardiser
    from radiata_decode.experiment.category_decoding import decode_subject
    from radiata_decode.experiment.trained_models import chosen_voxels, write_card
    from radiata_decode.model.ridge import SharedRidge

    if "category" not in subject.trials:
        raise InputError(
            f"expected a column category in {subject.folder / 'trials.tsv'}; got none. Prepare the subject with categories."
        )
    voxels = chosen_voxels(subject, rois)
    judged = decode_subject(subject, seed=seed, voxels=voxels, permutations=permutations)
    statistics = subject_standardiser(subject, zscore, voxels)
    rows = subject.rows("train")
    trials = subject.trials.iloc[rows]
    responses = statistics.apply(subject.responses(rows, voxels), trials["session"].to_numpy())
    words = trials["category"].astype(str).to_numpy()
    names = sorted(set(words.tolist()))
    if len(names) < 2:
        raise InputError(f"expected at least two categories in training; got {', '.join(names)}.")
    code = np.array([names.index(word) for word in words])
    targets = np.eye(len(names), dtype=np.float32)[code]
    shared = SharedRidge(responses)
    fit = shared.fit(targets, np.zeros(len(names), np.int64))
    temperature = fitted_temperature(fit.loo.numpy(), code)
    shared.decoder(fit).save(out / "ridge.safetensors", metadata={"categories": names})
    measured = {
        "accuracy": judged.accuracy,
        "accuracy_interval": list(judged.interval),
        "chance": judged.chance,
        "p": judged.p,
        "loo_accuracy": float((fit.loo.argmax(1) == torch.from_numpy(code)).float().mean()),
    }
    facts = {
        "subject": subject.folder.name,
        "subject_sha256": subject.sha256,
        "subject_voxels": len(subject.voxels),
        "voxels": len(voxels),
        "rois": list(rois),
        "synthetic": bool(subject.manifest.get("SyntheticData", False)),
        "training_stimuli": trials["stimulus"].astype(str).unique().tolist(),
        "categories": names,
        "temperature": temperature,
        "measured": measured,
    }
    write_card(out, "category", statistics, facts)
    return measured


def fitted_temperature(scores: np.ndarray, code: np.ndarray) -> float:
    """Factor on scores, > 0, that makes the softmax likeliest: maximum likelihood in one number.

    Args:
        scores: (trial, category), of trials that were left out.
        code: True category of each.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    def loss(log_factor: float) -> float:
        return -float(log_softmax(np.exp(log_factor) * scores, 1)[np.arange(len(code)), code].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-5.0, 6.0), method="bounded").x))

"""Averages of repeats against pandas' groupby, and what they do not depend on."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from radiata_core.errors import InputError
from radiata_decode.data.normalisation import subject_standardiser
from radiata_decode.data.repeats import averaged
from radiata_decode.data.subject import Subject, write_subject


@pytest.fixture
def subject(tmp_path: Path, rng: np.random.Generator) -> Subject:
    """Uneven repeats in mixed order, two sessions of different scale."""
    names = rng.permutation(np.repeat([f"s{i}" for i in range(12)], [1, 2, 3] * 4))
    session = np.arange(24) // 12 + 1
    values = rng.normal(size=(24, 5)).astype(np.float32) * session[:, None] + session[:, None]
    split = np.where(np.isin(names, ["s1", "s2", "s5"]), "test", "train")
    return write_subject(
        tmp_path / "s", values, pd.DataFrame({"stimulus": names, "session": session, "split": split})
    )


@pytest.mark.parametrize("count", [None, 1, 2])
def test_as_groupby(subject: Subject, count: int | None) -> None:
    rows = subject.trials[subject.trials["split"] == "train"]
    if count is not None:
        rows = rows[rows["repeat"] <= count]
    frame = pd.DataFrame(subject.responses(rows.index.to_numpy()))
    grouped = frame.groupby(rows["stimulus"].to_numpy(), sort=False)
    found = averaged(subject, "train", count=count)
    assert found.stimulus == list(grouped.groups) or set(found.stimulus) == set(grouped.groups)
    expected = grouped.mean().loc[found.stimulus].to_numpy()
    np.testing.assert_allclose(found.responses, expected, rtol=1e-5, atol=1e-6)
    assert found.repeats.tolist() == grouped.size().loc[found.stimulus].tolist()
    assert found.stimulus == list(dict.fromkeys(rows["stimulus"]))


def test_standardised_trial_by_trial(subject: Subject) -> None:
    scale = subject_standardiser(subject, "session")
    found = averaged(subject, "test", standardiser=scale, voxels=None)
    rows = subject.rows("test")
    values = scale.apply(subject.responses(rows), subject.trials["session"].to_numpy()[rows])
    names = subject.trials["stimulus"].to_numpy()[rows]
    for row, name in enumerate(found.stimulus):
        np.testing.assert_allclose(found.responses[row], values[names == name].mean(0), rtol=1e-5, atol=1e-6)


def test_refuses_nothing_to_average(subject: Subject) -> None:
    with pytest.raises(InputError, match="expected validation trials"):
        averaged(subject, "validation")
    with pytest.raises(InputError, match="at least one repeat; got 0"):
        averaged(subject, "train", count=0)

"""People on one canvas: items of each, in their own matrix, with what they saw."""

import numpy as np
import pandas as pd
import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.seeds import rng_of
from radiata_decode.data.cortical_layout import voxel_table
from radiata_decode.data.stimuli import StimulusArrays
from radiata_decode.data.subject import read_subject
from radiata_decode.data.subject_writer import write_subject
from radiata_decode.experiment.surface_people import people_on_canvas, surface_items


@pytest.fixture
def subjects(tmp_path):
    """Two people of 150 and 200 voxels, five pictures, two showings each; the last picture is for the test."""
    made = []
    for who, count in ((0, 150), (1, 200)):
        rng = rng_of(3, who)
        table = voxel_table(count, ("V1", "V4"), rng).drop(columns=["prf_x", "prf_y", "prf_size"])
        table.insert(0, "voxel", np.arange(count))
        table["noise_ceiling"] = 0.5
        names = [f"p{i}" for i in range(5)]
        trials = pd.DataFrame(
            {
                "trial": np.arange(10),
                "stimulus": names * 2,
                "session": 1,
                "run": [1] * 5 + [2] * 5,
                "repeat": [1] * 5 + [2] * 5,
                "split": (["train"] * 4 + ["test"]) * 2,
            }
        )
        responses = rng.normal(size=(10, count)).astype(np.float32)
        shown = rng.integers(0, 255, (5, 8, 8, 3), dtype=np.uint8)
        stimuli = StimulusArrays(pd.DataFrame({"stimulus": names}), shown)
        made.append(write_subject(tmp_path / f"sub-{who}", responses, trials, table, {}, stimuli))
    return [read_subject(subject.folder) for subject in made]


def test_items_are_each_persons_own_averages(subjects):
    people = people_on_canvas(subjects, 32, rule="train")
    assert people[0].cortex.canvas == people[1].cortex.canvas
    items = surface_items(people, "train", images=8)
    assert len(items) == 8 and items.group == [0] * 4 + [1] * 4
    mean, sd = (
        f(subjects[1].responses(subjects[1].rows("train")), 0)
        for f in (np.mean, lambda x, a: np.std(x, a, ddof=1))
    )
    raw = subjects[1].responses([2, 7])
    wanted = people[1].pictures(((raw - mean) / sd).mean(0, keepdims=True))[0]
    torch.testing.assert_close(items[6]["cortex"], wanted, rtol=1e-4, atol=1e-5)
    assert items[6]["image"].shape == (3, 8, 8) and float(items[6]["image"].min()) >= 0
    assert set(surface_items(people, "test")[0]) == {"image", "mask"}


def test_a_person_comes_to_the_canvas_of_a_model(subjects):
    canvas = people_on_canvas(subjects, 32)[0].cortex.canvas
    alone = people_on_canvas(subjects[:1], canvas=canvas)
    assert alone[0].cortex.canvas == canvas
    one = people_on_canvas(subjects[:1], 32, regions=["V4"], canvas=canvas)[0].cortex
    outside = ~subjects[0].rois["V4"]
    assert one.weights[:, outside].nnz == 0 and one.mask.sum() < alone[0].cortex.mask.sum()


def test_what_is_missing_is_named(subjects):
    with pytest.raises(InputError, match="at least one subject"):
        people_on_canvas([])
    with pytest.raises(InputError, match="FFA"):
        people_on_canvas(subjects, 32, regions=["FFA"])
    with pytest.raises(InputError, match="validation"):
        surface_items(people_on_canvas(subjects, 32), "validation")

"""The cortex route from subject folders to decoded pictures, on simulated people and an untrained generator."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.files import read_json
from radiata_decode.experiment.decode import Decode
from radiata_decode.experiment.simulating import write_simulated_subject
from radiata_decode.experiment.surface_presets import SurfacePreset
from radiata_decode.experiment.surface_runs import (
    decode_surface_run,
    frozen_prior,
    held_out,
    train_surface_run,
)
from radiata_decode.experiment.train import Train
from radiata_decode.experiment.trained_models import read_card
from radiata_decode.model.picture_prior import BANDS, build_picture_prior
from radiata_decode.model.surface_decoder import SurfacePrediction

SMALL = SurfacePreset(size=32, bottleneck=8, context=(2, 8), components=20, steps=(2, 3, 2), batch_size=4)


def prior():
    """Untrained, but not silent: its last layer starts at zero."""
    made = build_picture_prior(channels=(16, 32, 48))
    source = torch.Generator().manual_seed(1)
    for parameter in made.parameters():
        parameter.data.add_(0.02 * torch.randn(parameter.shape, generator=source))
    return made


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("surface")
    people = [
        write_simulated_subject(folder / f"sub-{who}", train=40, test=4, repeats=2, voxels=150, subject=who)
        for who in (0, 1)
    ]
    task = Train(tuple(p.folder for p in people), folder / "run", "surface", rois=("V1", "V2"))
    generator = prior()
    measured = train_surface_run(people, task, generator, SMALL)
    return people, read_card(folder / "run"), generator, measured


@pytest.fixture
def decode(trained):
    people, card, generator, _ = trained
    usual = Decode(people[0].folder, card.folder, card.folder / "decoded", draws=2, steps=2)
    return lambda **changes: decode_surface_run(people[0], card, replace(usual, **changes), generator)


def test_the_run_says_what_it_is(trained):
    people, card, _, measured = trained
    assert card.route == "surface" and card.facts["subject_voxels"] == 150
    assert card.facts["subjects"] == {p.folder.name: p.sha256 for p in people}
    assert card.facts["measured"] == measured and measured["held_out_stimuli"] == 4
    assert set(card.sha256) == {"surface.safetensors", "standardiser.safetensors"}
    stages = {
        name: read_json(card.folder / name / "model.json")["metadata"] for name in ("pretrain", "refine")
    }
    assert [len(stages[name]["subjects"]) for name in ("pretrain", "refine")] == [2, 1]


def test_held_out_stimuli_are_trained_on_by_nobody(trained):
    people, card, _, _ = trained
    parts = held_out(people)
    kept = set(parts[0].trials.query("split == 'validation'")["stimulus"])
    assert len(kept) == 4
    for part in parts:
        assert not kept & set(part.trials.query("split == 'train'")["stimulus"])
    assert not kept & set(card.facts["training_stimuli"])


def test_a_stimulus_alone_is_as_in_the_batch(decode):
    every = decode()
    name = every.stimulus[2]
    alone = decode(stimuli=(name,), batch_size=1)
    for key in ("images", "draws", "low_level"):
        np.testing.assert_allclose(alone.arrays[key][0].astype(int), every.arrays[key][2].astype(int), atol=1)
    assert not np.array_equal(every.arrays["draws"][:, 0], every.arrays["draws"][:, 1])


def test_control_changes_pictures_and_none_gives_the_guess(decode):
    given, free, guess = decode(), decode(control_scale=0.0), decode(generator="none")
    assert not np.array_equal(given.arrays["draws"], free.arrays["draws"])
    assert np.array_equal(guess.arrays["images"], given.arrays["low_level"])
    first = decode(show="first")
    assert np.array_equal(first.arrays["images"], given.arrays["draws"][:, 0])


def test_the_prior_is_told_the_guess_in_its_own_units_and_nothing_when_it_is_not_reliable():
    said = SurfacePrediction(
        torch.zeros(2, 1, 4), torch.zeros(2, 1, 4), torch.zeros(2, 5), torch.full((2, 3, 32, 32), 0.75)
    )
    told = frozen_prior(prior(), torch.full((5,), 0.5)).told(said)
    assert (told["guess"] == 1).all() and told["profile"].shape == (2, BANDS)
    torch.testing.assert_close(told["profile"][0, :5], torch.full((5,), 0.5))
    assert frozen_prior(prior(), torch.zeros(5)).told(said) == {}


def test_what_does_not_fit_is_said(trained, decode, tmp_path):
    people, _, generator, _ = trained
    with pytest.raises(InputError, match=r"expected a trained decoder .*finish its training"):
        read_card(tmp_path)
    with pytest.raises(InputError, match="expected --generator own or none"):
        decode(generator="retrieval")
    with pytest.raises(InputError, match="expected --size 32"):
        train_surface_run(people, Train((tmp_path,), tmp_path / "run", "surface", size=64), generator, SMALL)

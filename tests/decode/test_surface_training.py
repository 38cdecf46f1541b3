"""Three stages, one after the other: each starts from the one before, stops and goes on to the bit. Slow: decoding works."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from radiata_core.denoisers import NetworkDenoiser
from radiata_core.errors import InputError
from radiata_core.nets.unet import UNet
from radiata_core.objectives import Regression
from radiata_core.paths import LinearPath
from radiata_core.predictions import Prediction
from radiata_core.seeds import rng_of
from radiata_core.times import UniformTime
from radiata_core.train import TrainOptions, train
from radiata_core.weights import read_tensors
from radiata_decode.data.loading import unit_images
from radiata_decode.data.photographs import photograph_crops
from radiata_decode.data.stimuli import StimulusArrays, read_stimuli
from radiata_decode.data.subject_writer import write_subject
from radiata_decode.experiment.simulating import write_simulated_subject
from radiata_decode.experiment.surface_models import load_surface
from radiata_decode.experiment.surface_people import people_on_canvas
from radiata_decode.experiment.surface_presets import SurfacePreset
from radiata_decode.experiment.surface_training import autoencode, picture_basis, pretrain, refine
from radiata_decode.model.manipulated_generator import FrozenGenerator, drawn_pictures

SMALL = SurfacePreset(size=32, bottleneck=8, context=(2, 8), components=4, steps=(3, 3, 3), batch_size=4)


def unet(channels=(8, 8)):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UNet(
            dims=2,
            in_channels=3,
            out_channels=3,
            patch=4,
            channels=channels,
            down_blocks=(1, 1),
            up_blocks=(1, 1),
            attention=(False, channels[0] > 8),
            embedding=64,
            frequencies=16,
        )
    return NetworkDenoiser(network, LinearPath(), "velocity")


@pytest.fixture
def prior():
    return FrozenGenerator(unet().requires_grad_(False), (3, 32, 32))


def person(folder, who, voxels, train_pictures, test_pictures, respond):
    """A subject folder with three showings of each picture."""
    shown = np.concatenate([train_pictures, test_pictures])
    names = [f"s{who}-{i}" for i in range(len(shown))]
    split = ["train"] * len(train_pictures) + ["test"] * len(test_pictures)
    trials = pd.concat(
        [
            pd.DataFrame({"stimulus": names, "session": r, "run": r, "repeat": r, "split": split})
            for r in (1, 2, 3)
        ],
        ignore_index=True,
    )
    trials.insert(0, "trial", np.arange(len(trials)))
    table = voxels.copy()
    table.insert(0, "voxel", np.arange(len(table)))
    stimuli = StimulusArrays(pd.DataFrame({"stimulus": names}), shown)
    about = {"SyntheticData": True}
    return write_subject(folder, respond(shown), trials, table, about, stimuli)


@pytest.fixture
def people(tmp_path):
    """Two people of noise alone."""
    from radiata_decode.data.cortical_layout import voxel_table

    made = []
    for who, count in ((0, 60), (1, 80)):
        rng = rng_of(2, who)
        pictures = photograph_crops(8, "train", 32, rng).pictures
        noise = rng.normal(size=(24, count)).astype(np.float32)
        table = voxel_table(count, ("V1", "V4"), rng)
        made.append(
            person(tmp_path / f"sub-{who}", who, table, pictures[:6], pictures[6:], lambda _, n=noise: n)
        )
    return people_on_canvas(made, SMALL.size)


def test_stages_follow_one_another(people, prior, tmp_path):
    frozen = {name: value.clone() for name, value in prior.denoiser.state_dict().items()}
    autoencode(people, tmp_path / "one", SMALL)
    basis = picture_basis(people, SMALL, prior.shape)
    first = read_tensors(tmp_path / "one" / "model.safetensors")
    pretrain(
        people, prior, tmp_path / "two", SMALL, basis=basis, encoder=tmp_path / "one", learning_rate=1e-12
    )
    second = load_surface(tmp_path / "two")
    for name, value in second.decoder.encoder.state_dict().items():
        torch.testing.assert_close(value, first[f"encoder.{name}"], rtol=1e-4, atol=1e-6)
    assert second.canvas == people[0].cortex.canvas
    meanings = {name: torch.ones(8) for name in people[0].averages("train").stimulus}
    refine(
        people[0],
        prior,
        tmp_path / "three",
        SMALL,
        start=tmp_path / "two",
        embeddings=meanings,
        learning_rate=1e-12,
    )
    third = load_surface(tmp_path / "three")
    assert third.metadata["stage"] == "refine" and third.decoder.semantic.branch is not None
    cortex = people[0].pictures(people[0].averages("test").responses)
    torch.testing.assert_close(
        third.decoder(cortex).tokens, second.decoder(cortex).tokens, rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(third.decoder.basis_rows, basis.components)
    assert all(torch.equal(value, frozen[name]) for name, value in prior.denoiser.state_dict().items())


def test_stopped_and_resumed_is_not_stopped(people, prior, tmp_path):
    """Two steps, then on to four: the weights of four in one go, to the bit."""
    preset = replace(SMALL, components=0, steps=(4, 4, 4))
    options = {"cosine": False, "checkpoint_every": 2}
    pretrain(people, prior, tmp_path / "whole", preset, **options)
    pretrain(people, prior, tmp_path / "parts", preset, steps=2, **options)
    pretrain(people, prior, tmp_path / "parts", preset, resume=True, **options)
    whole, parts = (read_tensors(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_what_does_not_fit_is_refused(people, prior, tmp_path):
    autoencode(people, tmp_path / "one", SMALL)
    other = people_on_canvas([p.subject for p in people], 48)
    with pytest.raises(InputError, match="canvas"):
        pretrain(other, prior, tmp_path / "two", SMALL, encoder=tmp_path / "one")
    with pytest.raises(InputError, match="stage 2 or 3"):
        load_surface(tmp_path / "one")
    pretrain(people, prior, tmp_path / "two", replace(SMALL, components=0))
    with pytest.raises(InputError, match="stage 1"):
        pretrain(people, prior, tmp_path / "three", SMALL, encoder=tmp_path / "two")
    with pytest.raises(InputError, match="embedding"):
        refine(
            people[0],
            prior,
            tmp_path / "three",
            SMALL,
            start=tmp_path / "two",
            embeddings={"no": torch.ones(8)},
        )


def pixel_correlation(first, second):
    """Pearson's r of each pair of pictures, (n,)."""
    a, b = (part.flatten(1) - part.flatten(1).mean(1, keepdim=True) for part in (first, second))
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))


@pytest.fixture
def trained_prior(tmp_path):
    """A small unconditional flow of photographs, some fifty seconds of training."""
    pictures = unit_images(photograph_crops(3000, "train", 32, rng_of(7, 0)).pictures)
    denoiser = unet((48, 64))
    objective = Regression(LinearPath(), UniformTime(), target=Prediction.VELOCITY)
    options = TrainOptions(
        steps=500, batch_size=48, learning_rate=2e-3, warmup=30, cosine=True, ema=(0.05,), tensorboard=False
    )
    train(denoiser, objective, [{"image": 2 * p - 1} for p in pictures], tmp_path / "prior", options)
    return FrozenGenerator(denoiser.eval().requires_grad_(False), (3, 32, 32))


@pytest.mark.slow
def test_decoded_pictures_beat_those_of_permuted_brains(trained_prior, tmp_path):
    """Two simulated people, three stages: pixel correlation above the permuted brain's by more than its 95 % interval,
    with the generator's pictures and with the guess, and nothing of it at control scale 0."""
    subjects = [
        write_simulated_subject(tmp_path / f"sub-{who}", train=600, test=80, voxels=voxels, subject=who)
        for who, voxels in ((0, 1200), (1, 1500))
    ]
    preset = SurfacePreset(size=96, encoder="tiny", steps=(80, 350, 120), components=64)
    people = people_on_canvas(subjects, preset.size)
    autoencode(people, tmp_path / "one", preset)
    basis = picture_basis(people, preset, trained_prior.shape)
    pretrain(people, trained_prior, tmp_path / "two", preset, basis=basis, encoder=tmp_path / "one")
    refine(people[0], trained_prior, tmp_path / "three", preset, start=tmp_path / "two")
    decoder = load_surface(tmp_path / "three").decoder
    average = people[0].averages("test")
    cortex = people[0].pictures(average.responses)
    seen = unit_images(read_stimuli(people[0].subject.folder).images(average.stimulus))
    other = torch.roll(torch.arange(len(seen)), len(seen) // 2)

    def gain(found):
        """Own minus permuted, mean and half its interval."""
        found = pixel_correlation(found, seen) - pixel_correlation(found[other], seen)
        return float(found.mean()), 1.96 * float(found.std()) / len(found) ** 0.5

    options = {"seeds": range(len(seen)), "draws": 4, "steps": 8}
    drawn = drawn_pictures(trained_prior, decoder, cortex, **options).mean(1)
    started = drawn_pictures(trained_prior, decoder, cortex, strength=0.6, **options).mean(1)
    with torch.no_grad():
        guess = decoder(cortex).first
    for name, found in (("drawn", drawn), ("drawn from the guess", started), ("guess", guess)):
        mean, half = gain(found)
        print(
            f"{name}: r {pixel_correlation(found, seen).mean():.3f}, above permuted {mean:.3f} ± {half:.3f}"
        )
        assert mean > half
    alone = drawn_pictures(trained_prior, decoder, cortex, scale=0.0, **options).mean(1)
    mean, half = gain(alone)
    assert abs(mean) < 2 * half

"""Spaces of features: what they measure, that test stimuli shape none of them, and files of others."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.data.image_features import (
    flow_features,
    gabor_features,
    luminance_components,
    pixel_features,
    read_features,
    stimulus_features,
)
from radiata_decode.data.moving_pictures import moving_pictures
from radiata_decode.data.stimuli import Stimuli, StimulusArrays, read_stimuli, write_arrays


@pytest.fixture
def stimuli(tmp_path: Path, rng: np.random.Generator) -> Stimuli:
    films = moving_pictures(6, "train", 32, 4, rng)
    table = pd.DataFrame({"stimulus": [f"film-{k}" for k in range(6)]})
    tmp_path.joinpath("subject").mkdir()
    write_arrays(
        tmp_path / "subject", StimulusArrays(table, movies=films.movies, flow=films.flow, frames_per_s=4.0)
    )
    return read_stimuli(tmp_path / "subject")


def test_pixels_are_means_of_luminance_over_cells_and_frames(generator: torch.Generator) -> None:
    films = torch.rand(2, 3, 3, 8, 8, generator=generator)
    weights = torch.tensor([0.2126, 0.7152, 0.0722]).reshape(1, 1, 3, 1, 1)
    grey = (films * weights).sum(2).mean(1).reshape(2, 4, 2, 4, 2).mean((2, 4))
    np.testing.assert_allclose(pixel_features(films, 4), grey.flatten(1), atol=1e-6)


def test_components_are_those_of_training_rows_alone(generator: torch.Generator) -> None:
    images = torch.rand(20, 3, 8, 8, generator=generator)
    training = np.arange(20) < 12
    first = luminance_components(images, training, 5, 8)
    changed = torch.cat([images[:12], torch.rand(8, 3, 8, 8, generator=generator)])
    np.testing.assert_allclose(luminance_components(changed, training, 5, 8)[:12], first[:12], atol=1e-5)
    covariance = np.cov(first[:12].T)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-5)


def test_gabors_know_orientation_and_place() -> None:
    """Vertical bars on the left: energy of the filters of 90 degrees, on the left."""
    x = torch.arange(32.0)
    picture = 0.5 + 0.4 * torch.cos(2 * np.pi * x / 8) * (x < 16)
    found = gabor_features(picture.expand(1, 3, 32, 32), 4).reshape(12, 4, 4)
    assert np.unravel_index(found.mean((1, 2)).argmax(), (3, 4))[1] == 2
    best = found[found.mean((1, 2)).argmax()]
    assert best[:, :2].mean() > 2 * best[:, 2:].mean()


def test_flow_is_direction_and_speed() -> None:
    flow = np.broadcast_to(np.array([3.0, -4.0], np.float32)[:, None, None], (1, 2, 2, 16, 16))
    found = flow_features(flow, 8).reshape(3, 64)
    np.testing.assert_allclose(found, [[1.5] * 64, [-2.0] * 64, [2.5] * 64], rtol=1e-5)


def test_every_space_has_a_row_for_every_stimulus_in_the_order_asked_for(stimuli: Stimuli) -> None:
    ids, training = ["film-3", "film-0", "film-5"], np.ones(3, bool)
    for name in ("pixels", "gabor", "motion-energy", "flow"):
        found = stimulus_features(name, stimuli, ids, training)
        again = stimulus_features(name, stimuli, ids[::-1], training)
        np.testing.assert_allclose(found, again[::-1], atol=1e-5, err_msg=name)
        assert found.shape[0] == 3
        assert np.isfinite(found).all()


def test_files_are_read_by_the_rows_of_the_table(stimuli: Stimuli, tmp_path: Path) -> None:
    values = np.arange(12.0).reshape(6, 2)
    np.save(tmp_path / "own.npy", values)
    with h5py.File(tmp_path / "own.h5", "w") as opened:
        opened["features"] = values.reshape(6, 1, 2)
    for file in ("own.npy", "own.h5"):
        found = stimulus_features(str(tmp_path / file), stimuli, ["film-4", "film-1"], np.ones(2, bool))
        np.testing.assert_array_equal(found, values[[4, 1]])


def test_files_that_do_not_fit(stimuli: Stimuli, tmp_path: Path) -> None:
    np.save(tmp_path / "short.npy", np.zeros((5, 2)))
    np.save(tmp_path / "nan.npy", np.full((6, 2), np.nan))
    np.save(tmp_path / "objects.npy", np.array([{}] * 6, dtype=object), allow_pickle=True)
    (tmp_path / "broken.h5").write_bytes(b"no")
    for file, said in (
        ("short", "6 rows"),
        ("nan", "finite"),
        ("objects", "cannot be read"),
        ("none", "no such file"),
    ):
        with pytest.raises(InputError, match=said):
            read_features(tmp_path / f"{file}.npy", 6)
    with pytest.raises(InputError, match="cannot be read"):
        read_features(tmp_path / "broken.h5", 6)
    with pytest.raises(InputError, match="features of pixels"):
        stimulus_features("clip", stimuli, ["film-0"], np.ones(1, bool))
    with pytest.raises(InputError, match="two training rows"):
        stimulus_features("luminance-pcs", stimuli, ["film-0"], np.ones(1, bool))
    with pytest.raises(InputError, match=r"config\.json"):
        stimulus_features(str(tmp_path), stimuli, ["film-0"], np.ones(1, bool))


@pytest.mark.slow
def test_networks_of_transformers_see_films_and_frames(stimuli: Stimuli, tmp_path: Path) -> None:
    """Tiny random models: a video model sees another film when only later frames change; one of pictures does not."""
    from transformers import Dinov2Config, Dinov2Model, VideoMAEConfig, VideoMAEModel

    small = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 16,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        VideoMAEModel(
            VideoMAEConfig(**small, num_frames=4, tubelet_size=2, intermediate_size=16)
        ).save_pretrained(tmp_path / "video")
        Dinov2Model(Dinov2Config(**small)).save_pretrained(tmp_path / "dino")
        training = np.ones(3, bool)
        ids = ["film-3", "film-0", "film-5"]
        for name in ("video", "dino"):
            found = stimulus_features(str(tmp_path / name), stimuli, ids, training)
            alone = stimulus_features(str(tmp_path / name), stimuli, ids[1:2], training[:1])
            assert found.shape == (3, 16)
            np.testing.assert_allclose(found[1:2], alone, atol=1e-4)
            assert np.ptp(found, axis=0).max() > 0

"""Synthetic responses of regions, on a brain where each region carries its own latent."""

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.model.image_decoder import fit_image_decoder
from radiata_decode.model.ridge import SharedRidge
from radiata_decode.model.roi_synthesis import kept, lesioned, roi_latents

ROIS = {
    "V1": np.arange(60) < 20,
    "V4": (np.arange(60) >= 20) & (np.arange(60) < 40),
    "PPA": np.arange(60) >= 40,
}


@pytest.fixture
def problem(rng):
    """Region i follows latent i."""
    latents = rng.standard_normal((200, 3)) * np.array([1.0, 2.0, 3.0]) + 5
    x = np.repeat(latents - 5, 20, 1) * 0.4 + 0.5 * rng.standard_normal((200, 60))
    return x.astype(np.float32), latents.astype(np.float32)


@pytest.fixture
def decoder(problem, rng):
    x, latents = problem
    tokens = (latents @ rng.standard_normal((3, 8)).astype(np.float32)).reshape(200, 2, 4)
    return fit_image_decoder(SharedRidge(x), latents, {"clip": tokens}).decoder


def test_each_region_drives_its_latent(problem, decoder):
    found = roi_latents(decoder, ROIS).low_level - decoder.ridge.target_mean[:3]
    share = found.abs() / found.norm(dim=1, keepdim=True)
    assert (share.diagonal() > 0.97).all()
    assert (found.diagonal() > 0).all()
    silenced = roi_latents(decoder, ROIS, amplitude=-1.0).low_level - decoder.ridge.target_mean[:3]
    assert torch.allclose(silenced, -found, atol=1e-4)


def test_the_direction_is_that_of_a_difference_of_predictions(decoder):
    """f W, by the closed form and as predict(mean + roi) - predict(mean)."""
    mean = decoder.ridge.scale.mean[None]
    moved = decoder.ridge.predict(mean + torch.from_numpy(ROIS["V4"])) - decoder.ridge.predict(mean)
    found = roi_latents(decoder, {"V4": ROIS["V4"]})
    for part, values in (
        (slice(0, 3), found.low_level),
        (slice(3, 11), found.embeddings["clip"].flatten(1)),
    ):
        direction = values - decoder.ridge.target_mean[part]
        cosine = torch.nn.functional.cosine_similarity(direction, moved[:, part].float())
        assert abs(float(cosine) - 1) < 1e-4
        assert abs(float(direction.norm() / decoder.sd[part].norm()) - 1) < 1e-4


def test_a_region_does_not_depend_on_the_others_asked_for(decoder):
    whole = roi_latents(decoder, ROIS)
    for row, name in enumerate(ROIS):
        alone = roi_latents(decoder, {name: ROIS[name]})
        assert torch.allclose(alone.low_level[0], whole.low_level[row], atol=1e-4)
        assert torch.allclose(alone.embeddings["clip"][0], whole.embeddings["clip"][row], atol=1e-4)


def test_gain_is_the_distance_from_the_mean(decoder):
    one, two = (
        roi_latents(decoder, ROIS, gain=g).low_level - decoder.ridge.target_mean[:3] for g in (1.0, 2.0)
    )
    assert torch.allclose(two, 2 * one, atol=1e-4)


def test_a_region_alone_and_without_it_add_up(problem, decoder):
    """Decoding is linear: what the region says and what the rest says sum to what the whole says."""
    x, scale = problem[0][:9], decoder.ridge.scale
    mean = decoder.ridge.target_mean
    whole, alone, rest = (
        decoder.ridge.predict(each) - mean
        for each in (x, kept(x, scale, ROIS["V1"]), lesioned(x, scale, ROIS["V1"]))
    )
    assert torch.allclose(whole, alone + rest, atol=1e-3)
    assert alone[:, 0].std() > 3 * alone[:, 2].std()


def test_bad_regions_are_refused(problem, decoder):
    empty = np.zeros(60, bool)
    refused = [
        (lambda: roi_latents(decoder, {}), "at least one region"),
        (lambda: roi_latents(decoder, {"V1": empty}), "voxels in the region V1"),
        (lambda: roi_latents(decoder, {"V1": np.ones(59, bool)}), "over 60 voxels"),
        (lambda: roi_latents(decoder, ROIS, gain=0.0), "gain"),
        (lambda: roi_latents(decoder, ROIS, amplitude=0.0), "to drive"),
        (lambda: kept(problem[0], decoder.ridge.scale, empty), "got none"),
        (lambda: lesioned(problem[0][:, 1:], decoder.ridge.scale, empty), "of 60 voxels"),
    ]
    for call, words in refused:
        with pytest.raises(InputError, match=words):
            call()

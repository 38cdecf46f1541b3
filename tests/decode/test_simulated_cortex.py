"""The simulated cortex: it sees what it should, and its noise is what its table says."""

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.data.cortical_layout import AREAS
from radiata_decode.data.gabor_energy import picture_maps
from radiata_decode.data.moving_pictures import moving_pictures
from radiata_decode.data.photographs import photograph_crops
from radiata_decode.data.simulated_cortex import SHARED_VARIANCE, SimulatedCortex, receptive_fields
from radiata_decode.model.noise_ceiling import ncsnr

SIZE = 16


@pytest.fixture(scope="module")
def cortex():
    return SimulatedCortex(0, voxels=400, size=SIZE)


@pytest.fixture(scope="module")
def pictures():
    return photograph_crops(120, "train", SIZE, np.random.default_rng(8)).pictures


def test_noise_ceilings_are_those_of_the_natural_scenes_dataset():
    """Means of 2000 draws have standard errors of .007 and less."""
    ratio = SimulatedCortex(1, size=8, voxels=2000).voxels["ncsnr"].to_numpy()
    assert abs(ratio.mean() - 0.54) < 0.02
    assert abs((ratio**2 / (ratio**2 + 1)).mean() - 0.23) < 0.015
    assert abs((ratio**2 / (ratio**2 + 1 / 3)).mean() - 0.41) < 0.02
    assert ratio.min() >= 0.05 and ratio.max() <= 1.6


def test_repeats_have_the_ncsnr_of_the_table_by_the_formula_for_measurements(cortex, pictures):
    """400 voxels, 120 stimuli, 6 trials: errors of single voxels average out, a wrong scale would not."""
    rng = np.random.default_rng(4)
    signal = cortex.signal(pictures)
    signal *= np.sqrt(cortex.voxels["noise_ceiling"].to_numpy()) / signal.std(0)  # of these stimuli
    trials = np.concatenate([signal + cortex.noise(signal.shape, rng) for _ in range(6)])
    found = ncsnr(trials, np.tile(np.arange(120), 6))
    table = cortex.voxels["ncsnr"].to_numpy()
    assert np.corrcoef(found, table)[0, 1] > 0.97
    assert np.polyfit(table, found, 1) == pytest.approx([1.0, 0.0], abs=0.03)
    assert trials.var(0).mean() == pytest.approx(1.0, abs=0.03)


def test_signals_of_photographs_have_the_variance_of_the_table(cortex):
    crops = photograph_crops(600, "train", SIZE, np.random.default_rng(9)).pictures
    share = cortex.signal(crops).var(0) / cortex.voxels["noise_ceiling"].to_numpy()
    assert abs(share.mean() - 1) < 0.1


def test_a_fifth_of_the_noise_is_shared_by_ten_components(cortex):
    noise = cortex.noise((4000, 400), np.random.default_rng(2)) / np.sqrt(
        1 - cortex.voxels["noise_ceiling"].to_numpy()
    )
    values = np.linalg.eigvalsh(np.cov(noise.T))[::-1]
    assert values[9] > 3 * values[10]
    white = values[10:].mean()
    assert white == pytest.approx(1 - SHARED_VARIANCE, abs=0.03)
    assert values.sum() / 400 == pytest.approx(1.0, abs=0.02)


def test_a_voxel_is_the_root_of_its_weighted_pooled_maps(cortex, pictures):
    """Up to the final centring and scaling, by sums over pixels written out."""
    maps = picture_maps(torch.from_numpy(pictures).movedim(-1, 1) / 255).numpy().astype(np.float64)
    reference = photograph_crops(384, "train", SIZE, np.random.default_rng(0)).pictures  # other photographs
    unit = picture_maps(torch.from_numpy(reference).movedim(-1, 1) / 255).mean((0, 2, 3)).numpy()
    signal = cortex.signal(pictures)
    centres = (np.arange(SIZE) + 0.5) / SIZE
    for voxel in (0, 150, 399):
        row = cortex.voxels.iloc[voxel]
        apart = (centres[None] - row["prf_x"]) ** 2 + (centres[:, None] - row["prf_y"]) ** 2
        field = np.exp(-apart / (2 * row["prf_size"] ** 2))
        pooled = (maps * field / field.sum()).sum((2, 3)) / unit
        assert np.corrcoef(np.sqrt(pooled @ cortex.tuning[voxel]), signal[:, voxel])[0, 1] > 0.99


def test_a_spot_is_seen_where_it_is(cortex):
    """The voxel that answers most to light at a place has its field there; moving the spot moves the answer."""
    fields = receptive_fields(cortex.voxels, SIZE).reshape(-1, SIZE, SIZE)
    assert torch.allclose(fields.sum((1, 2)), torch.ones(len(fields)))
    for x, y in ((4, 4), (4, 11), (11, 11)):
        spot = torch.full((1, 3, SIZE, SIZE), 0.5)
        spot[:, :, y - 1 : y + 2, x - 1 : x + 2] = 1.0
        grey = torch.full((1, 3, SIZE, SIZE), 0.5)
        answer = cortex.signal(spot)[0] - cortex.signal(grey)[0]
        best = np.argsort(answer / cortex.signal(np.zeros((1, SIZE, SIZE, 3), np.uint8)).std())[-15:]
        where = cortex.voxels.iloc[best]
        assert abs(np.median(where["prf_x"]) - (x + 0.5) / SIZE) < 0.13
        assert abs(np.median(where["prf_y"]) - (y + 0.5) / SIZE) < 0.13


def test_a_picture_gives_the_same_alone_as_uint8_and_as_float(cortex, pictures):
    whole = cortex.signal(pictures)
    assert np.allclose(cortex.signal(pictures[17:18]), whole[17:18], atol=1e-5)
    floats = torch.from_numpy(pictures[17:18]).movedim(-1, 1) / 255
    assert np.allclose(cortex.signal(floats), whole[17:18], atol=1e-5)
    large = floats.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert np.allclose(cortex.signal(large), whole[17:18], atol=1e-5)  # averaged back to its size


def test_the_same_seed_is_the_same_person_and_another_subject_another(cortex, pictures):
    again = SimulatedCortex(0, voxels=400, size=SIZE)
    assert again.voxels.equals(cortex.voxels)
    assert again.signal(pictures[:5]).tobytes() == cortex.signal(pictures[:5]).tobytes()
    other = SimulatedCortex(0, subject=1, voxels=400, size=SIZE)
    assert not np.allclose(other.voxels["ncsnr"], cortex.voxels["ncsnr"])
    assert set(other.voxels["area"]) == set(cortex.voxels["area"])


def test_mt_answers_to_the_direction_of_motion_and_not_to_stills(rng):
    cortex = SimulatedCortex(0, voxels=120, size=SIZE, areas=AREAS)
    moving = (cortex.voxels["area"] == "MT").to_numpy()
    films = moving_pictures(24, "train", SIZE, 7, rng).movies
    forward, backward = cortex.motion_signal(films), cortex.motion_signal(films[:, ::-1])
    assert np.allclose(
        forward[:, ~moving], backward[:, ~moving], atol=1e-5
    )  # first and last frame change places
    assert np.abs(forward - backward)[:, moving].mean() > 0.1
    assert np.ptp(cortex.signal(films[:, 0])[:, moving], axis=0).max() == 0


def test_what_does_not_go_is_said(cortex, rng):
    with pytest.raises(InputError, match=r"expected noise of \(trial, 400\)"):
        cortex.noise((3, 399), rng)
    with pytest.raises(InputError, match="expected pictures of 4 axes"):
        cortex.signal(torch.zeros(3, 16, 16))

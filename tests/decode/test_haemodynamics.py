"""Time series against nilearn's regressors and model, and against the textbook's AR(1)."""

import numpy as np
import pytest
from nilearn.glm.first_level import compute_regressor

from radiata_core.errors import InputError
from radiata_decode.data.haemodynamics import (
    MODELS,
    autoregressive_noise,
    bold_regressors,
    bold_series,
    slow_drift,
    subject_stretch,
)

ONSETS = np.array([3.0, 11.0, 12.4, 40.0])


@pytest.mark.parametrize("model", MODELS)
def test_regressors_are_those_of_nilearn(model):
    found = bold_regressors(ONSETS, 2.0, 60, 1.6, model=model)
    times = np.arange(60) * 1.6
    for column, onset in enumerate(ONSETS):
        expected, _ = compute_regressor(np.array([[onset], [2.0], [1.0]]), model, times, oversampling=100)
        assert np.abs(found[:, column] - expected[:, 0]).max() < 0.03 * np.abs(expected).max()


def test_a_long_event_reaches_the_height_of_its_response_and_an_early_one_is_causal():
    long = bold_regressors(np.array([10.0]), 80.0, 100, 1.0)[:, 0]
    assert long[85] == pytest.approx(1.0, abs=1e-6) and np.all(long[:11] == 0)
    assert long[-1] != 1.0 and abs(bold_regressors(np.array([10.0]), 2.0, 200, 1.0)[-1, 0]) < 1e-12


def test_a_stretched_response_peaks_later_by_the_stretch():
    peaks = [
        bold_regressors(np.array([0.0]), 0.1, 4000, 0.01, stretch=stretch)[:, 0].argmax() * 0.01
        for stretch in (1.0, 1.2)
    ]
    assert peaks[1] == pytest.approx(1.2 * peaks[0], abs=0.05)
    stretches = [subject_stretch(0, subject) for subject in range(40)]
    assert min(stretches) >= 0.85 and max(stretches) <= 1.15 and np.std(stretches) > 0.05


def test_least_squares_on_a_series_without_noise_finds_the_responses(rng):
    responses = rng.normal(size=(20, 6))
    onsets = 4.0 * np.arange(20) + rng.uniform(0, 1, 20)
    series = bold_series(responses, onsets, 60, rng, drift=0.0, noise=0.0)
    design = bold_regressors(onsets, 2.0, 60, 2.0)
    found = np.linalg.lstsq(design, series.astype(np.float64), rcond=None)[0]
    assert np.allclose(found, responses, atol=1e-4)


def test_noise_has_variance_one_and_the_correlation_asked_for(rng):
    noise = autoregressive_noise(400, 300, 0.4, rng)
    assert noise.var() == pytest.approx(1.0, abs=0.03)
    lags = [(noise[k:] * noise[: 400 - k]).mean() for k in (1, 2, 3)]
    assert lags == pytest.approx([0.4, 0.16, 0.064], abs=0.02)
    assert noise[0].var() == pytest.approx(1.0, abs=0.35)  # stationary from the first volume


def test_drift_is_slower_than_128_s(rng):
    drift = slow_drift(300, 500, 2.0, rng)
    spectrum = np.abs(np.fft.rfft(np.concatenate([drift, drift[::-1]]), axis=0)) ** 2
    frequency = np.fft.rfftfreq(600, 2.0)
    assert spectrum[frequency > 1 / 128 + 1e-3].sum() < 1e-3 * spectrum.sum()
    assert drift.std() == pytest.approx(1.0, abs=0.1)


def test_what_does_not_go_is_said(rng):
    with pytest.raises(InputError, match="expected a haemodynamic response of glover, spm"):
        bold_regressors(ONSETS, 2.0, 10, 2.0, model="gamma")
    with pytest.raises(InputError, match="an onset for each trial"):
        bold_series(np.zeros((3, 2)), ONSETS, 10, rng)
    with pytest.raises(InputError, match="between -1 and 1"):
        autoregressive_noise(5, 2, 1.0, rng)
    with pytest.raises(InputError, match="> 0"):
        bold_regressors(ONSETS, 0.0, 10, 2.0)

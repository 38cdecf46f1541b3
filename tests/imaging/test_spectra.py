import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_imaging.spectra import RadialBins, log_power, spectrum_ratio


@pytest.mark.parametrize("shape", [(8, 9, 10), (7, 8, 9), (12, 6, 5)])
def test_parseval(shape, rng):
    bins = RadialBins(shape, (1.0, 2.0, 1.5))
    x = rng.standard_normal(shape).astype(np.float32)
    assert bins.count.sum() == pytest.approx(np.prod(shape))
    assert (bins.count * bins.power(x)).sum() / x.size == pytest.approx(
        np.mean(x.astype(float) ** 2), rel=1e-5
    )


def test_equals_the_full_transform_shell_by_shell(rng):
    """A second implementation: the complex transform, each mode put into its shell by hand."""
    shape, spacing = (6, 7, 8), (2.0, 2.0, 2.0)
    x = rng.standard_normal(shape).astype(np.float32)
    axes = [np.fft.fftfreq(n, s) for n, s in zip(shape, spacing, strict=True)]
    f = np.sqrt(sum(g**2 for g in np.meshgrid(*axes, indexing="ij")))
    shell = np.rint(f * 16.0).astype(int)
    power = np.abs(np.fft.fftn(x)) ** 2 / x.size
    expected = [power[shell == s].mean() for s in np.unique(shell)]
    np.testing.assert_allclose(RadialBins(shape, spacing).power(x), expected, rtol=2e-4)


def test_white_noise_is_flat(rng):
    """Chi-squared bounds: a shell of n modes has relative sd sqrt(2/n) at most; all shells inside 5 of them."""
    bins = RadialBins((32, 36, 32), (4.0, 4.0, 4.0))
    power = np.mean(
        [bins.power(3.0 * rng.standard_normal((32, 36, 32)).astype(np.float32)) for _ in range(8)], axis=0
    )
    assert np.all(np.abs(power / 9.0 - 1) < 5 * np.sqrt(2 / (8 * bins.count)))


def test_power_law_is_found(rng):
    """A field made with P ~ f^-3 has slope -3 on log-log axes, in cycles/mm whatever the voxel size."""
    shape, spacing = (48, 40, 48), (2.0, 2.0, 2.0)
    f = np.sqrt(sum(g**2 for g in np.meshgrid(*[np.fft.fftfreq(n, 2.0) for n in shape], indexing="ij")))
    f[0, 0, 0] = np.inf
    field = np.fft.ifftn(np.fft.fftn(rng.standard_normal(shape)) * f**-1.5).real.astype(np.float32)
    bins = RadialBins(shape, spacing)
    shown = bins.shown & (bins.frequency > 0.04)
    slope = np.polyfit(np.log(bins.frequency[shown]), np.log(bins.power(field)[shown]), 1)[0]
    assert slope == pytest.approx(-3.0, abs=0.1)
    assert bins.nyquist == 0.25


def test_ratio_of_scaled_sets_is_known(rng):
    """Twice the amplitude is 6.02 dB at every frequency."""
    bins = RadialBins((12, 12, 12), (1.0, 1.0, 1.0))
    rows = np.stack(
        [log_power(bins.power(rng.standard_normal((12, 12, 12)).astype(np.float32))) for _ in range(6)]
    )
    ratio = spectrum_ratio(rows + 20 * np.log10(2), rows, bins.frequency, rng)
    np.testing.assert_allclose(ratio.decibels, 6.0206, atol=1e-3)
    assert ratio.rms == pytest.approx(6.0206, abs=1e-3)
    assert np.all(ratio.low <= ratio.decibels) and np.all(ratio.decibels <= ratio.high)


def test_another_shape_is_refused():
    with pytest.raises(InputError, match="expected a volume of"):
        RadialBins((4, 4, 4), (1.0, 1.0, 1.0)).power(np.zeros((4, 4, 5), np.float32))

"""One pass against the whole: streaming moments are those of the data set, and nothing of the variance is lost."""

import pytest
import torch
from torch import Tensor

from radiata_core.covariances import LowRankFit, fit_low_rank
from radiata_core.errors import InputError
from radiata_core.gaussian_fits import StreamingGaussian, fit_classes, fit_gaussian, isotropic


def _data(generator: torch.Generator, n: int = 60) -> Tensor:
    """Rows of 4 x 5 elements with a falling spectrum and a mean that is not zero."""
    mixing = torch.randn(20, 20, generator=generator, dtype=torch.float64) * 0.7 ** torch.arange(20)
    return 3.0 + (torch.randn(n, 20, generator=generator, dtype=torch.float64) @ mixing.mT).view(n, 4, 5)


def _matrix(fit: LowRankFit) -> Tensor:
    eye = torch.eye(fit.mean.numel(), dtype=torch.float64).view(-1, *fit.mean.shape)
    return fit.covariance.apply(lambda value: value, eye).flatten(1)


def _trace(fit: LowRankFit) -> float:
    return float(fit.covariance.total(lambda value: value))


@pytest.mark.parametrize("size", [1, 7, 60])
def test_batches_of_any_size_give_the_fit_of_the_whole(size: int, generator: torch.Generator) -> None:
    """While all directions fit in, the sample mean and the covariance of `fit_low_rank`, shrinkage included."""
    data = _data(generator)
    fit = fit_gaussian(data.split(size), rank=12, shrinkage=0.1)
    whole = fit_low_rank(data, 12, 0.1)
    torch.testing.assert_close(fit.mean, whole.mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(fit.covariance.eigenvalues, whole.covariance.eigenvalues, rtol=1e-9, atol=0)
    torch.testing.assert_close(_matrix(fit), _matrix(whole), rtol=0, atol=1e-8)


def test_what_is_forgotten_goes_to_the_floor(generator: torch.Generator) -> None:
    """With fewer directions kept than there are, the trace stays exact and the leading ones stay close."""
    data = _data(generator, 400)
    fit = fit_gaussian(data.split(16), rank=3)
    whole = fit_low_rank(data, 3)
    assert _trace(fit) == pytest.approx(_trace(whole), rel=1e-10)
    torch.testing.assert_close(fit.covariance.eigenvalues, whole.covariance.eigenvalues, rtol=0.02, atol=0)
    cosines = (fit.covariance.basis.flatten(1) @ whole.covariance.basis.flatten(1).mT).abs().diagonal()
    assert (cosines > 0.99).all()


def test_noise_is_added_in_quadrature_everywhere(generator: torch.Generator) -> None:
    data = _data(generator)
    without, noisy = fit_gaussian([data], 5), fit_gaussian([data], 5, noise=0.3)
    expected = _matrix(without) + 0.09 * torch.eye(20, dtype=torch.float64)
    torch.testing.assert_close(_matrix(noisy), expected, rtol=0, atol=1e-12)


def test_identical_rows_and_few_rows_have_a_basis_all_the_same() -> None:
    """Two directions asked for where the data have one, and none: orthonormal, with no variance."""
    fit = fit_gaussian([torch.ones(3, 4), torch.ones(2, 4)], 2, noise=0.5)
    torch.testing.assert_close(_matrix(fit), 0.25 * torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(fit.mean, torch.ones(4))


def test_float32_batches_far_from_zero_keep_their_variance(generator: torch.Generator) -> None:
    """A mean 1000 times the spread: the shift of the mean is not taken for variance."""
    data = _data(generator, 200)
    far = fit_gaussian((data + 1000).float().split(20), 5)
    near = fit_gaussian(data.split(20), 5)
    torch.testing.assert_close(far.covariance.eigenvalues, near.covariance.eigenvalues, rtol=1e-3, atol=0)


def test_classes_have_moments_of_their_own(generator: torch.Generator) -> None:
    data, labels = _data(generator, 90), torch.arange(90) % 3
    data = data + 5.0 * labels[:, None, None]
    fits = fit_classes(zip(data.split(20), labels.split(20), strict=True), 6)
    for k in range(3):
        alone = fit_low_rank(data[labels == k], 6)
        torch.testing.assert_close(fits.of(k).mean, alone.mean, rtol=0, atol=1e-12)
        torch.testing.assert_close(
            _matrix(fits.of(k)), _matrix(alone), rtol=0, atol=0.05 * _trace(alone) / 20
        )
    everyone = fit_low_rank(data, 6)
    torch.testing.assert_close(fits.of(None).mean, everyone.mean, rtol=0, atol=1e-12)
    assert _trace(fits.of(None)) == pytest.approx(_trace(everyone))
    groups = fits.groups(torch.tensor([2.0, torch.nan, 0.0, 2.0]), 4)
    assert [
        (fit is fits.of(k), rows.tolist()) for (fit, rows), k in zip(groups, (None, 0, 2), strict=True)
    ] == [
        (True, [1]),
        (True, [2]),
        (True, [0, 3]),
    ]


def test_isotropic_has_the_same_mean_and_total_variance(generator: torch.Generator) -> None:
    fit = fit_gaussian([_data(generator)], 4)
    even = isotropic(fit)
    torch.testing.assert_close(_matrix(even), torch.eye(20, dtype=torch.float64) * _trace(fit) / 20)


def test_bad_input_is_refused(generator: torch.Generator) -> None:
    stream = StreamingGaussian(4)
    with pytest.raises(InputError, match="at least 2 samples; got 0"):
        stream.fit(1)
    stream.update(torch.ones(3, 2, 2))
    with pytest.raises(InputError, match="shape \\(2, 2\\), as before"):
        stream.update(torch.ones(3, 4))
    with pytest.raises(InputError, match="finite samples"):
        stream.update(torch.full((1, 2, 2), torch.nan))
    with pytest.raises(InputError, match="rank from 0 to 2"):
        stream.fit(3)
    with pytest.raises(InputError, match="at least 1 direction"):
        StreamingGaussian(0)
    with pytest.raises(InputError, match="2 samples of every class; got fewer of \\[1\\]"):
        fit_classes([(torch.ones(3, 2), torch.tensor([0, 0, 1]))], 1)
    fits = fit_classes([(_data(generator, 4), torch.tensor([0, 0, 1, 1]))], 1)
    with pytest.raises(InputError, match="classes 0, 1; got 7"):
        fits.groups(torch.tensor([7]), 1)
    with pytest.raises(InputError, match="one class a row"):
        fits.groups(torch.tensor([1, 1]), 1)

"""Variance comes back without a look at the other test stimuli."""

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.model.ridge import SharedRidge
from radiata_decode.model.sharpness import restoring_factor, sharpened


def test_the_ends_are_the_posterior_mean_and_full_variance():
    r2 = torch.tensor([1.0, 0.25, 0.0, -3.0])
    assert torch.equal(restoring_factor(r2, 0.0), torch.ones(4))
    assert torch.allclose(restoring_factor(r2, 1.0), torch.tensor([1.0, 2.0, 20**0.5, 20**0.5]))
    assert torch.allclose(restoring_factor(r2, 0.5) ** 2, restoring_factor(r2, 1.0))


def test_variance_of_new_predictions_is_restored(rng):
    """At sharpness 1 predictions of unseen trials vary as the targets do, within the error of 600 trials (5 sd)."""
    w = rng.standard_normal((30, 4)) * np.array([3.0, 1.0, 0.6, 0.4])
    x = rng.standard_normal((1200, 30)).astype(np.float32)
    y = x @ w + 4 * rng.standard_normal((1200, 4)) + 7
    shared = SharedRidge(x[:600])
    fit = shared.fit(y[:600])
    predicted = fit.predict(shared.kernel_rows(x[600:]))
    sharp = sharpened(predicted, fit.target_mean, fit.loo_r2, 1.0)
    blunt = predicted.std(0) / torch.from_numpy(y[600:].std(0)).float()
    ratio = sharp.std(0) / torch.from_numpy(y[600:].std(0)).float()
    assert (blunt[2:] < 0.75).all()
    assert ((ratio - 1).abs() < 0.2).all()
    assert torch.equal(sharpened(predicted, fit.target_mean, fit.loo_r2, 0.0), predicted)


def test_a_row_does_not_depend_on_the_others(rng):
    values, mean, r2 = (
        torch.randn(9, 5, generator=torch.Generator().manual_seed(1)),
        torch.ones(5),
        torch.rand(5, generator=torch.Generator().manual_seed(2)),
    )
    whole = sharpened(values, mean, r2, 0.7)
    order = torch.from_numpy(rng.permutation(9))
    assert torch.equal(sharpened(values[order], mean, r2, 0.7), whole[order])
    assert torch.equal(sharpened(values[3:4], mean, r2, 0.7), whole[3:4])


@pytest.mark.parametrize("wrong", [(-0.1, 0.05), (1.2, 0.05), (float("nan"), 0.05), (0.5, 0.0)])
def test_out_of_range_is_refused(wrong):
    with pytest.raises(InputError, match="expected"):
        restoring_factor(torch.ones(1), *wrong)

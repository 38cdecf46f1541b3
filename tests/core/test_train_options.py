"""The step size's shape, and how often conditions are hidden."""

import math

import pytest
import torch

from radiata_core.seeds import generators_of
from radiata_core.train_options import TrainOptions, hide, learning_rate


def test_hidden_conditions_have_the_asked_frequency():
    """4000 rows: five standard deviations, wrong once in 10^6."""
    options = TrainOptions(condition_dropout=0.2, covariate_dropout=0.1)
    given = {"covariates": torch.zeros(4000, 2)}
    gone = hide(given, generators_of(range(4000), 2), options)["covariates"].isnan().double()
    both, single = gone.prod(1).mean(), gone[:, 0].mean()
    assert abs(both - (0.2 + 0.8 * 0.01)) < 5 * math.sqrt(0.208 * 0.792 / 4000)
    assert abs(single - (0.2 + 0.8 * 0.1)) < 5 * math.sqrt(0.28 * 0.72 / 4000)
    assert not given["covariates"].isnan().any()


def test_learning_rate_rises_then_falls_to_zero():
    options = TrainOptions(steps=100, warmup=10, learning_rate=1.0, cosine=True)
    rates = [learning_rate(step, options) for step in range(101)]
    assert rates[:10] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0)

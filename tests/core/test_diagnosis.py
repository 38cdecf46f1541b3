"""The errors stated in a report are those that repetition shows."""

import math

import pytest
import torch

from radiata_core.diagnosis import Measure, mean_of, ratio_of, root_of
from radiata_core.seeds import generator_of

F64 = torch.float64
REPEATS, ROWS = 400, 300


def repeated():
    """Pairs (a, b) of correlated positive numbers, E a = 2, E b = 3, (repeats, rows) each."""
    base, more = torch.randn(2, REPEATS, ROWS, generator=generator_of(1), dtype=F64).square()
    return base + more, base + 2 * more


@pytest.mark.parametrize("which", ["mean", "root", "ratio"])
def test_stated_error_is_the_spread_of_repetitions(which):
    """400 repetitions: the sd of their values is within 12 % (over 3 of its own sd) of the mean stated error."""
    a, b = repeated()
    make = {
        "mean": lambda i: mean_of(a[i]),
        "root": lambda i: root_of(a[i]),
        "ratio": lambda i: ratio_of(a[i], b[i]),
    }
    found = [make[which](i) for i in range(REPEATS)]
    values = torch.tensor([m.value for m in found], dtype=F64)
    stated = torch.tensor([m.error for m in found], dtype=F64).mean()
    assert values.mean() == pytest.approx({"mean": 2, "root": math.sqrt(2), "ratio": 2 / 3}[which], rel=0.02)
    assert float(values.std() / stated) == pytest.approx(1, abs=0.12)


def test_nothing_to_compare():
    zero = torch.zeros(3, dtype=F64)
    assert ratio_of(zero, zero) == Measure(0.0, 0.0) and root_of(zero) == Measure(0.0, 0.0)
    assert math.isnan(mean_of(zero[:1]).error)


def test_words():
    assert str(Measure(0.12345, 0.0067)) == "0.123 ± 0.007" and str(Measure(0.12345, math.nan)) == "0.123"

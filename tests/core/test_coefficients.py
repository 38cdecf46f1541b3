"""What every path has in common: the noisy state, rows lined up, times and log-SNR that are refused."""

import math

import numpy as np
import pytest
import torch

from radiata_core.coefficients import add_noise, expand
from radiata_core.errors import InputError
from radiata_core.paths import DiscreteVPPath, LinearPath, Path, TrigonometricPath, VEPath, VPPath

PATHS = [LinearPath(), TrigonometricPath(), VPPath(), VEPath(), DiscreteVPPath()]
over_paths = pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)


def times(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@over_paths
def test_noisy_state_is_the_sum(path: Path, rng: np.random.Generator) -> None:
    x0, noise = rng.standard_normal((2, 3, 2, 4, 5))
    t = rng.uniform(0, 1, 3)
    rows = [path.coefficients(torch.tensor(value)) for value in t]
    expected = [c.alpha.item() * a + c.sigma.item() * b for c, a, b in zip(rows, x0, noise, strict=True)]
    x = add_noise(path, torch.tensor(x0), torch.tensor(noise), torch.tensor(t))
    np.testing.assert_allclose(x, np.stack(expected), rtol=1e-12)
    scalar = add_noise(path, torch.tensor(x0), torch.tensor(noise), torch.tensor(t[0]))
    np.testing.assert_allclose(scalar[0], x[0], rtol=1e-12)


def test_half_precision_states_are_rounded_once(rng: np.random.Generator) -> None:
    x0, noise = (torch.tensor(rng.standard_normal((2, 50)), dtype=torch.bfloat16) for _ in range(2))
    t = times(0.123, 0.877)
    exact = add_noise(LinearPath(), x0.double(), noise.double(), t)
    x = add_noise(LinearPath(), x0, noise, t)
    assert x.dtype == torch.bfloat16
    assert ((x.double() - exact).abs() <= 2**-8 * exact.abs() + 1e-7).all()


def test_expand_lines_rows_up() -> None:
    like = torch.zeros(3, 2, 4)
    assert expand(times(1, 2, 3), like).shape == (3, 1, 1)
    assert expand(torch.tensor(2.0), like).shape == ()
    assert expand(times(1, 2, 3), like).dtype == torch.float32
    assert expand(times(1, 2, 3), like.half()).dtype == torch.float32
    with pytest.raises(InputError, match="expected one value, or one for each of the 3 rows; got shape"):
        expand(times(1, 2), like)


@over_paths
@pytest.mark.parametrize("bad", [-0.01, 1.01, math.nan, math.inf, 500.0])
def test_times_outside_are_refused(path: Path, bad: float) -> None:
    for use in (path.coefficients, path.log_snr):
        with pytest.raises(InputError, match=r"expected times in \[0, 1\].*got") as raised:
            use(times(0.5, bad))
        assert "\n" not in str(raised.value)


@over_paths
def test_log_snr_that_is_no_number_is_refused(path: Path) -> None:
    with pytest.raises(InputError, match="got NaN"):
        path.time_of_log_snr(times(math.nan))

"""What a prior's card says of its errors, against a prior whose posterior is known."""

import functools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from radiata_core.checkpoint import load_model, save_model
from radiata_core.fourier_sampling import FourierSampling
from radiata_core.masking import Masking
from radiata_core.paths import LinearPath
from radiata_medical.data.label_maps import LabelMaps
from radiata_medical.experiment import calibrating
from radiata_medical.experiment.calibrating import calibrate, calibrated_metadata, validation_windows
from radiata_medical.model.prior import build_prior

from .tiny_labels import tiny_store


class WhiteGaussian(torch.nn.Module):
    """Exact E[x_0 | x_t] of independent voxels N(mean, sd^2)."""

    def __init__(self, mean: float, sd: float) -> None:
        super().__init__()
        self.path = LinearPath()
        self.mean = torch.nn.Parameter(torch.tensor(mean))
        self.variance = sd**2

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, **conditions: object) -> torch.Tensor:
        c = self.path.coefficients(torch.as_tensor(t, dtype=torch.float64))
        shape = (-1, *[1] * (x_t.ndim - 1)) if c.alpha.ndim else ()
        alpha, sigma = (v.to(x_t).reshape(shape) for v in (c.alpha, c.sigma))
        gain = alpha * self.variance / (alpha**2 * self.variance + sigma**2)
        return self.mean + gain * (x_t - alpha * self.mean)


def test_the_spread_of_a_gaussian_is_its_posterior_variance(generator: torch.Generator) -> None:
    """r^2 = kappa^2 v/(kappa^2 + v) within 4 standard errors; exact draws need no widening, within 15 %."""
    mean, sd = 0.4, 0.3
    windows = mean + sd * torch.randn((4, 1, 16, 16), generator=generator)
    found = calibrated_metadata(WhiteGaussian(mean, sd), windows, sd, draws=8, evaluations=12, batch=32)
    kappa, measured = (np.array(found["spread"][name]) for name in ("kappa", "variance"))
    assert kappa[0] == pytest.approx(0.01) and kappa[-1] == pytest.approx(10.0)
    exact = kappa**2 * sd**2 / (kappa**2 + sd**2)
    assert np.abs(measured / exact - 1).max() < 4 * math.sqrt(2 / windows.numel())
    ratios = found["variance_error_ratios"]
    assert set(ratios) == {"denoise", "inpaint", "kspace4", "thick4"}
    assert found["widening"] == pytest.approx(np.prod(list(ratios.values())) ** (-1 / 8))
    assert abs(found["widening"] - 1) < 0.15


def test_a_prior_that_is_too_sure_is_widened(generator: torch.Generator) -> None:
    """The data spread 0.3 about the mean, the prior believes 0.1."""
    windows = 0.4 + 0.3 * torch.randn((4, 1, 16, 16), generator=generator)
    found = calibrated_metadata(WhiteGaussian(0.4, 0.1), windows, 0.3, draws=8, evaluations=8, batch=32)
    assert found["widening"] > 1.3


@pytest.mark.parametrize("event", [(1, 32, 32), (1, 24, 24, 24)])
def test_a_hole_is_small_and_what_is_measured_is_less_than_the_image(event: tuple[int, ...]) -> None:
    """Of the four measurements the hole leaves more than four fifths; the other two leave a quarter."""
    whole, hole, lines, thick = (a for a, _ in calibrating._measurements(event, torch.device("cpu")))
    assert isinstance(hole, Masking) and 0.8 < hole.mask.double().mean() < 1
    assert whole(torch.ones(1, *event)).numel() == 4 * thick(torch.ones(1, *event)).numel()
    assert isinstance(lines, FourierSampling) and 0.2 < lines.mask.double().mean() < 0.35


def test_windows_are_of_the_validation_people_and_of_their_own_scans(tmp_path: Path) -> None:
    with LabelMaps(tiny_store(tmp_path / "labels.h5", images=True)) as store:
        rendered = validation_windows(store, 2, 16, 3)
        assert rendered.shape == (3, 1, 16, 16) and torch.equal(rendered, validation_windows(store, 2, 16, 3))
        assert not torch.equal(rendered[0], rendered[1])
        own = validation_windows(store, 3, 16, 2, rendered=False)
        assert own.shape == (2, 1, 16, 16, 16) and bool(torch.isfinite(own).all())
        assert not torch.equal(own, validation_windows(store, 3, 16, 2))


def test_a_card_keeps_what_it_said_and_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = functools.partial(calibrated_metadata, draws=2, evaluations=2)
    monkeypatch.setattr(calibrating, "calibrated_metadata", quick)
    path = tmp_path / "prior.safetensors"
    save_model(path, build_prior(2, channels=(8, 8)), metadata={"task": "prior", "sigma_data": 0.45})
    before = path.read_bytes()
    with LabelMaps(tiny_store(tmp_path / "labels.h5")) as store:
        calibrate([path], store, 2, 16, 2)
    card = load_model(path).metadata
    assert path.read_bytes() == before and card["task"] == "prior"
    assert len(card["spread"]["kappa"]) == 13 and card["widening"] > 0

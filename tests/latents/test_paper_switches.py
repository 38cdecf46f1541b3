"""The switches stand for the release, survive a checkpoint's description, and refuse numbers without meaning."""

import json
from dataclasses import fields, replace

import pytest

from radiata_core.errors import InputError
from radiata_core.specs import describe, rebuild
from radiata_latents.model.paper_switches import CORRECTED, PaperSwitches


def test_described_and_rebuilt_unchanged() -> None:
    for switches in (PaperSwitches(), CORRECTED):
        assert rebuild(json.loads(json.dumps(describe(switches)))) == switches


def test_noise_variance_of_both_forms_at_rest() -> None:
    """v <- (1 - gamma) v + noise rests at noise / (1 - (1 - gamma)²): 2 / (2 - gamma) released, 1 balanced."""
    for gamma in (0.1, 0.55, 1.0):
        kept = 1 - (1 - gamma) ** 2
        assert PaperSwitches(gamma=gamma).noise_variance / kept == pytest.approx(2 / (2 - gamma))
        assert PaperSwitches(gamma=gamma, balanced_noise=True).noise_variance / kept == pytest.approx(1)


def test_every_switch_is_explained() -> None:
    for field in fields(PaperSwitches):
        assert f"        {field.name}: " in (PaperSwitches.__doc__ or "")


@pytest.mark.parametrize(
    "wrong",
    [
        {"dropout": 1.0},
        {"gamma": 0.0},
        {"gamma": 1.2},
        {"shown": 1.0},
        {"step": 0.0},
        {"prior_variance": -0.1},
        {"kernel_epsilon": 0.0},
        {"kl_weight": -1.0},
        {"kl_ramp": -1},
        {"kernel_spread": -1.0},
    ],
)
def test_numbers_without_meaning_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected"):
        replace(PaperSwitches(), **wrong)

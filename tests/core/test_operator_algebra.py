"""Composition and stacking: order, splitting, weights, and what does not fit together."""

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.fourier_sampling import FourierSampling
from radiata_core.masking import Masking
from radiata_core.operator_algebra import Composition, Stacked
from radiata_core.pointwise import Identity, Multiplication, Scaling
from radiata_core.seeds import generator_of
from radiata_core.separable import Separable

EVENT = (1, 4, 6)


def _halves() -> Separable:
    return Separable([None, torch.eye(6, dtype=torch.float64)[:3]], EVENT)


def test_the_right_operator_comes_first() -> None:
    x = torch.randn(2, *EVENT, generator=generator_of(1))
    both = Scaling(2.0, (1, 4, 3)) @ _halves()
    assert isinstance(both, Composition)
    assert torch.equal(both(x), 2 * x[..., :3])
    three = Masking(torch.ones(4, 3, dtype=torch.bool), (1, 4, 3)) @ both
    assert torch.equal(three(x), 2 * x[..., :3].flatten(2))


def test_stacked_measurements_come_apart_and_together() -> None:
    x = torch.randn(2, *EVENT, generator=generator_of(1))
    stacked = Stacked(_halves(), Identity(EVENT))
    first, second = stacked.split(stacked(x))
    assert torch.equal(first, x[..., :3])
    assert torch.equal(second, x)
    assert torch.equal(stacked.join([first, second]), stacked(x))


def test_prox_of_measurements_with_different_noise_weighs_them() -> None:
    """Two looks at one image with sd 1 and 3 divided by it: the mean weighs 1 to 1/9, and rho is the prior's precision."""
    looks = Stacked(Scaling(1.0, EVENT), Scaling(1 / 3, EVENT))
    a, b, x = (torch.randn(2, *EVENT, generator=generator_of(i), dtype=torch.float64) for i in range(3))
    found = looks.prox(x, looks.join([a, b / 3]), 0.5)
    torch.testing.assert_close(found, (a + b / 9 + 0.5 * x) / (1 + 1 / 9 + 0.5))


def _kspace(real: bool) -> FourierSampling:
    return FourierSampling(torch.ones(4, 6, dtype=torch.bool), EVENT, real=real)


def test_kinds_of_numbers_are_carried_through() -> None:
    biased = _kspace(True) @ Identity(EVENT)
    assert (biased.complex_event, biased.complex_measurement) == (False, True)
    after = Identity((1, 24)) @ _kspace(False)
    assert (after.complex_event, after.complex_measurement) == (True, True)
    phase = Multiplication(torch.full((24,), 1j), (1, 24)) @ _kspace(True)
    assert (phase.complex_event, phase.complex_measurement) == (False, True)
    free = Identity(EVENT) @ Scaling(2.0, EVENT)
    assert (free.complex_event, free.complex_measurement) == (None, None)
    mixed = Stacked(_kspace(False), Identity(EVENT))
    assert (mixed.complex_event, mixed.complex_measurement) == (True, True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Identity(EVENT) @ _halves(), r"expected the outer operator to take \(1, 4, 3\)"),
        (lambda: _kspace(True) @ Identity((1, 24)) @ _kspace(True), "expected the outer operator to take"),
        (
            lambda: FourierSampling(torch.ones(24, dtype=torch.bool), (1, 24), real=True) @ _kspace(True),
            "expected both operators real or both complex",
        ),
        (lambda: Stacked(), "expected at least one operator"),
        (lambda: Stacked(Identity(EVENT), Identity((1, 4, 5))), "expected operators for the same events"),
        (lambda: Stacked(_kspace(True), _kspace(False)), "expected operators for the same events"),
        (lambda: Stacked(_kspace(True), Identity(EVENT)), "all measurements real, or all complex"),
        (lambda: Stacked(_halves()).split(torch.ones(2, 5)), r"expected \(batch, 12\)"),
        (lambda: Stacked(_halves()).join([torch.ones(2, 5)]), "expected measurements of shapes"),
    ],
)
def test_what_does_not_fit_is_refused(make, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)

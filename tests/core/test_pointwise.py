"""Bias fields: smooth, positive, of the strength that was asked for; what does not fit is refused."""

import pytest
import torch
from scipy.fft import dctn

from radiata_core.errors import InputError
from radiata_core.pointwise import Identity, Multiplication, Scaling, bias_field, smooth_waves
from radiata_core.seeds import generator_of


@pytest.mark.parametrize(("shape", "count"), [((40,), 3), ((24, 30), 9), ((9, 8, 7), 19)])
def test_waves_are_orthonormal_and_as_many_as_promised(shape: tuple[int, ...], count: int) -> None:
    waves = smooth_waves(shape, 3).flatten(1)
    assert len(waves) == count
    gram = waves @ waves.T / waves.shape[1]
    torch.testing.assert_close(gram, torch.eye(count, dtype=torch.float64), atol=1e-12, rtol=0)
    assert waves.mean(1).abs().max() < 1e-12


def test_bias_field_has_its_strength_and_no_fine_structure() -> None:
    field = bias_field((48, 40), generator_of(1), 0.3)
    assert (field > 0).all()
    assert float(field.log().std(correction=0)) == pytest.approx(0.3)
    assert abs(float(field.log().mean())) < 1e-12
    spectrum = torch.as_tensor(dctn(field.log().numpy()))
    fine = torch.arange(48)[:, None] + torch.arange(40) > 3
    assert spectrum[fine].abs().max() < 1e-10 * spectrum.abs().max()
    assert torch.equal(field, bias_field((48, 40), generator_of(1), 0.3))
    assert not torch.equal(field, bias_field((48, 40), generator_of(2), 0.3))
    assert torch.equal(bias_field((4, 4), generator_of(1), 0.0), torch.ones(4, 4, dtype=torch.float64))


def test_identity_and_scale_in_closed_form() -> None:
    x, y = torch.ones(2, 1, 3), torch.full((2, 1, 3), 4.0)
    torch.testing.assert_close(Identity((1, 3)).prox(x, y, 3.0), torch.full((2, 1, 3), 1.75))
    torch.testing.assert_close(Scaling(2.0, (1, 3)).prox(x, y, 1.0), torch.full((2, 1, 3), 9 / 5))
    assert Scaling(-2.0, (1, 3)).norm == 2
    assert Scaling(0.0, (1, 3)).pseudo_inverse(y).abs().max() == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Multiplication(torch.ones(4, 4), (1, 4, 5)),
            r"expected a field of the last axes of \(1, 4, 5\)",
        ),
        (lambda: Multiplication(torch.ones(1, 1, 4, 5), (1, 4, 5)), "expected a field of the last axes"),
        (lambda: Multiplication(torch.full((4, 5), torch.nan), (1, 4, 5)), "expected a finite field"),
        (lambda: bias_field((4, 5), generator_of(0), -0.1), "expected a strength >= 0; got -0.1"),
        (lambda: bias_field((4, 5), generator_of(0), order=0), "expected an order >= 1"),
    ],
)
def test_bad_fields_are_refused(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()

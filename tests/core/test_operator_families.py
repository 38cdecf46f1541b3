"""Random operators: reproducible, true to their adjoint, covering what they say, whatever the shape and the device."""

import pytest
import torch

from radiata_core.conjugate_gradients import real_product
from radiata_core.errors import InputError
from radiata_core.masking import Masking
from radiata_core.operator_families import (
    Blurring,
    CoarseHoles,
    CoarseVoxels,
    Coils,
    Denoising,
    Holes,
    KSpaceLines,
    KSpacePoints,
    OperatorFamily,
    ThickSlices,
    draw_problem,
    standard_families,
)
from radiata_core.operators import SpectralOperator
from radiata_core.seeds import generator_of, generators_of, noise_of

SHAPES = [(1, 24, 20), (2, 17, 33), (1, 16, 20, 18)]
FAMILIES = standard_families(2)
over_families = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
over_shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


@over_families
@over_shapes
def test_every_draw_has_its_adjoint_its_norm_and_its_prox(
    family: OperatorFamily, shape: tuple[int, ...]
) -> None:
    """<A x, y> = <x, A^T y>; |A| is not above `norm`; the gradient of the prox's objective is 0 at the prox."""
    for seed in range(6):
        drawn = family.draw(shape, generator_of(seed))
        operator = drawn.operator
        x, z = noise_of(generators_of([seed, seed + 100]), (2, *shape), torch.float64).unbind(1)
        y = operator(x)
        w = y + operator(z)
        torch.testing.assert_close(
            real_product(y, w), real_product(x, operator.adjoint(w)), atol=1e-8, rtol=1e-9
        )
        if seed == 0:  # a bound takes the place of the norm where that has no closed form
            assert operator._norm() <= 1.001 * operator.norm
        found = operator.prox(z, y, 0.1 * operator.norm**2)
        slope = operator.adjoint(operator(found) - y) - 0.1 * operator.norm**2 * (z - found)
        # Conjugate gradients that stop after ten steps are off by a hundredth; the rest is exact.
        exact = 1e-10 if isinstance(operator, SpectralOperator) else 3e-2
        assert float(slope.norm()) <= exact * float(operator.adjoint(operator(z) - y).norm()) + 1e-10
        assert family.noise[0] <= drawn.noise_sd <= family.noise[1]
        assert drawn.family == family.name


@over_families
def test_a_draw_is_a_function_of_its_generator(family: OperatorFamily) -> None:
    x = noise_of(generators_of([1]), (1, 24, 20), torch.float64)

    def draw(seed: int) -> tuple[tuple[int, ...], torch.Tensor, float]:
        drawn = family.draw((1, 24, 20), generator_of(seed))
        return drawn.operator.measurement_shape, drawn.operator(x), drawn.noise_sd

    first, again = draw(5), draw(5)
    assert first[0] == again[0]
    assert torch.equal(first[1], again[1])
    assert first[2] == again[2]
    assert len({(draw(seed)[0], draw(seed)[2]) for seed in range(6)}) == 6


def test_families_are_drawn_as_often_as_they_weigh() -> None:
    """Counts of 600 draws within 4 standard deviations: a false alarm in 1500 runs, with 11 families."""
    generator, total = generator_of(0), 600
    names = [draw_problem(FAMILIES, (1, 16, 16), generator).family for _ in range(total)]
    weight = sum(family.weight for family in FAMILIES)
    for family in FAMILIES:
        p = family.weight / weight
        assert abs(names.count(family.name) - p * total) < 4 * (total * p * (1 - p)) ** 0.5, family.name


def test_accelerations_factors_and_spacings_cover_their_range() -> None:
    shape, generator = (1, 64, 64), generator_of(2)

    def ratios(family: OperatorFamily, count: int = 60) -> list[float]:
        shapes = [family.draw(shape, generator).operator.measurement_shape for _ in range(count)]
        return [64 * 64 / torch.Size(measured[-2:]).numel() for measured in shapes]

    for family in (KSpaceLines(), KSpacePoints()):
        found = ratios(family)
        assert 1.9 < min(found) < 2.6
        assert 6.5 < max(found) < 8.3
    assert {1, 2, 3, 4, 5} - {round(r) for r in ratios(ThickSlices(), 120)} <= {1}
    assert 2.0 < min(ratios(CoarseVoxels())) < 4.0
    assert 9.0 < max(ratios(CoarseVoxels())) <= 16.5


def test_holes_leave_something_out_and_something_in() -> None:
    observed = []
    for seed in range(80):
        operator = Holes().draw((1, 48, 48), generator_of(seed)).operator
        assert isinstance(operator, Masking)
        observed.append(float(operator.mask.float().mean()))
    assert min(observed) > 0.1
    assert max(observed) < 1.0
    assert 0.6 < sum(observed) / len(observed) < 0.95


def test_what_has_a_closed_form_is_used_and_the_rest_stops_early() -> None:
    for family in standard_families(3):
        operator = family.draw((1, 16, 16, 16), generator_of(1)).operator
        if isinstance(family, CoarseHoles | Coils):
            assert operator.iterations == 10
        else:
            assert isinstance(operator, SpectralOperator), family.name


def test_in_two_dimensions_slices_are_rarer_than_in_three() -> None:
    share = {
        dims: sum(f.weight for f in standard_families(dims) if isinstance(f, ThickSlices)) for dims in (2, 3)
    }
    assert share[2] < share[3]


def test_shapes_weights_and_numbers_that_do_not_fit() -> None:
    with pytest.raises(InputError, match="at least 16 voxels"):
        Blurring().draw((1, 16, 8), generator_of(0))
    with pytest.raises(InputError, match="2 or 3 axes"):
        Denoising().draw((16, 16), generator_of(0))
    with pytest.raises(InputError, match="2 or 3 axes"):
        standard_families(1)
    with pytest.raises(InputError, match="weight > 0"):
        Denoising(weight=0.0)
    with pytest.raises(InputError, match="noise"):
        Denoising(noise=(0.2, 0.1))
    with pytest.raises(InputError, match="family"):
        draw_problem((), (1, 16, 16), generator_of(0))

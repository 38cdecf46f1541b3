"""Masks: what they observe, where they cut, and that noise is counted where there are data."""

import math

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.masking import Masking, defaced, dropped_slices, field_of_view, lesion
from radiata_core.seeds import generator_of


def test_observed_voxels_come_in_the_order_of_the_grid_and_go_back() -> None:
    mask = torch.tensor([[True, False, True], [False, True, True]])
    x = torch.arange(12.0).reshape(1, 2, 2, 3)
    operator = Masking(mask, (2, 2, 3))
    assert operator(x).tolist() == [[[0, 2, 4, 5], [6, 8, 10, 11]]]
    assert torch.equal(operator.adjoint(operator(x)), x * mask)
    assert torch.equal(operator.pseudo_inverse(operator.observe(x)), x * mask)
    assert torch.equal(operator.prox(x, operator(x) + 2, 1.0), x + mask)


@pytest.mark.parametrize("shape", [(200, 160), (60, 70, 50)])
def test_a_lesion_has_the_volume_of_an_ellipsoid(shape: tuple[int, ...]) -> None:
    """Half-axes are radius times a uniform in 0.7 … 1.3, replayed here; the lattice misses the volume by a few percent."""
    radius, unit = 8.0, {2: math.pi, 3: 4 / 3 * math.pi}[len(shape)]
    for seed in range(5):
        hole = ~lesion(shape, generator_of(seed), radius)
        drawn = torch.rand(2, len(shape), generator=generator_of(seed), dtype=torch.float64)
        assert int(hole.sum()) == pytest.approx(
            unit * float((radius * (0.7 + 0.6 * drawn[1])).prod()), rel=0.04
        )
        middle = hole.nonzero().double().mean(0) / torch.tensor(shape)
        assert ((middle > 0.2) & (middle < 0.8)).all()
    assert (~lesion(shape, generator_of(1), radius, count=4)).sum() > 1.5 * (
        ~lesion(shape, generator_of(1), radius)
    ).sum()


def test_boxes_slices_and_faces() -> None:
    box = field_of_view((4, 5), (1, 0), (3, 4))
    assert box.int().tolist() == [[0] * 5, [1, 1, 1, 1, 0], [1, 1, 1, 1, 0], [0] * 5]
    assert dropped_slices((2, 3), -1, [0, 2]).int().tolist() == [[0, 1, 0], [0, 1, 0]]
    face = defaced((3, 8, 8), 1, 2, share=0.5, slant=45.0)
    assert torch.equal(face, face[:1].expand(3, 8, 8))
    assert not face[0, 0, 0]  # anterior and inferior
    assert face[0, 4:].all()  # beyond the share
    assert face[0, :, 4:].all()
    assert (~face[0]).sum() == 4 + 3 + 2 + 1
    assert (~defaced((3, 8, 8), 1, 2, share=0.5, slant=80.0)).sum() > (~face).sum()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Masking(torch.zeros(4, 5, dtype=torch.bool), (1, 4, 5)), "got an empty one"),
        (
            lambda: Masking(torch.ones(4, 5), (1, 4, 5)),
            "expected a mask of True and False; got torch.float32",
        ),
        (
            lambda: Masking(torch.ones(5, 4, dtype=torch.bool), (1, 4, 5)),
            r"expected a mask of the last axes of \(1, 4, 5\)",
        ),
        (
            lambda: Masking(torch.ones(1, 1, 4, 5, dtype=torch.bool), (1, 4, 5)),
            "expected a mask of the last axes",
        ),
        (lambda: lesion((4, 5), generator_of(0), 0.0), "expected a radius > 0"),
        (lambda: field_of_view((4, 5), (0, 0), (4, 6)), "expected 0 <= start < stop"),
        (lambda: field_of_view((4, 5), (0,), (4, 6)), "expected 0 <= start < stop"),
        (lambda: dropped_slices((4, 5), 0, [4]), "expected an axis and slices of a grid"),
        (lambda: defaced((4, 5), 0, -2), "expected two different axes"),
        (lambda: defaced((4, 5), 0, 1, slant=90.0), "a slant in"),
    ],
)
def test_bad_masks_are_refused(make, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)

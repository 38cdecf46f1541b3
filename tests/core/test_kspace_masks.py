"""Masks of k-space: the acceleration that was asked for, the middle, symmetry, the same for the same seed."""

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.kspace_masks import equispaced_lines, radial_spokes, random_lines, random_points
from radiata_core.seeds import generator_of


@pytest.mark.parametrize("acceleration", [1.5, 2, 4, 8])
@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_lines_are_as_many_as_asked_for_and_whole(acceleration: float, axis: int) -> None:
    shape = (64, 50, 48)
    for mask in (
        equispaced_lines(shape, acceleration, axis=axis),
        random_lines(shape, acceleration, generator_of(1), axis=axis),
    ):
        lines = mask.movedim(axis, 0).flatten(1)
        assert (lines == lines[:, :1]).all()
        length = shape[axis]
        assert int(lines[:, 0].sum()) == round(length / acceleration)
        inner = round(0.08 * length)
        start = length // 2 - inner // 2
        assert lines[start : start + inner, 0].all()


def test_equispaced_lines_are_even_and_move() -> None:
    line = equispaced_lines((32,), 4, middle=0.0)
    assert line.nonzero()[:, 0].diff().unique().tolist() == [4]
    moved = equispaced_lines((32,), 4, middle=0.0, offset=1)
    assert torch.equal(moved, line.roll(1))


def test_random_lines_follow_the_seed_and_crowd_the_middle() -> None:
    masks = torch.stack([random_lines((128,), 4, generator_of(s), decay=2.0) for s in range(400)])
    assert torch.equal(masks[7], random_lines((128,), 4, generator_of(7), decay=2.0))
    assert len(masks.unique(dim=0)) == 400
    share = masks.double().mean(0)
    assert share[45:59].mean() > 2 * share[10:24].mean() > 4 * share[:7].mean() * 0.5
    even = torch.stack([random_lines((128,), 4, generator_of(s), decay=0.0, middle=0.0) for s in range(400)])
    # 128 places of a mean of 400 draws with p = 1/4: six standard deviations are beyond 1 in 10^6.
    assert (even.double().mean(0) - 0.25).abs().max() < 6 * (0.25 * 0.75 / 400) ** 0.5


def test_random_points_are_as_many_as_asked_for_in_the_plane_of_their_axes() -> None:
    mask = random_points((10, 24, 20), 5, generator_of(1))
    assert int(mask[0].sum()) == 96
    assert (mask == mask[:1]).all()
    assert mask[0, 11:14, 10].all()
    other = random_points((24, 10, 20), 5, generator_of(1), axes=(0, 2))
    assert torch.equal(other[:, 0], mask[0])
    turned = random_points((20, 10, 24), 5, generator_of(1), axes=(-1, 0))
    assert torch.equal(turned[:, 0].T, mask[0])


def test_spokes_pass_through_the_middle_at_their_angles() -> None:
    mask = radial_spokes((33, 33), 2, golden=False)
    assert mask[:, 16].all()
    assert mask[16].all()
    assert int(mask.sum()) == 65
    slanted = radial_spokes((33, 33), 1, first=45.0)
    assert torch.equal(slanted, torch.eye(33, dtype=torch.bool) & slanted)
    assert int(slanted.sum()) > 20
    counts = [int(radial_spokes((64, 64), n).sum()) for n in (4, 8, 16, 32)]
    assert counts == sorted(counts)
    assert counts[-1] < 64 * 64
    assert (radial_spokes((5, 16, 16), 3) == radial_spokes((16, 16), 3)).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: equispaced_lines((8, 8), 1.0), "expected an acceleration above 1"),
        (
            lambda: random_lines((8, 8), 9, generator_of(0)),
            "expected an acceleration above 1 and up to 8; got 9",
        ),
        (lambda: random_lines((8, 8), 2, generator_of(0), middle=0.6), r"expected a middle in \[0, 0.5\]"),
        (lambda: random_lines((8, 8), 2, generator_of(0), axis=2), "expected an axis of"),
        (lambda: random_lines((8, 8), 2, generator_of(0), decay=-1), "expected a decay >= 0"),
        (lambda: random_points((8, 8), 2, generator_of(0), axes=(0, -2)), "expected two different axes"),
        (lambda: random_points((8, 8), 2, generator_of(0), axes=(0, 3)), "expected two different axes"),
        (lambda: radial_spokes((8,), 2), "expected two or more axes"),
        (lambda: radial_spokes((8, 8), 0), "a spoke or more"),
    ],
)
def test_bad_accelerations_are_refused(make, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)

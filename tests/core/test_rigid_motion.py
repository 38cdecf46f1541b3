"""Motion: whole shifts, analytic blobs that turn and move, unitarity, and shots that add up to a scan."""

import math

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.fourier_sampling import FourierSampling, to_kspace
from radiata_core.rigid_motion import Motion, MovingSampling, random_motion, rotated, shots_of_lines
from radiata_core.seeds import generator_of

ONE_SHOT = torch.zeros(24, dtype=torch.int64)


def _blob(
    shape: tuple[int, ...], centre: list[float], widths: list[float], turn: float = 0.0
) -> torch.Tensor:
    """A Gaussian around centre (voxels from the middle), its own axes turned in the plane of the last two."""
    lines = [torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in shape]
    places = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1) - torch.tensor(
        centre, dtype=torch.float64
    )
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    first, second = c * places[..., -2] + s * places[..., -1], -s * places[..., -2] + c * places[..., -1]
    places = torch.cat([places[..., :-2], first[..., None], second[..., None]], -1)
    return torch.exp(-0.5 * (places / torch.tensor(widths, dtype=torch.float64)).square().sum(-1))


def _still(axes: int) -> Motion:
    return Motion(torch.zeros(1, axes), torch.zeros(1, {2: 1, 3: 3}[axes]))


@pytest.mark.parametrize("degrees", [-40.0, -7.0, 12.5, 30.0])
def test_a_blob_turns_about_the_middle(degrees: float) -> None:
    """From the first axis towards the second: its centre moves along, its own axes too."""
    shape, c = (48, 49), (4.0, 6.0)
    image = _blob(shape, list(c), [2.0, 3.0])[None]
    angle = math.radians(degrees)
    centre = [
        c[0] * math.cos(angle) - c[1] * math.sin(angle),
        c[0] * math.sin(angle) + c[1] * math.cos(angle),
    ]
    expected = _blob(shape, centre, [2.0, 3.0], degrees)
    assert (rotated(image, degrees)[0] - expected).abs().max() < 1e-4


def test_turns_are_unitary_and_undone() -> None:
    x = torch.randn(2, 1, 8, 7, generator=generator_of(1), dtype=torch.complex128)
    turned = rotated(x, 21.0)
    torch.testing.assert_close(turned.norm(), x.norm())
    torch.testing.assert_close(rotated(turned, -21.0), x)


def test_whole_shifts_roll_the_image() -> None:
    x = torch.randn(2, 1, 24, 10, generator=generator_of(1), dtype=torch.complex128)
    operator = MovingSampling(Motion(torch.tensor([[3.0, -2.0]]), torch.zeros(1, 1)), ONE_SHOT, (1, 24, 10))
    expected = to_kspace(x.roll((3, -2), (2, 3)), (-2, -1)).flatten(2)
    torch.testing.assert_close(operator(x), expected)


@pytest.mark.parametrize(
    ("turns", "plane"), [((10.0, 0, 0), (-2, -1)), ((0, 10.0, 0), (-1, -3)), ((0, 0, 10.0), (-3, -2))]
)
def test_turns_of_a_volume_are_around_its_axes(turns: tuple[float, ...], plane: tuple[int, int]) -> None:
    """Right-handed: around the first axis the second goes to the third, and so on in a circle."""
    x = torch.randn(1, 1, 6, 8, 7, generator=generator_of(1), dtype=torch.complex128)
    motion = Motion(torch.zeros(1, 3), torch.tensor([turns]))
    operator = MovingSampling(motion, torch.zeros(8, dtype=torch.int64), (1, 6, 8, 7))
    torch.testing.assert_close(operator(x), to_kspace(rotated(x, 10.0, plane), (-3, -2, -1)).flatten(2))


def test_a_head_at_rest_is_a_scan_without_motion() -> None:
    x = torch.randn(2, 1, 24, 10, generator=generator_of(1), dtype=torch.float64)
    mask = torch.rand(24, 10, generator=generator_of(2)) < 0.5
    moving = MovingSampling(_still(2), ONE_SHOT, (1, 24, 10), mask=mask, real=True)
    torch.testing.assert_close(moving(x), FourierSampling(mask, (1, 24, 10), real=True)(x))


def test_each_line_is_read_where_the_head_was() -> None:
    """Two shots, each alone with all lines; the scan takes every line from its own."""
    x = torch.randn(1, 1, 24, 10, generator=generator_of(1), dtype=torch.complex128)
    motion, shots = random_motion(2, 2, generator_of(3)), shots_of_lines(24, 2, interleaved=True)
    scan = MovingSampling(motion, shots, (1, 24, 10))(x).reshape(24, 10)
    for shot in (0, 1):
        alone = Motion(motion.shifts[shot : shot + 1], motion.turns[shot : shot + 1])
        whole = MovingSampling(alone, ONE_SHOT, (1, 24, 10))(x).reshape(24, 10)
        torch.testing.assert_close(scan[shots == shot], whole[shots == shot])


def test_known_motion_is_undone() -> None:
    """All lines read once, between places a voxel and a few degrees apart: the image comes back."""
    image = _blob((24, 20), [2.0, -1.0], [2.0, 3.0])[None, None]
    operator = MovingSampling(
        random_motion(4, 2, generator_of(1), shift=0.5, turn=3.0),
        shots_of_lines(24, 4),
        (1, 24, 20),
        real=True,
    )
    y = operator(image)
    assert (operator.pseudo_inverse(y) - image).norm() < 1e-6 * image.norm()
    still = FourierSampling(torch.ones(24, 20, dtype=torch.bool), (1, 24, 20), real=True)
    assert (still.pseudo_inverse(y) - image).norm() > 0.05 * image.norm()


def test_the_scan_has_derivatives_in_the_motion() -> None:
    """Against differences: what an estimate of the motion needs."""
    x = _blob((8, 7), [0.5, -0.5], [1.0, 1.5])[None, None]
    shifts = torch.tensor([[0.3, -0.2], [0.1, 0.4]], dtype=torch.float64, requires_grad=True)
    turns = torch.tensor([[2.0], [-3.0]], dtype=torch.float64, requires_grad=True)

    def scan(shifts: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
        return torch.view_as_real(
            MovingSampling(Motion(shifts, turns), shots_of_lines(8, 2), (1, 8, 7), real=True)(x)
        )

    with torch.random.fork_rng(devices=[]):
        assert torch.autograd.gradcheck(scan, (shifts, turns))


def test_shots_and_random_motion() -> None:
    assert shots_of_lines(7, 3).tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert shots_of_lines(7, 3, interleaved=True).tolist() == [0, 1, 2, 0, 1, 2, 0]
    motion = random_motion(4000, 3, generator_of(1), shift=2.0, turn=3.0)
    assert not motion.shifts[0].any()
    assert not motion.turns[0].any()
    # 12000 numbers: five standard errors of a standard deviation.
    assert float(motion.shifts.std()) == pytest.approx(2.0, rel=5 / math.sqrt(24000))
    assert float(motion.turns.std()) == pytest.approx(3.0, rel=5 / math.sqrt(24000))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Motion(torch.zeros(2, 2), torch.zeros(2, 3)), "expected shifts"),
        (lambda: Motion(torch.zeros(2, 3), torch.zeros(2, 1)), "One row a shot"),
        (lambda: Motion(torch.zeros(1, 2), torch.full((1, 1), 50.0)), "turns within 45 degrees"),
        (lambda: Motion(torch.full((1, 2), torch.nan), torch.zeros(1, 1)), "expected finite shifts"),
        (lambda: MovingSampling(_still(2), ONE_SHOT, (1, 8, 7)), "a shot for each of its lines"),
        (lambda: MovingSampling(_still(2), ONE_SHOT, (1, 24, 7), axis=-3), "expected an axis from -2 to -1"),
        (lambda: MovingSampling(_still(2), ONE_SHOT + 1, (1, 24, 7)), "whole numbers from 0 to 0"),
        (lambda: MovingSampling(_still(2), ONE_SHOT.double(), (1, 24, 7)), "whole numbers"),
        (
            lambda: MovingSampling(_still(2), ONE_SHOT, (1, 24, 7), mask=torch.ones(7) > 0),
            "expected a mask over 2 axes",
        ),
        (lambda: shots_of_lines(4, 5), "expected 1 to 4 shots"),
        (lambda: random_motion(2, 4, generator_of(0)), "2 or 3 axes"),
    ],
)
def test_bad_motion_is_refused(make, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)

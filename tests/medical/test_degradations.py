"""Operators in a scanner's units: each is what it says in millimetres, and every nonsense is one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.files import plain
from radiata_imaging.volume import Volume, centred_affine
from radiata_medical.data.degradation_chains import Chain, degradation_of, read_degradation
from radiata_medical.data.degradations import Bias, Blur, Degradation, Hole, Noise, event
from radiata_medical.data.frames import Frame, finer_grid
from radiata_medical.data.noise_level import estimate_noise
from radiata_medical.data.raw_data import KSpace, Moved, Views
from radiata_medical.data.thick_slices import ThickSlices

FRAME = Frame((12, 10, 8), (1.0, 1.0, 1.5), "LPS")
MASK = np.zeros(FRAME.shape, bool)
MASK[4:6, 5, 3] = True
SIMULATED: tuple[Degradation, ...] = (
    Noise(),
    ThickSlices(measured_spacing=(4.0,), axis="k", thickness=5.0),
    ThickSlices(measured_spacing=(2.2, 2.0, 3.1), profile="gaussian"),
    Blur((3.0, 0.0, 2.0)),
    Hole(missing=MASK, dilate=1.0, slices=(2,)),
    Hole(radius=2.5),
    Bias(strength=0.3),
    KSpace(3.0),
    KSpace(3.0, "points", "k", coils=3),
    KSpace(2.0, "equispaced", "i"),
    KSpace(4.0, "spokes"),
    Moved(shots=3),
    Views(views=7, span=120),
    Chain((Blur((1.5,)), ThickSlices(measured_spacing=(3.0,), axis="k"), Hole(slices=(1,)))),
)


@pytest.mark.parametrize(
    "degradation", SIMULATED, ids=[f"{d.task}-{number}" for number, d in enumerate(SIMULATED)]
)
def test_operators_have_their_adjoint_and_follow_the_seed(
    degradation: Degradation, generator: torch.Generator
) -> None:
    """<A x, y> = <x, A' y>; the same seed gives the same operator."""
    a, again = degradation.operator(FRAME, 5), degradation.operator(FRAME, 5)
    x = torch.randn(1, *FRAME.event_shape, generator=generator)
    measured = a(x)
    y = torch.randn(measured.shape, generator=generator, dtype=measured.dtype)
    left = torch.sum(measured.conj() * y).real
    right = torch.sum(x * a.adjoint(y))
    assert float(left) == pytest.approx(float(right), rel=1e-3, abs=1e-3)
    assert torch.equal(measured, again(x))


@pytest.mark.parametrize("degradation", [d for d in SIMULATED if getattr(d, "missing", None) is None])
def test_a_description_makes_the_same_operator(degradation: Degradation, generator: torch.Generator) -> None:
    """Through JSON and back."""
    made = degradation_of(json.loads(json.dumps(plain(degradation.describe()))))
    x = torch.randn(1, *FRAME.event_shape, generator=generator)
    assert torch.equal(made.operator(FRAME, 3)(x), degradation.operator(FRAME, 3)(x))


def test_a_file_describes_a_chain(tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_text(
        '[[steps]]\ntask = "deblur"\nfwhm = [1.5]\n[[steps]]\ntask = "sr"\nmeasured_spacing = [3]\naxis = "k"\n'
    )
    made = read_degradation(path)
    assert isinstance(made, Chain)
    assert made.operator(FRAME).measurement_shape == (1, 12, 10, 4)


def test_finer_voxels_lie_on_the_same_field_of_view(rng: np.random.Generator) -> None:
    """An oblique scan of 4 mm slices, 7 of them, to voxels near 1.5 mm: the outer faces stay, to rounding."""
    c, s = np.cos(0.3), np.sin(0.3)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag([-1.0, 1.2, 4.0])
    affine[:3, 3] = (12, -7, 30)
    scan = Volume(rng.normal(size=(6, 5, 7)).astype(np.float32), affine)
    task = ThickSlices((1.5,))
    image = task.image_frame(Frame.of(scan))
    assert image.shape == (6, 5, 19) and image.spacing[2] == pytest.approx(28 / 19)
    grid = finer_grid(scan, image.shape)
    for corner in ((-0.5,) * 3, (-0.5, -0.5, 1.0)):
        low = np.array([*np.where(np.asarray(corner) < 0, -0.5, 0), 1.0])
        old, new = low.copy(), low.copy()
        if corner[2] > 0:
            old[2], new[2] = 7 - 0.5, 19 - 0.5
        np.testing.assert_allclose(grid.affine @ new, affine @ old, atol=1e-9)


def test_slices_average_the_ramp_where_they_say_they_are(rng: np.random.Generator) -> None:
    """Of an image that is linear in the world, a slice measures the value at its own place: operator and affine agree,
    to a twentieth of a voxel (a voxel that two slices share is one number)."""
    scan = Volume(np.ones((4, 4, 9), np.float32), centred_affine((4, 4, 9), (1.0, 1.0, 3.3)))
    task = ThickSlices((1.0,)).for_scan(Frame.of(scan))
    image = task.image_frame(Frame.of(scan))
    grid = finer_grid(scan, image.shape)

    def heights(affine: np.ndarray, n: int) -> np.ndarray:
        return affine[2, 2] * np.arange(n) + affine[2, 3]

    fine = np.broadcast_to(heights(grid.affine, image.shape[2]), image.shape)
    coarse = task.operator(image)(event(fine))[0, 0, 0, 0].numpy()
    np.testing.assert_allclose(coarse, heights(scan.affine, 9), atol=0.05)


def test_widths_are_millimetres(generator: torch.Generator) -> None:
    """A blurred point has half its maximum half a width away, along coarse and fine axes alike."""
    frame = Frame((41, 41), (0.5, 1.0), "LP", "ij")
    point = torch.zeros(1, 1, 41, 41)
    point[0, 0, 20, 20] = 1
    seen = Blur((8.0,)).operator(frame)(point)[0, 0]
    assert float(seen[28, 20] / seen[20, 20]) == pytest.approx(0.5, abs=0.01)
    assert float(seen[20, 24] / seen[20, 20]) == pytest.approx(0.5, abs=0.01)


def test_a_hole_is_the_mask_and_its_margin(rng: np.random.Generator) -> None:
    seen = Hole(missing=MASK, dilate=1.4).observed(FRAME).numpy()
    assert not seen[3:7, 5, 3].any() and not seen[4, 4:7, 3].any()
    assert seen[2, 5, 3] and seen[4, 5, 4]  # 2 voxels of 1 mm and 1 of 1.5 mm away
    scan = rng.normal(size=FRAME.shape).astype(np.float32)
    task = Hole(missing=MASK)
    a = task.operator(FRAME)
    np.testing.assert_array_equal(task.measured(scan, a)[0, 0].numpy(), scan[~MASK])


@pytest.mark.parametrize("shape", [(48, 48, 48), (160, 160)])
def test_noise_is_found_beside_anatomy_and_air(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    """5 % of white in a smooth head with edges, air set to 0: within a tenth."""
    place = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    radius = np.sqrt((place**2).sum(0))
    clean = np.where(radius < 0.8, 0.6 + 0.3 * (np.sin(9 * place[0]) > 0), 0)
    noisy = np.where(radius < 0.8, clean + 0.05 * rng.normal(size=shape), 0)
    assert estimate_noise(noisy) == pytest.approx(0.05, rel=0.1)
    assert estimate_noise(700 * noisy) == pytest.approx(35, rel=0.1)


@pytest.mark.parametrize("acceleration", [2, 4, 8])
@pytest.mark.parametrize("pattern", ["lines", "equispaced", "points"])
def test_acceleration_is_voxels_over_samples(acceleration: int, pattern: str) -> None:
    mask = KSpace(acceleration, pattern).mask(Frame((32, 64, 16), (1.0, 1.0, 1.0), "LPS"))  # type: ignore[arg-type]
    assert mask.numel() / int(mask.sum()) == pytest.approx(acceleration, rel=0.02)


def test_volumes_have_two_phase_encodes_and_slices_one() -> None:
    volume, plane = Frame((16, 24, 20), (1.0, 1.0, 1.0), "LPS"), Frame((24, 20), (1.0, 1.0), "PS", "jk")
    for frame, pattern in ((volume, "points"), (plane, "lines")):
        assert torch.equal(KSpace(4.0).mask(frame, 3), KSpace(4.0, pattern).mask(frame, 3))  # type: ignore[arg-type]
    measured = KSpace(4.0).mask(volume)
    assert torch.equal(measured.any(0), measured.all(0)), "the read-out, i, is whole"


BAD = {
    "acceleration of 1": lambda: KSpace(1.0),
    "no coil": lambda: KSpace(4.0, coils=0),
    "negative spacing": lambda: ThickSlices((-1.0,)),
    "spacing as the scan": lambda: ThickSlices((1.5,)).image_frame(FRAME),
    "two spacings": lambda: ThickSlices((0.5, 0.5)).image_frame(FRAME),
    "finer simulated": lambda: ThickSlices(measured_spacing=(0.5,)).operator(FRAME),
    "no blur": lambda: Blur((0.0,)),
    "nothing missing": lambda: Hole(),
    "all missing": lambda: Hole(missing=np.ones(FRAME.shape, bool)).operator(FRAME),
    "mask of another shape": lambda: Hole(missing=np.ones((3, 3, 3), bool)).operator(FRAME),
    "slice outside": lambda: Hole(slices=(8,)).operator(FRAME),
    "axis of a slice": lambda: KSpace(4.0, axis="k").operator(Frame((8, 8), (1.0, 1.0), "LP", "ij")),
    "field of 0": lambda: Bias(known=np.zeros(FRAME.shape)).operator(FRAME),
    "one shot": lambda: Moved(shots=1),
    "no view": lambda: Views(views=0),
    "an image is no k-space": lambda: KSpace(4.0).measured(np.ones(FRAME.shape), KSpace(4.0).operator(FRAME)),
    "chain of raw data": lambda: Chain((KSpace(4.0), Blur())),
    "chain of one": lambda: Chain((Blur(),)),
    "unknown task": lambda: degradation_of({"task": "sharpen"}),
    "unknown option": lambda: degradation_of({"task": "sr", "spacin": [1]}),
    "word for a number": lambda: degradation_of({"task": "kspace", "acceleration": "four"}),
}


@pytest.mark.parametrize("name", BAD)
def test_nonsense_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(InputError) as error:
        BAD[name]()
    text = str(error.value)
    assert text.startswith("expected") and "got" in text and "\n" not in text

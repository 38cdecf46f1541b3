"""K-space of files: the image is where it was, coils and phase are found, mistakes are one line."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.fourier_sampling import MultiCoilSampling, coil_sensitivities
from radiata_medical.data.coils import kspace_noise, sensitivities_of
from radiata_medical.data.kspace_files import KSpaceData, find_kspace, read_kspace


def centred(images: np.ndarray) -> np.ndarray:
    """K-space as files have it: image and zero frequency in the middle."""
    axes = tuple(range(1, images.ndim))
    inner = np.fft.ifftshift(images, axes=axes)
    return np.fft.fftshift(np.fft.fftn(inner, axes=axes, norm="ortho"), axes=axes).astype(np.complex64)


def image_of(data: KSpaceData) -> np.ndarray:
    axes = tuple(range(1, data.kspace.ndim))
    return np.fft.ifftn(np.fft.ifftshift(data.kspace, axes=axes), axes=axes, norm="ortho")


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


@pytest.mark.parametrize("shape", [(10, 13), (7, 8, 6)])
def test_the_image_lies_where_it_was(
    shape: tuple[int, ...], tmp_path: Path, rng: np.random.Generator
) -> None:
    """Even and odd axes."""
    images = rng.normal(size=(3, *shape)) + 1j * rng.normal(size=(3, *shape))
    (data,) = read_kspace(saved(tmp_path / "k.npy", centred(images)))
    np.testing.assert_allclose(image_of(data), images, atol=1e-5)
    assert data.acceleration == 1


def test_h5_holds_a_slice_or_a_stack(tmp_path: Path, rng: np.random.Generator) -> None:
    stack = rng.normal(size=(2, 4, 8, 6)) + 1j * rng.normal(size=(2, 4, 8, 6))
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["kspace"], file["maps"] = stack.astype(np.complex64), stack.astype(np.complex64)
    slices = read_kspace(tmp_path / "k.h5")
    assert len(slices) == 2 and slices[1].kspace.shape == (4, 8, 6)
    np.testing.assert_allclose(slices[1].sensitivities, stack[1], rtol=1e-5)
    assert find_kspace(tmp_path) == (tmp_path / "k.h5",)


def scanned(rng: np.random.Generator, noise: float = 0.002) -> tuple[np.ndarray, np.ndarray, KSpaceData]:
    """A smooth head with a smooth phase, 4 coils, the middle and a third of the rest."""
    n = 64
    x, y = np.meshgrid(*[np.linspace(-1, 1, n)] * 2, indexing="ij")
    head = 1.0 * (x**2 / 0.7 + y**2 / 0.5 < 1) * (1 + 0.3 * np.cos(7 * x) * np.cos(5 * y))
    phase = np.exp(1j * (0.8 * x - 1.1 * y + 0.4 * x * y))
    maps = coil_sensitivities((n, n), 4).numpy()
    mask = rng.random((n, n)) < 1 / 3
    mask[20:44, 20:44] = True
    kspace = np.fft.fftshift(np.fft.fft2(maps * head * phase, norm="ortho"), axes=(1, 2))
    kspace = kspace + noise * (rng.normal(size=kspace.shape) + 1j * rng.normal(size=kspace.shape))
    return head, maps * phase, KSpaceData((kspace * mask).astype(np.complex64), mask, None, "LP")


def test_estimated_coils_hold_the_phase_so_that_a_real_image_explains_complex_data(
    rng: np.random.Generator,
) -> None:
    """The data are explained to 3 %, by an image that is the head where it is bright, to 5 %."""
    head, truth, data = scanned(rng)
    maps = sensitivities_of(data)
    inside = head > 0.5
    np.testing.assert_allclose((np.abs(maps) ** 2).sum(0), 1, rtol=1e-4)
    away = np.abs(maps - truth)[:, inside]
    assert np.median(away) < 0.03
    operator = MultiCoilSampling(torch.from_numpy(data.mask), torch.from_numpy(maps), (1, 64, 64), real=True)
    y = operator.observe(torch.from_numpy(data.kspace)[None, None])
    x = operator.solve(operator.adjoint(y), 1e-3)
    assert float((operator(x) - y).abs().square().mean().sqrt() / y.abs().square().mean().sqrt()) < 0.05
    assert np.median(np.abs(x[0, 0].numpy() - head)[inside]) < 0.05


def test_maps_of_a_file_get_the_phase_of_the_image(rng: np.random.Generator) -> None:
    head, truth, data = scanned(rng)
    turned = truth * np.exp(2.0j)  # a phase of their own
    given = KSpaceData(data.kspace, data.mask, turned.astype(np.complex64), "LP")
    inside = head > 0.5
    assert np.median(np.abs(np.angle((sensitivities_of(given) * truth.conj()).sum(0)))[inside]) < 0.03


def test_noise_is_read_off_the_outermost_samples(rng: np.random.Generator) -> None:
    """Where it is more than what is left of the signal there."""
    _, _, data = scanned(rng, noise=0.2)
    assert kspace_noise(data) == pytest.approx(0.2, rel=0.1)


@pytest.mark.needs_shared
def test_real_coils_give_a_real_image(shared_data: Path) -> None:
    """8 coils, 12 %: what the real image leaves of the complex data is small beside them."""
    (data,) = read_kspace(shared_data / "kspace" / "cartesian_ksp.npy")
    assert data.kspace.shape == (8, 230, 180) and 8 < data.acceleration < 8.1
    maps = torch.from_numpy(sensitivities_of(data))
    operator = MultiCoilSampling(torch.from_numpy(data.mask), maps, (1, 230, 180), real=True)
    y = operator.observe(torch.from_numpy(data.kspace)[None, None])
    operator.iterations = 15
    x = operator.solve(operator.adjoint(y), 1e-3)
    assert float((operator(x) - y).abs().square().mean().sqrt() / y.abs().square().mean().sqrt()) < 0.1


def test_mistakes_are_one_line(tmp_path: Path, rng: np.random.Generator) -> None:
    good = rng.normal(size=(3, 8, 8)) + 1j
    (tmp_path / "text.npy").write_text("text")
    (tmp_path / "empty.h5").write_bytes(b"")
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["dataset"] = np.ones(3)
    holed = good.copy()
    holed[0, 0, 0] = np.nan
    cases = {
        "nothing": lambda: read_kspace(tmp_path / "absent.npy"),
        "file of k-space": lambda: read_kspace(tmp_path / "text.npy"),
        "(.npy, .h5)": lambda: read_kspace(tmp_path / "empty.h5"),
        "ISMRMRD": lambda: read_kspace(tmp_path / "raw.h5"),
        "Is it an image": lambda: read_kspace(saved(tmp_path / "real.npy", good.real)),
        "NaN": lambda: read_kspace(saved(tmp_path / "nan.npy", holed)),
        "zeros everywhere": lambda: read_kspace(saved(tmp_path / "zero.npy", 0 * good)),
        "--axcodes": lambda: read_kspace(saved(tmp_path / "good.npy", good), "LR"),
        "3 coils": lambda: read_kspace(
            saved(tmp_path / "good.npy", good), sensitivities=saved(tmp_path / "maps.npy", good[:2])
        ),
        "coils first": lambda: read_kspace(saved(tmp_path / "five.npy", good[None, None])),
    }
    for words, call in cases.items():
        with pytest.raises(InputError) as error:
            call()
        text = str(error.value)
        assert words in text and text.startswith("expected") and "got" in text and "\n" not in text, text


def test_maps_need_a_sampled_middle(rng: np.random.Generator) -> None:
    mask = np.ones((16, 16), bool)
    mask[8, 8] = False
    data = KSpaceData((rng.normal(size=(2, 16, 16)) * mask).astype(np.complex64), mask, None, "LP")
    with pytest.raises(InputError, match="--sensitivities"):
        sensitivities_of(data)

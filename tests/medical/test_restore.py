"""The command, end to end with untrained networks: where results lie, what they keep, what is done twice and what fails."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
import torch

from radiata_core import commands
from radiata_core.checkpoint import save_model
from radiata_core.errors import InputError
from radiata_core.fourier_sampling import coil_sensitivities
from radiata_core.seeds import generator_of
from radiata_core.unrolled import UnrolledRestorer
from radiata_imaging.volume import Volume, centred_affine
from radiata_medical.data.bias_estimate import estimate_bias
from radiata_medical.data.degradations import Noise
from radiata_medical.experiment.restore import Restore
from radiata_medical.experiment.restoring_cases import Settings, solve
from radiata_medical.experiment.restoring_problems import scan_task
from radiata_medical.model.prior import build_prior
from radiata_medical.model.restorer import Oriented, load_restorer, unlikeness

SHAPE = (14, 18, 11)
SPREAD = {"kappa": [0.05, 0.2, 1.0], "variance": [5e-4, 3e-3, 2e-2]}


def oblique(codes: str, spacing: tuple[float, float, float] = (1.0, 1.1, 1.3)) -> np.ndarray:
    """An affine that is turned by 12 and 7 degrees from these axes, its origin anywhere."""
    affine = centred_affine(SHAPE, spacing, codes)
    a, b = np.deg2rad(12), np.deg2rad(7)
    turn = np.eye(4)
    turn[:3, :3] = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]]
    )
    turn[:3, 3] = (11, -23, 5)
    return turn @ affine


def head_at(affine: np.ndarray, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A smooth head, given as a function of the world: the same thing on any grid. Its middle is that of `oblique`."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    away = index @ affine[:3, :3].T + affine[:3, 3] - np.array([11, -23, 5])
    ball = 1 / (1 + np.exp((np.sqrt((away**2).sum(-1)) - 6) / 0.7))
    ripple = 0.3 * np.sin(away[..., 0] / 3) + 0.2 * np.cos(away[..., 1] / 2) + 0.3 * np.sin(away[..., 2] / 3)
    return (700 * ball * (1 + ripple)).astype(np.float32)


def save(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, 1)
    nib.save(image, path)
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny untrained priors, with a made-up spread, and restorers."""
    folder = tmp_path_factory.mktemp("models")
    for dims in (2, 3):
        prior = build_prior(dims, (4, 8))
        generator = generator_of(dims)
        with torch.no_grad():
            for weight in prior.parameters():
                weight += 0.02 * torch.randn(weight.shape, generator=generator)
        save_model(folder / f"p{dims}.safetensors", prior, metadata={"dims": dims, "spread": SPREAD})
        save_model(
            folder / f"u{dims}.safetensors", UnrolledRestorer(prior, (0.5, 0.1)), metadata={"dims": dims}
        )
    return folder


Call = Callable[..., int]


@pytest.fixture
def restore(models: Path) -> Call:
    """Exit code of the verb with the tiny prior and few evaluations."""

    def call(source: Path, out: Path, *options: str, dims: int = 3) -> int:
        given = ["--model", str(models / f"p{dims}.safetensors")] if "--model" not in options else []
        few = ["--evaluations", "2", "--tile", "8", "--halo", "4"]
        return commands.main(
            "radiata-medical",
            "",
            {"restore": Restore},
            ["restore", str(source), "--out", str(out), *few, *given, *options],
        )

    return call


def card(path: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
    return found


# Where results lie -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codes", ["LPS", "RAS", "PSR", "IAL"])
def test_a_restored_scan_lies_on_the_scan(codes: str, restore: Call, tmp_path: Path) -> None:
    """Affine, shape and - with next to no noise - every voxel, however the axes run."""
    affine = oblique(codes)
    head = head_at(affine)
    source = save(tmp_path / "head.nii.gz", head, affine)
    assert restore(source, tmp_path / "out", "--task", "deblur", "--fwhm", "0.4", "--noise", "0.1") == 0
    image = nib.load(tmp_path / "out" / "head_restored.nii.gz")
    np.testing.assert_allclose(image.affine, affine, atol=1e-5)
    np.testing.assert_allclose(image.get_fdata(), head, atol=40)
    said = bytes(image.header["descrip"]).decode()
    assert "synthetic" in said and "not for clinical use" in said
    facts = card(tmp_path / "out" / "head_restored.nii.gz")
    assert facts["Options"]["degradation"]["fwhm"] == [0.4]  # type: ignore[index]
    assert facts["DataConsistency"] < 3 and facts["Models"][0]["Name"] == "p3"  # type: ignore[index,operator]


def test_finer_voxels_show_the_same_world(restore: Call, tmp_path: Path) -> None:
    """Slices of 2.6 mm to about 1 mm: on the finer grid stands what the world has there, on average to 5 % of white."""
    affine = oblique("RAS", (1.0, 1.0, 2.6))
    coarse = np.mean([head_at(affine @ shifted) for shifted in map(shift, np.linspace(-0.45, 0.45, 10))], 0)
    source = save(tmp_path / "thick.nii.gz", coarse.astype(np.float32), affine)
    assert restore(source, tmp_path / "out", "--task", "sr", "--noise", "0.1") == 0
    image = nib.load(tmp_path / "out" / "thick_restored.nii.gz")
    assert image.shape == (14, 18, 29)
    truth = head_at(image.affine, image.shape)
    assert np.abs(image.get_fdata() - truth).mean() < 45
    assert np.corrcoef(image.get_fdata().ravel(), truth.ravel())[0, 1] > 0.97
    flipped = np.corrcoef(image.get_fdata()[..., ::-1].ravel(), truth.ravel())[0, 1]
    assert flipped < 0.95  # the test can tell
    residual = nib.load(tmp_path / "out" / "thick_residual.nii.gz")
    np.testing.assert_allclose(residual.affine, affine, atol=1e-5)


def shift(along: float) -> np.ndarray:
    moved = np.eye(4)
    moved[2, 3] = along
    return moved


def test_networks_see_heads_in_one_orientation(models: Path, generator: torch.Generator) -> None:
    """A permuted and mirrored scan gives the permuted and mirrored result, to the bit; a network that saw it would not."""
    prior = load_restorer(3, str(models / "p3.safetensors")).prior
    x, t = torch.randn(1, 1, 8, 12, 16, generator=generator), torch.tensor(0.3)
    expected = prior(x, t)
    turned = x.permute(0, 1, 3, 4, 2).flip(2, 4)  # axes P, S, L, the first and the last mirrored: A, S, R
    found = Oriented(prior, "ASR")(turned, t)
    assert torch.equal(found, expected.permute(0, 1, 3, 4, 2).flip(2, 4))
    assert not torch.allclose(prior(turned, t), found)


def test_blocks_leave_no_seams(models: Path) -> None:
    """Tiles with a halo that covers the receptive field give what the whole volume gives."""
    affine = oblique("LPS")
    scan = Volume(head_at(affine), affine)
    restorer = load_restorer(3, str(models / "p3.safetensors"))
    task = scan_task(scan, Noise(), noise=5.0)
    whole = solve(task, restorer, Settings(tile=0, halo=0)).image
    tiled = solve(task, restorer, Settings(tile=4, halo=16)).image
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


# What is kept and what is reported ---------------------------------------------------------------------------------------


def test_filling_a_hole_keeps_what_was_measured(restore: Call, tmp_path: Path) -> None:
    affine = oblique("RAS")
    head = head_at(affine)
    hole = np.zeros(SHAPE, np.uint8)
    hole[5:8, 7:10, 4:7] = 1
    source = save(tmp_path / "head.nii.gz", np.where(hole, 5000, head).astype(np.float32), affine)
    mask = save(tmp_path / "m" / "head_mask.nii.gz", hole, affine)
    code = restore(
        source, tmp_path / "out", "--task", "inpaint", "--mask", str(mask.parent), "--mode", "sample",
        "--draws", "2", "--save", "residual", "invented", "draws",
    )  # fmt: skip
    assert code == 0
    out = {p.name: nib.load(p).get_fdata() for p in (tmp_path / "out").glob("*.nii.gz")}
    outside = hole == 0
    np.testing.assert_allclose(out["head_restored.nii.gz"][outside], head[outside], rtol=1e-5)
    assert out["head_restored.nii.gz"][~outside].max() < 2000  # what lay in the hole was not looked at
    assert np.abs(out["head_invented.nii.gz"][outside]).max() < 1e-3
    assert out["head_invented.nii.gz"][~outside].max() > 0
    assert out["head_sd.nii.gz"][~outside].mean() > 0
    assert {"head_draw-1.nii.gz", "head_draw-2.nii.gz", "head_residual.nii.gz"} <= set(out)


@pytest.mark.parametrize("task", ["denoise", "sr", "inpaint", "deblur", "kspace", "bias", "motion", "ct"])
def test_every_task_can_be_simulated(task: str, restore: Call, tmp_path: Path) -> None:
    affine = oblique("LPS")
    source = save(tmp_path / "head.nii", head_at(affine), affine)
    options = ["--radius", "2"] if task == "inpaint" else []
    out = tmp_path / "out"
    assert restore(source, out, "--task", task, "--simulate", "--save", "measured", *options) == 0
    facts = card(out / "head_restored.nii.gz")
    assert facts["PSNR"] > 8 and facts["Evaluations"] in (1, 2)  # type: ignore[operator]
    assert nib.load(out / "head_measured.nii.gz").shape == SHAPE


def test_an_unrolled_restorer_is_used_where_it_is_named(restore: Call, models: Path, tmp_path: Path) -> None:
    affine = oblique("LPS")
    source = save(tmp_path / "head.nii.gz", head_at(affine), affine)
    named = ("--restorer", str(models / "u3.safetensors"))
    assert restore(source, tmp_path / "out", "--task", "kspace", "--simulate", *named) == 0
    facts = card(tmp_path / "out" / "head_restored.nii.gz")
    assert facts["Method"] == "unrolled" and [m["Name"] for m in facts["Models"]] == ["p3", "u3"]  # type: ignore[attr-defined]


def test_slices_one_by_one_give_the_volume_in_place(restore: Call, tmp_path: Path) -> None:
    """In batches of any size the same to rounding; and a single slice alone is what it is in the volume."""
    affine = oblique("PSR")
    head = head_at(affine)
    source = save(tmp_path / "head.nii.gz", head, affine)
    common = ("--noise", "3", "--slices", "i")
    assert restore(source, tmp_path / "one", *common, dims=2) == 0
    assert restore(source, tmp_path / "five", *common, "--batch-size", "5", dims=2) == 0
    one, five = (nib.load(tmp_path / name / "head_restored.nii.gz") for name in ("one", "five"))
    np.testing.assert_allclose(one.affine, affine, atol=1e-5)
    np.testing.assert_allclose(one.get_fdata(), five.get_fdata(), atol=1e-2)
    moved = affine.copy()
    moved[:3, 3] += affine[:3, 0] * 6
    white = float(card(tmp_path / "one" / "head_restored.nii.gz")["White"])  # type: ignore[arg-type]
    thin = save(tmp_path / "thin.nii.gz", head[6:7], moved)
    assert restore(thin, tmp_path / "thin", "--noise", "3", dims=2) == 0
    alone = nib.load(tmp_path / "thin" / "thin_restored.nii.gz")
    assert alone.shape == (1, 18, 11)
    own = float(card(tmp_path / "thin" / "thin_restored.nii.gz")["White"])  # type: ignore[arg-type]
    assert own == pytest.approx(white, rel=0.2)
    np.testing.assert_allclose(alone.get_fdata()[0], one.get_fdata()[6], atol=0.1 * white)


def test_one_direction_of_planes_is_slice_by_slice(restore: Call, models: Path, tmp_path: Path) -> None:
    """Voxel by voxel, in an orientation that is not the networks'; two directions are the mean of both."""
    affine = oblique("PSR")
    source = save(tmp_path / "head.nii.gz", head_at(affine), affine)
    common = ("--noise", "5", "--model", str(models / "p2.safetensors"))

    def found(name: str, *options: str) -> np.ndarray:
        assert restore(source, tmp_path / name, *common, *options) == 0
        return np.asarray(nib.load(tmp_path / name / "head_restored.nii.gz").get_fdata())

    across_i, across_k = found("i", "--slices", "i"), found("k", "--slices", "k")
    assert np.abs(across_i - across_k).max() > 1
    np.testing.assert_allclose(found("planes", "--planes", "i"), across_i, atol=0.05)
    both = found("both", "--planes", "i", "k")
    inside = (across_i > 0) & (across_k > 0)  # a magnitude is not below 0
    np.testing.assert_allclose(both[inside], (across_i + across_k)[inside] / 2, atol=0.05)
    assert card(tmp_path / "both" / "head_restored.nii.gz")["Method"] == "denoise-once, planes across i k"


def test_real_k_space_becomes_a_magnitude_image(
    restore: Call, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Coils and phase come from the middle of k-space; the image is the head, up to what a third of the data leaves open."""
    n = 48
    x, y = np.meshgrid(*[np.linspace(-1, 1, n, endpoint=False)] * 2, indexing="ij")
    head = (x**2 / 0.7 + y**2 / 0.5 < 1) * (1 + 0.3 * np.cos(7 * x) * np.cos(5 * y))
    images = coil_sensitivities((n, n), 4).numpy() * head * np.exp(1j * (0.8 * x - 1.1 * y))
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(images, axes=(1, 2)), norm="ortho"), axes=(1, 2))
    mask = rng.random((n, n)) < 0.5
    mask[14:34, 14:34] = True
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["kspace"] = (kspace * mask * 1e-4).astype(np.complex64)
    assert restore(tmp_path / "raw.h5", tmp_path / "out", "--task", "kspace", "--voxel", "2", dims=2) == 0
    image = nib.load(tmp_path / "out" / "raw_restored.nii.gz")
    assert image.shape == (n, n, 1) and image.header.get_zooms()[:3] == (2, 2, 2)
    found = image.get_fdata()[..., 0]
    assert found.min() >= 0 and np.corrcoef(found.ravel(), head.ravel())[0, 1] > 0.9


def test_a_bias_field_is_found_and_divided_out(rng: np.random.Generator) -> None:
    """Two tissues and noise under a field of 25 %: less than a third of it is left."""
    places = np.meshgrid(*[np.linspace(-1, 1, 48)] * 3, indexing="ij")
    radius = np.sqrt(sum(place**2 for place in places))
    tissue = np.where(radius < 0.9, np.where(np.sin(8 * places[0]) * np.cos(7 * places[1]) > 0, 0.9, 0.6), 0)
    field = np.exp(0.35 * np.cos(np.pi * (places[0] + 1) / 2) + 0.2 * np.cos(np.pi * (places[2] + 1)))
    scan = (tissue * field * (1 + 0.03 * rng.normal(size=tissue.shape))).astype(np.float32)
    inside = tissue > 0
    left = np.log(field / estimate_bias(scan))[inside].std()
    assert left < np.log(field)[inside].std() / 3


def test_a_scan_unlike_those_of_training_is_told(models: Path, generator: torch.Generator) -> None:
    """With the prior's own error as spread, a scan is like itself, and its tenfold is not."""
    restorer = load_restorer(3, str(models / "p3.safetensors"))
    x = torch.from_numpy(head_at(oblique("LPS")) / 700)[None, None]
    once, tenfold = unlikeness(restorer, x, "LPS"), unlikeness(restorer, 10 * x, "LPS")
    assert once is not None and tenfold is not None and tenfold > 3 * once


def test_ranges_are_those_of_the_models(
    restore: Call, models: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    affine = oblique("LPS")
    source = save(tmp_path / "head.nii.gz", head_at(affine), affine)
    known = {"dims": 3, "spacing_mm": [1.05, 1.2], "noise_most": 0.04}
    save_model(tmp_path / "narrow.safetensors", build_prior(3, (4, 8)), metadata=known)
    narrow = ("--model", str(tmp_path / "narrow.safetensors"))
    assert restore(source, tmp_path / "out", "--noise", "5", *narrow) == 0
    said = capfd.readouterr().err
    assert "1 x 1.1 x 1.3 mm: models know 1.05 to 1.2 mm" in said and "models know up to 4 %" in said
    assert restore(source, tmp_path / "two", "--noise", "5") == 0
    assert "models know" not in capfd.readouterr().err


# Twice, and badly ----------------------------------------------------------------------------------------------------------


def test_a_tree_is_resumed_and_failures_are_listed(
    restore: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One broken scan of three: the others are kept, are not made again, and other options do not replace them."""
    affine = oblique("LPS")
    tree = tmp_path / "tree"
    for name in ("sub-1/anat/sub-1_T1w", "sub-2/ses-a/anat/sub-2_ses-a_FLAIR"):
        save(tree / f"{name}.nii.gz", head_at(affine), affine)
    broken = tree / "sub-3/anat/sub-3_T2w.nii.gz"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"not a scan")
    out = tmp_path / "out"
    assert restore(tree, out, "--noise", "5") == 1
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert "error: expected to restore 3 scans; got 1 failures" in line and "sub-3_T2w" in line
    made = out / "sub-2/ses-a/anat/sub-2_ses-a_desc-restored_FLAIR.nii.gz"
    assert made.is_file() and (out / "sub-1/anat/sub-1_desc-restored_T1w.nii.gz").is_file()
    assert "sub-3_T2w" in (out / "failures.json").read_text()
    broken.unlink()
    before = made.stat().st_mtime_ns
    assert restore(tree, out, "--noise", "5") == 0
    assert made.stat().st_mtime_ns == before and not (out / "failures.json").exists()
    assert restore(tree, out, "--noise", "7") == 1
    assert "--overwrite" in capfd.readouterr().err and made.stat().st_mtime_ns == before
    assert restore(tree, out, "--noise", "7", "--overwrite") == 0
    assert made.stat().st_mtime_ns != before


def test_a_chain_from_a_file_is_undone(restore: Call, tmp_path: Path) -> None:
    affine = oblique("RAS")
    source = save(tmp_path / "head.nii.gz", head_at(affine), affine)
    spec = tmp_path / "chain.toml"
    spec.write_text(
        '[[steps]]\ntask = "deblur"\nfwhm = [1.5]\n[[steps]]\ntask = "inpaint"\nslices = [4]\naxis = "k"\n'
    )
    assert restore(source, tmp_path / "out", "--spec", str(spec), "--simulate") == 0
    facts = card(tmp_path / "out" / "head_restored.nii.gz")
    assert [step["task"] for step in facts["Options"]["degradation"]["steps"]] == ["deblur", "inpaint"]  # type: ignore[index]
    assert facts["PSNR"] > 8  # type: ignore[operator]


def test_a_field_that_was_found_is_written(restore: Call, tmp_path: Path) -> None:
    affine = oblique("LPS")
    source = save(tmp_path / "head.nii.gz", head_at(affine), affine)
    assert restore(source, tmp_path / "out", "--task", "bias", "--save", "field") == 0
    field = nib.load(tmp_path / "out" / "head_field.nii.gz")
    np.testing.assert_allclose(field.affine, affine, atol=1e-5)
    assert field.get_fdata().min() > 0


@pytest.mark.slow
def test_several_at_once_give_the_same_bytes(restore: Call, tmp_path: Path) -> None:
    affine = oblique("LPS")
    for name in ("a", "b"):
        save(tmp_path / "in" / f"{name}.nii.gz", head_at(affine), affine)
    assert restore(tmp_path / "in", tmp_path / "one", "--noise", "5") == 0
    assert restore(tmp_path / "in", tmp_path / "two", "--noise", "5", "--processes", "2") == 0
    for name in ("a_restored.nii.gz", "b_restored.nii.gz"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_memory_that_runs_out_is_one_line(
    restore: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Outside of the networks, whose blocks shrink by themselves."""
    from radiata_medical.experiment import restoring_runs

    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(restoring_runs, "solve", full)
    affine = oblique("LPS")
    source = save(tmp_path / "head.nii.gz", head_at(affine), affine)
    assert restore(source, tmp_path / "out") == 1
    assert "Use a smaller --tile" in capfd.readouterr().err


def test_a_case_whose_writing_fails_leaves_no_maps(
    restore: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The residual is written before the image; without the image it goes too, and the note of the failure stays."""
    from radiata_medical.experiment import restoring_cases

    real = restoring_cases.write_image

    def full(path: Path, *rest: object) -> Path:
        if path.name == "head_restored.nii.gz":
            raise InputError("expected space on the disk; got none. Make some.")
        return real(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(restoring_cases, "write_image", full)
    affine = oblique("LPS")
    source = save(tmp_path / "head.nii.gz", head_at(affine), affine)
    assert restore(source, tmp_path / "out") == 1
    assert sorted(p.name for p in (tmp_path / "out").glob("head*")) == []
    assert "space on the disk" in (tmp_path / "out" / "failures.json").read_text()


def test_a_dry_run_says_what_would_be_done(
    restore: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    affine = oblique("RAS", (1.0, 1.0, 2.6))
    source = save(tmp_path / "head.nii.gz", head_at(affine), affine)
    assert restore(source, tmp_path / "out", "--task", "sr", "--noise", "3", "--dry-run") == 0
    said = capfd.readouterr().out
    assert "head_restored.nii.gz (to do): 14×18×29 voxels, noise 3 %, by p3" in said
    assert restore(source, tmp_path / "out", "--task", "sr", "--spacing", "5", "--dry-run") == 1
    assert not (tmp_path / "out").exists()


BAD = {
    "acceleration": (("--task", "kspace", "--simulate", "--acceleration", "1"), "acceleration > 1"),
    "k-space of an image": (("--task", "kspace"), "--simulate"),
    "spacing": (("--task", "sr", "--spacing", "-1"), "--spacing > 0"),
    "fine enough": (("--task", "sr", "--spacing", "2"), "finer than"),
    "nothing to fill": (("--task", "inpaint"), "--mask"),
    "noise": (("--noise", "-3"), "--noise"),
    "file as out": (("--out", "x.nii.gz"), "folder as --out"),
    "model of volumes": (("--model", "p3", "--slices", "k"), "which is 3-D"),
    "planes": (("--planes", "i", "i"), "different axes"),
    "restorer as prior": (("--model", "u3"), "--restorer"),
    "no model": (("--model", "nothing"), "model"),
}


@pytest.mark.parametrize("name", BAD)
def test_mistakes_are_one_line_and_leave_nothing(
    name: str, restore: Call, models: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options, words = BAD[name]
    affine = oblique("LPS")
    source = save(tmp_path / "head.nii.gz", head_at(affine), affine)
    paths = [str(models / f"{o}.safetensors") if o in ("p3", "u3") else o for o in options]
    assert restore(source, tmp_path / "out", *paths) == 1
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and "error: expected" in lines[0] and words in lines[0], lines
    assert [p.name for p in tmp_path.iterdir()] == ["head.nii.gz"]


def test_masks_of_another_grid_are_refused(
    restore: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    affine = oblique("LPS")
    source = save(tmp_path / "head.nii.gz", head_at(affine), affine)
    far = affine.copy()
    far[:3, 3] += 300
    mask = save(tmp_path / "mask.nii.gz", np.eye(14, 18)[..., None].repeat(11, 2).astype(np.uint8), far)
    assert restore(source, tmp_path / "out", "--task", "inpaint", "--mask", str(mask)) == 1
    assert "outside of its field of view" in capfd.readouterr().err and not (tmp_path / "out").exists()

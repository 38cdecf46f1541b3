"""Bad input at the command line: exit 1 with one line (expected, got, what to do), and what was there before stays.

Every command runs in-process. `refused` takes a snapshot of the folder before it and compares it after.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from radiata_imaging.preprocess import PreprocessSpec
from radiata_imaging.store import Item, StoreWriter
from radiata_t1 import cli

from .conftest import NAMES

SHAPE = (20, 22, 21)
AFFINE = np.diag([8.0, 8.0, 8.0, 1.0])
TRAIN = ("--channels", "8", "8", "--down-blocks", "0", "1", "--up-blocks", "1", "1", "--rank", "4",
         "--steps", "2", "--batch-size", "4", "--validation-heads", "2")  # fmt: skip
Refused = Callable[..., str]


def snapshot(folder: Path) -> dict[str, str]:
    """Every file below a folder, and its checksum."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Refused:
    """The one line with which a command fails; nothing below `tmp_path` may be changed, added or lost."""

    def call(*words: str | Path, kept: Path = tmp_path, shaped: bool = True) -> str:
        before = snapshot(kept)
        folders = {path for path in kept.rglob("*") if path.is_dir()}
        capfd.readouterr()
        code = cli.run([str(word) for word in words])
        lines = capfd.readouterr().err.splitlines()
        assert code == 1, lines
        assert len(lines) == 1, "\n".join(lines)
        assert lines[0].startswith(f"radiata-t1 {words[0]}: error: "), lines
        if shaped:
            assert re.search(r"error: expected .*(;|, ).*got .*[.]", lines[0]), lines
        assert snapshot(kept) == before
        assert {path for path in kept.rglob("*") if path.is_dir()} == folders
        return lines[0].removeprefix(f"radiata-t1 {words[0]}: error: ")

    return call


def made_store(path: Path, shape: tuple[int, int, int]) -> Path:
    """Eight people of noise in the three splits, with the covariates of the tiny store."""
    writer = StoreWriter(path, shape, PreprocessSpec(spacing=12.0, shape=shape), NAMES)
    rng = np.random.default_rng(1)
    for person, split in enumerate(["train"] * 4 + ["validation", "validation", "test", "test"]):
        array = rng.uniform(-1, 1, shape).astype(np.float32)
        writer.append(
            Item(array, f"{person}", split, covariates={"size": 1.0 + person, "age": 40.0 + person})
        )
    return writer.finish()


@pytest.fixture(scope="module")
def other_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store like the tiny one, of another shape."""
    return made_store(tmp_path_factory.mktemp("other") / "other.h5", (10, 8, 8))


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store on a grid that can be evaluated."""
    return made_store(tmp_path_factory.mktemp("people") / "people.h5", (16, 16, 16))


# Volumes ----------------------------------------------------------------------------------------------------------------


def head() -> np.ndarray:
    """An ellipsoid with a textured inside."""
    grid = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij"))
    inside = (grid[0] / 8) ** 2 + (grid[1] / 9) ** 2 + (grid[2] / 8.5) ** 2 < 1
    return np.where(inside, 80 + np.random.default_rng(0).uniform(0, 60, SHAPE), 2).astype(np.float32)


def saved(path: Path, array: np.ndarray, affine: np.ndarray | None = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def four_dimensional(path: Path) -> None:
    saved(path, np.stack([head(), head()], -1))


def with_nan(path: Path) -> None:
    array = head()
    array[3, 4, 5] = np.nan
    saved(path, array)


def with_infinity(path: Path) -> None:
    array = head()
    array[3, 4, 5] = -np.inf
    saved(path, array)


def singular(path: Path) -> None:
    import gzip

    data = bytearray(nib.Nifti1Image(head(), AFFINE).to_bytes())
    data[280:296] = data[296:312]  # the rows srow_x and srow_y of the header
    path.write_bytes(gzip.compress(bytes(data)))


def without_affine(path: Path) -> None:
    saved(path, head(), None)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    data = saved(path, head()).read_bytes()
    path.write_bytes(data[: len(data) // 2])


def text(path: Path) -> None:
    path.write_text("no image\n")


def overflowing(path: Path) -> None:
    saved_as = nib.Nifti1Image(head().astype(np.int64) + 2**60, AFFINE, dtype=np.int64)
    nib.save(saved_as, path)


VOLUMES = [
    (four_dimensional, "one 3-D volume; got 20×22×21×2"),
    (with_nan, "got 1 NaN and 0 infinite"),
    (with_infinity, "got 0 NaN and 1 infinite"),
    (singular, "singular"),
    (without_affine, "--assume-axcodes RAS"),
    (empty, "0-byte"),
    (truncated, "truncated"),
    (text, "expected gzip data"),
    (overflowing, "exact in float32"),
]
over_volumes = pytest.mark.parametrize(("make", "message"), VOLUMES, ids=[m.__name__ for m, _ in VOLUMES])


@over_volumes
def test_prepare_refuses_a_bad_volume(
    make: Callable[[Path], None], message: str, tmp_path: Path, refused: Refused
) -> None:
    """Nothing is left, neither a store nor its parts."""
    (tmp_path / "scans").mkdir()
    make(tmp_path / "scans" / "head.nii.gz")
    line = refused(
        "prepare", tmp_path / "scans", "--out", tmp_path / "out.h5", "--spacing", "24", "--shape", *"888"
    )
    assert message in line and "head.nii.gz" in line


@over_volumes
def test_evaluate_refuses_a_bad_volume(
    make: Callable[[Path], None], message: str, people: Path, tmp_path: Path, refused: Refused
) -> None:
    """Three of four heads are fine; the file is named, and an evaluation that is there stays as it is."""
    folder = tmp_path / "heads"
    folder.mkdir()
    for name in "bcd":
        saved(folder / f"{name}.nii.gz", head())
    make(folder / "a.nii.gz")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "evaluation.json").write_text("{}")
    words = ("evaluate", folder, "--reference", people, "--permutations", "19")
    assert "--overwrite" in refused(*words, "--out", tmp_path / "out")
    out = tmp_path.with_name(tmp_path.name + "-out")
    line = refused(*words, "--out", out)
    assert message in line and "a.nii.gz" in line
    assert json.loads((out / "run.json").read_text())["state"] == "failed"
    assert not (out / "evaluation.json").exists()


def test_an_earlier_store_outlives_bad_volumes(tmp_path: Path, refused: Refused, tiny_store: Path) -> None:
    """Even with --overwrite: the new store replaces the old one when it is whole, not before."""
    shutil.copy(tiny_store, tmp_path / "out.h5")
    (tmp_path / "scans").mkdir()
    truncated(tmp_path / "scans" / "head.nii.gz")
    refused("prepare", tmp_path / "scans", "--out", tmp_path / "out.h5", "--overwrite")


def test_several_bad_volumes_leave_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One line a file and one for all; no empty folder of parts."""
    (tmp_path / "scans").mkdir()
    truncated(tmp_path / "scans" / "a.nii.gz")
    empty(tmp_path / "scans" / "b.nii.gz")
    words = ["prepare", str(tmp_path / "scans"), "--out", str(tmp_path / "out.h5")]
    assert cli.run(words) == 1
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 3 and "2 of 2 are not" in lines[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["scans"]


def test_a_subject_in_two_splits_is_refused(tmp_path: Path, refused: Refused) -> None:
    for name in "ab":
        saved(tmp_path / f"{name}.nii.gz", head() + ord(name))
    table = tmp_path / "scans.csv"
    table.write_text("path,subject,split\na.nii.gz,01,train\nb.nii.gz,01,test\n")
    assert "each subject in one split" in refused("prepare", table, "--out", tmp_path / "out.h5")


# Models -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the trained model, to be spoiled."""
    (tmp_path / "model").mkdir()
    for name in ("model.safetensors", "model.json"):
        shutil.copy(tiny_run / name, tmp_path / "model" / name)
    return tmp_path / "model"


def other_architecture(model: Path) -> None:
    card = json.loads((model / "model.json").read_text())
    card["denoiser"]["network"]["channels"] = [8, 16]
    (model / "model.json").write_text(json.dumps(card))


def cut(model: Path) -> None:
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(data[: len(data) // 2])


def emptied(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(other_architecture, "another architecture"), (cut, "truncated"), (emptied, "0 bytes")],
)
@pytest.mark.parametrize("verb", ["sample", "train"])
def test_a_bad_checkpoint_is_refused(
    spoil: Callable[[Path], None], message: str, verb: str, copied: Path, tiny_store: Path, tmp_path: Path,
    refused: Refused,
) -> None:  # fmt: skip
    spoil(copied)
    out = tmp_path.with_name(tmp_path.name + "-out")
    if verb == "sample":
        assert message in refused("sample", "--model", copied, "--out", out)
        assert not out.exists()
    else:
        assert message in refused("train", tiny_store, "--init", copied, "--out", out, *TRAIN)
        assert not (out / "model.safetensors").exists()


def test_a_store_of_another_shape_is_refused(
    tiny_run: Path, tiny_store: Path, other_store: Path, people: Path, tmp_path: Path, refused: Refused
) -> None:
    """As training set of a model, as synthetic set, and for the heads that a model drew."""
    out = tmp_path.with_name(tmp_path.name + "-out")
    line = refused("train", other_store, "--init", tiny_run, "--out", out, *TRAIN)
    assert "expected a model of (10, 8, 8)" in line and "(8, 8, 8)" in line
    line = refused("evaluate", other_store, "--reference", tiny_store, "--out", tmp_path / "out")
    assert "expected a store of 8×8×8 volumes; got 10×8×8" in line
    heads = tmp_path / "heads"
    sample = ["sample", "--model", str(tiny_run), "--out", str(heads), "--seeds", "0", "1", "--steps", "2"]
    assert cli.run(sample) == 0
    line = refused("evaluate", heads, "--reference", people, "--out", out, "--overwrite")
    assert "expected heads of 16×16×16" in line and "8×8×8" in line


def test_a_grid_too_coarse_to_evaluate_is_refused(tiny_store: Path, tmp_path: Path, refused: Refused) -> None:
    out = tmp_path.with_name(tmp_path.name + "-out")
    line = refused("evaluate", tiny_store, "--reference", tiny_store, "--out", out)
    assert "expected volumes of 9 or more voxels an axis" in line and "8×8×8" in line
    assert not (out / "evaluation.json").exists()


# Disks ------------------------------------------------------------------------------------------------------------------


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_keeps_the_heads_that_are_there(
    tiny_run: Path, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed 0 is drawn before; the writer of voxels fails for seed 1. Afterwards the same command goes on."""
    words = ("sample", "--model", str(tiny_run), "--steps", "2", "--out", str(tmp_path / "heads"))
    assert cli.run([*words, "--seeds", "0"]) == 0
    heads = {name: sum_ for name, sum_ in snapshot(tmp_path).items() if "sub-" in name}
    with monkeypatch.context() as patch:
        patch.setattr(nib, "save", full)
        patch.setattr(nib.Nifti1Image, "to_filename", full)
        patch.setattr(nib.Nifti1Image, "to_bytes", full)
        line = refused(*words, "--seeds", "0", "1", kept=tmp_path / "heads" / "configs", shaped=False)
    assert "no space left on the disk" in line and "intact" in line
    after = {name: sum_ for name, sum_ in snapshot(tmp_path).items() if "sub-" in name}
    assert after == heads
    assert not [path for path in (tmp_path / "heads").iterdir() if ".tmp" in path.name]
    assert json.loads((tmp_path / "heads" / "run.json").read_text())["state"] == "failed"
    assert cli.run([*words, "--seeds", "0", "1"]) == 0


def test_a_full_disk_keeps_the_prepared_heads(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second head does not fit: the first stays in the parts, no store appears, and the same command completes it."""
    (tmp_path / "scans").mkdir()
    for name in "ab":
        saved(tmp_path / "scans" / f"{name}.nii.gz", head() + ord(name))
    words = ["prepare", str(tmp_path / "scans"), "--out", str(tmp_path / "out.h5"), "--spacing", "24"]
    words += ["--shape", *"888", "--fractions", "0.5", "0.5", "0"]
    append, appended = StoreWriter.append, []

    def until_full(*given: object, **named: object) -> None:
        if appended:
            full()
        append(*given, **named)  # type: ignore[arg-type]
        appended.append(1)

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "append", until_full)
        assert cli.run(words) == 1
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("radiata-t1 prepare: error: no space left on the disk"), (
        lines
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.h5.parts", "scans"]
    assert len(list((tmp_path / "out.h5.parts").glob("*.part.h5"))) == 1
    assert cli.run(words) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.h5", "out.json", "scans"]


def test_a_folder_that_takes_no_files_is_one_line(
    tiny_run: Path, tiny_store: Path, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only --out. The system's refusal is imitated where the mode binds nobody (root)."""
    locked = tmp_path / "locked"
    locked.mkdir()
    (tmp_path / "scans").mkdir()
    saved(tmp_path / "scans" / "a.nii.gz", head())
    locked.chmod(0o555)
    if os.access(locked, os.W_OK):
        mkdir = Path.mkdir

        def refusing(self: Path, *given: int, **named: bool) -> None:
            if self.is_relative_to(locked) and not self.exists():
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
            mkdir(self, *given, **named)

        monkeypatch.setattr(Path, "mkdir", refusing)
    calls: list[tuple[str | Path, ...]] = [
        ("sample", "--model", tiny_run, "--steps", "2", "--out", locked / "x"),
        ("prepare", tmp_path / "scans", "--out", locked / "x.h5", "--fractions", "1", "0", "0"),
        ("train", tiny_store, "--out", locked / "x", *TRAIN),
        ("evaluate", tiny_store, "--reference", tiny_store, "--out", locked / "x"),
    ]
    for words in calls:
        assert "not permitted" in refused(*words, shaped=False)
    locked.chmod(0o755)

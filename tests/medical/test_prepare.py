"""Stores from folders: where each voxel comes to lie, who is in which split, what is kept of a stopped command."""

import json
from pathlib import Path

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_imaging.nifti import write_volume
from radiata_imaging.volume import Volume, centred_affine
from radiata_medical.data.label_maps import LabelMaps
from radiata_medical.experiment.prepare import Prepare

EDGES = (1.0, 1.0, 2.0)


def head(shape: tuple[int, int, int] = (36, 40, 20), axcodes: str = "RAS") -> tuple[np.ndarray, np.ndarray]:
    """White matter within cortex within other head, with a ventricle on the left only; and the affine."""
    affine = centred_affine(shape, EDGES, axcodes)
    world = np.stack(np.indices(shape), -1) @ affine[:3, :3].T + affine[:3, 3]
    radius = np.linalg.norm(world / [1.0, 1.1, 1.0], axis=-1)
    codes = np.zeros(shape)
    for limit, code in ((16, 258), (12, 3), (9, 2)):
        codes[radius < limit] = code
    codes[np.linalg.norm(world - [-4, 0, 0], axis=-1) < 3] = 4
    return codes, affine


def folder(path: Path, names: tuple[str, ...], *, scans: bool = False, axcodes: str = "RAS") -> Path:
    for number, name in enumerate(names):
        codes, affine = head(axcodes=axcodes)
        rng = np.random.default_rng(number)
        array = (codes > 0) * (400.0 + 40 * codes % 300 + rng.normal(0, 9, codes.shape)) if scans else codes
        write_volume(path / name, Volume(array, affine), dtype="float32" if scans else "int16")
    return path


PEOPLE = tuple(f"sub-{n:02d}_dseg.nii.gz" for n in range(6))


def test_label_maps_keep_their_place_in_the_world(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """1 mm, LPS, cropped with the margin; the ventricle stays on the left side of the body, with its millilitres."""
    out = tmp_path / "store.h5"
    Prepare(folder(tmp_path / "in", PEOPLE), out, margin=2).run()
    assert str(out) in capsys.readouterr().out
    with LabelMaps(out) as store:
        assert len(store) == 6
        splits = [len(store.of_split(split)) for split in ("train", "validation", "test")]
        assert splits == [4, 1, 1]
        case = store.read(store.names[0])
    codes, _ = head()
    assert np.allclose(case.affine[:3, :3], np.diag([-1, -1, 1]))
    ventricle = np.argwhere(case.codes == 4) @ case.affine[:3, :3].T + case.affine[:3, 3]
    assert ventricle.mean(0) == pytest.approx([-4, 0, 0], abs=0.6)
    assert (case.codes > 0).sum() == pytest.approx((codes > 0).sum() * 2, rel=0.02)
    inside = np.argwhere(case.codes > 0)
    assert (inside.min(0) == 2).all() and (np.array(case.codes.shape) - 1 - inside.max(0) == 2).all()
    card = json.loads(out.with_suffix(".json").read_text())
    assert card["GeneratedBy"][0]["Name"] == "radiata-medical"
    assert len(card["Cases"]) == len(card["Sources"]) == 6
    assert not (tmp_path / "store.h5.parts").exists()


def test_orientation_of_the_file_does_not_matter(tmp_path: Path) -> None:
    stores = []
    for axcodes in ("RAS", "LPS", "PIR"):
        codes, affine = head()
        from radiata_imaging.orientation import reorient

        turned = reorient(Volume(codes, affine), axcodes)
        write_volume(tmp_path / axcodes / "sub-1_dseg.nii.gz", turned)
        Prepare(tmp_path / axcodes, tmp_path / f"{axcodes}.h5", fractions=(1.0, 0.0, 0.0)).run()
        with LabelMaps(tmp_path / f"{axcodes}.h5") as store:
            stores.append(store.read("sub-1"))
    for other in stores[1:]:
        assert np.array_equal(stores[0].codes, other.codes) and np.allclose(stores[0].affine, other.affine)


def test_scans_with_their_maps_and_scans_alone(tmp_path: Path) -> None:
    """A pair stays voxel upon voxel; a scan alone gets one structure, where the head is. Both are in prior units."""
    labels = folder(tmp_path / "labels", PEOPLE[:3])
    scans = folder(tmp_path / "scans", tuple(n.replace("dseg", "T1w") for n in PEOPLE[:3]), scans=True)
    Prepare(labels, tmp_path / "pairs.h5", images=scans).run()
    with LabelMaps(tmp_path / "pairs.h5") as store:
        case = store.read(store.names[0])
        assert case.image is not None and case.image.dtype == np.float16
        assert case.image[case.codes == 0].mean() < 0.05 < 0.4 < case.image[case.codes > 0].mean() < 1.1
    Prepare(scans, tmp_path / "scans.h5").run()
    with LabelMaps(tmp_path / "scans.h5") as store:
        alone = store.read(store.names[0])
    assert np.unique(alone.codes).tolist() == [0, 258] and alone.image is not None
    overlap = (alone.codes > 0) & (alone.image > 0.3)
    assert overlap.sum() > 0.8 * (alone.image > 0.3).sum()


def test_people_keep_together_and_a_table_decides(tmp_path: Path) -> None:
    """Two sessions of one person never part; the table's word stands before the draw."""
    names = tuple(f"sub-{n}_ses-{s}_dseg.nii.gz" for n in range(4) for s in (1, 2))
    source = folder(tmp_path / "in", names)
    table = tmp_path / "people.csv"
    table.write_text("person,split\nsub-0,test\n3,validation\n")
    Prepare(source, tmp_path / "s.h5", split=table, fractions=(1.0, 0.0, 0.0)).run()
    with LabelMaps(tmp_path / "s.h5") as store:
        assert {store.person(name) for name in store.of_split("test")} == {"0"}
        assert {store.person(name) for name in store.of_split("validation")} == {"3"}
        assert len(store.of_split("train")) == 4


def test_a_stopped_command_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted at the third case, the second run makes the rest only, and the store is the one of a single run."""
    from radiata_medical.experiment import preparing

    source, made = folder(tmp_path / "in", PEOPLE), []
    real = preparing._made

    def counted(case: preparing.Listed, *rest: object) -> object:
        made.append(case.name)
        if len(made) == 3:
            raise KeyboardInterrupt
        return real(case, *rest)

    monkeypatch.setattr(preparing, "_made", counted)
    with pytest.raises(KeyboardInterrupt):
        Prepare(source, tmp_path / "a.h5").run()
    assert not (tmp_path / "a.h5").exists() and len(list((tmp_path / "a.h5.parts").iterdir())) == 2
    Prepare(source, tmp_path / "a.h5").run()
    assert made[3:] == [made[2], *made[3:][1:]] and len(made) == 3 + 4
    Prepare(source, tmp_path / "b.h5").run()
    assert len(made) == 7 + 6
    with LabelMaps(tmp_path / "a.h5") as a, LabelMaps(tmp_path / "b.h5") as b:
        assert all(np.array_equal(a.read(name).codes, b.read(name).codes) for name in b.names)


def test_bad_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An image among label maps is one line, or is left out when asked; two of them are named."""
    source = folder(tmp_path / "in", PEOPLE[:3])
    folder(source, ("sub-90_dseg.nii.gz",), scans=True)
    with pytest.raises(InputError, match=r"with fractions or negative numbers.*--skip-bad"):
        Prepare(source, tmp_path / "s.h5", kind="labels").run()
    folder(source, ("sub-91_dseg.nii.gz",), scans=True)
    with pytest.raises(InputError, match="got 2 of 5 that are not"):
        Prepare(source, tmp_path / "s.h5", kind="labels").run()
    assert "sub-91" in capsys.readouterr().err
    Prepare(source, tmp_path / "s.h5", kind="labels", skip_bad=True).run()
    assert "3 cases (2 skipped)" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "s.json").read_text())["Skipped"]) == 2
    with pytest.raises(InputError, match="pass --overwrite"):
        Prepare(source, tmp_path / "s.h5").run()


def test_a_scan_on_another_grid_and_a_map_without_scan(tmp_path: Path) -> None:
    labels = folder(tmp_path / "labels", PEOPLE[:2])
    scans = folder(tmp_path / "scans", ("sub-00_T1w.nii.gz",), scans=True)
    with pytest.raises(InputError, match=r"one reference for sub-01_dseg.nii.gz"):
        Prepare(labels, tmp_path / "s.h5", images=scans).run()
    codes, affine = head()
    write_volume(scans / "sub-01_T1w.nii.gz", Volume(codes[:-2] + 0.5, affine), dtype="float32")
    with pytest.raises(InputError, match="on the grid of its labels"):
        Prepare(labels, tmp_path / "s.h5", images=scans).run()

"""Evaluation end to end on small made heads: ellipsoids in noise, whose truth is known."""

import json

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_imaging.nifti import Intensity, write_volume
from radiata_imaging.preprocess import PreprocessSpec, canonical_affine
from radiata_imaging.store import Item, StoreWriter
from radiata_imaging.volume import Volume
from radiata_t1.data.heads import heads_of
from radiata_t1.experiment.evaluate import Evaluate

SPEC = PreprocessSpec(spacing=8.0, shape=(20, 22, 20))
REGIONS = ("brain", "ventricles")


def head(rng, person, brightness=0.0, growth=1.0):
    """An ellipsoidal brain of the person's own shape with a dark ventricle, and the volumes of both in ml."""
    radii = np.array([6.0, 7.0, 6.0]) * (1 + 0.08 * person)
    grid = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SPEC.shape], indexing="ij"), -1)
    inner = ((grid / radii) ** 2).sum(-1)
    ventricle = ((grid / (growth * radii / 3)) ** 2).sum(-1) <= 1
    image = np.where(inner <= 1, 0.4 + brightness, -0.9) - 0.6 * ventricle
    image = image + 0.05 * rng.standard_normal(SPEC.shape)
    millilitres = SPEC.spacing**3 / 1000
    volumes = {"brain": (inner <= 1).sum() * millilitres, "ventricles": ventricle.sum() * millilitres}
    return np.clip(image, -1, 1).astype(np.float32), volumes


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    rng = np.random.default_rng(1)
    path = tmp_path_factory.mktemp("store") / "heads.h5"
    writer = StoreWriter(path, SPEC.shape, SPEC, regions=REGIONS)
    splits = ["train"] * 30 + ["validation"] * 4 + ["test"] * 14
    for number, split in enumerate(splits):
        person = rng.standard_normal(3)
        for session in ("a", "b"):
            array, volumes = head(rng, person)
            writer.append(Item(array, subject=f"{number:02d}", session=session, split=split, volumes=volumes))
    writer.finish()
    return path


def save(path, array):
    write_volume(
        path, Volume(array, canonical_affine(SPEC)), intensity=Intensity(), sidecar={"SyntheticImage": True}
    )


def draw(folder, rng, number=16, **options):
    rows = []
    for seed in range(number):
        array, volumes = head(rng, rng.standard_normal(3), **options)
        name = f"sub-syn{seed:04d}_desc-synthetic_T1w.nii.gz"
        save(folder / name, array)
        rows.append(f"{name},{volumes['brain']},{volumes['ventricles']}")
    table = folder / "regions.csv"
    table.write_text("subject,brain_ml,ventricles_ml\n" + "\n".join(rows) + "\n")
    return folder


def evaluate(folder, store, out, **options):
    settings = {"regions": folder / "regions.csv", "permutations": 99} | options
    Evaluate(folder, store, out, **settings).run()
    return json.loads((out / "evaluation.json").read_text())


def findings(result, word):
    return [f for f in result["findings"] if word in f["measure"]]


def test_honest_heads_pass_and_the_page_says_what_was_done(store, tmp_path, capsys):
    result = evaluate(draw(tmp_path / "heads", np.random.default_rng(2)), store, tmp_path / "out")
    assert capsys.readouterr().out.strip().endswith("evaluation.html")
    # 11 tests and 2 regions under the null: more than 4 below .05 has probability 4e-4 were they independent.
    assert sum(f["p_value"] <= 0.05 for f in result["findings"]) <= 4
    assert all(t["p_holm"] > 0.01 for t in result["regions"]["tests"])
    assert {(f["n_synthetic"], f["n_people"]) for f in result["findings"]} == {
        (16, 14)
    }  # people, not 28 scans
    assert all(
        np.isfinite(f["floor"]) and f["floor_interval"][0] <= f["floor_interval"][1]
        for f in result["findings"]
    )
    for found in result["memorisation"]:
        assert found["usable"], found["features"]
        assert found["flagged"] <= 2, found["features"]
    page = (tmp_path / "out" / "evaluation.html").read_text(encoding="utf-8")
    assert "not for clinical use" in page and "PCA-" in page and "random-conv-3d seed 0" in page
    assert "real vs real" in page and "number of people" in page
    for name in ("heads", "intensities", "spectrum"):
        assert (tmp_path / "out" / f"{name}.png").stat().st_size > 5000 and (
            tmp_path / "out" / f"{name}.json"
        ).exists()
    with np.load(tmp_path / "out" / "features.npz") as kept:
        assert len(kept["names"]) == 3 and kept["synthetic_0"].shape[0] == 16


def test_shifted_heads_are_told_apart(store, tmp_path):
    """15 % brighter tissue and ventricles of 2.2 times the volume: both are seen, and named."""
    folder = draw(tmp_path / "heads", np.random.default_rng(3), brightness=0.15, growth=1.3)
    result = evaluate(folder, store, tmp_path / "out")
    (w1,) = findings(result, "Wasserstein")
    assert w1["p_value"] <= 0.05 and w1["value"] > w1["floor"]
    seen = {f["features"].split(" ")[0]: f["p_value"] for f in findings(result, "KID")}
    assert seen["random-conv-3d"] <= 0.05 and seen["intensity"] <= 0.05, seen
    by_region = {t["region"]: t for t in result["regions"]["tests"]}
    assert by_region["ventricles"]["p_holm"] <= 0.05 and by_region["ventricles"]["difference"] > 0
    assert by_region["brain"]["p_holm"] > 0.05


def test_a_generator_that_copies_is_caught(store, tmp_path):
    from radiata_imaging.store import Store

    folder = tmp_path / "heads"
    with Store(store) as opened:
        for number, row in enumerate(opened.indices("train")[:10]):
            save(folder / f"{number}.nii.gz", opened.array(int(row)))
    result = evaluate(folder, store, tmp_path / "out", regions=None)
    voxels = result["memorisation"][0]
    assert voxels["flagged"] == 10 and voxels["nearer_to_train"] > 0.6
    assert voxels["nearest"][0]["training"].startswith("0")
    assert result["regions"] == {}


def test_intensity_map_is_undone_exactly(tmp_path):
    """From [-1, 1] to the file and back within half a step of int16; another axis order of the file changes nothing."""
    from radiata_imaging.orientation import reorient

    array, _ = head(np.random.default_rng(4), np.zeros(3))
    volume = reorient(Volume(array, canonical_affine(SPEC)), "SAR")
    write_volume(tmp_path / "a.nii.gz", volume, intensity=Intensity(), sidecar={})
    heads = heads_of(tmp_path, SPEC, 10)
    np.testing.assert_allclose(heads.read(0), array, atol=2e-3)
    assert heads.notes == ()


def test_files_without_a_scale_are_named_in_the_notes(tmp_path):
    array, _ = head(np.random.default_rng(5), np.zeros(3))
    write_volume(tmp_path / "a.nii.gz", Volume(100 * (array + 1), canonical_affine(SPEC)), dtype="float32")
    heads = heads_of(tmp_path, SPEC, 10)
    assert "1 of 1 files" in heads.notes[0] and heads.read(0).shape == SPEC.shape


def test_bad_input_is_one_line(store, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    small = tmp_path / "small"
    for name in ("a", "b"):
        noise = np.random.default_rng(0).random((8, 8, 8)).astype(np.float32)
        write_volume(small / f"{name}.nii.gz", Volume(noise, np.eye(4)), intensity=Intensity(), sidecar={})
    for number, folder in enumerate((empty, tmp_path / "absent", small)):
        with pytest.raises(InputError, match="expected") as error:
            Evaluate(folder, store, tmp_path / f"out{number}").run()
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="--permutations"):
        Evaluate(small, store, tmp_path / "out", permutations=3).run()

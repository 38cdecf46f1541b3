"""CC2017's recipe on CIFTI files made here: volumes, polynomial, z-score, repeats, reproducibility, windows."""

from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from nibabel import cifti2

from radiata_core.errors import InputError
from radiata_decode.data.cifti_movies import cleaned, cortex, film_runs, read_movies, reproducibility

LEFT, RIGHT, DEEP = np.array([1, 4, 9]), np.array([0, 2]), 4


def models() -> cifti2.BrainModelAxis:
    """Thalamus first, then both cortices: cortex is not where a fixed number of rows would put it."""
    voxels = np.stack([np.arange(DEEP)] * 3, 1)
    deep = cifti2.BrainModelAxis(
        name=["CIFTI_STRUCTURE_THALAMUS_LEFT"] * DEEP, voxel=voxels, vertex=np.full(DEEP, -1),
        affine=np.eye(4), volume_shape=(9, 9, 9),
    )  # fmt: skip
    left = cifti2.BrainModelAxis.from_surface(LEFT, 12, "CortexLeft")
    return deep + left + cifti2.BrainModelAxis.from_surface(RIGHT, 12, "CortexRight")


def save(series: np.ndarray, path: Path, step: float = 2.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    axes = cifti2.SeriesAxis(0, step, len(series)), models()
    nibabel.save(cifti2.Cifti2Image(series.astype(np.float32), cifti2.Cifti2Header.from_axes(axes)), path)


@pytest.fixture
def films(tmp_path: Path, rng: np.random.Generator) -> tuple[Path, dict[str, np.ndarray]]:
    """Two training segments twice, one test segment three times; rows 0–2 of the cortex follow the film, 3–4 do not."""
    raw = {}
    t = np.linspace(-1, 1, 240)
    for kind, segments, repeats in (("seg", 2, 2), ("test", 1, 3)):
        for segment in range(1, segments + 1):
            signal = rng.normal(size=(240, 3))
            for repeat in range(1, repeats + 1):
                film = rng.normal(size=(240, DEEP + 5))
                film[:, DEEP : DEEP + 3] = 2 * signal + 0.7 * rng.normal(size=(240, 3))
                film += 50 + (3 * t**4 - 8 * t**3 + 5 * t)[:, None]
                before = 1 if repeat == 1 else 2
                whole = np.concatenate(
                    [np.full((before, DEEP + 5), 900.0), film, np.full((4, DEEP + 5), -900.0)]
                )
                save(whole, tmp_path / f"{kind}{segment}/cifti/{kind}{segment}_{repeat}_Atlas.dtseries.nii")
                raw[f"{kind}{segment}_{repeat}"] = film[:, DEEP:]
    return tmp_path, raw


def by_hand(film: np.ndarray) -> np.ndarray:
    t = np.arange(240)
    flat = film - np.stack([np.polyval(np.polyfit(t - 120, column, 4), t - 120) for column in film.T], 1)
    return (flat - flat.mean(0)) / flat.std(0, ddof=1)


def test_rows_of_the_cortex_come_from_the_header(films) -> None:
    rows, table = cortex(films[0] / "seg1/cifti/seg1_1_Atlas.dtseries.nii")
    assert rows.tolist() == [4, 5, 6, 7, 8]
    assert table["hemisphere"].tolist() == ["left"] * 3 + ["right"] * 2
    assert table["vertex"].tolist() == [*LEFT, *RIGHT]


def test_a_run_is_cleaned_as_written(films) -> None:
    """245 and 246 volumes become the same 240; polynomial and z-score by numpy's polyfit."""
    folder, raw = films
    for repeat in (1, 2):
        path = folder / f"seg1/cifti/seg1_{repeat}_Atlas.dtseries.nii"
        assert nibabel.load(path).shape[0] == 244 + repeat
        np.testing.assert_allclose(cleaned(path, np.arange(4, 9)), by_hand(raw[f"seg1_{repeat}"]), atol=2e-4)


def test_repeats_are_averaged_or_kept(films) -> None:
    folder, raw = films
    averaged = read_movies(folder, lag_s=4.0)
    assert [part.name for part in averaged.parts] == ["seg01", "seg02", "test01"]
    expected = np.mean([by_hand(raw[f"test1_{r}"]) for r in (1, 2, 3)], 0)
    np.testing.assert_allclose(averaged.parts[2].read(), expected[2:], atol=2e-4)  # stretch i is volume i + 2
    assert averaged.trials["stimulus"].iloc[0] == "seg01_tr000" and set(
        averaged.parts[2].trials["split"]
    ) == {"test"}
    single = read_movies(folder, lag_s=4.0, average=False)
    np.testing.assert_allclose(
        single.parts[2].read(), np.concatenate([by_hand(raw[f"test1_{r}"])[2:] for r in (1, 2, 3)]), atol=2e-4
    )
    assert single.parts[2].trials["repeat"].value_counts().to_dict() == {1: 238, 2: 238, 3: 238}


def test_reproducible_vertices_are_those_that_follow_the_film(films) -> None:
    """Fisher's z of two training repeats by numpy; the test segment has no part in it."""
    folder, raw = films
    found = read_movies(folder, alpha=0.4)
    assert found.voxels["vertex"].tolist() == LEFT.tolist() and set(found.voxels["hemisphere"]) == {"left"}
    z = [
        np.arctanh(np.corrcoef(by_hand(raw[f"seg{s}_1"])[:, 1], by_hand(raw[f"seg{s}_2"])[:, 1])[0, 1])
        for s in (1, 2)
    ]
    assert found.voxels["reproducibility_z"].iloc[1] == pytest.approx(np.mean(z), abs=1e-3)
    for file in (folder / "test1/cifti").iterdir():
        file.unlink()
    np.testing.assert_array_equal(
        read_movies(folder, alpha=0.4).voxels["reproducibility_z"], found.voxels["reproducibility_z"]
    )


def test_reproducibility_of_a_constant_is_nan_and_of_itself_large() -> None:
    a = np.stack([np.arange(9.0), np.ones(9)], 1)
    z = reproducibility(a, a)
    assert z[0] > 5 and np.isnan(z[1])


def test_stacked_windows_have_a_column_an_offset_and_stay_within_cuts(films) -> None:
    folder, raw = films
    cuts = pd.DataFrame({"segment": ["seg01"], "onset_s": [20.0]})
    found = read_movies(folder, lag_s=4.0, offsets=(-1, 0), cuts=cuts)
    assert found.voxels["offset"].tolist() == [-1] * 5 + [0] * 5
    values, z = found.parts[0].read(), np.mean([by_hand(raw[f"seg1_{r}"]) for r in (1, 2)], 0)
    names = found.parts[0].trials["stimulus"].tolist()
    assert "seg01_tr010" not in names and "seg01_tr009" in names and "seg01_tr000" not in names
    assert "seg02_tr010" in found.parts[1].trials["stimulus"].tolist()
    row = names.index("seg01_tr030")
    np.testing.assert_allclose(values[row], [*z[31], *z[32]], atol=2e-4)


def test_bad_input(films, tmp_path: Path) -> None:
    folder, _ = films
    path = folder / "seg1/cifti/seg1_1_Atlas.dtseries.nii"
    save(np.zeros((239, DEEP + 5)), path)
    with pytest.raises(InputError, match=r"expected 240, 245, 246 volumes.*got 239"):
        cleaned(path, np.arange(5))
    save(np.zeros((245, DEEP + 5)), path, step=1.0)
    with pytest.raises(InputError, match=r"a volume every 2 s; got 1"):
        cleaned(path, np.arange(5))
    save(np.zeros((245, DEEP + 5)), path)
    assert np.isnan(cleaned(path, np.arange(5))).all()  # no signal: masked later
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(InputError, match=r"cannot be read|cut short"):
        cleaned(path, np.arange(5))
    save(np.zeros((245, DEEP + 5)), folder / "again/seg1_1_Atlas.dtseries.nii")
    with pytest.raises(InputError, match=r"seg1_1 twice"):
        film_runs(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"got none"):
        film_runs(tmp_path / "empty")

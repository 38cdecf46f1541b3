"""The cohort command: splits by person, exact repetition, resumption."""

from pathlib import Path

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_imaging.nifti import write_volume
from radiata_imaging.store import Store
from radiata_imaging.volume import Volume, centred_affine
from radiata_t1.experiment.cohort import Cohort


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three people at 4 mm, in three orientations."""
    folder = tmp_path_factory.mktemp("labels")
    axes = [(np.arange(n) - (n - 1) / 2) * 4.0 for n in (48, 56, 48)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    for number, codes in enumerate(("RAS", "LPS", "LPS"), start=1):
        radius = np.sqrt((x / (60 + number)) ** 2 + (y / 75) ** 2 + (z / 60) ** 2)
        array = np.zeros(radius.shape, np.float32)
        for edge, code in ((1.3, 511), (1.1, 24), (1.0, 3), (0.8, 2)):
            array[radius < edge] = code
        array[(np.abs(x) < 10) & (radius < 0.4)] = 4
        write_volume(
            folder / f"seg_{number:02d}.nii.gz",
            Volume(array, centred_affine(array.shape, 4.0, codes)),
            dtype="int16",
        )
    return folder


def command(labels: Path, out: Path, **options: object) -> Cohort:
    base = {"train": 2, "heldout": 1, "spacing": 8.0, "validation": ("02",), "test": ("03",)}
    return Cohort(labels, out, **(base | options))  # type: ignore[arg-type]


def test_people_are_kept_apart_and_covariates_recorded(labels: Path, tmp_path: Path) -> None:
    command(labels, tmp_path / "c.h5").run()
    store = Store(tmp_path / "c.h5", (24, 28, 24))
    assert list(store.subjects) == ["sub-01", "sub-01", "sub-02", "sub-03"]
    assert list(store.split) == ["train", "train", "validation", "test"]
    assert np.isfinite(store.covariates).all() and store.volumes is not None
    brain = store.volumes[:, store.regions.index("brain")]
    assert ((brain > 500) & (brain < 2000)).all()
    assert store.record(0)["synthetic"] is True


def test_a_stopped_cohort_goes_on_to_the_same_heads(
    labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from radiata_imaging import cohort

    command(labels, tmp_path / "whole.h5").run()
    original, calls = cohort.render_head, []

    def stops(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(cohort, "render_head", stops)
    with pytest.raises(KeyboardInterrupt):
        command(labels, tmp_path / "again.h5").run()
    assert not (tmp_path / "again.h5").exists()
    command(labels, tmp_path / "again.h5").run()
    assert len(calls) == 3 + 2  # two heads were kept
    one, two = Store(tmp_path / "whole.h5"), Store(tmp_path / "again.h5")
    assert np.array_equal(one.images[:], two.images[:]) and one.store_id == two.store_id


@pytest.mark.slow
def test_two_processes_draw_the_same_store(labels: Path, tmp_path: Path) -> None:
    command(labels, tmp_path / "one.h5").run()
    command(labels, tmp_path / "two.h5", processes=2).run()
    assert not (tmp_path / "two.h5.parts").exists()
    one, two = Store(tmp_path / "one.h5"), Store(tmp_path / "two.h5")
    assert one.store_id == two.store_id
    for name in ("images", "covariates", "volumes"):
        assert np.array_equal(getattr(one, name)[:], getattr(two, name)[:]), name
    with pytest.raises(InputError, match="expected a scheduler's address"):
        command(labels, tmp_path / "three.h5", scheduler="node7").run()


def test_wrong_people_are_refused(labels: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got '09'"):
        command(labels, tmp_path / "c.h5", test=("09",)).run()
    with pytest.raises(InputError, match="in one split"):
        command(labels, tmp_path / "c.h5", test=("02",)).run()
    with pytest.raises(InputError, match="label maps"):
        command(tmp_path / "none", tmp_path / "c.h5").run()

"""Heads of a cohort drawn by whoever is there: 200 volumes, two workers, one of them killed in the middle."""

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from radiata_imaging.cohort import CohortSpec
from radiata_imaging.nifti import write_volume
from radiata_imaging.store import Store
from radiata_imaging.volume import Volume, centred_affine
from radiata_t1.experiment.cohort import Cohort
from radiata_t1.experiment.cohort_heads import anatomy_of, tasks_of


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people at 8 mm."""
    folder = tmp_path_factory.mktemp("labels")
    axes = [(np.arange(n) - (n - 1) / 2) * 8.0 for n in (24, 28, 24)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    for number in (1, 2):
        radius = np.sqrt((x / (60 + number)) ** 2 + (y / 75) ** 2 + (z / 60) ** 2)
        array = np.zeros(radius.shape, np.float32)
        for edge, code in ((1.3, 511), (1.1, 24), (1.0, 3), (0.8, 2)):
            array[radius < edge] = code
        array[(np.abs(x) < 10) & (radius < 0.4)] = 4
        volume = Volume(array, centred_affine(array.shape, 8.0, "LPS"))
        write_volume(folder / f"seg_{number:02d}.nii.gz", volume, dtype="int16")
    return folder


def test_a_head_is_itself_whatever_is_drawn_beside_it(labels: Path) -> None:
    """Names of people and heads, the seed and the file make the identity; the number of heads does not."""
    files = sorted(labels.iterdir())
    spec = CohortSpec.of_spacing(24.0)
    few = tasks_of([(files[0], "01", "train", 2), (files[1], "02", "test", 1)], 7, spec)
    many = tasks_of([(files[0], "01", "train", 3), (files[1], "02", "test", 2)], 7, spec)
    assert [task.order for task in many] == list(range(5))
    assert [few[k].item.sha256 for k in (0, 1, 2)] == [many[k].item.sha256 for k in (0, 1, 3)]
    assert len({task.item.sha256 for task in many}) == 5
    other = tasks_of([(files[0], "01", "train", 2)], 8, spec)
    assert other[0].item.sha256 != few[0].item.sha256
    assert anatomy_of(files[0], few[0].checksum).labels.shape == (192, 224, 192)


@pytest.mark.slow
def test_200_volumes_survive_a_killed_worker(labels: Path, tmp_path: Path) -> None:
    """SIGKILL to one of two workers when some fifty volumes are there: the store is that of one process, bit for bit."""
    given = {"train": 100, "heldout": 100, "spacing": 24.0, "test": ("02",)}
    Cohort(labels, tmp_path / "one.h5", **given).run()  # type: ignore[arg-type]
    parts, killed = tmp_path / "two.h5.parts", []

    def kill() -> None:
        while len(list(parts.glob("*.part.h5"))) < 50:
            time.sleep(0.02)
        victim = multiprocessing.active_children()[0]
        os.kill(victim.pid, signal.SIGKILL)
        killed.append(victim)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    Cohort(labels, tmp_path / "two.h5", processes=2, **given).run()  # type: ignore[arg-type]
    killer.join(10)
    assert [process.exitcode for process in killed] == [-signal.SIGKILL]
    one, two = Store(tmp_path / "one.h5"), Store(tmp_path / "two.h5")
    assert len(two) == 200 and one.store_id == two.store_id
    for name in ("images", "covariates", "volumes"):
        assert np.array_equal(getattr(one, name)[:], getattr(two, name)[:]), name
    assert multiprocessing.active_children() == []

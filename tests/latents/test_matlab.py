"""MATLAB's cells and structs, the tracking beside them, and the real linear track."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from radiata_core.errors import InputError
from radiata_latents.data.matlab import read_matlab, read_positions
from radiata_latents.data.recordings import consecutive_events, windows

HEADER = """<Start settings>
clockrate: 30000
pixel scale: {scale} pix/cm
Fields: <time uint32><xloc uint16><yloc uint16><xloc2 uint16><yloc2 uint16>
<End settings>
"""


def write_track(path: Path, rows: np.ndarray, scale: float = 0) -> None:
    record = np.dtype([("time", "<u4"), ("x", "<u2"), ("y", "<u2"), ("x2", "<u2"), ("y2", "<u2")])
    packed = np.zeros(len(rows), record)
    packed["time"], packed["x"], packed["y"] = rows.T
    path.write_bytes(
        HEADER.format(scale=scale).encode() + packed.tobytes() + b"\x01"
    )  # half a record at the end


def test_nested_cells_keep_their_place(tmp_path: Path) -> None:
    one = {"time": np.array([[1.0], [2.0]]), "timerange": np.array([[0.0, 9.0]])}
    two = {"time": np.array([[1.5]]), "timerange": np.array([[0.5, 10.0]])}
    inner = np.empty((1, 3), object)
    inner[0, 0], inner[0, 1], inner[0, 2] = one, np.zeros((1, 0)), two
    outer = np.empty((1, 2), object)
    outer[0, 0], outer[0, 1] = np.zeros((1, 0)), inner
    savemat(tmp_path / "a.mat", {"spikes": outer, "plain": np.array([[3.0, 4.0]])})
    found = read_matlab(tmp_path / "a.mat")
    assert list(found.spikes) == ["2-1", "2-3"]
    np.testing.assert_array_equal(found.spikes["2-1"], [1.0, 2.0])
    np.testing.assert_array_equal(found.intervals, [[0.5, 9.0]])
    np.testing.assert_array_equal(read_matlab(tmp_path / "a.mat", "plain").spikes["1"], [3.0, 4.0])
    with pytest.raises(InputError, match="there are plain, spikes"):
        read_matlab(tmp_path / "a.mat", "units")


def test_tracking_is_read_with_its_clock_and_scale(tmp_path: Path) -> None:
    rows = np.array([[30000, 10, 20], [30500, 12, 22]])
    write_track(tmp_path / "a.videoPositionTracking", rows)
    found = read_positions(tmp_path / "a.videoPositionTracking")
    np.testing.assert_allclose(found.times, [1.0, 1.0 + 1 / 60])
    np.testing.assert_array_equal(found.values, [[10, 20], [12, 22]])
    assert found.unit == "pixel"
    write_track(tmp_path / "b.videoPositionTracking", rows, 2.0)
    scaled = read_positions(tmp_path / "b.videoPositionTracking")
    np.testing.assert_array_equal(scaled.values, [[5, 10], [6, 11]])
    assert scaled.unit == "cm"


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    for read in (read_matlab, read_positions):
        with pytest.raises(InputError, match="no such file"):
            read(tmp_path / "none")
    (tmp_path / "text.mat").write_text("spikes " * 50)
    with pytest.raises(InputError, match="cannot be read"):
        read_matlab(tmp_path / "text.mat")
    savemat(tmp_path / "empty.mat", {"spikes": np.zeros((1, 0))})
    with pytest.raises(InputError, match="found none"):
        read_matlab(tmp_path / "empty.mat")
    (tmp_path / "t.videoPositionTracking").write_text("clockrate: 3")
    with pytest.raises(InputError, match="no"):
        read_positions(tmp_path / "t.videoPositionTracking")


@pytest.mark.needs_shared
def test_the_real_linear_track(shared_data: Path) -> None:
    """31 units, 28 829 spikes, 33 minutes of a rat on a track: all of them fall into trials but those of the last second."""
    folder = shared_data / "spikes" / "nelpy"
    found = read_matlab(folder / "linear-track_spikes.mat")
    assert len(found.spikes) == 31
    assert sum(len(times) for times in found.spikes.values()) == 28_829
    track = read_positions(folder / "linear-track_trajectory.videoPositionTracking")
    assert np.median(np.diff(track.times)) == pytest.approx(1 / 60, rel=0.02)
    whole = dataclasses.replace(found, traces={"position": track})
    made = windows(whole, consecutive_events(whole, 1.0), (0.0, 1.0), 0.02, behaviour="position")
    assert dict(made.sizes) == {"trial": 1968, "time": 50, "neuron": 31, "channel": 2}
    late = sum((times >= 4396.9975 + 1968).sum() for times in found.spikes.values())
    assert made["counts"].values.sum() == 28_829 - late
    assert np.isfinite(made["behaviour"].values).mean() > 0.999

"""Regional volumes by MeshNet: which heads are segmented, what is kept, and a stopped evaluation that goes on."""

import json

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_imaging.meshnet import MeshNet, meshnet_volumes
from radiata_imaging.preprocess import PreprocessSpec, canonical_affine
from radiata_imaging.region_tables import read_regions
from radiata_imaging.store import Item, StoreWriter
from radiata_imaging.volume import Volume
from radiata_t1.data.heads import heads_of
from radiata_t1.data.segmented import Segmenter, coarse_note, segmented_table
from radiata_t1.experiment.evaluate import Evaluate

SPEC = PreprocessSpec(spacing=8.0, shape=(20, 22, 20))


def head(rng):
    """A ball of radius 6 to 8 voxels with a dark middle."""
    grid = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SPEC.shape], indexing="ij"), -1)
    distance = np.linalg.norm(grid, axis=-1) / rng.uniform(6, 8)
    image = np.where(distance < 1, 0.5, -0.9) - 0.7 * (distance < 0.4)
    return np.clip(image + 0.05 * rng.standard_normal(SPEC.shape), -1, 1).astype(np.float32)


def write_store(path, rng, splits, regions=()):
    writer = StoreWriter(path, SPEC.shape, SPEC, regions=regions)
    for number, split in enumerate(splits):
        volumes = dict.fromkeys(regions, 100.0 + number)
        writer.append(Item(head(rng), subject=f"{number:02d}", session="a", split=split, volumes=volumes))
    writer.finish()
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """One 1x1x1 convolution: logits 0, x - 1/2, ... : a threshold, as brainchop's files write it."""
    folder = tmp_path_factory.mktemp("weights")
    config = {"name": "output", "filters": 3, "dilation_rate": [1, 1, 1], "use_bias": True}
    layers = [
        {"class_name": "InputLayer", "config": {"name": "input"}, "inbound_nodes": []},
        {"class_name": "Conv3D", "config": config, "inbound_nodes": [[["input", 0, 0, {}]]]},
    ]
    arrays = {
        "output/kernel": np.zeros((1, 1, 1, 1, 3), "<f4"),
        "output/bias": np.array([0, -0.4, -1.4], "<f4"),
    }
    arrays["output/kernel"][0, 0, 0, 0] = [0, 1, 2]
    manifest = [{"name": k, "shape": list(v.shape), "dtype": "float32"} for k, v in arrays.items()]
    model = {
        "modelTopology": {"config": {"layers": layers}},
        "weightsManifest": [{"paths": ["a.bin"], "weights": manifest}],
    }
    (folder / "model.json").write_text(json.dumps(model))
    (folder / "a.bin").write_bytes(b"".join(v.tobytes() for v in arrays.values()))
    (folder / "colormap.json").write_text(json.dumps({"labels": ["background", "shade", "bright"]}))
    return folder


@pytest.fixture
def calls(monkeypatch):
    """Stands in for the network: labels by thresholds on the head's own grid. Counts, and stops at `calls.stop`."""

    class Calls(list):
        stop = 1000

    made = Calls()

    def segment(volume: Volume, model: MeshNet, *, margin: int) -> Volume:
        if len(made) >= made.stop:
            raise KeyboardInterrupt
        made.append(volume.array.mean())
        return Volume((volume.array > -0.4).astype(int) + (volume.array > 0.2), volume.affine)

    monkeypatch.setattr("radiata_t1.data.segmented.segment", segment)
    return made


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("stores"), np.random.default_rng(7)
    real = write_store(folder / "real.h5", rng, ["train"] * 8 + ["test"] * 6)
    return real, write_store(folder / "synthetic.h5", rng, ["train"] * 7)


def test_the_network_itself_measures_a_known_ball(stores, weights):
    """Through the 256³ grid at 1 mm and a threshold: the ball's volume within the interpolation of 8 mm voxels."""
    segmenter = Segmenter.of(weights)
    array = np.full(SPEC.shape, -1, np.float32)
    array[4:16, 5:17, 4:16] = 1.0
    found = segmenter.volumes(array, SPEC)
    assert found["bright"] + found["shade"] == pytest.approx((12 * 8) ** 3 / 1000, rel=0.06)
    assert coarse_note(SPEC) and not coarse_note(PreprocessSpec(spacing=2.0, shape=(96, 112, 96)))


def test_rows_are_kept_and_used_again(stores, weights, tmp_path, calls):
    heads, segmenter, kept = heads_of(stores[1], SPEC, 100), Segmenter.of(weights), tmp_path / "kept.csv"
    first = segmented_table(heads, [0, 3, 6], SPEC, segmenter, kept)
    assert len(calls) == 3 and first.regions == ("shade", "bright") and first.subjects[1] == heads.names[3]
    labels = Volume((heads.read(3) > -0.4).astype(int) + (heads.read(3) > 0.2), canonical_affine(SPEC))
    assert list(meshnet_volumes(labels, segmenter.model).values()) == first.ml[1].tolist()
    table = read_regions(kept)
    np.testing.assert_array_equal(table.ml, first.ml)  # a file that --regions takes
    again = segmented_table(heads, [0, 3, 5, 6], SPEC, segmenter, kept)
    assert len(calls) == 4 and again.ml[3].tolist() == first.ml[2].tolist()
    kept.write_text(kept.read_text()[:-9])  # cut short while written by another program
    segmented_table(heads, [0, 3, 5, 6], SPEC, Segmenter(segmenter.model, "other weights"), kept)
    assert len(calls) == 8


def test_a_stopped_evaluation_goes_on_and_a_finished_one_is_not_replaced(
    stores, weights, tmp_path, calls, capsys
):
    real, synthetic = stores
    options = {"meshnet": weights, "permutations": 19}
    calls.stop = 9  # seven synthetic, two of six real
    with pytest.raises(KeyboardInterrupt):
        Evaluate(synthetic, real, tmp_path / "out", **options).run()
    calls.stop = 1000
    Evaluate(synthetic, real, tmp_path / "out", **options).run()
    assert len(calls) == 13 and len(set(calls)) == 13  # no head twice
    result = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert [t["region"] for t in result["regions"]["tests"]] == ["shade", "bright"]
    assert result["regions"]["n_people"] == 6 and result["regions"]["n_synthetic"] == 7
    assert any("8 mm" in note for note in result["notes"]) and any(
        "both sides" in note for note in result["notes"]
    )
    assert "warning: The heads have voxels of 8 mm" in capsys.readouterr().err
    assert "trained at 1 mm" in (tmp_path / "out" / "evaluation.html").read_text(encoding="utf-8")
    with pytest.raises(InputError, match="--overwrite"):
        Evaluate(synthetic, real, tmp_path / "out", **options).run()


def test_real_volumes_of_the_same_names_are_taken_from_the_store(stores, weights, tmp_path, calls):
    rng = np.random.default_rng(8)
    real = write_store(tmp_path / "real.h5", rng, ["train"] * 8 + ["test"] * 6, regions=("bright", "shade"))
    Evaluate(stores[1], real, tmp_path / "out", meshnet=weights, meshnet_limit=5, permutations=19).run()
    result = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert len(calls) == 5 and result["regions"]["tests"][0]["mean_y"] == pytest.approx(110.5)
    assert any("as given" in note for note in result["notes"])


def test_several_sources_are_refused(stores, weights, tmp_path):
    with pytest.raises(InputError, match="one source"):
        Evaluate(stores[1], stores[0], tmp_path / "out", meshnet=weights, regions=tmp_path / "a.csv").run()
    with pytest.raises(InputError, match=r"model\.json"):
        Evaluate(stores[1], stores[0], tmp_path / "out", meshnet=tmp_path).run()
    assert not (tmp_path / "out").exists()

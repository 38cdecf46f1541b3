import json

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_core.runs import sole_writer
from radiata_imaging.nifti import Intensity, write_volume
from radiata_imaging.volume import Volume, centred_affine
from radiata_t1.experiment.report import Report


def test_sampled_heads_get_viewer_mosaics_and_seeds(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for seed in (3, 4):
        volume = Volume(
            rng.uniform(-1, 1, (12, 14, 12)).astype(np.float32), centred_affine((12, 14, 12), 4.0)
        )
        write_volume(
            tmp_path / f"sub-syn{seed:04d}_T1w.nii.gz", volume, intensity=Intensity(),
            sidecar={"SyntheticImage": True, "Seed": seed, "Sampler": "<b>dpmpp</b>"},
        )  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps({"command": "radiata-t1 sample", "state": "interrupted"}))
    Report(tmp_path).run()
    assert capsys.readouterr().out.strip() == str(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'class="viewer"' in page and page.count("data:image/png") == 2 and "sub-syn0004" in page
    assert "not for clinical use" in page and "interrupted" in page
    assert "<b>dpmpp" not in page and "&lt;b&gt;dpmpp" in page


def test_training_curves(tmp_path):
    lines = [{"step": i, "loss": 1.0 / (i + 1)} for i in range(50)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Report(tmp_path, title="A & B").run()
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h1>A &amp; B</h1>" in page and "data:image/png" in page and "0.02" in page


def test_nothing_is_overwritten_and_nothing_is_made_of_nothing(tmp_path):
    with pytest.raises(InputError, match="got none of them"):
        Report(tmp_path).run()
    with pytest.raises(InputError, match="expected the folder"):
        Report(tmp_path / "absent").run()
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(InputError, match="--overwrite"):
        Report(tmp_path).run()
    with sole_writer(tmp_path / "report.html"), pytest.raises(InputError, match="in use by process"):
        Report(tmp_path, overwrite=True).run()
    assert (tmp_path / "report.html").read_text() == "mine"


def test_validation_by_noise_level_is_read_from_the_log():
    """Names as the training loop writes them, open bins at the ends, one bin that no draw fell into."""
    from radiata_t1.experiment.pages import _bins

    name = "validation_loss_log_snr_{}_{}".format
    record = {
        "step": 5,
        "validation_loss": 0.2,
        name("-inf", "-3"): 0.5,
        name("-3", "-1"): 0.4,
        name("1", "inf"): 0.1,
    }
    edges, values = _bins(record)
    assert edges == [-4.0, -3.0, -1.0, 1.0, 2.0]
    np.testing.assert_array_equal(values, [0.5, 0.4, np.nan, 0.1])
    assert _bins({"step": 1, "loss": 2.0}) is None

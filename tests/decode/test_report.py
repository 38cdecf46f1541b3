"""Pages of folders: they warn, fetch nothing, and hold what the folder holds."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_core.files import write_json
from radiata_core.runs import sole_writer
from radiata_decode.data.decoded import Decoded, write_decoded
from radiata_decode.experiment.report import Report
from radiata_decode.experiment.report_pages import page_of


def page(folder: Path) -> str:
    Report(folder).run()
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "not for clinical use" in text.lower()
    assert not re.search(r"""(src|href)\s*=\s*["']https?://""", text)
    return text


def scores(folder: Path, **changes: object) -> None:
    row = {"decoder": "decoder", "metric": "pixcorr", "mean": 0.4321, "low": 0.3, "high": 0.5, "p": 0.001, "chance": None,
           "cases": 9, "left_out": 1, "control": False}  # fmt: skip
    rows = [row, row | {"decoder": "mean image <b>", "control": True, "low": None, "high": None, "p": None}]
    write_json(
        folder / "scores.json",
        {"format": "radiata-decode-scores/1", "kind": "images", "stimuli": 10, "notes": ["One note."], "rows": rows,
         "differences": [], "overlap": {}, "groups": [], "figures": []} | changes,
    )  # fmt: skip


def test_scores_stand_with_their_controls_and_notes(tmp_path: Path) -> None:
    scores(tmp_path, synthetic=True)
    text = page(tmp_path)
    assert "0.4321" in text and "mean image &lt;b&gt;" in text and "One note." in text
    assert "The cortex was simulated" in text and "<td>control</td>" in text
    with pytest.raises(InputError, match="--overwrite"):
        Report(tmp_path).run()
    other = tmp_path / "other.html"
    with sole_writer(other), pytest.raises(InputError, match="in use by process"):
        Report(tmp_path, other).run()
    dataclasses.replace(Report(tmp_path), overwrite=True).run()


def test_decoded_pictures_motion_and_probabilities_are_drawn(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [f"s{k}" for k in range(5)]
    pictures = rng.integers(0, 255, (5, 12, 12, 3)).astype(np.uint8)
    likely = np.eye(5, 2, dtype=np.float32)
    for name, arrays, route, words in (
        ("image", {"images": pictures}, "image", ()),
        ("motion", {"flow": rng.normal(size=(5, 1, 2, 8, 8)).astype(np.float32)}, "motion", ()),
        ("category", {"probabilities": likely}, "category", ("face", "house")),
    ):
        write_decoded(tmp_path / name / "decoded.h5", Decoded(names, arrays, route, "test", words))
    assert page(tmp_path / "image").count("data:image/png") == 1
    assert "wheel" in page(tmp_path / "motion")
    assert "face 1.00" in page(tmp_path / "category")
    regions = Decoded(["V1", "V4"], {"images": pictures[:2]}, "image", "regions")
    write_decoded(tmp_path / "regions" / "decoded.h5", regions)
    assert "Pictures of regions" in page(tmp_path / "regions")
    assert [section.title for section in page_of(tmp_path).sections] == [
        "What this is", "category: Decoded", "image: Decoded", "motion: Decoded", "regions: Pictures of regions",
    ]  # fmt: skip


def test_models_and_encodings(tmp_path: Path) -> None:
    card = {"format": "radiata-decoder/1", "route": "image", "zscore": "train", "measured": {"loo_r2_pixels": 0.58},
            "training_stimuli": [f"t{k}" for k in range(99)]}  # fmt: skip
    write_json(tmp_path / "model" / "model.json", card)
    text = page(tmp_path / "model")
    assert (
        "loo_r2_pixels" in text
        and "0.58" in text
        and "… (99)" in text
        and "Nothing below is a test score" in text
    )
    (tmp_path / "encoding").mkdir()
    (tmp_path / "encoding" / "encoding.tsv").write_text("voxel\tgabor_r2\n0\t0.1\n1\t0.3\n2\tn/a\n")
    (tmp_path / "encoding" / "regions.tsv").write_text("region\tr2\nV1\t0.25\n")
    text = page(tmp_path / "encoding")
    assert "3 voxels" in text and "<td>V1</td>" in text and "<td>0.2</td>" in text


def test_what_is_no_folder_of_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got none of them"):
        Report(tmp_path).run()
    with pytest.raises(InputError, match="expected a folder that a verb"):
        Report(tmp_path / "absent").run()
    scores(tmp_path, format="other/1")
    with pytest.raises(InputError, match="got others"):
        Report(tmp_path).run()
    assert not (tmp_path / "report.html").exists()

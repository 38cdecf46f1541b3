"""Evaluation end to end on small files: known errors, pairs, uncertainty that is right or wrong, two methods, bad input."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_imaging.nifti import write_volume
from radiata_imaging.volume import Volume, centred_affine
from radiata_medical.cli import run
from radiata_medical.experiment.evaluate import Evaluate
from radiata_medical.experiment.evaluating_images import spread_scores
from radiata_medical.experiment.evaluating_labels import error_auc

SHAPE = (16, 18, 14)
AFFINE = centred_affine(SHAPE, (1.0, 1.0, 2.0), "RAS")


def save(path: Path, array: np.ndarray, dtype: str = "float32", affine: np.ndarray = AFFINE) -> Path:
    return write_volume(path, Volume(array, affine), dtype=dtype)


def truth(number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    array = np.zeros(SHAPE)
    array[2:-2, 2:-2, 2:-2] = rng.uniform(200, 1000, tuple(n - 4 for n in SHAPE))
    return array


def restored(folder: Path, error: float, people: int = 4, sd: float | None = None) -> Path:
    """References and results that are off by ±error; an sd beside if given."""
    for number in range(people):
        rng = np.random.default_rng(100 + number)
        signs = rng.choice([-1.0, 1.0], SHAPE)
        save(folder / "truth" / f"p{number}.nii.gz", truth(number))
        save(folder / "out" / f"p{number}_restored.nii.gz", truth(number) + error * signs)
        if sd is not None:
            save(folder / "out" / f"p{number}_sd.nii.gz", np.full(SHAPE, sd))
    return folder


def codes(shift: int = 0) -> np.ndarray:
    array = np.zeros(SHAPE)
    array[3 + shift : 11 + shift, 4:14, 3:11] = 2
    array[3 + shift : 7 + shift, 4:14, 3:11] = 41
    return array


def read(folder: Path) -> dict:
    return json.loads((folder / "evaluation.json").read_text())


def mean(found: dict, score: str, structure: str = "") -> float:
    return next(
        row["mean"]
        for row in found["summary"]
        if row["score"] == score and row.get("structure", "") == structure
    )


def test_a_known_error_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """±10 everywhere: MAE 10, RMSE 10, PSNR of the range; equal people have an interval of no width."""
    folder = restored(tmp_path, 10.0)
    Evaluate(folder / "out", folder / "truth", tmp_path / "e", data_range=1000.0).run()
    found = read(tmp_path / "e")
    assert found["kind"] == "image" and found["people"] == 4
    assert mean(found, "mae") == pytest.approx(10, rel=1e-4)
    assert mean(found, "psnr") == pytest.approx(40, abs=1e-3)
    with (tmp_path / "e" / "cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == ["p0", "p1", "p2", "p3"]
    assert float(rows[0]["rmse"]) == pytest.approx(10, rel=1e-4)
    out = capsys.readouterr().out
    assert "psnr" in out and str(tmp_path / "e") in out.splitlines()[-1]
    assert json.loads((tmp_path / "e" / "run.json").read_text())["state"] == "done"


def test_masks_by_name_and_of_the_head(tmp_path: Path) -> None:
    """Errors outside of the mask do not count."""
    folder = restored(tmp_path, 10.0, 2)
    inside = truth(0) > 0
    for number in range(2):
        wrong = truth(number) + np.where(inside, 10.0, 500.0)
        save(folder / "out" / f"p{number}_restored.nii.gz", wrong)
        save(folder / "masks" / f"p{number}_mask.nii.gz", inside.astype(float), "int16")
    Evaluate(folder / "out", folder / "truth", tmp_path / "e", mask=str(folder / "masks")).run()
    assert mean(read(tmp_path / "e"), "mae") == pytest.approx(10, rel=1e-4)
    Evaluate(folder / "out", folder / "truth", tmp_path / "all").run()
    assert mean(read(tmp_path / "all"), "mae") > 100


def test_two_methods_are_compared_within_people(tmp_path: Path) -> None:
    """An error of 10 against one of 20: better by 6.02 dB in everyone, whatever the people."""
    ours, theirs = restored(tmp_path / "a", 10.0, 8), restored(tmp_path / "b", 20.0, 8)
    Evaluate(ours / "out", ours / "truth", tmp_path / "e", compare=theirs / "out").run()
    row = next(row for row in read(tmp_path / "e")["comparison"] if row["score"] == "psnr")
    assert row["difference"] == pytest.approx(20 * np.log10(2), abs=1e-3)
    assert row["low"] == pytest.approx(row["high"], abs=1e-3) and row["p"] < 0.02
    assert (tmp_path / "e" / "comparison.csv").is_file()
    (theirs / "out" / "p3_restored.nii.gz").unlink()
    with pytest.raises(InputError, match=r"same scans in .*; got none of p3.nii.gz"):
        Evaluate(ours / "out", ours / "truth", tmp_path / "f", compare=theirs / "out").run()


def test_an_honest_sd_covers_and_a_vain_one_does_not(tmp_path: Path, rng: np.random.Generator) -> None:
    """Errors drawn with the stated sd: coverage 0.9 ± 0.005 (50 000 voxels), ratio 1; a third of the sd covers 42 %."""
    sd = rng.uniform(1, 5, (50, 50, 20))
    error = sd * rng.normal(size=sd.shape)
    honest, vain = spread_scores(sd, error), spread_scores(sd / 3, error)
    assert honest["coverage90"] == pytest.approx(0.9, abs=0.005)
    assert honest["variance_error_ratio"] == pytest.approx(1, abs=0.03)
    assert honest["sd_error_correlation"] > 0.3
    assert vain["coverage90"] == pytest.approx(0.416, abs=0.01)
    assert vain["sd_error_correlation"] == pytest.approx(honest["sd_error_correlation"])
    folder = restored(tmp_path, 10.0, 2, sd=10.0)
    Evaluate(folder / "out", folder / "truth", tmp_path / "e").run()
    found = read(tmp_path / "e")
    assert mean(found, "coverage90") == 1.0 and mean(found, "variance_error_ratio") == pytest.approx(
        1, rel=1e-3
    )


def test_segmentations_by_structure_and_tissue(tmp_path: Path) -> None:
    """Shifted by one of eight voxels: Dice of the whole block 7/8; the halves exchanged are nothing alike."""
    for number in range(3):
        save(tmp_path / "ref" / f"sub-{number}_dseg.nii.gz", codes(), "int16")
        save(tmp_path / "out" / f"sub-{number}_desc-T1w_dseg.nii.gz", codes(1), "int16")
    Evaluate(tmp_path / "out", tmp_path / "ref", tmp_path / "e", tolerance=1.0).run()
    found = read(tmp_path / "e")
    assert found["kind"] == "labels"
    assert mean(found, "dice", "white matter") == pytest.approx(7 / 8)
    assert mean(found, "dice", "left cerebral white matter") == pytest.approx(3 / 4)
    assert mean(found, "surface_dice", "white matter") == 1.0
    assert mean(found, "volume_ml", "white matter") == pytest.approx(8 * 10 * 8 * 2 / 1000)
    assert not any(row["score"] == "dice" and row["structure"] == "left thalamus" for row in found["summary"])
    swapped = np.where(codes() == 2, 41, np.where(codes() == 41, 2, 0))
    save(tmp_path / "out" / "sub-0_desc-T1w_dseg.nii.gz", swapped, "int16")
    Evaluate(tmp_path / "out", tmp_path / "ref", tmp_path / "e", overwrite=True).run()
    rows = {(r["case"], r["structure"]): r for r in read(tmp_path / "e")["rows"]}
    assert rows["sub-0", "left cerebral white matter"]["dice"] == 0
    assert rows["sub-0", "white matter"]["dice"] == 1


def test_a_missed_structure_is_counted_not_hidden(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / "ref" / f"p{number}_dseg.nii.gz", codes(), "int16")
        predicted = codes() if number else np.where(codes() == 41, 0, codes())
        save(tmp_path / "out" / f"p{number}_dseg.nii.gz", predicted, "int16")
    Evaluate(tmp_path / "out", tmp_path / "ref", tmp_path / "e").run()
    rows = {(r["score"], r["structure"]): r for r in read(tmp_path / "e")["summary"]}
    assert rows["dice", "right cerebral white matter"]["mean"] == pytest.approx(2 / 3)
    assert rows["hd95_mm", "right cerebral white matter"]["left_out"] == 1


def test_unsure_where_it_is_wrong(tmp_path: Path) -> None:
    """Entropy that is high at errors finds them all; winners that are sure of themselves and wrong cost calibration."""
    wrong = codes() != codes(1)
    for number in range(2):
        save(tmp_path / "ref" / f"p{number}_dseg.nii.gz", codes(), "int16")
        save(tmp_path / "out" / f"p{number}_dseg.nii.gz", codes(1), "int16")
        save(tmp_path / "out" / f"p{number}_entropy.nii.gz", np.where(wrong, 1.0, 0.1))
        save(tmp_path / "out" / f"p{number}_probseg.nii.gz", np.full(SHAPE, 1.0))
    Evaluate(tmp_path / "out", tmp_path / "ref", tmp_path / "e").run()
    found = read(tmp_path / "e")
    assert mean(found, "error_auc", "uncertainty") == 1.0
    kept = (codes() > 0) | (codes(1) > 0)
    assert found["reliability"]["ece"] == pytest.approx(wrong[kept].mean(), abs=1e-5)
    assert sum(found["reliability"]["count"]) == 2 * kept.sum()


def test_probabilities_of_single_structures(tmp_path: Path) -> None:
    """Each voxel's confidence is the probability of the label it got; what is background has what the others leave."""
    save(tmp_path / "ref" / "p_dseg.nii.gz", codes(), "int16")
    save(tmp_path / "out" / "p_dseg.nii.gz", codes(1), "int16")
    for code, name, p in ((2, "LeftCerebralWhiteMatter", 0.7), (41, "RightCerebralWhiteMatter", 0.2)):
        save(tmp_path / "out" / f"p_label-{name}_probseg.nii.gz", np.full(SHAPE, p))
        assert (codes(1) == code).any()
    Evaluate(tmp_path / "out", tmp_path / "ref", tmp_path / "e").run()
    found = read(tmp_path / "e")["reliability"]
    kept = (codes() > 0) | (codes(1) > 0)
    bins = dict(
        zip(
            [round(c, 3) for c in found["confidence"] if c is not None],
            filter(None, found["count"]),
            strict=True,
        )
    )
    assert bins == {
        0.1: (kept & (codes(1) == 0)).sum(),
        0.2: (codes(1) == 41).sum(),
        0.7: (codes(1) == 2).sum(),
    }


def test_area_under_the_curve_is_sklearns(rng: np.random.Generator) -> None:
    from sklearn.metrics import roc_auc_score

    entropy, wrong = rng.integers(0, 30, 4000).astype(float), rng.random(4000) < 0.2
    entropy += 4 * wrong
    assert error_auc(entropy, wrong) == pytest.approx(roc_auc_score(wrong, entropy), abs=1e-9)
    assert np.isnan(error_auc(entropy, np.zeros(4000, bool)))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("grid", "on one grid"),
        ("late", "on one grid"),
        ("labels", "expected an image; got whole numbers"),
        ("image", "expected a label map; got"),
        ("unknown", "none of them"),
        ("partner", "one reference for lost_restored.nii.gz"),
        ("mask", "mask that marks something"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    what: str, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, out, more = restored(tmp_path, 5.0, 2), tmp_path / "e", []
    first = folder / "out" / "p0_restored.nii.gz"
    if what == "grid":
        save(first, truth(0), affine=centred_affine(SHAPE, 1.0))
    elif what == "labels":
        save(folder / "truth" / "p0.nii.gz", codes(), "int16")
    elif what in ("image", "unknown"):
        strange = np.rint(truth(0)) if what == "image" else np.where(codes() > 0, 7777, 0)
        save(folder / "out" / "p0_dseg.nii.gz", strange, "int16")
        more = ["--kind", "labels"]
    elif what == "partner":
        save(folder / "out" / "lost_restored.nii.gz", truth(0))
    elif what == "late":  # the first case is fine
        save(folder / "out" / "p1_restored.nii.gz", truth(0), affine=centred_affine(SHAPE, 1.0))
    elif what == "mask":
        more = ["--mask", str(save(tmp_path / "mask.nii.gz", np.zeros(SHAPE), "int16"))]
    call = ["evaluate", str(folder / "out"), "--reference", str(folder / "truth"), "--out", str(out), *more]
    assert run(call) == 1
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and "error: expected" in lines[0] and said in lines[0], lines
    assert not out.exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    folder = restored(tmp_path, 5.0, 1)
    Evaluate(folder / "out", folder / "truth", tmp_path / "e").run()
    with pytest.raises(InputError, match="--overwrite"):
        Evaluate(folder / "out", folder / "truth", tmp_path / "e").run()


def test_perceptual_distances(tmp_path: Path) -> None:
    """By an untrained network, and by an (untrained) prior of slices: 0 for equal scans, more for a larger error."""
    import torch

    from radiata_core.checkpoint import save_model
    from radiata_medical.model.prior import build_prior

    with torch.random.fork_rng():
        prior = build_prior(2, (8, 8, 8), seed=3)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in prior.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    save_model(tmp_path / "prior.safetensors", prior, metadata={"dims": 2})
    for encoder in ("random", str(tmp_path / "prior.safetensors")):
        found = []
        for error in (0.0, 20.0, 200.0):
            folder = restored(tmp_path / f"{encoder[-5:]}{error}", error, 1)
            out = folder / "e"
            Evaluate(folder / "out", folder / "truth", out, encoder=encoder).run()
            found.append(mean(read(out), "perceptual"))
        assert found[0] == 0 < found[1] < found[2], encoder

"""A tree as fMRIPrep writes it, with responses that are known: betas through `prepare from-bids` bring them back."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from radiata_core.errors import InputError
from radiata_decode.data.bids_betas import bids_runs, read_confounds, read_series
from radiata_decode.data.subject import read_subject
from radiata_decode.experiment.prepare import Prepare
from radiata_decode.model.single_trial_glm import trial_regressors

GRID, TR, VOLUMES = (4, 4, 3), 2.0, 110
FUNC = "derivatives/fmriprep/sub-01/func"


@pytest.fixture
def tree(tmp_path: Path, rng: np.random.Generator) -> tuple[Path, np.ndarray, np.ndarray, list[str]]:
    """Root, common mask, true responses (trial, voxel), names; two runs with motion in the series and the table."""
    raw, func = tmp_path / "sub-01/func", tmp_path / FUNC
    raw.mkdir(parents=True)
    func.mkdir(parents=True)
    masks = rng.random((2, *GRID)) < 0.8
    inside, truth, names = masks.all(0), [], []
    for run in (1, 2):
        onsets = np.arange(6.0, 190, 14)
        stimuli = [f"images/s{run}{k:02d}.png" for k in range(len(onsets))]
        kinds = rng.permutation(["face", "house"] * len(onsets))[: len(onsets)]
        events = pd.DataFrame({"onset": onsets, "duration": 2.0, "trial_type": kinds, "stim_file": stimuli})
        rest = pd.DataFrame({"onset": [200.0], "duration": 8.0, "trial_type": "fixation", "stim_file": "n/a"})
        pd.concat([events, rest]).to_csv(
            raw / f"sub-01_task-x_run-{run}_events.tsv", sep="\t", index=False, na_rep="n/a"
        )
        motion = rng.normal(size=(VOLUMES, 6)).cumsum(0) * 0.1
        columns = ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"]
        table = pd.DataFrame(motion, columns=columns).assign(
            csf=rng.normal(size=VOLUMES), white_matter=rng.normal(size=VOLUMES)
        )
        base = f"sub-01_task-x_run-{run}"
        table.to_csv(func / f"{base}_desc-confounds_timeseries.tsv", sep="\t", index=False)
        (func / f"{base}_desc-confounds_timeseries.json").write_text("{}")
        frames = 1.0 + TR * np.arange(VOLUMES)
        x = trial_regressors(onsets, np.full(len(onsets), 2.0), frames)
        beta = rng.normal(0, 8, (len(onsets), int(np.prod(GRID))))
        drift = 5 * np.cos(np.pi * (np.arange(VOLUMES) + 0.5) / VOLUMES)[:, None]
        series = 500 + x @ beta + motion @ rng.normal(0, 5, (6, beta.shape[1])) + drift
        image = nibabel.Nifti1Image(series.T.reshape(*GRID, VOLUMES).astype(np.float32), np.eye(4))
        image.header["pixdim"][4] = TR
        nibabel.save(image, func / f"{base}_space-T1w_desc-preproc_bold.nii.gz")
        card = {"RepetitionTime": TR, "StartTime": 1.0}
        (func / f"{base}_space-T1w_desc-preproc_bold.json").write_text(json.dumps(card))
        mask = nibabel.Nifti1Image(masks[run - 1].astype(np.uint8), np.eye(4))
        nibabel.save(mask, func / f"{base}_space-T1w_desc-brain_mask.nii.gz")
        truth.append(beta[:, inside.reshape(-1)])
        names += [Path(s).stem for s in stimuli]
    return tmp_path, inside, np.concatenate(truth), names


@pytest.mark.parametrize("estimator", ["all", "separate"])
def test_betas_are_the_responses_that_were_put_in(tree, tmp_path: Path, estimator: str) -> None:
    """Motion is explained by the confounds, the trend by the drift, the half repetition time by StartTime."""
    root, inside, truth, names = tree
    Prepare(
        "from-bids", tmp_path / "out", root / "derivatives/fmriprep", subject="01", estimator=estimator,
        confounds=("motion",), test_runs=("1:2",),
    ).run()  # fmt: skip
    subject = read_subject(tmp_path / "out")
    assert subject.trials["stimulus"].tolist() == names
    assert set(subject.trials["category"]) == {"face", "house"} and len(subject.voxels) == inside.sum()
    found = subject.responses()
    if estimator == "all":
        np.testing.assert_allclose(found, truth, atol=0.01)
    else:  # biased where trials overlap, as in any LS-S; still the same responses
        assert np.corrcoef(found.reshape(-1), truth.reshape(-1))[0, 1] > 0.97
    assert (
        subject.manifest["repetition_time_s"] == TR
        and (subject.trials["split"] == "test").sum() == len(names) // 2
    )


def test_percent_and_voxels_without_signal(tree, tmp_path: Path) -> None:
    """A voxel that never changes is masked and counted; percent are of the voxel's mean."""
    root, inside, _, _ = tree
    place = tuple(np.argwhere(inside)[0])
    path = root / FUNC / "sub-01_task-x_run-1_space-T1w_desc-preproc_bold.nii.gz"
    image = nibabel.load(path)
    values = image.get_fdata().astype(np.float32)
    values[place] = 7.0
    nibabel.save(nibabel.Nifti1Image(values, image.affine, image.header), path)
    plain = {"subject": "01", "estimator": "all", "confounds": ("motion",), "test_share": 0.0}
    Prepare("from-bids", tmp_path / "a", root / "derivatives/fmriprep", **plain).run()
    Prepare("from-bids", tmp_path / "b", root / "derivatives/fmriprep", percent=True, **plain).run()
    a, b = read_subject(tmp_path / "a"), read_subject(tmp_path / "b")
    assert a.manifest["masked_voxels"]["not_finite"] == 1 and len(a.voxels) == inside.sum() - 1
    mean = values[inside].mean(1)[1:]
    first = a.trials["run"].to_numpy() == 1
    np.testing.assert_allclose(b.responses()[first], 100 * a.responses()[first] / mean, rtol=2e-4, atol=1e-4)


def test_confounds_are_nilearns_and_dropped_volumes_are_left_out(tree) -> None:
    from nilearn.interfaces.fmriprep import load_confounds

    root, inside, _, _ = tree
    path = root / FUNC / "sub-01_task-x_run-1_desc-confounds_timeseries.tsv"
    table = pd.read_csv(path, sep="\t")
    table["non_steady_state_outlier00"] = [1] + [0] * (VOLUMES - 1)
    table.to_csv(path, sep="\t", index=False)
    found = bids_runs(root / "derivatives/fmriprep", subject="01")
    values, kept = read_confounds(found.runs[0], ("motion", "wm_csf", "non_steady_state"))
    theirs, sample = load_confounds(
        str(found.runs[0].files[0]), strategy=("motion", "wm_csf"), motion="basic", demean=False
    )
    np.testing.assert_array_equal(kept, sample)
    assert kept.tolist() == list(range(1, VOLUMES)) and values.shape == theirs.shape
    assert read_series(found.runs[0], found.inside).shape == (VOLUMES, inside.sum())


def test_volumes_before_the_steady_state_do_not_touch_the_betas(tree, tmp_path: Path) -> None:
    root, _, truth, _ = tree
    for run in (1, 2):
        table = root / FUNC / f"sub-01_task-x_run-{run}_desc-confounds_timeseries.tsv"
        marked = pd.read_csv(table, sep="\t").assign(non_steady_state_outlier00=[1] + [0] * (VOLUMES - 1))
        marked.to_csv(table, sep="\t", index=False)
        bold = root / FUNC / f"sub-01_task-x_run-{run}_space-T1w_desc-preproc_bold.nii.gz"
        image = nibabel.load(bold)
        values = image.get_fdata().astype(np.float32)
        values[..., 0] += 5000
        nibabel.save(nibabel.Nifti1Image(values, image.affine, image.header), bold)
    more = {"subject": "01", "estimator": "all", "confounds": ("motion",), "test_share": 0.0}
    Prepare("from-bids", tmp_path / "out", root / "derivatives/fmriprep", **more).run()
    np.testing.assert_allclose(read_subject(tmp_path / "out").responses(), truth, atol=0.02)


def test_surfaces(tree, rng: np.random.Generator) -> None:
    """Both hemispheres of a GIFTI series, the same events."""
    root = tree[0]
    func, sides = root / FUNC, []
    for run in (1, 2):
        for side, vertices in (("L", 6), ("R", 5)):
            values = rng.normal(size=(VOLUMES, vertices)).astype(np.float32)
            arrays = [
                nibabel.gifti.GiftiDataArray(
                    v, intent="NIFTI_INTENT_TIME_SERIES", datatype="NIFTI_TYPE_FLOAT32"
                )
                for v in values
            ]
            name = f"sub-01_task-x_run-{run}_hemi-{side}_space-fsaverage5_bold.func.gii"
            nibabel.save(nibabel.GiftiImage(darrays=arrays), func / name)
            (func / name.replace(".func.gii", ".json")).write_text(json.dumps({"RepetitionTime": TR}))
            sides.append(values)
    with pytest.raises(InputError, match=r"one space in .*got T1w, fsaverage5. Choose with --space"):
        bids_runs(root / "derivatives/fmriprep", subject="01")
    found = bids_runs(root / "derivatives/fmriprep", subject="01", space="fsaverage5")
    np.testing.assert_array_equal(read_series(found.runs[1], None), np.concatenate(sides[2:], 1))
    assert found.voxels["hemisphere"].tolist() == ["left"] * 6 + ["right"] * 5
    assert read_confounds(found.runs[0], ("motion",))[0].shape[0] == VOLUMES


def test_bad_input(tree, tmp_path: Path) -> None:
    root = tree[0]
    folder = root / "derivatives/fmriprep"
    with pytest.raises(InputError, match=r"2 s; got 1.5 s in --repetition-time"):
        bids_runs(folder, subject="01", repetition_time_s=1.5)
    with pytest.raises(InputError, match=r"folder of subject 07"):
        bids_runs(folder, subject="07")
    with pytest.raises(InputError, match=r"task y .* got x"):
        bids_runs(folder, subject="01", task="y")
    with pytest.raises(InputError, match=r"column picture .* got onset, duration, trial_type, stim_file"):
        bids_runs(folder, subject="01", stimulus_column="picture")
    found = bids_runs(folder, subject="01")
    with pytest.raises(InputError, match=r"expected confounds for compcor"):
        read_confounds(found.runs[0], ("compcor",))
    card = root / FUNC / "sub-01_task-x_run-1_space-T1w_desc-preproc_bold.json"
    card.write_text(json.dumps({"RepetitionTime": 0.8}))
    with pytest.raises(InputError, match=r"0.8 s; got 2 s in the header"):
        bids_runs(folder, subject="01")
    card.unlink()
    (root / "sub-01/func/sub-01_task-x_run-2_events.tsv").unlink()
    with pytest.raises(InputError, match=r"sub-01_task-x_run-2_events.tsv .*--events"):
        bids_runs(folder, subject="01")

"""Trials of anomaly and translation: healthy and lesioned slices differ by the lesion alone; pairs are one anatomy."""

import dataclasses

import pytest
import torch

from radiata_medical.data.lesions import LesionSpec
from radiata_medical.data.synthesis import ScanSpec, head_of
from radiata_medical.experiment.synthetic_trials import (
    lesion_trials,
    pair_trials,
    translation_errors,
    with_label_errors,
)
from radiata_medical.model.anomaly_maps import anomaly_scores
from radiata_medical.model.prior import build_prior
from radiata_medical.model.pseudo_healthy import HealthyModel
from radiata_medical.model.translation import TranslationOptions

from .small_head import small_head

SPEC = ScanSpec(
    shape=(56, 64, 1), rotation=3.0, scale=(0.97, 1.03), warp=1.0, texture=(0.0, 0.02), inside=1.0
)
QUIET = dataclasses.replace(SPEC, grain=(0.0, 0.0), bias=(0.0, 0.02))
LESION = LesionSpec(voxels=(30, 60), edge=0.0)


def test_healthy_and_lesioned_trials_differ_in_the_lesion_alone() -> None:
    heads = [head_of(small_head()), head_of(small_head(2.0))]
    sick = lesion_trials(heads, 4, 7, contrast="flair", lesion=LESION, spec=QUIET)
    well = lesion_trials(heads, 4, 7, contrast="flair", spec=QUIET)
    assert sick.people == (0, 1, 0, 1)
    changed = (sick.images != well.images)[:, 0]
    assert torch.equal(changed | sick.lesions, sick.lesions)
    assert ((sick.lesions.sum((1, 2)) >= 30) & (sick.lesions.sum((1, 2)) <= 60)).all()
    assert (sick.images[:, 0][sick.lesions] - well.images[:, 0][sick.lesions]).mean() > 0.2
    assert not well.lesions.any()
    assert (sick.lesions & ~sick.brains).sum() == 0
    again = lesion_trials(heads, 2, 7, contrast="flair", lesion=LESION, spec=QUIET)
    assert torch.equal(again.images, sick.images[:2])


def test_trials_give_the_table_of_anomaly() -> None:
    """FLAIR lesions, bright, with an untrained prior: every score of a residual is far above chance."""
    head = head_of(small_head())
    sick = lesion_trials([head], 3, 7, contrast="flair", lesion=LESION, spec=QUIET)
    well = lesion_trials([head], 4, 8, contrast="flair", spec=QUIET)
    model = HealthyModel(build_prior(2, channels=(8, 16)), level=1.0, draws=2)
    scores, _ = anomaly_scores(
        model, sick.images, sick.lesions, sick.brains, well.images, well.brains,
        conditions={"covariates": sick.covariates}, healthy_conditions={"covariates": well.covariates},
    )  # fmt: skip
    assert scores["smooth"].average_precision > 5 * scores["smooth"].chance


def test_pairs_are_one_anatomy_and_errors_are_in_order() -> None:
    head = head_of(small_head())
    pairs = pair_trials([head], 4, 3, spec=QUIET)
    swapped = pair_trials([head], 4, 3, given="t2", wanted="t1", spec=QUIET)
    assert torch.equal(pairs.images, swapped.truths)
    assert torch.equal(pairs.tissues, swapped.tissues)
    prior = build_prior(2, channels=(8, 16))
    errors = translation_errors(prior, pairs, TranslationOptions(level=0.01, steps=1))
    mean = {name: sum(values) / len(values) for name, values in errors.items()}
    assert mean["curve"] < mean["paint"] < mean["histogram"]
    assert mean["prior"] == pytest.approx(mean["curve"], abs=0.01)  # at a level near 0 it keeps the start
    assert len(errors["prior"]) == 4


def test_label_errors_leave_most_labels_right_and_make_the_painting_worse() -> None:
    pairs = pair_trials([head_of(small_head())], 4, 3, spec=QUIET)
    wrong = with_label_errors(pairs, 1.0, 0)
    inside = (pairs.tissues > 0) & (pairs.tissues < 8)
    right = float((wrong.tissues == pairs.tissues)[inside].float().mean())
    assert 0.7 < right < 0.95
    bad = translation_errors(None, wrong, exact=pairs.tissues)
    good = translation_errors(None, pairs)
    assert sum(bad["paint"]) > 1.2 * sum(good["paint"])
    assert sum(bad["curve"]) < sum(bad["paint"])

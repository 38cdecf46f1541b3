"""Anomaly maps: average precision of every score on lesions of real and of simulated shape, against chance.

One lesion in the white matter of each slice; the model of the healthy is calibrated on slices of the validation
people; the scores are of slices of the test people. Chance is the share of lesion voxels in the brain.
"""

from pathlib import Path
from typing import Any

from radiata_medical.data.label_maps import LabelMaps
from radiata_medical.data.lesions import LesionSpec, largest_sections, read_shapes
from radiata_medical.data.synthesis import head_of
from radiata_medical.experiment.synthetic_trials import lesion_trials
from radiata_medical.model.anomaly_maps import anomaly_scores
from radiata_medical.model.pseudo_healthy import HealthyModel

CONTRASTS = ("t1", "flair")


def anomaly_figures(prior: Any, store: LabelMaps, shapes: Path | None, count: int) -> dict[str, Any]:
    """Average precision in the brain, score by score."""
    healthy = [head_of(store.read(name).codes) for name in store.of_split("validation")]
    tests = [head_of(store.read(name).codes) for name in store.of_split("test")]
    kinds: dict[str, Any] = {"blobs": ()}
    if shapes is not None:
        kinds["real"] = largest_sections(read_shapes(shapes, "Subject_*"))
    figures: dict[str, Any] = {}
    for contrast in CONTRASTS:
        for kind, given in kinds.items():
            trials = lesion_trials(tests, count, 700, contrast=contrast, lesion=LesionSpec(), shapes=given)
            calm = lesion_trials(healthy, count, 701, contrast=contrast)
            model = HealthyModel(prior, draws=2, feature_levels=(0.3,))
            found, _ = anomaly_scores(
                model, trials.images, trials.lesions, trials.brains, calm.images, calm.brains,
                conditions={"covariates": trials.covariates}, healthy_conditions={"covariates": calm.covariates},
            )  # fmt: skip
            figures[f"{contrast}_{kind}"] = {
                name: (score.average_precision, score.chance) for name, score in found.items()
            }
            told = ", ".join(f"{name} {score.average_precision:.3f}" for name, score in found.items())
            chance = next(iter(found.values())).chance
            print(f"{contrast:6} {kind:6} chance {chance:.3f}: {told}", flush=True)
    return figures

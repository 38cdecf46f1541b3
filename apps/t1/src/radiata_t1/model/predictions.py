r"""The five prediction types of T1 generation, by the names MedForJ gave them.

| name | path | network predicts | in the core |
|---|---|---|---|
| `sample` | discrete linear-beta VP | x_0 | `Prediction.X0` |
| `epsilon` | discrete linear-beta VP | eps | `Prediction.EPSILON` |
| `velocity` | discrete linear-beta VP | alpha eps - sigma x_0 | `Prediction.V` (Salimans & Ho) |
| `flow` | discrete linear-beta VP | eps - x_0 | `Prediction.FLOW` |
| `rflow` | linear | eps - x_0 = dx/dt | `Prediction.VELOCITY` |

On the VP path `flow` and `velocity` differ by a loss weight between 1 and 2 only, and at t = 1 the state still holds
0.00635 x_0: a network sees the mean of a large volume there in training and never at inference. `rflow` has no such leak.
"""

from enum import StrEnum

from radiata_core.paths import DiscreteVPPath, LinearPath, Path
from radiata_core.predictions import Prediction

__all__ = ["PredictionType", "path_and_prediction", "type_of"]


class PredictionType(StrEnum):
    """What the network predicts, as the command line spells it."""

    SAMPLE = "sample"
    EPSILON = "epsilon"
    VELOCITY = "velocity"
    FLOW = "flow"
    RFLOW = "rflow"


_MEANING = {
    PredictionType.SAMPLE: Prediction.X0,
    PredictionType.EPSILON: Prediction.EPSILON,
    PredictionType.VELOCITY: Prediction.V,
    PredictionType.FLOW: Prediction.FLOW,
    PredictionType.RFLOW: Prediction.VELOCITY,
}


def path_and_prediction(kind: PredictionType) -> tuple[Path, Prediction]:
    """The path a type lives on, and what it is in the core."""
    path: Path = LinearPath() if kind is PredictionType.RFLOW else DiscreteVPPath()
    return path, _MEANING[kind]


def type_of(path: Path, prediction: Prediction) -> PredictionType | None:
    """The type with this path and prediction; None if it is none of the five."""
    for kind in PredictionType:
        if path_and_prediction(kind) == (path, prediction):
            return kind
    return None

r"""Motion from responses: a continuous decoder, a codebook decoder, and both together.

*Continuous.* Components of the flow (`flow_basis`) are regressed on responses by the ridge that every stage shares, one
penalty a component by leaving one film out. That is the best guess under squared error; endpoint error punishes a
confident guess in the wrong direction, so one number s is calibrated on the leave-one-out predictions:

$$ \hat w = s\,w_\text{ridge}, \qquad
   s = \arg\min_{s}\ \textstyle\sum_{i,u} \lVert s\,w^{(-i)}_i(u) - w_i(u) \rVert . $$

*Codebook.* A network chooses among code vectors in each cell: `codebook_decoder`.

*Both*: $\lambda\,w_\text{codebook} + (1 - \lambda)\,w_\text{ridge}$.

Each may see the brain, features of the first frame, or both: the same class is its own ablation. Features are any
(n, c, y, x) array of the first frame alone. In the ridge they are columns beside the voxels, whose weight against the
voxels is chosen by the leave-one-out error as well (two bands).

References:
    BrainNRDS (2024). https://arxiv.org/abs/2406.02659 (the codebook).
    A. Nunez-Elizalde, A. Huth, J. Gallant (2019). Voxelwise encoding models with non-spherical multivariate normal
    priors. NeuroImage 197 (a penalty for each space of features).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from radiata_core.errors import InputError
from radiata_decode.model.flow_basis import FlowBasis
from radiata_decode.model.motion_network import INPUTS
from radiata_decode.model.ridge import RidgeDecoder, RidgeFit, SharedRidge

__all__ = ["ContinuousMotion", "FittedMotion", "calibrated_shrinkage", "combined_motion", "fit_continuous"]

BANDS = (
    0.03,
    0.1,
    0.3,
    1.0,
)  # weight of the picture's columns against the brain's, in units of equal total variance
LARGEST, GOLDEN = 1.5, (5**0.5 - 1) / 2


@dataclass(frozen=True, eq=False)
class ContinuousMotion:
    """Ridge on components of the flow.

    Attributes:
        basis: Of the flow.
        ridge: Inputs → coefficients.
        shrinkage: s, 0 to 1.5.
        inputs: brain, image or both.
        feature_scale: What features of the first frame are multiplied by; 0 without.
    """

    basis: FlowBasis
    ridge: RidgeDecoder
    shrinkage: float
    inputs: str = "brain"
    feature_scale: float = 0.0

    def predict(self, responses: Any = None, features: Any = None) -> Tensor:
        """Flow, (n, step, 2, y, x), cells a frame step; each row from its own inputs alone.

        Args:
            responses: (n, v), standardised as in training; for brain and both.
            features: (n, c, y, x) of the first frame; for image and both.

        Raises:
            InputError: an input is missing, or of another size than in training.
        """
        columns = _columns(self.inputs, responses, features, self.feature_scale)
        return self.shrinkage * self.basis.decode(self.ridge.predict(columns))

    def save(self, folder: Path) -> dict[str, Any]:
        """Write ridge.safetensors and .json into a folder; returns what a card must keep."""
        from radiata_core.files import atomic_path
        from radiata_core.weights import write_tensors

        self.ridge.save(folder / "ridge.safetensors")
        with atomic_path(folder / "flow-basis.safetensors") as part:
            write_tensors(part, {"mean": self.basis.mean, "components": self.basis.components})
        return {
            "shrinkage": self.shrinkage, "inputs": self.inputs, "feature_scale": self.feature_scale,
            "variance": self.basis.variance,
        }  # fmt: skip

    @classmethod
    def load(cls, folder: Path, facts: dict[str, Any]) -> "ContinuousMotion":
        """The inverse of `save`.

        Raises:
            InputError: files that are missing, changed or of another kind.
        """
        from radiata_core.weights import read_tensors

        tensors = read_tensors(folder / "flow-basis.safetensors")
        basis = FlowBasis(tensors["mean"], tensors["components"], float(facts.get("variance", 1.0)))
        ridge = RidgeDecoder.load(folder / "ridge.safetensors")
        return cls(
            basis, ridge, float(facts["shrinkage"]), str(facts["inputs"]), float(facts["feature_scale"])
        )


@dataclass(frozen=True, eq=False)
class FittedMotion:
    """A continuous decoder and what was known of its training films without each of them.

    Attributes:
        decoder: To keep.
        loo: Flow of each training film from all others, with the shrinkage, (n, step, 2, y, x).
        loo_r2: Of each component, (k,).
    """

    decoder: ContinuousMotion
    loo: Tensor
    loo_r2: Tensor


def fit_continuous(
    flow: Tensor,
    responses: Any = None,
    features: Any = None,
    *,
    inputs: str = "brain",
    components: int = 100,
    sample_weights: np.ndarray | None = None,
    voxel_weights: np.ndarray | None = None,
) -> FittedMotion:
    """Basis, ridge and shrinkage from training films.

    Args:
        flow: (n, step, 2, y, x), cells a frame step.
        responses: (n, v), standardised; for brain and both.
        features: (n, c, y, x) of the first frame; for image and both.
        inputs: brain, image or both.
        components: Of the flow.
        sample_weights: (n,); see `reliability_weights.repeat_weights`.
        voxel_weights: (v,); see there.

    Raises:
        InputError: inputs that are missing or do not fit, see `SharedRidge`.
    """
    basis = FlowBasis.fit(flow, components)
    targets = basis.encode(flow)
    found: list[tuple[float, float, SharedRidge, RidgeFit]] = []
    for scale in _scales(inputs, responses, features, voxel_weights):
        columns = _columns(inputs, responses, features, scale)
        weights = _column_weights(inputs, columns.shape[1], voxel_weights)
        shared = SharedRidge(columns, sample_weights=sample_weights, voxel_weights=weights)
        fit = shared.fit(targets)
        found.append((float((fit.loo - targets).square().sum()), scale, shared, fit))
    _, scale, shared, fit = min(found, key=lambda one: one[0])
    unshrunk = basis.decode(fit.loo)
    s = calibrated_shrinkage(unshrunk, flow)
    return FittedMotion(
        ContinuousMotion(basis, shared.decoder(fit), s, inputs, scale), s * unshrunk, fit.loo_r2
    )


def calibrated_shrinkage(predicted: Tensor, truth: Tensor) -> float:
    """The s in [0, 1.5] with the least mean endpoint error of s · predicted, which is convex in s, to 0.01.

    Args:
        predicted: Of films that the decoder had not seen, (n, step, 2, y, x).
        truth: (n, step, 2, y, x).
    """

    def error(s: float) -> float:
        return float((s * predicted - truth).norm(dim=2).mean())

    low, high = 0.0, LARGEST
    points = [high - GOLDEN * (high - low), low + GOLDEN * (high - low)]
    errors = [error(s) for s in points]
    while high - low > 0.01:
        if errors[0] < errors[1]:
            high, points[1], errors[1] = points[1], points[0], errors[0]
            points[0] = high - GOLDEN * (high - low)
            errors[0] = error(points[0])
        else:
            low, points[0], errors[0] = points[0], points[1], errors[1]
            points[1] = low + GOLDEN * (high - low)
            errors[1] = error(points[1])
    return (low + high) / 2


def combined_motion(codebook: Tensor, continuous: Tensor, weight: float = 0.5) -> Tensor:
    """λ · codebook + (1 - λ) · continuous.

    Args:
        codebook: (n, step, 2, y, x).
        continuous: The same.
        weight: λ, 0 to 1.

    Raises:
        InputError: other shapes, or a weight outside [0, 1].
    """
    if codebook.shape != continuous.shape or not 0 <= weight <= 1:
        raise InputError(
            f"expected two flows of one shape and a weight from 0 to 1; got {tuple(codebook.shape)}, "
            f"{tuple(continuous.shape)} and {weight}."
        )
    return weight * codebook + (1 - weight) * continuous


def _columns(inputs: str, responses: Any, features: Any, scale: float) -> np.ndarray:
    """Columns of the ridge, (n, v + c · y · x)."""
    if inputs not in INPUTS:
        raise InputError(f"expected inputs of {', '.join(INPUTS)}; got {inputs}.")
    parts = []
    if inputs in ("brain", "both"):
        parts.append(_given(responses, 2, "responses (n, voxel)"))
    if inputs in ("image", "both"):
        frame = _given(features, 4, "features (n, c, y, x) of the first frame")
        parts.append(frame.reshape(len(frame), -1) * np.float32(scale))
    if len({len(part) for part in parts}) > 1:
        raise InputError(
            f"expected as many responses as first frames; got {len(parts[0])} and {len(parts[1])}."
        )
    return parts[0] if len(parts) == 1 else np.concatenate(parts, 1)


def _given(values: Any, axes: int, what: str) -> np.ndarray:
    array = None if values is None else np.asarray(values, np.float32)
    if array is None or array.ndim != axes:
        raise InputError(f"expected {what}; got {'none' if array is None else array.shape}.")
    return array


def _scales(inputs: str, responses: Any, features: Any, voxel_weights: np.ndarray | None) -> list[float]:
    """Factors of the features to try, such that their total variance is that of the brain times a band squared."""
    if inputs == "brain":
        return [0.0]
    if inputs != "both":
        return [1.0]
    brain = _given(responses, 2, "responses (n, voxel)")
    frame = _given(features, 4, "features (n, c, y, x) of the first frame").reshape(len(features), -1)
    weights = np.ones(brain.shape[1]) if voxel_weights is None else np.asarray(voxel_weights)
    total = float((brain.var(0) * weights**2).sum()), float(frame.var(0).sum())
    if not total[1] > 0:
        raise InputError(
            "expected first frames that differ; got one and the same. Decode from the brain alone."
        )
    return [band * float(np.sqrt(total[0] / total[1])) for band in BANDS]


def _column_weights(inputs: str, columns: int, voxel_weights: np.ndarray | None) -> np.ndarray | None:
    if voxel_weights is None or inputs == "image":
        return None
    weights = np.asarray(voxel_weights, np.float32)
    return np.concatenate([weights, np.ones(columns - len(weights), np.float32)])

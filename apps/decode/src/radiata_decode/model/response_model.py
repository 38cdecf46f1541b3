r"""How a person answers pictures, noise included: responses to pictures that were never shown.

An encoding model predicts the responses $f(\phi)$ of voxels from features of a picture; its leave-one-out residuals say what
it leaves, noise of the measurement and errors of the model together, with covariance $\Sigma$. So

$$ r = f(\phi(x)) + e, \qquad \Sigma = D\,[(1 - \lambda)\,C + \lambda I]\,D, $$

D standard deviations and C correlations of the residuals, shrunk to the identity. Where thousands of pictures have predicted
responses, few directions of r tell them apart from noise: those of largest signal after whitening by Σ. Their
`coordinates` are what a decoder needs to see; in them the noise is white again up to a factor each, measured on the
residuals.

A decoder that learns from pictures with *simulated* responses, as many as one likes, is the inverse of the encoding model
under the pictures' own law. It inherits the errors of the encoding model: mix it with a decoder learnt from real pairs.

References:
    T. Naselaris, R. Prenger, K. Kay, M. Oliver, J. Gallant (2009). Bayesian reconstruction of natural images from human
    brain activity. Neuron 63 (decoding by an encoding model and a prior).
    O. Ledoit, M. Wolf (2004). A well-conditioned estimator for large-dimensional covariance matrices. Journal of
    Multivariate Analysis 88 (shrinkage to a multiple of the identity).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_decode.model.ridge import RidgeDecoder, SharedRidge

__all__ = ["ResponseCoordinates", "ResponseModel", "fit_response_model", "response_coordinates"]

SHRINKAGE = 0.4
"""Of residual correlations. Not tuned: a linear decoder did alike with 0.3 to 0.7 on a simulated subject (seed 50)."""


@dataclass(frozen=True, eq=False)
class ResponseModel:
    """Mean and residuals of the responses to features.

    Attributes:
        encoder: Features -> responses.
        residuals: Leave-one-out, (n, v).
        r2: Leave-one-out R2 of each voxel, (v,).
    """

    encoder: RidgeDecoder
    residuals: Tensor
    r2: Tensor

    def signal(self, features: np.ndarray | Tensor) -> Tensor:
        """Predicted responses (n, v) float32 to features (n, f)."""
        return self.encoder.predict(features).float().cpu()


def fit_response_model(features: np.ndarray, responses: np.ndarray | Tensor) -> ResponseModel:
    """Ridge from features to each voxel, each with its own penalty.

    Args:
        features: (n, f); each is standardised.
        responses: (n, v).

    Raises:
        InputError: shapes that do not fit, or NaN.
    """
    shared = SharedRidge(features, standardise=True)
    fit = shared.fit(responses)
    measured = torch.as_tensor(np.asarray(responses, np.float32))
    return ResponseModel(shared.decoder(fit), measured - fit.loo, fit.loo_r2)


@dataclass(frozen=True, eq=False)
class ResponseCoordinates:
    """Directions of responses that tell pictures apart.

    Attributes:
        mean: Mean response, (v,).
        directions: (v, k).
        noise: Standard deviation of the noise along each, (k,).
    """

    mean: Tensor
    directions: Tensor
    noise: Tensor

    def of(self, responses: np.ndarray | Tensor) -> Tensor:
        """Coordinates (n, k) of responses (n, v).

        Raises:
            InputError: another number of voxels.
        """
        values = torch.as_tensor(responses).float()
        if values.ndim != 2 or values.shape[1] != len(self.mean):
            raise InputError(f"expected responses (n, {len(self.mean)}); got {tuple(values.shape)}.")
        return (values - self.mean) @ self.directions


def response_coordinates(
    signal: Tensor, residuals: Tensor, count: int = 300, shrinkage: float = SHRINKAGE
) -> ResponseCoordinates:
    """The directions of largest signal over noise.

    Args:
        signal: Predicted responses to many pictures, (m, v).
        residuals: (n, v).
        count: Directions kept; never more than voxels or pictures less one.
        shrinkage: λ, in (0, 1].

    Raises:
        InputError: other shapes, fewer than two rows, or a shrinkage out of range.
    """
    if signal.ndim != 2 or residuals.shape[1:] != signal.shape[1:] or min(len(signal), len(residuals)) < 2:
        raise InputError(
            f"expected signals and residuals of the same voxels, two rows or more; got {tuple(signal.shape)} and "
            f"{tuple(residuals.shape)}."
        )
    if not 0 < shrinkage <= 1 or count < 1:
        raise InputError(f"expected a shrinkage in (0, 1] and a direction; got {shrinkage} and {count}.")
    rest = residuals - residuals.mean(0)
    sd = rest.std(0).clamp(min=1e-6)
    scaled = rest / sd
    noise = (1 - shrinkage) * scaled.T @ scaled / len(scaled) + shrinkage * torch.eye(len(sd))
    root = torch.linalg.cholesky(noise)
    mean = signal.mean(0)
    white = torch.linalg.solve_triangular(root, ((signal - mean) / sd).T, upper=False)
    kept = min(count, len(sd), len(signal) - 1)
    vectors = torch.linalg.eigh(white @ white.T / len(signal))[1].flip(1)[:, :kept]
    directions = torch.linalg.solve_triangular(root.T, vectors, upper=True) / sd[:, None]
    return ResponseCoordinates(mean, directions.contiguous(), (rest @ directions).std(0))

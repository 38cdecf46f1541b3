r"""Planes in which latents turn: principal components, and the plane of the fastest rotation among them (jPCA).

States $x_{c,t}$ of conditions, minus their average over conditions, are projected on the first k principal components.
Of all *pure rotations* the one that explains best how they go on is fitted,

$$M = \arg\min_{M = -M^\top} \sum \lVert \dot x - M x \rVert^2, \qquad C M + M C = G - G^\top,\quad
  C = \sum x x^\top,\ G = \sum \dot x x^\top,$$

where the second is the condition of stationarity of the first, solved in the basis of C. M has eigenvalues $\pm i\omega$; a
pair's real and imaginary parts span a plane, and the plane of the largest $\omega$ is drawn.

Derivatives are differences of neighbouring bins, states their midpoints. A rotation by $\theta$ a bin then has
$\omega = 2\tan(\theta/2)$ *exactly*, so $\theta = 2\arctan(\omega/2)$ has no error of the bin's width.

A plane is found in any data: what says that there is rotation is `share`, R² of M over that of the best unconstrained
matrix, and how much variance the plane holds.

References:
    Churchland et al., "Neural population dynamics during reaching", 2012, https://doi.org/10.1038/nature11129,
        supplementary methods (jPCA).
"""

from dataclasses import dataclass

import numpy as np

from radiata_core.errors import InputError

__all__ = ["Plane", "principal_plane", "rotation_plane"]


@dataclass(frozen=True, eq=False)
class Plane:
    """Two orthonormal directions among latents.

    Attributes:
        axes: (latent, 2).
        centre: (latent,) what is subtracted before projecting.
        variance: Share of the variance of all states in the plane, in [0, 1]; of each direction.
        frequency_hz: Of the rotation in it, Hz; NaN for principal components.
        share: R² of the rotation over R² of the best linear dynamics, at most 1; NaN for principal components.
    """

    axes: np.ndarray
    centre: np.ndarray
    variance: tuple[float, float]
    frequency_hz: float = float("nan")
    share: float = float("nan")

    def project(self, states: np.ndarray) -> np.ndarray:
        """(…, 2) of states (…, latent)."""
        return (np.asarray(states, float) - self.centre) @ self.axes


def principal_plane(states: np.ndarray) -> Plane:
    """The plane of the first two principal components.

    Args:
        states: (condition or trial, time, latent), finite, two latents or more.

    Raises:
        InputError: another shape, or states that do not vary.
    """
    _, axes, spread, centre = _components(_checked(states), 2)
    return Plane(axes, centre, (float(spread[0]), float(spread[1])))


def rotation_plane(states: np.ndarray, bin_s: float, components: int = 6) -> Plane:
    """The plane that turns fastest, anticlockwise; its first direction is that of the larger variance.

    Args:
        states: (condition or trial, time, latent), finite; averages of conditions as a rule.
        bin_s: Width of a bin, s, > 0.
        components: Principal components that M is fitted in, >= 2; no more are used than there are latents.

    Raises:
        InputError: another shape, states that do not vary, or a bin that cannot be.

    References:
        Churchland et al., 2012, supplementary methods.
    """
    states = _checked(states)
    if not bin_s > 0 or components < 2 or states.shape[1] < 3:
        raise InputError(
            f"expected a bin > 0 s, two components and three bins or more; got {bin_s}, {components} and {states.shape[1]}."
        )
    centred = states - states.mean(0) if len(states) > 2 else states - states.mean((0, 1))
    scores, axes, _, centre = _components(centred, min(components, states.shape[2]))
    middle = ((scores[:, 1:] + scores[:, :-1]) / 2).reshape(-1, scores.shape[2])
    change = np.diff(scores, axis=1).reshape(-1, scores.shape[2])
    turning = _skew(middle, change)
    values, vectors = np.linalg.eig(turning)
    fastest = vectors[:, np.argmax(values.imag)]
    basis = np.linalg.qr(np.stack([fastest.real, fastest.imag], 1))[0]
    basis = basis @ _by_variance(scores.reshape(-1, len(basis)) @ basis)
    speed = float(basis[:, 1] @ turning @ basis[:, 0])
    if speed < 0:  # clockwise: look from the other side
        basis[:, 1], speed = -basis[:, 1], -speed
    free = np.linalg.lstsq(middle, change, rcond=None)[0].T
    of_rotation, of_any = (
        1 - np.square(change - middle @ m.T).sum() / np.square(change).sum() for m in (turning, free)
    )
    plane = axes @ basis
    total = np.square(centred - centred.mean((0, 1))).sum()
    inside = np.square((centred - centre) @ plane).sum((0, 1)) / total
    return Plane(
        plane,
        states.mean((0, 1)),
        (float(inside[0]), float(inside[1])),
        2 * np.arctan(speed / 2) / (2 * np.pi * bin_s),
        float(of_rotation / of_any) if of_any > 0 else float("nan"),
    )


def _checked(states: np.ndarray) -> np.ndarray:
    states = np.asarray(states, float)
    if states.ndim != 3 or states.shape[2] < 2 or not np.isfinite(states).all():
        raise InputError(
            f"expected finite states of (trial, time, two latents or more); got shape {states.shape}, or NaN. Leave "
            "trials without latents out."
        )
    if np.ptp(states.reshape(-1, states.shape[2]), 0).max() == 0:
        raise InputError("expected states that vary; got the same in every bin. The latents are empty.")
    return states


def _components(states: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores (…, count), axes (latent, count), their shares of variance, and the mean."""
    centre = states.mean((0, 1))
    flat = (states - centre).reshape(-1, states.shape[2])
    variances, axes = np.linalg.eigh(flat.T @ flat)
    order = np.argsort(variances)[::-1][:count]
    axes = axes[:, order]
    axes = axes * np.where(
        axes[np.abs(axes).argmax(0), np.arange(count)] < 0, -1.0, 1.0
    )  # a sign that does not depend on LAPACK
    return (states - centre) @ axes, axes, variances[order] / variances.sum(), centre


def _skew(states: np.ndarray, change: np.ndarray) -> np.ndarray:
    """The skew-symmetric M of least squares, rows of `change` = M rows of `states`."""
    spread, basis = np.linalg.eigh(states.T @ states)
    gain = basis.T @ (change.T @ states) @ basis
    sums = spread[:, None] + spread[None]
    found = np.divide(gain - gain.T, sums, out=np.zeros_like(gain), where=sums > 1e-12 * spread[-1])
    return basis @ found @ basis.T


def _by_variance(scores: np.ndarray) -> np.ndarray:
    """The turn of a plane (2, 2) that puts most variance on its first direction."""
    axes = np.linalg.eigh(scores.T @ scores)[1][:, ::-1]
    return axes * np.where(axes[np.abs(axes).argmax(0), np.arange(2)] < 0, -1.0, 1.0)

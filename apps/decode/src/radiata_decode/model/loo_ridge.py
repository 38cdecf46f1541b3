r"""Leave-one-out predictions of ridge regression, exactly, for every penalty, from one eigendecomposition.

Let $\tilde X$ be the centred, weighted responses (`response_scale`), $\tilde Y = \sqrt{s}(Y - \bar Y)$ and
$K = \tilde X\tilde X^\top = Q\,\mathrm{diag}(w)\,Q^\top$. For a penalty $\alpha$ the ridge residual and the leverage are

$$ e = \tilde Y - K(K + \alpha)^{-1}\tilde Y = Q\,g\,Q^\top\tilde Y, \quad
   1 - h_i = \sum_{k} Q_{ik}^2\, g_k, \quad g_k = \frac{\alpha}{w_k + \alpha}, $$

and the residual of trial i predicted without trial i is $e_i/(1 - h_i)$ (divided by $\sqrt{s_i}$). The intercept is a
direction of its own: $u = \sqrt{s}/\lVert\sqrt{s}\rVert$ has $Ku = 0$ and is not penalised, so it must be *left out of both
sums*: it counts with $g = 0$, not with $\alpha/(0 + \alpha) = 1$. Forgetting it ruins small penalties without a sign.
Since K may have other null directions, u is removed before the decomposition: a reflection moves it to the first axis,
and the rest of the matrix, (n - 1) × (n - 1), is decomposed.

With fewer voxels than trials, $\tilde X^\top\tilde X$ is decomposed instead; Q then spans only part of the trials' space,
and what it leaves, with g = 1, is kept apart.

References:
    G. Golub, M. Heath, G. Wahba (1979). Generalized cross-validation as a method for choosing a good ridge parameter.
    Technometrics 21, section 2 (the leave-one-out identity).
    R. Rifkin, R. Lippert (2007). Notes on regularized least squares. MIT-CSAIL-TR-2007-025 (all penalties from one
    decomposition).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Spectrum", "dual_spectrum", "loo_errors", "primal_spectrum", "scaled_leverage"]

_COLUMNS = 1024  # penalties × targets at a time: 36 MB for 8859 trials


@dataclass(frozen=True)
class Spectrum:
    """Eigenvectors of the Gram matrix without the intercept's direction.

    Attributes:
        basis: Q, (n, r).
        values: w, (r,), ≥ 0.
        rest: Share of each trial's unit vector outside of Q and u, (n,), ≥ 0; 0 where Q is complete.
        root: Square roots of the trial weights, (n,).
    """

    basis: Tensor
    values: Tensor
    rest: Tensor
    root: Tensor

    @property
    def complete(self) -> bool:
        """Whether Q and the intercept span all trials."""
        return self.basis.shape[1] == len(self.basis) - 1

    def outside(self, targets: Tensor, coordinates: Tensor) -> Tensor:
        """The part of weighted, centred targets (n, t) that no response can explain; 0 where Q is complete."""
        return torch.zeros_like(targets) if self.complete else targets - self.basis @ coordinates


def dual_spectrum(gram: Tensor, root: Tensor, dtype: torch.dtype) -> Spectrum:
    """The spectrum of K, (n, n) float64, which is overwritten; Q comes in `dtype`.

    Args:
        gram: K = X̃ X̃ᵀ.
        root: Square roots of the trial weights, (n,) float64.
        dtype: Of the result.
    """
    mirror = root / root.norm()
    mirror[0] += 1.0  # u has no negative entry: u + e₁ is never small
    mirror /= mirror.norm()
    image = gram @ mirror
    image -= (mirror @ image) * mirror
    gram.addr_(mirror, image, alpha=-2.0).addr_(image, mirror, alpha=-2.0)
    values, vectors = torch.linalg.eigh(gram[1:, 1:])
    basis = torch.empty(len(root), len(values), dtype=dtype, device=gram.device)
    along = -2.0 * (mirror[1:] @ vectors)
    basis[0] = mirror[0] * along
    basis[1:] = vectors.addr_(mirror[1:], along)
    rest = torch.zeros_like(root)
    return Spectrum(basis, values.clamp(min=0).to(dtype), rest.to(dtype), root.to(dtype))


def primal_spectrum(covariance: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
    """w (r,) and V / √w (v, r) of X̃ᵀX̃ (v, v) float64; X̃ V / √w is Q. Directions of no variance are left out.

    Args:
        covariance: X̃ᵀX̃.
        root: Square roots of the trial weights, (n,); at most n - 1 directions are kept.
    """
    values, vectors = torch.linalg.eigh(covariance)
    least = values[-1].clamp(min=0) * torch.finfo(values.dtype).eps * max(len(values), len(root))
    kept = int((values > least).sum())
    kept = min(kept, len(root) - 1)
    values, vectors = values[len(values) - kept :], vectors[:, vectors.shape[1] - kept :]
    return values, vectors / values.sqrt()


def scaled_leverage(spectrum: Spectrum, alphas: Tensor) -> Tensor:
    """1 - h of each trial for each penalty, (n, penalties), in (0, 1]."""
    shrink = alphas / (spectrum.values[:, None] + alphas)
    result = spectrum.rest[:, None].repeat(1, len(alphas))
    for start in range(0, len(result), 1024):
        part = slice(start, start + 1024)
        result[part] += spectrum.basis[part].square() @ shrink
    return result.clamp(min=torch.finfo(result.dtype).tiny)


def loo_errors(spectrum: Spectrum, targets: Tensor, alphas: Tensor, leverage: Tensor | None = None) -> Tensor:
    """Weighted sums of squared leave-one-out residuals, (penalties, t).

    Args:
        spectrum: Of the responses.
        targets: Weighted and centred, (n, t).
        alphas: Penalties to compare, (penalties,), > 0.
        leverage: `scaled_leverage` of them, where it is known already.
    """
    left = scaled_leverage(spectrum, alphas) if leverage is None else leverage
    shrink = alphas / (spectrum.values[:, None] + alphas)
    errors = []
    # All penalties of some targets in one product: many thin ones take three times as long.
    for some in targets.split(max(1, _COLUMNS // len(alphas)), 1):
        coordinates = spectrum.basis.T @ some
        shrunk = (shrink[:, :, None] * coordinates[:, None]).flatten(1)
        residual = (spectrum.basis @ shrunk).unflatten(1, (len(alphas), -1))
        if not spectrum.complete:
            residual += spectrum.outside(some, coordinates)[:, None]
        errors.append(residual.div_(left[:, :, None]).square_().sum(0))
    return torch.cat(errors, 1)

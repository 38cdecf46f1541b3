r"""A closed-form Gaussian denoiser inside a network: what linear algebra knows need not be learned.

For Gaussian data N(mu, S) the posterior mean is linear, and every covariance eigenvalue l is handled on its own:

    E[x_0 | x_t] = mu + U diag( alpha l / (alpha^2 l + sigma^2) ) U^T (x_t - alpha mu).

At high noise a trained denoiser *is* nearly this function of the training set's mean and covariance (Wang & Vastola 2023),
so a network that only has to learn the difference starts with the coarse anatomy in place and cannot be worse than the
linear denoiser where that is optimal. `PooledGaussian` keeps it affordable for volumes: a volume is split orthogonally
into block sums over pool^n voxels, divided by sqrt(pool^n), and what remains. The coarse part has a low-rank covariance
plus a floor, the fine part a single variance.

Covariates c move the mean linearly, mu(c) = mu + B E[c | what is given of c], with B from ridge regression. Those not given
(NaN) are replaced by their conditional expectation under the covariates' own correlations, so a head with large ventricles
and nothing else said has the brain volume that goes with them. At t = 1, where x_t says nothing, this is all there is.

References:
    Wang & Vastola, "Diffusion models generate images like painters", 2023, https://arxiv.org/abs/2303.02490, eqs. 6-9.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from radiata_core.errors import InputError
from radiata_core.specs import buildable

__all__ = ["PooledGaussian"]


@buildable("pooled-gaussian")
class PooledGaussian(nn.Module):
    """Best linear denoiser under a two-scale covariance; its parts are buffers and travel with the checkpoint.

    Args:
        shape: Event shape `(channels, *grid)`, e.g. (1, 48, 56, 48).
        rank: Number of eigenvectors of the coarse part.
        pool: Edge of a block in voxels; divides every grid axis.
        covariates: Number of standardised covariates that move the mean.
        coupled: The noise of a row is not independent of its data but the noise the data's own flow starts from (reflow,
            `rectification`): then x_0 - mu = S^{1/2} noise, and E[x_0 | x_t] has the gain sqrt(l) / (alpha sqrt(l) + sigma).
    """

    mean: Tensor
    basis: Tensor
    eigenvalues: Tensor
    floor: Tensor
    fine: Tensor
    effects: Tensor
    correlation: Tensor

    def __init__(
        self, *, shape: Sequence[int], rank: int, pool: int = 2, covariates: int = 0, coupled: bool = False
    ) -> None:
        super().__init__()
        self.options: dict[str, Any] = {
            "shape": tuple(shape),
            "rank": rank,
            "pool": pool,
            "covariates": covariates,
            "coupled": coupled,
        }
        if any(n % pool for n in shape[1:]) or len(shape) != 4:
            raise InputError(
                f"expected a shape (channels, x, y, z) that divides by pool {pool}; got {tuple(shape)}"
            )
        self.pool = pool
        coarse = shape[0] * (shape[1] // pool) * (shape[2] // pool) * (shape[3] // pool)
        if not 1 <= rank <= coarse:
            raise InputError(f"expected a rank between 1 and {coarse}; got {rank}")
        self.register_buffer("mean", torch.zeros(*shape))
        self.register_buffer("basis", torch.zeros(rank, coarse))
        self.register_buffer("eigenvalues", torch.ones(rank))
        self.register_buffer("floor", torch.ones(()))
        self.register_buffer("fine", torch.ones(()))
        self.register_buffer("effects", torch.zeros(covariates, coarse))
        self.register_buffer("correlation", torch.eye(covariates))

    def _coarse(self, x: Tensor) -> Tensor:
        """Orthonormal block sums `(batch, channels, x/p, y/p, z/p)`."""
        return nn.functional.avg_pool3d(x, self.pool) * self.pool**1.5

    def _spread(self, coarse: Tensor) -> Tensor:
        """Transpose of `_coarse`."""
        return (
            nn.functional.interpolate(coarse, scale_factor=float(self.pool), mode="nearest") / self.pool**1.5
        )

    def mean_given(self, covariates: Tensor | None) -> Tensor:
        """mu(c), `(batch, *shape)`, or `(1, *shape)` where no covariates are given.

        Args:
            covariates: `(batch, K)`, standardised, NaN where not given; None for none.
        """
        if covariates is None or not len(self.effects):
            return self.mean[None]
        coarse = (self._completed(covariates.to(self.effects)) @ self.effects).reshape(
            len(covariates), self.mean.shape[0], *(n // self.pool for n in self.mean.shape[1:])
        )
        return self.mean + self._spread(coarse)

    def _completed(self, covariates: Tensor) -> Tensor:
        """E[c | given part of c] for standard normal c with the correlations R: R_{:g} (R_{gg})^-1 c_g."""
        given = (~covariates.isnan()).to(covariates.dtype)
        known = torch.nan_to_num(covariates, nan=0.0)
        both = given[:, :, None] * given[:, None, :]
        # Rows that are not given become those of the identity, so that one batched solve serves every pattern.
        inner = both * self.correlation + torch.diag_embed(1.0 - given)
        return (self.correlation @ torch.linalg.solve(inner, known)[..., None]).squeeze(-1)

    def forward(
        self,
        x: Tensor,
        alpha: Tensor,
        sigma: Tensor,
        covariates: Tensor | None = None,
        destination: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """E[x_0 | x_t, c] `(batch, *shape)` under the Gaussian; with a destination, the g of its exact flow map.

        Args:
            x: State `(batch, *shape)`.
            alpha: Signal coefficient, scalar or `(batch,)`.
            sigma: Noise coefficient, likewise; not 0 where alpha is.
            covariates: `(batch, K)`, standardised, NaN where not given.
            destination: alpha and sigma of the time s asked for (see `flowmaps`): what is returned is then the g with
                which one Euler step from t to s is exact for the Gaussian. None for s = t, where that is E[x_0 | x_t].
        """
        alpha, sigma = (c.to(x).reshape(-1, 1) for c in (alpha, sigma))
        alpha_s, sigma_s = (
            (alpha, sigma) if destination is None else (c.to(x).reshape(-1, 1) for c in destination)
        )
        ratio = torch.where(sigma > 0, sigma_s / sigma, torch.ones_like(sigma))
        mean = self.mean_given(covariates)

        def gain(eigenvalue: Tensor) -> Tensor:
            if self.options["coupled"]:
                return eigenvalue.sqrt() / (alpha * eigenvalue.sqrt() + sigma)
            variance = alpha.square() * eigenvalue + sigma.square()
            if destination is None:
                return alpha * eigenvalue / variance
            growth = ((alpha_s.square() * eigenvalue + sigma_s.square()) / variance).sqrt()
            return eigenvalue * (alpha_s + alpha * ratio) / (variance * (growth + ratio))

        wide = alpha.reshape(-1, *[1] * (x.ndim - 1))
        centred = x - wide * mean
        coarse = self._coarse(centred)
        flat = coarse.flatten(1)
        scores = flat @ self.basis.T
        base = gain(self.floor)
        estimate = base * flat + (scores * (gain(self.eigenvalues) - base)) @ self.basis
        fine = gain(self.fine).reshape(-1, *[1] * (x.ndim - 1))
        low = self._spread(estimate.reshape(coarse.shape) - fine.reshape(-1, 1, 1, 1, 1) * coarse)
        return mean + fine * centred + low

    @torch.no_grad()
    def truncated(self, rank: int, coupled: bool = False) -> "PooledGaussian":
        """The same Gaussian with fewer components, and in particular the same total variance.

        Args:
            rank: Components kept; the variance of the others goes to the floor.
            coupled: As in the constructor.

        Raises:
            InputError: a rank above the present one, or below 1.
        """
        if not 1 <= rank <= self.options["rank"]:
            raise InputError(f"expected a rank between 1 and {self.options['rank']}; got {rank}. Lower it.")
        smaller = PooledGaussian(**self.options | {"rank": rank, "coupled": coupled})
        state = self.state_dict()
        rest = self.basis.shape[1] - self.options["rank"]
        state["floor"] = (self.eigenvalues[rank:].sum() + rest * self.floor) / (self.basis.shape[1] - rank)
        state["basis"], state["eigenvalues"] = self.basis[:rank].clone(), self.eigenvalues[:rank].clone()
        smaller.load_state_dict(state)
        return smaller

    @torch.no_grad()
    def fit(
        self, images: Tensor, groups: Sequence[int], covariates: Tensor | None = None, ridge: float = 0.01
    ) -> "PooledGaussian":
        """Set mean, covariance and effects from `images` `(n, *shape)`, calibrated for *people that were not seen*.

        The directions are the leading principal components of all images. Their variances, the floor and the fine
        variance are measured on each group (person) with components fitted without it; otherwise the tail of the
        spectrum would describe the people of the training set and be trusted far too much at low noise.

        Args:
            images: Training images.
            groups: The person of each image; at least two different ones.
            covariates: `(n, K)`, standardised; NaN are filled with 0, the mean. Needed if the anchor was made for some.
            ridge: Penalty as a fraction of n: covariates that say the same (a scale and a volume) share their effect.
        """
        label = torch.as_tensor(groups)
        people = label.unique()
        if len(people) < 2:
            raise InputError("expected images of at least two people to calibrate the Gaussian; got one")
        rank = self.options["rank"]
        if len(images) <= rank:
            raise InputError(f"expected more images than the rank {rank}; got {len(images)}. Lower the rank.")
        self.mean.copy_(images.mean(0))
        centred = images - self.mean
        coarse = torch.cat([self._coarse(part) for part in centred.split(64)]).flatten(1)
        self._fit_effects(coarse, covariates, ridge)
        fine = (centred.square().sum() - coarse.square().sum()) / (centred.numel() - coarse.numel())
        self.fine.copy_(fine)
        variances, floors = [], []
        for person in people:
            inside = label == person
            rest = coarse[~inside]
            shift = rest.mean(0)
            basis = _principal(rest - shift, min(rank, len(rest) - 1))
            held = coarse[inside] - shift
            scores = held @ basis.T
            variances.append(nn.functional.pad(scores.square().mean(0), (0, rank - len(basis))))
            floors.append(
                (held.square().sum(1).mean() - scores.square().sum(1).mean()) / (held.shape[1] - len(basis))
            )
        floor = torch.stack(floors).mean()
        # The order of components may differ between the fits: a monotone spectrum is what they have in common.
        spectrum = torch.stack(variances).mean(0).sort(descending=True).values
        self.basis.copy_(_principal(coarse, rank))
        self.eigenvalues.copy_(spectrum.clamp_min(floor))
        self.floor.copy_(floor)
        return self

    def _fit_effects(self, coarse: Tensor, covariates: Tensor | None, ridge: float) -> None:
        wanted = self.options["covariates"]
        if not wanted:
            return
        if covariates is None or covariates.shape != (len(coarse), wanted):
            got = None if covariates is None else tuple(covariates.shape)
            raise InputError(
                f"expected covariates of shape {(len(coarse), wanted)} to fit the anchor; got {got}."
            )
        c = torch.nan_to_num(covariates.double(), nan=0.0)
        count = len(c)
        gram = c.T @ c + ridge * count * torch.eye(wanted, dtype=c.dtype)
        self.effects.copy_(torch.linalg.solve(gram, c.T @ coarse.double()).to(self.effects))
        spread = gram / count
        scale = spread.diagonal().rsqrt()
        self.correlation.copy_((scale[:, None] * spread * scale).to(self.correlation))


def _principal(rows: Tensor, rank: int) -> Tensor:
    """The `rank` leading right singular vectors of `rows`, through the smaller Gram matrix."""
    gram = rows @ rows.T
    _, vectors = torch.linalg.eigh(gram.double())
    lead = vectors[:, -rank:].flip(1).T.to(rows)
    basis = lead @ rows
    return basis / basis.norm(dim=1, keepdim=True)

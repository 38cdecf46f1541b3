"""A world where every answer of an aggregated denoiser is known: a field of 2 and a vector of 2 numbers, jointly Gaussian.

u = (a, b) ~ N(0, S), latent z_0 = M u with fixed isometric encoders, a grid of one voxel. Whatever the state holds and
whatever is given, E[u | .] is linear, the heads' means are linear in E[z_0 | .], and draws of u have covariance S.
"""

import math

import torch
from torch import Tensor, nn

from radiata_core.aggregated_denoisers import AggregatedDenoiser
from radiata_core.modality_laws import RealLaw
from radiata_core.paths import LinearPath
from radiata_core.seeds import generator_of
from radiata_core.shared_modalities import FieldEncoder, SharedModality, VectorEncoder

PATH, LATENT = LinearPath(), 4
S = torch.tensor(
    [[1.0, 0.3, 0.8, 0.0], [0.3, 1.0, 0.2, -0.5], [0.8, 0.2, 1.0, 0.1], [0.0, -0.5, 0.1, 1.0]],
    dtype=torch.float64,
)
_FIELD, _VECTOR = FieldEncoder(2, LATENT).double(), VectorEncoder(2, LATENT, 1, cells=1, seed=5).double()
A, B = _FIELD.isometry.matrix(), _VECTOR.isometry.matrix()
WEIGHTS = (0.8, 0.6)
M = torch.cat([WEIGHTS[0] * A, WEIGHTS[1] * B], 1)


def drawn(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """a as a field (n, 2, 1), b as a vector (n, 2)."""
    noise = torch.randn(count, 4, generator=generator_of(seed), dtype=torch.float64)
    u = noise @ torch.linalg.cholesky(S).T
    return u[:, :2, None], u[:, 2:]


def posterior(t: float, given: tuple[bool, bool] = (False, False)) -> tuple[Tensor, Tensor, Tensor]:
    """Gain (4, 8) on [z_t, u where given], and covariance (4, 4) of u after it, and the observation matrix."""
    see = torch.diag(torch.tensor([given[0]] * 2 + [given[1]] * 2, dtype=torch.float64))
    rows = torch.cat([(1 - t) * M, see])
    noise = torch.diag(torch.cat([torch.full((LATENT,), t * t + 1e-12), torch.full((4,), 1e-9)]).double())
    gain = S @ rows.T @ torch.linalg.inv(rows @ S @ rows.T + noise)
    return gain, S - gain @ rows @ S, rows


class ExactNetwork(nn.Module):
    """E[z_0 | z_t, told] as a network of [scaled z_t, told] and the level; no features."""

    def __init__(self, bend: float = 1.0) -> None:
        super().__init__()
        self.bend = bend

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        x = x[:, :, 0]
        kinds = torch.cat([level.expand(len(x))[:, None], x[:, 2 * LATENT :]], 1)
        different, which = kinds.unique(dim=0, return_inverse=True)
        answer = torch.empty_like(x[:, :LATENT])
        for number, (lam, first, second) in enumerate(different.tolist()):
            rows, t, given = which == number, 1 / (1 + math.exp(lam)), (first > 0, second > 0)
            z = x[rows, :LATENT] * ((1 - t) ** 2 + t * t) ** 0.5
            back = torch.linalg.pinv(torch.cat([A * given[0], B * given[1]], 1))
            clean = x[rows, LATENT : 2 * LATENT] @ back.T
            answer[rows] = torch.cat([z, clean], 1) @ (M @ posterior(t, given)[0]).T
        return self.bend * answer[:, :, None]


class ExactHead(nn.Module):
    """E[a] or E[b] from E[z_0]: rows of M^-1, times a bend."""

    def __init__(self, first: bool, bend: float = 1.0) -> None:
        super().__init__()
        self.rows = bend * torch.linalg.inv(M)[: 2 if first else 4][0 if first else 2 :]
        self.field = first

    def forward(self, latent: Tensor, features: Tensor) -> Tensor:
        said = torch.einsum("ul,bl...->bu...", self.rows, latent)
        return said if self.field else said[:, :, 0]


def exact(bend_latent: float = 1.0, bend_a: float = 1.0, bend_b: float = 1.0) -> AggregatedDenoiser:
    """The exact denoiser, or one whose answers are bent."""
    parts = {
        "image": SharedModality(RealLaw(2), _FIELD, ExactHead(True, bend_a / bend_latent), WEIGHTS[0]),
        "vector": SharedModality(RealLaw(2), _VECTOR, ExactHead(False, bend_b / bend_latent), WEIGHTS[1]),
    }
    return AggregatedDenoiser(ExactNetwork(bend_latent), PATH, parts, LATENT, "sample").double()

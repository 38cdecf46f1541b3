r"""The released "locally coupled oscillators": a quadratic form, and what follows from that.

The H latents are four channels of n = H / 4 sites. With a kernel K (4, 4, 3), each of three taps of norm 1,

$$U(z) = \sum_{i,j} \langle (K * z)_i, z_j \rangle = z^\top A z, \qquad \nabla U = S z,\quad S = A + A^\top.$$

The sums leave $U = \langle \sum_j z_j, \sum_j k_j * z_j \rangle$ with $k_j = \sum_i K_{ij}$: 11 numbers of 48 act
(the 12 of the four k_j, less the antisymmetric kernel (1, 0, -1) common to all four, which cancels in S).
With $P = (I\ I\ I\ I)$ and $C = (T(k_1) \dots T(k_4))$, T the banded matrix of a kernel, $S = P^\top C + C^\top P$. Hence

- **the force is linear** and S constant over bins: no automatic differentiation a bin is needed;
- **rank(S) <= 2n = H/2**: half of the latent space is force-free;
- S is indefinite: as $S = \tfrac12[(P+C)^\top(P+C) - (P-C)^\top(P-C)]$, it has at most n eigenvalues of each sign, and U
  has no least value;
- $|S| \le 2|P||C| \le 32\sqrt3 = 55.4$ in the spectral norm, as $|P| = 2$, $|C| \le 2\max_j|k_j|_1$, $|k_j|_1 \le 4\sqrt3$;
- **nothing oscillates**. A mode of stiffness $\lambda$ steps by the matrix ((1, h), (-(1 - gamma) h lambda, 1 - gamma)),
  whose eigenvalues are complex only if $\lambda > \gamma^2 / (4(1-\gamma)h^2)$: 1681 for h = 0.01, gamma = 0.55.

"Non-autonomous" inputs do not enter U in the release: spikes reach the rates by the encoder's state alone.

References:
    Song et al., 2025, https://arxiv.org/abs/2507.11531 (the potential, as released; the consequences are derived here).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from radiata_core.errors import InputError

__all__ = ["CHANNELS", "LARGEST_STIFFNESS", "CoupledPotential", "least_oscillating_stiffness"]

CHANNELS, TAPS = 4, 3
LARGEST_STIFFNESS = 2 * CHANNELS**2 * math.sqrt(TAPS)
"""No normalised kernel gives S a larger eigenvalue."""


def least_oscillating_stiffness(step: float, gamma: float) -> float:
    """Eigenvalue of S above which a mode turns instead of decaying, gamma² / (4 (1 - gamma) step²).

    Args:
        step: h of the Hamiltonian half, > 0.
        gamma: Share of the velocity lost in a bin, (0, 1]; at 1 nothing ever turns.
    """
    return math.inf if gamma == 1 else gamma**2 / (4 * (1 - gamma) * step**2)


class CoupledPotential(nn.Module):
    """U(z) and the matrix of its force.

    Args:
        hidden: Latents H, a multiple of four.
        normalised: Divide each kernel of three taps by its norm.
        epsilon: Least norm to divide by.
        spread: Standard deviation that kernels begin with; the release begins at 0.

    Raises:
        InputError: latents that are not four equal channels.
    """

    shifts: Tensor

    def __init__(
        self, hidden: int, *, normalised: bool = True, epsilon: float = 1e-12, spread: float = 0.0
    ) -> None:
        super().__init__()
        if hidden < CHANNELS or hidden % CHANNELS:
            raise InputError(f"expected latents in {CHANNELS} equal channels; got {hidden}. Give a multiple.")
        self.hidden, self.normalised, self.epsilon = hidden, normalised, epsilon
        self.kernel = nn.Parameter(spread * torch.randn(CHANNELS, CHANNELS, TAPS))
        one = torch.ones(hidden // CHANNELS)
        shifts = [torch.diag(one[abs(k) :], k) for k in (-1, 0, 1)]
        self.register_buffer("shifts", torch.stack(shifts), persistent=False)

    def taps(self) -> Float[Tensor, "4 4 3"]:
        """The kernel as it acts."""
        if not self.normalised:
            return self.kernel
        return functional.normalize(self.kernel, p=2.0, dim=2, eps=self.epsilon)

    def coupling(self) -> Float[Tensor, "hidden hidden"]:
        """S, so that the gradient of U is S z."""
        bands = torch.einsum("jm,mab->ajb", self.taps().sum(0), self.shifts).flatten(1)
        quadratic = bands.repeat(CHANNELS, 1)
        return quadratic + quadratic.T

    def energy(self, z: Float[Tensor, "batch hidden"]) -> Float[Tensor, "batch"]:
        """U(z), one number a row, by convolution as the equation has it."""
        sites = z.unflatten(1, (CHANNELS, -1))
        felt = functional.conv1d(sites, self.taps(), padding=1)
        return (felt.sum(1) * sites.sum(1)).sum(1)

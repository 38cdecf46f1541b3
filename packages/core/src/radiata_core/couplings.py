r"""Who is paired with whom: the joint law of data and noise.

Training a path needs pairs $(x_0, \varepsilon)$. Drawn independently they give diffusion and rectified flow;
other joint laws with the same marginals (optimal transport, pairs made by a teacher) straighten the
trajectories and are couplings of the same form: a callable from data and generators to a `Pair`. It is told the
conditions too, since noise that is dealt out across conditions would tell a network of p(x_0 | c) what c is.

Here is the form and the independent coupling; exact assignments within the batch are in `optimal_transport`, pairs that a
teacher made, and their annealing, in `pairings`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Generator, Tensor

from radiata_core.kernels import GaussianKernel, Kernel
from radiata_core.specs import buildable
from radiata_core.types import Batch

__all__ = ["Coupling", "IndependentCoupling", "Pair"]


@dataclass(frozen=True)
class Pair:
    """Data and the noise each row is paired with, both (batch, *event)."""

    x0: Tensor
    noise: Tensor


@runtime_checkable
class Coupling(Protocol):
    """Anything that pairs a batch of data with noise."""

    def __call__(self, x0: Batch, generators: Generator | Sequence[Generator], **conditions: Any) -> Pair:
        """Pairs for the rows of `x0`, (batch, *event), from one generator or one a row; x0 stays in its order.

        Conditions are those the network is told, one row a sample; a coupling may look at them or not.
        """
        ...


@buildable("independent-coupling")
@dataclass(frozen=True)
class IndependentCoupling:
    """Noise that knows nothing of the data: $x_0$ and the noise are independent.

    Args:
        kernel: The law of the noise; with `StudentTKernel(D)` this is PFGM++.
    """

    kernel: Kernel = field(default_factory=GaussianKernel)

    def __call__(self, x0: Batch, generators: Generator | Sequence[Generator], **conditions: Any) -> Pair:
        """`x0` with fresh noise; with a list of generators row i depends on generator i only.

        Raises:
            InputError: the number of generators is not that of rows.
        """
        return Pair(x0, self.kernel.noise(x0, generators))

r"""Jacobians of fields by products: what a network's derivative does to a vector, and how much it spreads.

A *field* is any row-wise function f of the state: the score, a velocity, a denoiser at fixed t. Nobody can hold the D × D
Jacobian of a volume, but two products cost a few evaluations each:

$$J v = \tfrac{d}{dh} f(x + h v)\big|_{h=0}\ \text{(forward mode)}, \qquad
  J^\top w = \nabla_x \langle f(x), w\rangle\ \text{(reverse mode)},$$

and the divergence is either D reverse products or, without bias, one (Hutchinson):

$$\operatorname{div} f = \operatorname{tr} J = \mathbb E_v\, v^\top J v, \qquad
  \operatorname{Var} v^\top J v = \tfrac12\,\lVert J + J^\top\rVert_F^2 - 2\sum_i J_{ii}^2 \quad (v_i = \pm 1).$$

Attention is computed by its plain kernel here: the fused ones have neither forward mode nor second derivatives. Where a
network has no forward mode, $Jv$ is the derivative of $J^\top u$ in u (which is linear), at about twice the cost.

References:
    Hutchinson, 1990, "A stochastic estimator of the trace of the influence matrix" (Rademacher probes).
    Grathwohl et al., "FFJORD", 2018, https://arxiv.org/abs/1810.01367, eq. 7.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from radiata_core.denoisers import Denoiser
from radiata_core.errors import InputError
from radiata_core.kernels import is_gaussian
from radiata_core.paths import expand
from radiata_core.types import Batch, Row, Time

__all__ = [
    "BlockDivergence",
    "Divergence",
    "ExactDivergence",
    "Field",
    "Hutchinson",
    "hutchinson",
    "inner",
    "jacobian",
    "jvp",
    "probe_divergences",
    "pushforward",
    "rademacher",
    "score_field",
    "vjp",
]

Field = Callable[[Tensor], Tensor]
Matrix = Float[Tensor, "batch elements elements"]


def score_field(denoiser: Denoiser, t: Time, **conditions: Any) -> Field:
    """The score at fixed t as a field: s(x) = (alpha D(x, t) - x) / sigma^2.

    Args:
        denoiser: A posterior mean of Gaussian noise.
        t: Time with sigma > 0, () or (batch,).
        conditions: Passed on to the denoiser, one row a row of x.

    Raises:
        InputError: sigma is 0, or the noise is not Gaussian (then D does not tell the score).

    References:
        Karras et al., 2022, https://arxiv.org/abs/2206.00364, eq. 3 (Tweedie's formula).
    """
    kernel = getattr(denoiser, "kernel", None)
    if kernel is not None and not is_gaussian(kernel):
        raise InputError(
            f"expected Gaussian noise, where the denoiser is the score; got {type(kernel).__name__}. "
            "Give the score itself as a field."
        )
    c = denoiser.path.coefficients(t)
    if bool((c.sigma == 0).any()):
        raise InputError("expected a time with noise; got sigma = 0, where the score is infinite. Raise t.")

    def score(x: Tensor) -> Tensor:
        pull = expand(c.alpha, x).to(x.dtype) * denoiser(x, t, **conditions) - x
        return pull / expand(c.sigma.square(), x).to(x.dtype)

    return score


def jvp(field: Field, x: Batch, tangent: Batch) -> Batch:
    """J v, row by row: forward mode, or the derivative of a reverse product where a layer has no forward mode."""
    with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        # torch's own words when it first loads its forward mode, which is no news to a caller.
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
        try:
            with torch.no_grad():
                return torch.func.jvp(field, (x.detach(),), (tangent,))[1]
        except (NotImplementedError, RuntimeError):
            return _double_vjp(field, x, tangent)


def _double_vjp(field: Field, x: Tensor, tangent: Tensor) -> Tensor:
    """J v as the gradient of <J^T u, v> in u; it is linear in u, so any u will do."""
    with torch.enable_grad():
        state = x.detach().requires_grad_()
        value = field(state)
        dual = torch.zeros_like(value).requires_grad_()
        (pulled,) = torch.autograd.grad(value, state, dual, create_graph=True)
        return torch.autograd.grad(pulled, dual, tangent)[0].detach()


def vjp(field: Field, x: Batch, cotangent: Batch) -> Batch:
    """J^T w, row by row."""
    with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
        state = x.detach().requires_grad_()
        return torch.autograd.grad(field(state), state, cotangent)[0]


def jacobian(field: Field, x: Batch) -> Matrix:
    """J[b, i, j] = d f_i / d x_j of every row, by D reverse products. For small events only."""
    with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
        state = x.detach().requires_grad_()
        value = field(state).flatten(1)
        columns = value.unbind(1)
        rows = [torch.autograd.grad(column.sum(), state, retain_graph=True)[0] for column in columns]
    return torch.stack([row.flatten(1) for row in rows], 1)


@runtime_checkable
class Divergence(Protocol):
    """A way to take the divergence of a field."""

    def __call__(self, field: Field, x: Batch) -> tuple[Tensor, Tensor]:
        """The field's value, (batch, *event), and its divergence, (batch,)."""
        ...


@dataclass(frozen=True)
class ExactDivergence:
    """tr J by D reverse products; exact, and D + 1 evaluations in cost."""

    def __call__(self, field: Field, x: Batch) -> tuple[Tensor, Tensor]:
        """The field's value and its divergence."""
        with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
            state = x.detach().requires_grad_()
            value = field(state)
            total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
            for index, column in enumerate(value.flatten(1).unbind(1)):
                row = torch.autograd.grad(column.sum(), state, retain_graph=True)[0]
                total += row.flatten(1)[:, index]
        return value.detach(), total


@dataclass(frozen=True, eq=False)
class Hutchinson:
    """v^T J v averaged over given probes v: unbiased, one reverse product a probe.

    The probes are held, not drawn: along a trajectory the same probe must be asked at every step, or the integrand of a
    likelihood is noise and an adaptive solver shrinks its steps for nothing.

    Args:
        probes: Entries of mean 0 and variance 1, shape (probes, batch, *event).
    """

    probes: Float[Tensor, "probes batch *event"]

    def __call__(self, field: Field, x: Batch) -> tuple[Tensor, Tensor]:
        """The field's value and the estimate of its divergence."""
        value, each = probe_divergences(field, x, self.probes)
        return value, each.mean(0)


def hutchinson(
    x: Batch,
    generators: Sequence[torch.Generator],
    probes: int = 1,
    draw: Callable[..., Tensor] | None = None,
) -> Hutchinson:
    """Hutchinson's divergence with `probes` probes a row of x; row i draws from generator i.

    Args:
        x: What the probes are like, shape (batch, *event).
        generators: One a row.
        probes: A row, >= 1.
        draw: `(x, generators)` to entries of mean 0 and variance 1; None: `rademacher`, whose variance is least.
            `GaussianKernel().noise` is the other usual choice.

    Raises:
        InputError: no probe, or not one generator a row.
    """
    if probes < 1:
        raise InputError(f"expected at least one probe; got {probes}. One is unbiased, more are quieter.")
    draw = rademacher if draw is None else draw
    return Hutchinson(torch.stack([draw(x, generators) for _ in range(probes)]))


def rademacher(x: Batch, generators: Sequence[torch.Generator]) -> Batch:
    """Fair signs like x, row i from generator i alone.

    Raises:
        InputError: not one generator a row.
    """
    if len(generators) != len(x):
        raise InputError(
            f"expected one generator a row, {len(x)}; got {len(generators)}. Use generators_of(seeds)."
        )
    rows = [torch.randint(0, 2, x.shape[1:], generator=g, device=g.device) for g in generators]
    return torch.stack([row.to(x) for row in rows]) * 2 - 1


def inner(a: Batch, b: Batch) -> Row:
    """<a, b> of every row, (batch,)."""
    return (a * b).flatten(1).sum(1)


@dataclass(frozen=True)
class BlockDivergence:
    """tr J by D reverse products, `block` of them in one batched pass; exact, and faster where a network is small.

    The forward pass is shared. Memory grows with the block: each product holds its own gradients.

    Args:
        block: Products at once, >= 1.
    """

    block: int = 32

    def __post_init__(self) -> None:
        if self.block < 1:
            raise InputError(f"expected a block >= 1; got {self.block}. ExactDivergence takes one at a time.")

    def __call__(self, field: Field, x: Batch) -> tuple[Tensor, Tensor]:
        """The field's value and its divergence."""
        elements = x[0].numel()
        with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
            state = x.detach().requires_grad_()
            value = field(state)
            total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
            for first in range(0, elements, self.block):
                index = torch.arange(first, min(first + self.block, elements), device=x.device)
                ones = torch.zeros(len(index), elements, dtype=x.dtype, device=x.device)
                ones[torch.arange(len(index), device=x.device), index] = 1
                unit = ones.view(len(index), 1, *x.shape[1:]).expand(-1, *x.shape)
                rows = torch.autograd.grad(value, state, unit, retain_graph=True, is_grads_batched=True)[0]
                total += (rows * unit).flatten(2).sum((0, 2))
        return value.detach(), total


def probe_divergences(field: Field, x: Batch, probes: Tensor) -> tuple[Tensor, Tensor]:
    """The field's value and v^T J v of every probe by itself, (probes, batch): what their spread tells the error from.

    Args:
        field: A field.
        x: Where, shape (batch, *event).
        probes: Entries of mean 0 and variance 1, shape (probes, batch, *event).

    Raises:
        InputError: the probes are not of the shape of x.
    """
    if probes.shape[1:] != x.shape:
        raise InputError(
            f"expected probes of shape (probes, {', '.join(map(str, x.shape))}); got "
            f"{tuple(probes.shape)}. Make them with hutchinson(x, generators)."
        )
    values = []
    with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
        state = x.detach().requires_grad_()
        value = field(state)
        for number, probe in enumerate(probes):
            last = number == len(probes) - 1
            pulled = torch.autograd.grad(value, state, probe.to(x), retain_graph=not last)[0]
            values.append(inner(pulled, probe.to(x)))
    return value.detach(), torch.stack(values)


def pushforward(
    field: Field, x: Batch, tangents: Float[Tensor, "tangents batch *event"], block: int = 1
) -> Tensor:
    """J v of every tangent, (tangents, batch, *event); `block` of them at once by vectorised forward mode.

    Args:
        field: A field.
        x: Where, shape (batch, *event).
        tangents: Directions of every row.
        block: Products at once, >= 1. One needs least memory and works for any network.
    """
    if block == 1:
        return torch.stack([jvp(field, x, tangent) for tangent in tangents])
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad():

        def product(tangent: Tensor) -> Tensor:
            return torch.func.jvp(field, (x.detach(),), (tangent,))[1]

        return torch.func.vmap(product, chunk_size=block)(tangents)

r"""Paths of the latent flow: a linear map a bin, a drive, and kicks of a stiffening force; one loop, differentiated by hand.

States are $s = (q, w)$, position and velocity over omega, as rows. With the force $f(q) = -c\,q^3 / (1 + a q^2)$, cubic near
0 and linear far out, a = 1/9, and $\kappa$ half a bin's kick,

$$(q, w)_t \to (q,\; w + \kappa f(q)) \to (\,\cdot\,)\,M + \text{drive}_t \to (q,\; w + \kappa f(q)),$$

that is $s^-_{t+1} = s_t A + f(q_t) B + \text{drive}_t$ with $B = (0\ \mathrm{diag}\,\kappa)\,M$, and A = M plus what
else is linear in the state (the feedback of a posterior). What is linear, the exact step of the oscillators, their coupling
and the feedback, is one matrix, made once a batch.

Forwards that is one product a bin without that force and five small operations with it; backwards

$$p_t = a_t + (f'(q_t)\,\kappa\,a^w_t,\ 0), \qquad a_{t-1} \mathrel{+}= p_t A^\top + (f'(q_{t-1})\,(p_t B^\top),\ 0),$$

for the adjoint a; the gradients of A, B, kappa and c are sums over all bins at the end. Nothing is recorded a bin.

References:
    Leimkuhler & Matthews, "Rational construction of stochastic numerical methods for molecular sampling", 2013,
        https://arxiv.org/abs/1203.5428 (kicks around an exact linear step).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["BEND", "linear_flow_scan", "stiffening_flow_scan", "stiffening_force"]

BEND = 1 / 9
"""a: the force turns from cubic to linear at three standard deviations."""


def stiffening_force(q: Tensor, strength: Tensor) -> Tensor:
    """-c q^3 / (1 + a q^2), element by element; c is `strength` >= 0."""
    square = q * q
    return -strength * q * square / (1 + BEND * square)


class _Linear(torch.autograd.Function):
    """Time first: (time, batch, state)."""

    @staticmethod
    def forward(ctx: Any, start: Tensor, drive: Tensor, matrix: Tensor) -> Tensor:
        states = drive.new_empty(len(drive) + 1, *drive.shape[1:])
        states[0] = start
        s = states.unbind(0)
        for t, push in enumerate(drive.unbind(0)):
            torch.addmm(push, s[t], matrix, out=s[t + 1])
        ctx.save_for_backward(states, matrix)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        states, matrix = ctx.saved_tensors
        adjoint = grads[0].clone(memory_format=torch.contiguous_format)
        a, back = adjoint.unbind(0), matrix.T
        for t in range(len(a) - 1, 0, -1):
            a[t - 1].addmm_(a[t], back)
        return adjoint[0], adjoint[1:], states[:-1].flatten(0, 1).T @ adjoint[1:].flatten(0, 1)


class _Stiffening(torch.autograd.Function):
    """Time first: (time, batch, state)."""

    @staticmethod
    def forward(
        ctx: Any, start: Tensor, drive: Tensor, matrix: Tensor, push: Tensor, kick: Tensor, strength: Tensor
    ) -> Tensor:
        half = drive.shape[2] // 2
        states = drive.new_empty(len(drive) + 1, *drive.shape[1:])
        forces = drive.new_empty(*states.shape[:2], half)
        states[0] = start
        s, f = states.unbind(0), forces.unbind(0)
        f[0].copy_(stiffening_force(s[0][:, :half], strength))
        for t, given in enumerate(drive.unbind(0)):
            torch.addmm(given, s[t], matrix, out=s[t + 1])
            s[t + 1].addmm_(f[t], push)
            f[t + 1].copy_(stiffening_force(s[t + 1][:, :half], strength))
            s[t + 1][:, half:].addcmul_(f[t + 1], kick)
        ctx.save_for_backward(states, forces, matrix, push, kick, strength)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        states, forces, matrix, push, kick, strength = ctx.saved_tensors
        half = states.shape[2] // 2
        adjoint = grads[0].clone(memory_format=torch.contiguous_format)
        of_force = torch.empty_like(forces[1:])
        square = states[..., :half].square()
        shapes = -square / (1 + BEND * square)  # f / (c q)
        slopes = strength * shapes * (3 + BEND * square) / (1 + BEND * square)
        a, g = adjoint.unbind(0), of_force.unbind(0)
        slope, kicked = slopes.unbind(0), (slopes * kick).unbind(0)
        back, pull = matrix.T, push.T
        for t in range(len(a) - 1, 0, -1):
            a[t][:, :half].addcmul_(kicked[t], a[t][:, half:])
            a[t - 1].addmm_(a[t], back)
            torch.mm(a[t], pull, out=g[t - 1])
            a[t - 1][:, :half].addcmul_(slope[t - 1], g[t - 1])
        later = adjoint[1:].flatten(0, 1)
        of_matrix = states[:-1].flatten(0, 1).T @ later
        of_push = forces[:-1].flatten(0, 1).T @ later
        on_velocity = adjoint[1:, :, half:] * forces[1:]
        of_kick = on_velocity.sum((0, 1))
        units = shapes * states[..., :half]  # f / c, also where c is 0
        of_strength = (adjoint[1:, :, half:] * kick * units[1:]).sum() + (of_force * units[:-1]).sum()
        return adjoint[0], adjoint[1:], of_matrix, of_push, of_kick, of_strength


def linear_flow_scan(
    start: Float[Tensor, "batch state"],
    drive: Float[Tensor, "batch steps state"],
    matrix: Float[Tensor, "state state"],
) -> Float[Tensor, "batch time state"]:
    """States of all bins without the stiffening force, one more than steps.

    Args:
        start: (q, w) of the first bin.
        drive: What is added in each step.
        matrix: A, applied from the right.
    """
    states: Tensor = _Linear.apply(start, drive.transpose(0, 1), matrix)
    return states.transpose(0, 1)


def stiffening_flow_scan(
    start: Float[Tensor, "batch state"],
    drive: Float[Tensor, "batch steps state"],
    matrix: Float[Tensor, "state state"],
    push: Float[Tensor, "half state"],
    kick: Float[Tensor, "half"],
    strength: Float[Tensor, ""],
) -> Float[Tensor, "batch time state"]:
    """States of all bins with the stiffening force, one more than steps (the equations of this module).

    Args:
        start: (q, w) of the first bin.
        drive: What is added in each step.
        matrix: A, applied from the right.
        push: B, where the force of the last bin goes.
        kick: kappa, where the force of the new bin goes.
        strength: c >= 0.
    """
    states: Tensor = _Stiffening.apply(start, drive.transpose(0, 1), matrix, push, kick, strength)
    return states.transpose(0, 1)

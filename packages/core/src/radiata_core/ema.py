r"""Averages of the weights over training, of several lengths at once.

$$\hat\theta_n = \beta_n \hat\theta_{n-1} + (1 - \beta_n)\, \theta_n$$

`PowerFunction` lets the memory grow with training: weight $\propto k^\gamma$ on step k,

$$\beta_n = (1 - 1/n)^{\gamma+1}, \qquad
  \sigma_{rel}^2 = \frac{\gamma + 1}{(\gamma + 2)^2 (\gamma + 3)}$$

A length is $\sigma_{rel}$, the standard deviation of the averaging profile as a part of training so far: 0.05 to 0.15 are
usual, larger is smoother. `HalfLife` forgets at a constant rate, a length being the steps after which a weight counts
half, with the start corrected so that the weights always sum to one. In both, the initial weights count nothing.

References:
    Karras et al., 2024, Analyzing and Improving the Training Dynamics of Diffusion Models,
    https://arxiv.org/abs/2312.02696, Eq. 1 to 3 and Eq. 126 (the root).
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from radiata_core.errors import InputError

__all__ = ["EMA", "HalfLife", "PowerFunction", "Profile"]


@runtime_checkable
class Profile(Protocol):
    """How much of the average is kept at a step."""

    def keep(self, step: int, length: float) -> float:
        """beta in [0, 1) for step 1, 2, …; 0 at step 1."""
        ...


@dataclass(frozen=True)
class PowerFunction:
    """Memory that grows with training; a length is a relative width in (0, 0.28]."""

    @staticmethod
    def exponent(length: float) -> float:
        """gamma for a relative width: the largest root of g^3 + 7 g^2 + (16 - s) g + 12 - s, s = length^-2.

        Raises:
            InputError: the length is outside (0, 0.28].
        """
        if not 0 < length <= 0.28:
            raise InputError(f"expected an EMA length in (0, 0.28]; got {length}. 0.05 and 0.10 are usual.")
        s = length**-2
        return float(np.roots([1, 7, 16 - s, 12 - s]).real.max())

    def keep(self, step: int, length: float) -> float:
        return (1 - 1 / step) ** (self.exponent(length) + 1)


@dataclass(frozen=True)
class HalfLife:
    """Constant forgetting; a length is the half-life in steps, > 0."""

    def keep(self, step: int, length: float) -> float:
        if not length > 0:
            raise InputError(f"expected a half-life of more than 0 steps; got {length}. 1000 is usual.")
        decay = 0.5 ** (1 / length)
        return 1 - (1 - decay) / (1 - decay**step)


class EMA:
    """Averages of a module's parameters, kept in float32 or finer; buffers are not averaged.

    Args:
        model: The module in training. Its parameters are read, never kept.
        lengths: One average each, in units of the profile.
        profile: How a length forgets.
    """

    def __init__(
        self, model: torch.nn.Module, lengths: Sequence[float], profile: Profile | None = None
    ) -> None:
        self.profile = PowerFunction() if profile is None else profile
        self.step = 0
        self.names = [name for name, _ in model.named_parameters()]
        for length in lengths:
            self.profile.keep(1, length)  # an impossible length is refused before training, not after a step
        self._averages = {
            float(length): [
                parameter.detach().to(torch.promote_types(parameter.dtype, torch.float32), copy=True)
                for parameter in model.parameters()
            ]
            for length in lengths
        }

    @property
    def lengths(self) -> tuple[float, ...]:
        """The lengths, in the order given."""
        return tuple(self._averages)

    @torch.no_grad()
    def update(self, model: torch.nn.Module) -> None:
        """Take in the weights after one more optimiser step."""
        self.step += 1
        current = [parameter.detach() for parameter in model.parameters()]
        for length, averages in self._averages.items():
            fine = [value.to(average.dtype) for value, average in zip(current, averages, strict=True)]
            torch._foreach_lerp_(averages, fine, 1 - self.profile.keep(self.step, length))

    @torch.no_grad()
    def copy_to(self, model: torch.nn.Module, length: float | None = None) -> None:
        """Overwrite the model's parameters by an average (the first one if no length is named)."""
        averages = self._average(length)
        for parameter, average in zip(model.parameters(), averages, strict=True):
            parameter.copy_(average)

    @contextlib.contextmanager
    def applied(self, model: torch.nn.Module, length: float | None = None) -> Iterator[None]:
        """The model with averaged parameters inside the block, and its own again after it, to the bit."""
        own = [parameter.detach().clone() for parameter in model.parameters()]
        self.copy_to(model, length)
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(model.parameters(), own, strict=True):
                    parameter.copy_(value)

    def _average(self, length: float | None) -> list[torch.Tensor]:
        key = self.lengths[0] if length is None else float(length)
        if key not in self._averages:
            raise InputError(
                f"expected one of the EMA lengths {self.lengths}; got {length}. Choose one of them."
            )
        return self._averages[key]

    def state_dict(self) -> dict[str, Any]:
        """Step and averages, for `training_state.save_state`."""
        return {
            "step": self.step,
            "averages": {
                repr(length): dict(zip(self.names, averages, strict=True))
                for length, averages in self._averages.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state of the same lengths and parameters.

        Raises:
            InputError: lengths or parameters differ.
        """
        stored = state["averages"]
        if set(stored) != {repr(length) for length in self.lengths}:
            raise InputError(
                f"expected EMA lengths {self.lengths}; got {sorted(stored)}. Keep them when resuming."
            )
        self.step = int(state["step"])
        for length, averages in self._averages.items():
            for name, average in zip(self.names, averages, strict=True):
                if name not in stored[repr(length)]:
                    raise InputError(
                        f"expected an average of {name}; got a state without. It is of another network."
                    )
                average.copy_(stored[repr(length)][name])

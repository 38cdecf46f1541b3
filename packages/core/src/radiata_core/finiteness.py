"""Is what a network says finite, and if not, at which step and time was it not?

A sampler that goes on with NaN ends in a sample of NaN and says nothing about why. One number a step answers: the sum of
the values is finite if they all are. On the CPU it is read at once and the sampler stops there. An accelerator would have
to be waited for, so there the sums are kept and read together when the sampler is done; the first that is broken is named.
"""

import math

import torch
from torch import Tensor

from radiata_core.errors import InputError

__all__ = ["FiniteWatch"]


class FiniteWatch:
    """Watches the values of one sampling, step by step.

    Args:
        source: Who says them, for the message.
        deferred: Read at the end only; None: where reading at once would wait for a device.
    """

    def __init__(self, source: str = "the denoiser", deferred: bool | None = None) -> None:
        self.source, self.deferred = source, deferred
        self._sums: list[Tensor] = []
        self._places: list[tuple[int, float]] = []

    def see(self, value: Tensor, index: int, t: float) -> None:
        """Take note of what was said at step `index`, at time `t`.

        Raises:
            InputError: it is not finite, and that can be known without waiting.
        """
        # Half precision would overflow in the sum of many small values.
        coarse = value.dtype in (torch.float16, torch.bfloat16)
        total = value.detach().sum(dtype=torch.float32 if coarse else None)
        if self.deferred or (self.deferred is None and total.device.type != "cpu"):
            self._sums.append(total)
            self._places.append((index, t))
        elif not math.isfinite(total.item()):
            raise self._error(index, t)

    def finish(self) -> None:
        """Read what was put off.

        Raises:
            InputError: a value was not finite; the first is named.
        """
        if self._sums:
            broken = (~torch.stack(self._sums).isfinite()).nonzero().flatten().tolist()
            if broken:
                raise self._error(*self._places[broken[0]])

    def _error(self, index: int, t: float) -> InputError:
        return InputError(
            f"expected finite values from {self.source}; got NaN or infinity at step {index}, t={t:.6g}. "
            "Check the weights, the conditions, or use float32."
        )

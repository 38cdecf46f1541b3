r"""The codebook decoder: a trained network, its codes, and how it stands to the ridge.

    p = softmax(network(responses, first frame, guess) / T),     flow = codebook.decode(p)

T is calibrated on held-out films by their endpoint error, as the ridge's shrinkage is: a network that is too sure of its
codes pays for it where it is wrong.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_decode.model.flow_codebook import FlowCodebook
from radiata_decode.model.motion_network import MotionNetwork

__all__ = ["CodebookMotion", "calibrated_temperature"]

TEMPERATURES = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
BATCH = 64


@dataclass(frozen=True, eq=False)
class CodebookMotion:
    """Network and codes.

    Attributes:
        network: In evaluation mode.
        codebook: Its classes.
        temperature: T, > 0.
        way: mean or median, of the distribution in a cell.
    """

    network: MotionNetwork
    codebook: FlowCodebook
    temperature: float = 1.0
    way: str = "mean"

    @torch.no_grad()
    def probabilities(self, responses: Any = None, features: Any = None, guess: Any = None) -> Tensor:
        """Of the codes, (n, step, k, y, x).

        Args:
            responses: (n, v), if the network sees the brain.
            features: (n, c, y, x), if it sees the first frame.
            guess: Flow of the ridge, (n, step, 2, y, x), if it sees one.

        Raises:
            InputError: an input is missing, or has another size than in training.
        """
        options = self.network.options
        seen: dict[str, Tensor] = {}
        for name, values, channels in (
            ("responses", responses, options["voxels"]),
            ("features", features, options["features"]),
            ("guess", None if guess is None else torch.as_tensor(guess).flatten(1, 2), options["guess"]),
        ):
            if not channels:
                continue
            if values is None:
                raise InputError(f"expected {name} for this network; got none. It was trained to see them.")
            tensor = torch.as_tensor(values, dtype=torch.float32)
            if tensor.shape[1] != channels:
                what = "voxels" if name == "responses" else "channels"
                raise InputError(
                    f"expected {name} of {channels} {what}, as in training; got {tensor.shape[1]}. Prepare them alike."
                )
            seen[name] = tensor
        device = next(self.network.parameters()).device
        count = len(next(iter(seen.values())))
        parts = []
        for start in range(0, count, BATCH):
            rows = {name: value[start : start + BATCH].to(device) for name, value in seen.items()}
            parts.append((self.network(**rows) / self.temperature).softmax(2).cpu())
        return torch.cat(parts)

    def predict(self, responses: Any = None, features: Any = None, guess: Any = None) -> Tensor:
        """Flow, (n, step, 2, y, x), cells a frame step; see `probabilities`."""
        return self.codebook.decode(self.probabilities(responses, features, guess), self.way)


def calibrated_temperature(decoder: CodebookMotion, truth: Tensor, **seen: Any) -> float:
    """The T with the least mean endpoint error on films that the network was not trained with.

    Args:
        decoder: Its own temperature is not used.
        truth: Flow of those films, (n, step, 2, y, x).
        seen: What `predict` takes, of those films.
    """
    errors = []
    for temperature in TEMPERATURES:
        trial = CodebookMotion(decoder.network, decoder.codebook, temperature, decoder.way)
        errors.append(float((trial.predict(**seen) - truth).norm(dim=2).mean()))
    return TEMPERATURES[errors.index(min(errors))]

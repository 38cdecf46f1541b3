r"""The mean picture given a response, learnt from pictures with simulated responses: what a linear decoder cannot say.

Voxels of early visual cortex answer to contrast energy, which is no linear function of pixels: the ridge cannot use it. The
posterior mean can. With pictures x_i, their predicted responses in coordinates $c_i$ (`response_model`) and fresh noise at
every step,

$$ \min_{W, \theta} \; E\, \lVert z_i - \bar z - (c_i + s \odot \varepsilon)\, W - f_\theta(c_i + s \odot \varepsilon)
   \rVert^2, \qquad \varepsilon \sim N(0, I), $$

where z are latents of a picture codec, W the best linear map in closed form, and f a perceptron that starts at zero. The
minimiser is E[z | response] under the encoding model and the pictures' law.

A training picture's own response says nothing of how well this works: its encoding model has seen it. Hold pictures out.

References:
    R. Kneeland et al. (2023), https://arxiv.org/abs/2312.07705 (an encoding model turned around).
    C. Bishop (2006). Pattern recognition and machine learning, section 1.5.5 (the conditional mean minimises squared error).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from radiata_core.errors import InputError
from radiata_core.files import atomic_path, read_json, sha256, write_json
from radiata_core.runs import Progress
from radiata_core.weights import read_tensors, write_tensors
from radiata_decode.model.response_model import ResponseCoordinates

__all__ = ["PosteriorMean", "PosteriorNetwork", "fit_posterior_mean"]

_FORMAT = "radiata-posterior-mean/1"
LEARNING_RATE, WEIGHT_DECAY = 2e-3, 0.05


class PosteriorNetwork(nn.Module):
    """Latents from response coordinates: a linear map and a perceptron beside it.

    Args:
        coordinates: k.
        latents: d.
        hidden: Width of the two hidden layers.
        dropout: Between them.
    """

    mean: Tensor
    scale: Tensor
    linear: Tensor
    spread: Tensor

    def __init__(self, coordinates: int, latents: int, hidden: int = 768, dropout: float = 0.1) -> None:
        super().__init__()
        self.options = {"coordinates": coordinates, "latents": latents, "hidden": hidden, "dropout": dropout}
        self.register_buffer("mean", torch.zeros(latents))
        self.register_buffer("scale", torch.ones(coordinates))
        self.register_buffer("linear", torch.zeros(coordinates, latents))
        self.register_buffer("spread", torch.ones(()))
        last = nn.Linear(hidden, latents)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.body = nn.Sequential(
            nn.Linear(coordinates, hidden), nn.SiLU(), nn.Dropout(dropout),
            nn.Linear(hidden, hidden), nn.SiLU(), nn.Dropout(dropout), last,
        )  # fmt: skip

    def forward(self, coordinates: Tensor) -> Tensor:
        """Latents (n, d) of coordinates (n, k)."""
        return self.mean + coordinates @ self.linear + self.spread * self.body(coordinates / self.scale)

    @torch.no_grad()
    def start(self, signal: Tensor, noise: Tensor, latents: Tensor) -> None:
        """Set the linear map to the best one for noisy coordinates.

        Args:
            signal: Coordinates without noise, (n, k).
            noise: Standard deviations, (k,).
            latents: (n, d).
        """
        self.mean.copy_(latents.mean(0))
        centre = signal.mean(0)
        off, aim = signal - centre, latents - self.mean
        power = off.T @ off / len(off) + torch.diag(noise.square())
        self.linear.copy_(torch.linalg.solve(power, off.T @ aim / len(off)))
        self.mean.sub_(centre @ self.linear)
        self.scale.copy_((off.square().mean(0) + noise.square()).sqrt())
        self.spread.copy_(0.3 * aim.square().mean(0).max().sqrt())


@dataclass(frozen=True, eq=False)
class PosteriorMean:
    """A trained decoder from responses to latents.

    Attributes:
        coordinates: From responses.
        network: From coordinates to latents.
    """

    coordinates: ResponseCoordinates
    network: PosteriorNetwork

    @torch.no_grad()
    def predict(self, responses: Any) -> Tensor:
        """Latents (n, d) of responses (n, v), each row by itself.

        Raises:
            InputError: another number of voxels.
        """
        return self.network.eval()(self.coordinates.of(responses))

    def save(self, path: str | Path) -> None:
        """Write `path` (.safetensors) and its .json."""
        path = Path(path)
        own = {
            "mean": self.coordinates.mean,
            "directions": self.coordinates.directions,
            "noise": self.coordinates.noise,
        }
        network = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        with atomic_path(path) as part:
            write_tensors(part, {name: value.contiguous() for name, value in (own | network).items()})
            checksum = sha256(part)
        write_json(
            path.with_suffix(".json"),
            {"format": _FORMAT, "network": self.network.options, "sha256": checksum},
        )

    @classmethod
    def load(cls, path: str | Path) -> "PosteriorMean":
        """The decoder in `path`.

        Raises:
            InputError: no such file, a truncated one, or one of another kind.
        """
        path = Path(path)
        tensors, card = read_tensors(path), read_json(path.with_suffix(".json"))
        if not isinstance(card, dict) or card.get("format") != _FORMAT or card.get("sha256") != sha256(path):
            raise InputError(
                f"expected a posterior mean ({_FORMAT}) in {path}; got another file. Train again."
            )
        with torch.random.fork_rng(devices=[]):  # the weights that are drawn first are replaced
            network = PosteriorNetwork(**card["network"])
        prefix = "network."
        network.load_state_dict(
            {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        )
        return cls(
            ResponseCoordinates(tensors["mean"], tensors["directions"], tensors["noise"]), network.eval()
        )


def fit_posterior_mean(
    coordinates: ResponseCoordinates,
    signal: Tensor,
    latents: Tensor,
    *,
    steps: int = 2000,
    hidden: int = 768,
    batch_size: int = 256,
    seed: int = 0,
    device: str = "cpu",
) -> PosteriorMean:
    """Learn latents from simulated responses.

    Args:
        coordinates: Of the responses.
        signal: Predicted responses, (n, v).
        latents: Of the same pictures, (n, d).
        steps: Of training; 0: the linear map alone.
        hidden: Width of the perceptron.
        batch_size: Pictures a step.
        seed: Of weights, order and noise.
        device: Where it is trained.

    Raises:
        InputError: signals and latents of different length.
    """
    if len(signal) != len(latents) or len(signal) < 2:
        raise InputError(
            f"expected latents of as many pictures as responses, two or more; got {len(latents)} and {len(signal)}."
        )
    inside = coordinates.of(signal)
    with torch.random.fork_rng(devices=[]):  # weights, and dropout's masks
        torch.manual_seed(seed)
        network = PosteriorNetwork(inside.shape[1], latents.shape[1], hidden)
        network.start(inside, coordinates.noise, latents)
        _train(network.to(device), inside, coordinates.noise, latents, steps, batch_size, seed)
    return PosteriorMean(coordinates, network.cpu().eval())


def _train(
    network: PosteriorNetwork,
    signal: Tensor,
    noise: Tensor,
    latents: Tensor,
    steps: int,
    batch: int,
    seed: int,
) -> None:
    """One cycle of the step size; rows and noise are a function of the seed.

    A loop of its own: the core's, whose rows each have a generator, costs more here than the network does.
    """
    device = network.mean.device
    signal, latents, noise = signal.to(device), latents.to(device), noise.to(device)
    drawn = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=max(2, steps))
    variance = float(latents.var(0).sum())
    network.train()
    with Progress(steps, "posterior mean", unit="step") as bar:
        for _ in range(steps):
            rows = torch.randint(len(signal), (batch,), generator=drawn).to(device)
            disturbed = signal[rows] + noise * torch.randn(batch, len(noise), generator=drawn).to(device)
            loss = (network(disturbed) - latents[rows]).square().sum(1).mean() / variance
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            bar.update(1)
    network.eval()

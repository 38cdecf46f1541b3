"""A tiny training in its own process, for the tests that kill it. Usage: tiny_training.py FOLDER STEPS resume|new [slow]"""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from radiata_core.commands import main
from radiata_core.specs import buildable
from radiata_core.train import TrainOptions, train


@buildable("tiny-denoiser-of-tests")
class TinyDenoiser(torch.nn.Module):
    """An MLP on 4 numbers with dropout, so that torch's own random state matters too."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.options = {"width": width}
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(6, width), torch.nn.SiLU(), torch.nn.Dropout(0.1), torch.nn.Linear(width, 4)
        )

    def forward(self, x, t, covariates):
        return self.layers(torch.cat([x, t[:, None], torch.nan_to_num(covariates, nan=-3.0)], 1))


@dataclass(frozen=True)
class Losses:
    value: torch.Tensor
    per_sample: torch.Tensor
    t: torch.Tensor


def objective(denoiser, x0, generators, **conditions):
    t = torch.stack([torch.rand((), generator=g) for g in generators])
    noise = torch.stack([torch.randn(x0.shape[1:], generator=g) for g in generators])
    x = (1 - t[:, None]) * x0 + t[:, None] * noise
    losses = (denoiser(x, t, **conditions) - x0).square().mean(1)
    return Losses(losses.mean(), losses, t)


class Points:
    """37 items: 4 numbers, one covariate."""

    def __init__(self, pause: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(3)
        self.images = torch.randn(37, 4, generator=generator)
        self.pause = pause

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: int) -> dict[str, torch.Tensor]:
        time.sleep(self.pause)
        return {"image": self.images[item], "covariates": self.images[item, :1]}


def tiny_denoiser() -> TinyDenoiser:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TinyDenoiser()


def options(**changes) -> TrainOptions:
    given = {
        "steps": 60,
        "batch_size": 8,
        "accumulate": 2,
        "learning_rate": 1e-2,
        "warmup": 5,
        "checkpoint_every": 5,
        "log_every": 7,
        "validate_every": 20,
        "tensorboard": False,
        "condition_dropout": 0.2,
    }
    return TrainOptions(**(given | changes))


@dataclass(frozen=True)
class Train:
    """Train."""

    folder: Path
    steps: int = 60
    resume: bool = False
    pause: float = 0.0
    accumulate: int = 2
    noise: Path | None = None
    """Where each process writes the first number of noise of every piece, under its rank."""

    def run(self) -> None:
        torch.set_num_threads(1)
        changes = options(steps=self.steps, resume=self.resume, accumulate=self.accumulate)
        loss = objective if self.noise is None else Told(self.noise / f"{os.environ.get('RANK', '0')}.txt")
        train(tiny_denoiser(), loss, Points(self.pause), self.folder, changes, validation=Points())


@dataclass(frozen=True)
class Told:
    """The objective, which writes down what it draws."""

    file: Path

    def __call__(self, denoiser, x0, generators, **conditions):
        if torch.is_grad_enabled():
            copy = torch.Generator()
            copy.set_state(generators[0].get_state())
            with self.file.open("a") as stream:
                stream.write(f"{torch.rand((), generator=copy).item()!r}\n")
        return objective(denoiser, x0, generators, **conditions)


if __name__ == "__main__":
    sys.exit(main("tiny", "A tiny training.", {"train": Train}))

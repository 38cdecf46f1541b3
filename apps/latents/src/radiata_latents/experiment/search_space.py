"""What a random search draws from: one law an option, trial k a function of (seed, k, name of the option) alone.

    learning_rate = { low = 1e-3, high = 1e-2, log = true }     between two numbers, uniformly in their logarithm
    shown = { low = 0.5, high = 0.9 }                           uniformly
    hidden = { choices = [32, 64, 128] }                        one of a list
    hidden = 64                                                 this one: not searched

Each option has a stream of its own, so adding one, or more trials, changes no other draw.
"""

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from radiata_core.errors import InputError
from radiata_latents.experiment.presets import read_toml

__all__ = ["SPACES", "Between", "Choice", "Law", "drawn", "read_space"]


@dataclass(frozen=True)
class Between:
    """A number between two, uniform or uniform in its logarithm."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and not self.low > 0):
            raise InputError(
                f"expected low < high, above 0 where log is true; got {self.low} and {self.high}."
            )

    def at(self, share: float) -> float:
        """The number below which this share of the law lies, to four digits."""
        if self.log:
            value = self.low * math.exp(share * math.log(self.high / self.low))
        else:
            value = self.low + share * (self.high - self.low)
        return float(f"{value:.4g}")


@dataclass(frozen=True)
class Choice:
    """One of a list, each as likely."""

    choices: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.choices:
            raise InputError("expected choices; got an empty list. Give one value at least.")

    def at(self, share: float) -> Any:
        """The choice that stands at this share of the list."""
        return self.choices[min(len(self.choices) - 1, int(share * len(self.choices)))]


Law: TypeAlias = Between | Choice

_SEARCH = 41

_RATES: dict[str, Law] = {
    "learning_rate": Between(1e-3, 1e-2, log=True),
    "weight_decay": Between(1e-6, 1e-2, log=True),
}
_ENCODER: dict[str, Law] = {
    "hidden": Choice((32, 64, 96, 128)),
    "dropout": Between(0.0, 0.4),
    "shown": Between(0.5, 0.9),
}
_BETA: dict[str, Law] = {"beta": Between(0.01, 1.0, log=True)}

SPACES: dict[str, dict[str, Law]] = {
    "radiata": _RATES | _ENCODER | _BETA | {"latents": Choice((8, 12, 16, 24, 32))},
    "gru": _RATES | _ENCODER | {"factors": Choice((8, 16, 32))},
    "lfads": _RATES
    | _ENCODER
    | _BETA
    | {
        "latents": Choice((16, 32, 64)),
        "generator": Choice((64, 100, 150)),
        "factors": Choice((8, 16, 32)),
    },
    "paper": _RATES | {"hidden": Choice((32, 64, 96, 128)), "inner": Choice((64, 128, 256, 512))},
}
"""What is searched where nothing else is said, a network."""


def read_space(path: Path | None, network: str) -> dict[str, Law]:
    """The network's space with what a TOML file puts in its place.

    Raises:
        InputError: no TOML, or a law that is none of the four forms.
    """
    space = dict(SPACES[network])
    if path is not None:
        space |= {name: _law(name, value, path) for name, value in read_toml(path).items()}
    return space


def _law(name: str, value: Any, path: Path) -> Law:
    if not isinstance(value, Mapping):
        return Choice((tuple(value) if isinstance(value, list) else value,))
    keys = set(value)
    if keys == {"choices"} and isinstance(value["choices"], list):
        return Choice(tuple(value["choices"]))
    low, high, log = value.get("low"), value.get("high"), value.get("log", False)
    if keys <= {"low", "high", "log"} and isinstance(low, int | float) and isinstance(high, int | float):
        return Between(float(low), float(high), log=bool(log))
    raise InputError(
        f"expected {name} = {{ low, high, log }}, {{ choices = [...] }} or a value in {path}; got {dict(value)}."
    )


def drawn(space: Mapping[str, Law], seed: int, trial: int) -> dict[str, Any]:
    """The options of a trial, in the order of the space."""
    from radiata_core.seeds import rng_of  # stands on torch, which help must not import

    return {
        name: law.at(float(rng_of(seed, _SEARCH, trial, zlib.crc32(name.encode())).random()))
        for name, law in space.items()
    }

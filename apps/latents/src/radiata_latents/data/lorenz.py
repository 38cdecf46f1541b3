r"""Spikes of neurons that follow a Lorenz attractor: the field's toy, in its three versions.

$$\dot x = \sigma(y - x),\quad \dot y = x(\rho - z)\,[\,-\,y\,],\quad \dot z = xy - \beta z, \qquad
  \sigma = 10,\ \rho = 28,\ \beta = 8/3$$

A condition is one trajectory, centred and divided by its largest value a dimension; neuron i fires with
$\exp(w_i \cdot x + b)$, 5 Hz at the mean, and every trial of the condition is a new draw of spikes.

| variant | equations | start | columns of w | spikes |
|---|---|---|---|---|
| `lfads_demo_2017` | without $-y$, Euler | $2\,\mathcal N(0, I)$ | each sorted by itself | at most one a ms |
| `lfads_demo_2019` | without $-y$, Euler | around (0, 0, 25), 500 steps on | sorted by the first | at most one a ms |
| `lorenz` | as Lorenz has them, Runge-Kutta | as 2019 | sorted by the first | Poisson, rate <= 200 Hz |

A step is 0.006, and one millisecond. The first made the file `lfads_lorenz.h5` that NDT, LFADS and LangevinFlow are
compared on: 65 conditions, 24 trials, 29 neurons, 50 bins of 20 ms. The missing $-y$ is in the published programs. With at
most one spike a millisecond the expected count is $\sum_{ms} 1 - e^{-\lambda}$, less than the rate, so a perfect model has
R^2 < 1 against the rate: `expected` is the truth to score. In `lorenz` the two are one.

References:
    Sussillo et al., "LFADS - latent factor analysis via dynamical systems", 2016, https://arxiv.org/abs/1608.06315.
    Lorenz, "Deterministic nonperiodic flow", 1963, https://doi.org/10.1175/1520-0469(1963)020<0130:DNF>2.0.CO;2.
"""

import itertools
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import xarray as xr

from radiata_core.errors import InputError
from radiata_latents.data.population import population

__all__ = ["LorenzVariant", "lorenz_population", "lorenz_trajectories", "split_conditions", "split_trials"]

SIGMA, RHO, BETA, STEP = 10.0, 28.0, 8 / 3, 0.006
MILLISECONDS, BIN_MS = 1000, 20
BASE = 5 / 1000
"""Spikes a millisecond of a neuron at the mean of the trajectory: 5 Hz."""
HIGHEST = 0.2
"""Largest rate of the variant `lorenz`, spikes a millisecond."""


class LorenzVariant(StrEnum):
    """Which of the three recipes."""

    LFADS_DEMO_2017 = "lfads_demo_2017"
    LFADS_DEMO_2019 = "lfads_demo_2019"
    LORENZ = "lorenz"


@dataclass(frozen=True)
class _Recipe:
    damped: bool
    far: bool
    rows: bool
    poisson: bool


_RECIPES = {
    LorenzVariant.LFADS_DEMO_2017: _Recipe(damped=False, far=False, rows=False, poisson=False),
    LorenzVariant.LFADS_DEMO_2019: _Recipe(damped=False, far=True, rows=True, poisson=False),
    LorenzVariant.LORENZ: _Recipe(damped=True, far=True, rows=True, poisson=True),
}


def lorenz_trajectories(variant: LorenzVariant, conditions: int, seed: int) -> np.ndarray:
    """Trajectories (condition, 1000, 3), each dimension of mean 0 and largest value 1; condition c depends on (seed, c)."""
    recipe = _RECIPES[variant]
    normal = np.stack([_stream(seed, 0, c).standard_normal(3) for c in range(conditions)])
    state = normal + np.array([0.0, 0.0, 25.0]) if recipe.far else 2 * normal
    for _ in range(500 if recipe.far else 0):
        state = _stepped(state, recipe.damped)
    states = np.empty((conditions, MILLISECONDS, 3))
    for k in range(MILLISECONDS):
        states[:, k] = state
        state = _stepped(state, recipe.damped)
    states -= states.mean(1, keepdims=True)
    return states / states.max(1, keepdims=True)


def _stepped(state: np.ndarray, damped: bool) -> np.ndarray:
    if not damped:  # the published programs: Euler, and no -y
        return state + STEP * _field(state, False)
    a = _field(state, True)
    b = _field(state + STEP / 2 * a, True)
    c = _field(state + STEP / 2 * b, True)
    d = _field(state + STEP * c, True)
    return state + STEP / 6 * (a + 2 * b + 2 * c + d)


def _field(state: np.ndarray, damped: bool) -> np.ndarray:
    x, y, z = state.T
    dy = x * (RHO - z) - (y if damped else 0.0)
    return np.stack([SIGMA * (y - x), dy, x * y - BETA * z], 1)


def lorenz_population(
    variant: LorenzVariant = LorenzVariant.LORENZ,
    *,
    conditions: int = 65,
    trials: int = 24,
    neurons: int = 29,
    seed: int = 1,
) -> xr.Dataset:
    """Counts in 50 bins of 20 ms with `rates` and `expected`, trials of a condition one after another.

    Args:
        variant: The recipe.
        conditions: Trajectories.
        trials: Draws of spikes a condition; trial k of condition c depends on (seed, c, k) only.
        neurons: How many.
        seed: Of trajectories, readout and spikes.

    Raises:
        InputError: less than one of something.
    """
    if min(conditions, trials, neurons) < 1:
        raise InputError(
            f"expected at least one of each; got {conditions} conditions, {trials} trials, {neurons} neurons."
        )
    variant = LorenzVariant(variant)
    recipe = _RECIPES[variant]
    logits = lorenz_trajectories(variant, conditions, seed) @ _readout(neurons, recipe, seed).T + np.log(BASE)
    rate = np.exp(np.clip(logits, -20, 20))  # a millisecond
    if recipe.poisson:
        rate = np.minimum(rate, HIGHEST)
    chance = rate if recipe.poisson else -np.expm1(-rate)
    counts = np.empty((conditions, trials, MILLISECONDS // BIN_MS, neurons), np.uint16)
    binned = _binned(chance)
    for c, k in itertools.product(range(conditions), range(trials)):
        stream = _stream(seed, 2, c, k)
        if recipe.poisson:
            counts[c, k] = stream.poisson(binned[c])
        else:
            counts[c, k] = _binned((stream.random(chance[c].shape) < chance[c])[None])[0]
    flat = (conditions * trials, *counts.shape[2:])
    return population(
        counts.reshape(flat),
        BIN_MS / 1000,
        condition=np.repeat(np.arange(conditions), trials),
        rates=np.repeat(_binned(rate), trials, 0),
        expected=np.repeat(binned, trials, 0),
        source=f"synthetic: {variant.value}",
        seed=seed,
    )


def _readout(neurons: int, recipe: _Recipe, seed: int) -> np.ndarray:
    """Weights (neuron, 3), of size 1 to 2 and either sign."""
    stream = _stream(seed, 1)
    weights = (stream.random((neurons, 3)) + 1) * np.sign(stream.standard_normal((neurons, 3)))
    return weights[np.lexsort(weights.T[::-1])] if recipe.rows else np.sort(weights, 0)


def _binned(values: np.ndarray) -> np.ndarray:
    """Sums over bins of (condition, ms, neuron)."""
    return values.reshape(len(values), -1, BIN_MS, values.shape[2]).sum(2)


def _stream(seed: int, *place: int) -> np.random.Generator:
    return np.random.default_rng([seed, *place])


def split_trials(dataset: xr.Dataset, every: int = 5) -> xr.Dataset:
    """Every fifth trial, the first included, for validation: the split of `lfads_lorenz.h5`.

    It leaks: each condition is in both parts, so a lookup of the condition's mean is a good model. `split_conditions`
    does not.
    """
    split = np.where(np.arange(dataset.sizes["trial"]) % every == 0, "validation", "train")
    return dataset.assign_coords(split=("trial", split))


def split_conditions(dataset: xr.Dataset, fraction: float = 0.2, seed: int = 0) -> xr.Dataset:
    """Whole conditions for validation: a model has to know the dynamics, not the trajectories.

    Raises:
        InputError: a fraction that leaves a part empty.
    """
    labels = np.unique(dataset["condition"].values)
    count = round(fraction * len(labels))
    if not 0 < count < len(labels):
        raise InputError(
            f"expected conditions on both sides; got {count} of {len(labels)} held out. Change the fraction."
        )
    chosen = np.random.default_rng([seed, 3]).permutation(labels)[:count]
    split = np.where(np.isin(dataset["condition"].values, chosen), "validation", "train")
    return dataset.assign_coords(split=("trial", split))

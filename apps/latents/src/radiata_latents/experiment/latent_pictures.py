"""Which figures the latents behind rates are shown by, and what their captions say.

Planes, KL and drive come from the file of rates alone; frequencies and potential need the `LangevinFlow` that made them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from radiata_latents.experiment import figures_latents
from radiata_latents.experiment.pictures import Picture, named, splits_of, spread_trials
from radiata_latents.model.langevin_flow import LangevinFlow

__all__ = ["energies_along", "pictures_of_latents"]

_GRID = 61


def pictures_of_latents(
    rates: xr.Dataset, network: object | None = None, *, synthetic: bool = False
) -> list[Picture]:
    """What stands in the file of the latents behind its rates; empty for a model without latents.

    Args:
        rates: Of `data.rates_file`.
        network: The model that made them, for its frequencies and its potential, if it has any.
        synthetic: Stamp the figures.
    """
    if "latents" not in rates:
        return []
    states, bin_s = rates["latents"].values.astype(float), float(rates.attrs["bin_s"])
    trials, kind = len(states), named(rates)
    pictures = []
    if states.shape[1] > 2 and states.shape[2] > 1 and np.ptp(states) > 0:
        pictures.append(
            Picture(
                "latent-trajectories",
                figures_latents.trajectories(
                    states, rates["condition"].values, bin_s=bin_s, synthetic=synthetic
                ),
                f"Latents of {kind}, {trials} trials ({splits_of(rates)}). {_paths_drawn(rates)}; a plane "
                "is found in any data, so read how much variance it holds.",
            )
        )
    if isinstance(network, LangevinFlow) and states.shape[2] == 2 * len(network.damping):
        pictures += _of_flow(states[..., : len(network.damping)], network, bin_s, kind, synthetic)
    if "kl" in rates:
        pictures.append(
            Picture(
                "kl-by-latent",
                figures_latents.kl_by_latent(rates["kl"].values, synthetic=synthetic),
                f"What each latent of {kind} says about a trial: KL of posterior to prior, mean and 95 % interval of the "
                f"mean, n = {trials} trials. Orange: collapsed.",
            )
        )
    if "drive" in rates and rates.sizes["step"] > 1:
        few = spread_trials(rates)
        steps = rates.sizes["step"]
        order = np.concatenate([few, np.setdiff1d(np.arange(trials), few)])
        noise = rates["drive"].values[order].astype(float)
        used = np.abs(noise).max((0, 1)) > 0  # first-order dynamics have no noise of velocities
        labels = [int(rates["trial"].values[k]) for k in order]
        pictures.append(
            Picture(
                "inferred-drive",
                figures_latents.drive(
                    noise[..., used], rates["time"].values[1 : steps + 1], labels=labels, synthetic=synthetic
                ),
                f"Mean of the noise that {kind} infers, in standard deviations of its prior: what its dynamics alone do not "
                f"explain. Right: its size, median and 5–95 % of {trials} trials.",
            )
        )
    return pictures


def _modes_of(network: LangevinFlow) -> str:
    """The normal modes, in words."""
    hz = network.modes().frequency_hz
    if not len(hz):
        return "none of their normal modes swings"
    return f"{len(hz)} of their normal modes swing, at {float(hz[0]):.2g} to {float(hz[-1]):.2g} Hz"


def _paths_drawn(rates: xr.Dataset) -> str:
    """What the lines are, and what the plane of rotation is fitted to."""
    if len(np.unique(rates["condition"].values)) > 2:  # as `figures_latents.trajectories` draws
        drawn, fitted = "Thick: averages of conditions, thin: single trials", "averages of all conditions"
    else:
        drawn, fitted = "Lines: single trials", "single trials"
    return f"{drawn}; a dot where a path starts. The plane of rotation is fitted to {fitted} less their common average"


def _of_flow(
    positions: np.ndarray, network: LangevinFlow, bin_s: float, kind: str, synthetic: bool
) -> list[Picture]:
    """Frequencies and potential of a flow."""
    hz, damping = (value.detach().double().numpy() for value in (network.frequency_hz, network.damping))
    options: Any = network.options
    low, high = map(float, options["band_hz"])
    spread = positions.var((0, 1))
    swings = int((damping < 1).sum())
    pairs = _pairs(spread)
    grid = np.linspace(-1, 1, _GRID) * max(2.0, float(np.quantile(np.abs(positions), 0.999)))
    flat = positions.reshape(-1, positions.shape[2])
    return [
        Picture(
            "frequencies",
            figures_latents.frequencies(
                hz, damping, (low, high), positions, bin_s=bin_s, weight=spread, synthetic=synthetic
            ),
            f"Learned oscillators of {kind}: {swings} of {len(hz)} swing (damping below 1); {low:.2g} to {high:.2g} Hz "
            f"could be learned. Coupled, {_modes_of(network)}. "
            f"Right: power of their inferred positions, n = {len(positions)} trials; what is slower than "
            "a trial is not seen.",
        ),
        Picture(
            "potential",
            figures_latents.energy_slices(
                energies_along(network, pairs, grid), grid, flat, synthetic=synthetic
            ),
            f"Potential of {kind} along {len(pairs)} pairs of neighbours that vary most, with positions of {len(positions)} "
            "trials. Closed contours: the potential is bounded below.",
        ),
    ]


def energies_along(
    network: LangevinFlow, pairs: Sequence[tuple[int, int]], grid: np.ndarray
) -> dict[tuple[int, int], np.ndarray]:
    """Pair → U on (grid, grid) in units of the temperature, all other latents at zero, rows along the first of the pair."""
    first, second = (torch.from_numpy(part.ravel()) for part in np.meshgrid(grid, grid, indexing="ij"))
    found = {}
    for i, j in pairs:
        q = torch.zeros(len(first), len(network.damping), dtype=next(network.parameters()).dtype)
        q[:, i], q[:, j] = first.to(q), second.to(q)
        with torch.no_grad():
            found[i, j] = network.energy(q).double().numpy().reshape(len(grid), len(grid))
    return found


def _pairs(spread: np.ndarray) -> list[tuple[int, int]]:
    """Neighbours on the ring, which the potential couples, three at most, by the variance that both have."""
    count = len(spread)
    ring = sorted(range(count), key=lambda k: -min(spread[k], spread[(k + 1) % count]))
    return [(k, (k + 1) % count) for k in ring[: min(3, count)]]

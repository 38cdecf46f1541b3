r"""How good a trained network is, on trials that it never learned from: the only figures anything is chosen by.

    co_bps      bits a spike of the held-out neurons in observed bins (posterior mean)
    fp_bps      the same of all neurons in the forward window, where there is one
    hidden_bps  where no neuron is held out: of a fifth of the held-in counts, hidden from the encoder
    informed    share of the latents' variance that trials explain; near 0 the posterior has collapsed

Bits of counts that the encoder read would reward copying, so where no neuron is held out counts are hidden from it as in
training: each in one of five parts, which is hidden in one of five passes and scored there.

References:
    Pei et al., 2021, https://arxiv.org/abs/2109.04463, section 3.3.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from radiata_core.seeds import generator_of
from radiata_latents.data.trials import TrialCounts
from radiata_latents.model.bits import bits_per_spike, forward_bits_per_spike

__all__ = ["COLLAPSED", "informed_shares", "score_name", "validation_scores"]

COLLAPSED = 0.05
"""Informed share below which latents count as collapsed."""

_PARTS = 5
_BATCH = 256
_HIDE = 31


def score_name(population: xr.Dataset) -> str:
    """The score that models of this population are chosen by: co_bps, or hidden_bps where no neuron is held out."""
    return "co_bps" if bool(population["heldout"].any()) else "hidden_bps"


@torch.no_grad()
def validation_scores(
    networks: Sequence[Any], population: xr.Dataset, split: str = "validation"
) -> dict[str, Any]:
    """Scores of a network, or of the mean rates of an ensemble, on trials of a split.

    Args:
        networks: On the CPU, in evaluation mode.
        population: What they fit.
        split: Which trials.

    Raises:
        InputError: the population has no such trials, or no spikes in them.
    """
    trials = TrialCounts(population, (split,))
    counts = trials.counts
    spikes = counts.numpy().astype(float)
    spikes[~trials.observed.numpy()] = np.nan
    heldin, bins = networks[0].heldin, networks[0].bins
    seen = counts[:, :bins, :heldin]
    rates = _rates(networks, seen)
    found: dict[str, Any] = {"split": split, "trials": len(trials), "score": score_name(population)}
    if heldin < spikes.shape[2]:
        found["co_bps"] = bits_per_spike(rates[:, :bins, heldin:], spikes[:, :bins, heldin:])
    else:
        found["hidden_bps"] = bits_per_spike(_blind(networks, seen), spikes[:, :bins])
    if bins < spikes.shape[1]:
        ahead = (rates[:, bins:], spikes[:, bins:])
        parts = [part for array in ahead for part in (array[..., :heldin], array[..., heldin:])]
        found["fp_bps"] = forward_bits_per_spike(*parts)
    if len(networks) == 1:
        found |= {"informed": informed_shares(networks[0], seen[:_BATCH])} | _spectrum(networks[0])
    return found


def _rates(networks: Sequence[Any], seen: Tensor) -> np.ndarray:
    """Mean over networks of the rates of the posterior mean, (trial, time, neuron)."""
    rows = [torch.stack([network.rates(part) for network in networks]).mean(0) for part in seen.split(_BATCH)]
    return torch.cat(rows).double().numpy()


def _blind(networks: Sequence[Any], seen: Tensor) -> np.ndarray:
    """Rates of held-in neurons in observed bins, each predicted in a pass that its count was hidden in."""
    part = torch.randint(_PARTS, seen.shape, generator=generator_of(0, _HIDE))
    out = np.zeros(tuple(seen.shape))
    for k in range(_PARTS):
        hidden = part == k
        rates = _rates(networks, seen * ~hidden * (_PARTS / (_PARTS - 1)))
        out[hidden.numpy()] = rates[:, : seen.shape[1], : seen.shape[2]][hidden.numpy()]
    return out


@torch.no_grad()
def informed_shares(network: Any, seen: Tensor) -> dict[str, float]:
    """Share of the variance of each kind of latent that trials explain; empty for a network without latents."""
    posterior = network.encode(seen)
    if hasattr(posterior, "informed"):
        return dict(zip(("start", "noise"), posterior.informed(), strict=False))
    if hasattr(posterior, "log_variance"):  # of the released model
        between, within = posterior.mean.var(0, unbiased=False), posterior.log_variance.exp().mean(0)
        return {"start": float(between.sum() / (between + within).sum())}
    return {}


def _spectrum(network: Any) -> dict[str, list[float]]:
    """Of each oscillator alone, and of the normal modes that their coupling makes of them."""
    found = {name: getattr(network, name) for name in ("frequency_hz", "damping") if hasattr(network, name)}
    if hasattr(network, "modes"):
        modes = network.modes()
        found |= {"mode_frequency_hz": modes.frequency_hz, "mode_decay_s": modes.decay_s}
    return {name: [round(float(value), 6) for value in values] for name, values in found.items()}

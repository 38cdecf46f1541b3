r"""Which latents carry anything: the KL of a posterior, latent by latent.

A latent whose posterior is its prior costs nothing and says nothing. With independent latents the KL of a trial is a sum,

$$KL = \sum_k KL_k, \qquad s_k = \mathbb E\big[KL_k / KL\big], \qquad
  N_{\text{eff}} = \exp\big(-\sum_k s_k \log s_k\big),$$

over the start and the noise of every bin of latent k. $N_{\text{eff}}$ is the number of latents that share it equally: K if
all carry as much, 1 if one carries everything. A posterior has *collapsed* where the KL of a trial is nearly nothing.

References:
    Bowman et al., "Generating sentences from a continuous space", 2016, https://arxiv.org/abs/1511.06349 (collapse).
    Hill, "Diversity and evenness", 1973, https://doi.org/10.2307/1934352 (effective numbers).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_latents.model.latent_path import CertainPosterior

__all__ = ["Collapse", "collapse_of", "kl_per_latent"]

ACTIVE = 0.1
"""Nats a trial from which a latent counts as active."""


@dataclass(frozen=True, eq=False)
class Collapse:
    """How the KL is spread.

    Attributes:
        kl: Mean over trials, nats a trial, (latent,).
        share: s, mean over trials of each latent's share, (latent,), sums to 1 where there is any KL.
        total: Nats a trial, mean over trials.
        active: How many latents have a mean KL of `ACTIVE` nats or more.
        effective: N_eff; 0 where there is no KL.
    """

    kl: np.ndarray
    share: np.ndarray
    total: float
    active: int
    effective: float


def kl_per_latent(posterior: Any, path: Any) -> Tensor | None:
    """Nats of each trial and latent, (batch, latent), that sum to `posterior.kl(path)`; None for a model without latents.

    Where a model has inputs whose KL is known as a whole only (LFADS), it is the last column.

    Args:
        posterior: What a network's `encode` gives.
        path: A path of it; drawn, where the posterior has feedback from the path.
    """
    if isinstance(posterior, CertainPosterior):
        return None
    if hasattr(posterior, "noise_mean"):
        mean = posterior.noise_mean
        if getattr(path, "noise_mean", None) is not None:
            mean = path.noise_mean[:, : mean.shape[1]]
        start = _kl(posterior.start_mean, posterior.start_log_sd).sum(1)
        return start + _kl(mean, posterior.noise_log_sd).sum((1, 2))
    if hasattr(posterior, "prior_sd"):
        scale = posterior.prior_sd
        start = _kl(posterior.start_mean / scale, posterior.start_log_sd - float(np.log(scale)))
        whole = posterior.kl(path)
        rest = (whole - start.sum(1))[:, None]
        return start if posterior.evidence is None else torch.cat([start, rest], 1)
    if hasattr(posterior, "log_variance"):
        return _kl(posterior.mean, 0.5 * posterior.log_variance).sum(1)
    return None


def collapse_of(kl: np.ndarray) -> Collapse:
    """The figures of this module from nats of (trial, latent).

    Raises:
        InputError: another rank, no trial, or negative beyond rounding.
    """
    kl = np.asarray(kl, float)
    if kl.ndim != 2 or not len(kl) or (kl < -1e-4 * (1 + np.abs(kl).max())).any():
        raise InputError(
            f"expected KL of (trial, latent), nats >= 0; got shape {kl.shape}, or negative ones."
        )
    kl = np.maximum(kl, 0.0)
    totals = kl.sum(1, keepdims=True)
    shares = np.divide(kl, totals, out=np.zeros_like(kl), where=totals > 0).mean(0)
    share = shares / shares.sum() if shares.sum() > 0 else shares
    used = share[share > 0]
    mean = kl.mean(0)
    effective = float(np.exp(-(used * np.log(used)).sum())) if len(used) else 0.0
    return Collapse(mean, share, float(totals.mean()), int((mean >= ACTIVE).sum()), effective)


def _kl(mean: Tensor, log_sd: Tensor) -> Tensor:
    return 0.5 * (mean.square() + torch.exp(2 * log_sd) - 1) - log_sd

r"""Few-shot co-smoothing: are the latents only what the data needs?

Two models with equal co-smoothing can differ: one may carry latents that have nothing to do with the population, which a
read-out fitted on many trials learns to ignore. Refit the read-out to the held-out neurons on k trials only, latents frozen:

$$\mathrm{bits}(k) = \mathbb E_{S,\,|S| = k}\ \mathrm{bits}\big(\mathrm{readout}_S(z_{\text{eval}}),\ n_{\text{eval}}\big)$$

Superfluous dimensions are noise to a read-out that has seen little: of models with equal co-bps the simpler one falls later
as k shrinks. The read-out is a Poisson regression on whatever is given as latents (factors, states, log-rates of held-in
neurons); trials are drawn without replacement, anew for each draw, and alike for all models that get
an `rng` of the same seed. A neuron silent in the k trials is part of the test, not an error.

References:
    Dabholkar & Barak, "When predict can also explain: few-shot prediction to select better neural latents", 2024,
        https://arxiv.org/abs/2405.14425, section 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from radiata_core.errors import InputError
from radiata_latents.model.bits import bits_per_spike
from radiata_latents.model.poisson_glm import fit_poisson_readout

__all__ = ["FewShotCurve", "few_shot_curve"]


@dataclass(frozen=True)
class FewShotCurve:
    """Bits a spike of held-out neurons against the trials that the read-out saw.

    Attributes:
        shots: (k,) numbers of trials.
        bits: (k, draw).
    """

    shots: np.ndarray
    bits: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """(k,) mean over draws."""
        return self.bits.mean(1)

    @property
    def error(self) -> np.ndarray:
        """(k,) standard error of the mean over draws."""
        return self.bits.std(1, ddof=1) / np.sqrt(self.bits.shape[1])


def few_shot_curve(
    train_latents: np.ndarray,
    train_heldout: np.ndarray,
    latents: np.ndarray,
    heldout: np.ndarray,
    shots: Sequence[int],
    rng: np.random.Generator,
    *,
    draws: int = 10,
    penalty: float = 1e-3,
) -> FewShotCurve:
    """The k-shot curve (the equation of this module).

    Args:
        train_latents: (trial, time, latent) of trials that read-outs are fitted on, frozen.
        train_heldout: (trial, time, neuron) their held-out counts.
        latents: Those of evaluated trials.
        heldout: Their held-out counts.
        shots: Numbers of trials k, each from 1 to all.
        rng: Chooses the trials.
        draws: Read-outs a k, >= 2.
        penalty: Of the regression; the same for all models that are compared.

    Raises:
        InputError: more shots than trials, too few draws, or arrays that do not fit.

    References:
        Dabholkar & Barak, 2024, section 3.
    """
    trials = len(train_latents)
    if not len(shots) or min(shots) < 1 or max(shots) > trials or draws < 2:
        raise InputError(
            f"expected shots from 1 to {trials} trials and two draws or more; got {list(shots)} and {draws}. Ask for fewer."
        )
    if train_heldout.shape[-1] != heldout.shape[-1] or train_latents.shape[-1] != latents.shape[-1]:
        raise InputError(
            f"expected the same latents and neurons in both sets of trials; got {train_latents.shape[-1]} and "
            f"{latents.shape[-1]} latents, {train_heldout.shape[-1]} and {heldout.shape[-1]} neurons."
        )
    found = np.empty((len(shots), draws))
    for j in range(draws):
        order = rng.permutation(trials)  # larger k contains smaller k: the curve's noise is shared
        for i, k in enumerate(shots):
            readout = fit_poisson_readout(train_latents[order[:k]], train_heldout[order[:k]], penalty)
            found[i, j] = bits_per_spike(readout.rates(latents), heldout)
    return FewShotCurve(np.asarray(shots), found)

r"""Gaussian-process factor analysis: smooth latents, linear read-out, everything exact.

$$x_i \sim \mathcal{GP}\big(0,\ (1 - \epsilon)\,e^{-(t-s)^2 / 2\tau_i^2} + \epsilon\,\delta_{ts}\big), \qquad
  y_t = C x_t + d + \mathcal N(0, R),\quad R \text{ diagonal}$$

y are square roots of counts, whose variance depends little on the rate. Latents of a trial are jointly normal with

$$\Sigma = \big(K^{-1} + C^\top R^{-1} C \otimes I_T\big)^{-1}, \qquad \mu = \Sigma\,(C^\top R^{-1} \otimes I_T)(y - d),$$

K block-diagonal over latents, so one matrix of (latent · time)² serves all trials of a length. Expectation-maximisation
(`fit_gpfa`) gives C, d and R in closed form. Time constants it would hardly move where spikes are few (on rat CA1 they stay
within 13 % of their start, co-bps 0.26), so every few iterations they climb the likelihood itself (co-bps 0.32); it never
falls. Start: probabilistic PCA of the bins. Rates come from a Poisson regression on the latents' means
(`fit_gpfa_rates`), since the square root has no unit.

References:
    Yu et al., "Gaussian-process factor analysis for low-dimensional single-trial analysis of neural population activity",
        2009, https://doi.org/10.1152/jn.90941.2008, eqs. 1-4, A1-A9.
    Liu & Rubin, "The ECME algorithm: a simple extension of EM and ECM with faster monotone convergence", 1994.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import block_diag, cho_factor, cho_solve
from scipy.optimize import minimize

from radiata_core.errors import InputError
from radiata_latents.model.poisson_glm import PoissonReadout, fit_poisson_readout

__all__ = ["Gpfa", "GpfaRates", "fit_gpfa", "fit_gpfa_rates"]

JITTER = 1e-3
"""epsilon: the share of a latent's variance that is independent a bin; keeps K well conditioned."""
EVERY = 3
"""Iterations of expectation-maximisation from one ascent of the time constants to the next."""
LEAST_NOISE = 1e-2
"""Smallest private variance, as a share of a neuron's variance; a neuron explained wholly would pin a latent to itself."""


@dataclass(frozen=True)
class Gpfa:
    """Parameters.

    Attributes:
        loadings: C (neuron, latent).
        offset: d (neuron,).
        noise: Diagonal of R (neuron,), > 0.
        timescales: tau (latent,), bins.
        history: Log-likelihood of the training data before each iteration and after the last, nats.
    """

    loadings: np.ndarray
    offset: np.ndarray
    noise: np.ndarray
    timescales: np.ndarray
    history: tuple[float, ...] = ()

    def latents(self, observations: np.ndarray) -> np.ndarray:
        """Posterior means mu (trial, time, latent) of observations y (trial, time, neuron)."""
        return self._posterior(observations)[0]

    def log_likelihood(self, observations: np.ndarray) -> float:
        """log p(y) of all trials, nats."""
        return self._posterior(observations)[2]

    def _posterior(self, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Means (trial, time, latent), the covariance (latent · time)² of every trial, and the log-likelihood."""
        centred = self._centred(observations)
        trials, bins, size = centred.shape
        weighted = self.loadings / self.noise[:, None]
        kernels = [_kernel(tau, bins) for tau in self.timescales]
        factors = [cho_factor(kernel, lower=True) for kernel in kernels]
        prior = block_diag(*(cho_solve(factor, np.eye(bins)) for factor in factors))
        precision = cho_factor(prior + np.kron(self.loadings.T @ weighted, np.eye(bins)), lower=True)
        covariance = cho_solve(precision, np.eye(len(prior)))
        drive = np.swapaxes(centred @ weighted, 1, 2).reshape(trials, -1)
        means = drive @ covariance
        logdet = 2 * sum(np.log(np.diag(f[0])).sum() for f in [*factors, precision])
        constant = trials * (bins * (size * np.log(2 * np.pi) + np.log(self.noise).sum()) + logdet)
        quadratic = (centred**2 / self.noise).sum() - (drive * means).sum()
        latents = np.swapaxes(means.reshape(trials, -1, bins), 1, 2)
        return latents, covariance, float(-0.5 * (constant + quadratic))

    def _centred(self, observations: np.ndarray) -> np.ndarray:
        observations = np.asarray(observations, float)
        if observations.ndim != 3 or observations.shape[2] != len(self.offset):
            raise InputError(
                f"expected observations of (trial, time, {len(self.offset)}); got {observations.shape}. Use the neurons "
                "that it was fitted on."
            )
        return observations - self.offset


def _kernel(timescale: float, bins: int) -> np.ndarray:
    lags = np.subtract.outer(np.arange(bins), np.arange(bins)) / timescale
    return (1 - JITTER) * np.exp(-0.5 * lags**2) + JITTER * np.eye(bins)


def fit_gpfa(
    observations: np.ndarray,
    latents: int,
    *,
    iterations: int = 50,
    tolerance: float = 1e-6,
    timescale: float = 5.0,
) -> Gpfa:
    """Maximum likelihood by expectation-maximisation.

    Args:
        observations: y (trial, time, neuron), finite; trials of one length.
        latents: How many, from 1 to fewer than there are neurons.
        iterations: At most so many, >= 1.
        tolerance: It ends when the log-likelihood rises by a smaller share.
        timescale: Time constants start around it, from a quarter to four times as much, bins, > 0.

    Raises:
        InputError: too many latents, something not finite, or a neuron that never changes.

    References:
        Yu et al., 2009, eqs. A1-A9.
    """
    observations = np.asarray(observations, float)
    if observations.ndim != 3 or not np.isfinite(observations).all():
        raise InputError(
            f"expected finite observations (trial, time, neuron); got {observations.shape}, or NaN."
        )
    if not 1 <= latents < observations.shape[2] or iterations < 1 or not timescale > 0:
        raise InputError(
            f"expected 1 to {observations.shape[2] - 1} latents, an iteration and a time constant > 0; got {latents}, "
            f"{iterations} and {timescale}. Lower --latents."
        )
    model = _start(observations, latents, timescale)
    floor = LEAST_NOISE * observations.reshape(-1, observations.shape[2]).var(0)
    history: list[float] = []
    for i in range(iterations):
        means, covariance, log_likelihood = model._posterior(observations)
        if history and log_likelihood - history[-1] < tolerance * abs(history[-1]):
            break
        history.append(log_likelihood)
        model = _maximised(model, observations, means, covariance, floor)
        if i % EVERY == 0:
            model = _climbed(model, observations)
    return replace(model, history=(*history, model.log_likelihood(observations)))


def _start(observations: np.ndarray, latents: int, timescale: float) -> Gpfa:
    rows = observations.reshape(-1, observations.shape[2])
    spread = rows.std(0)
    if not (spread > 0).all():
        raise InputError(
            f"expected neurons that vary; number {int(np.argmin(spread))} never does. Leave it out."
        )
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov((rows / spread).T)))
    rest = values[:-latents].mean()
    loadings = vectors[:, -latents:] * np.sqrt(np.maximum(values[-latents:] - rest, LEAST_NOISE))
    noise = np.maximum(1.0 - (loadings**2).sum(1), LEAST_NOISE) * spread**2
    return Gpfa(
        loadings * spread[:, None], rows.mean(0), noise, timescale * 4.0 ** np.linspace(-1, 1, latents)
    )


def _maximised(
    model: Gpfa, observations: np.ndarray, means: np.ndarray, covariance: np.ndarray, floor: np.ndarray
) -> Gpfa:
    """One maximisation step: C and d by regression on the latents' moments, R by residuals."""
    trials, bins, count = means.shape
    blocks = covariance.reshape(count, bins, count, bins)
    rows, target = means.reshape(-1, count), observations.reshape(trials * bins, -1)
    rows = np.concatenate([rows, np.ones((len(rows), 1))], 1)
    second = rows.T @ rows
    second[:count, :count] += trials * np.einsum("itjt->ij", blocks)
    cross = target.T @ rows
    solved = np.linalg.solve(second, cross.T).T
    noise = ((target**2).sum(0) - (solved * cross).sum(1)) / len(rows)
    return Gpfa(solved[:, :count], solved[:, count], np.maximum(noise, floor), model.timescales)


def _climbed(model: Gpfa, observations: np.ndarray) -> Gpfa:
    """The same with time constants that make the observations likelier, if the ascent finds any.

    By Fisher's identity the slope of log p(y) is that of the expected log-density of the latents,
    -1/2 [N tr(K^-1 K') - tr(K^-1 K' K^-1 M)] with M the sum of second moments of a latent over N trials.
    """
    trials, bins = observations.shape[:2]

    def descent(log_scales: np.ndarray) -> tuple[float, np.ndarray]:
        here = replace(model, timescales=np.exp(log_scales))
        means, covariance, log_likelihood = here._posterior(observations)
        blocks = covariance.reshape(len(log_scales), bins, len(log_scales), bins)
        slopes = []
        for i, tau in enumerate(here.timescales):
            moments = means[..., i].T @ means[..., i] + trials * blocks[i, :, i]
            kernel, lags = _kernel(tau, bins), np.subtract.outer(np.arange(bins), np.arange(bins)) / tau
            change = cho_solve(
                cho_factor(kernel, lower=True), (1 - JITTER) * np.exp(-0.5 * lags**2) * lags**2
            )
            explained = np.trace(change @ cho_solve(cho_factor(kernel, lower=True), moments))
            slopes.append(0.5 * (trials * np.trace(change) - explained))
        return -log_likelihood, np.array(slopes)

    start = np.log(model.timescales)
    bounds = [(np.log(0.2), np.log(4.0 * bins))] * len(start)
    found = minimize(descent, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 8})
    return replace(model, timescales=np.exp(found.x)) if found.fun < descent(start)[0] else model


@dataclass(frozen=True)
class GpfaRates:
    """GPFA of held-in neurons and a Poisson regression from its latents to all.

    Attributes:
        gpfa: Of square roots of held-in counts.
        readout: To held-in, then held-out neurons.
    """

    gpfa: Gpfa
    readout: PoissonReadout

    def latents(self, heldin: np.ndarray) -> np.ndarray:
        """(trial, time, latent) posterior means of held-in counts."""
        return self.gpfa.latents(np.sqrt(np.asarray(heldin, float)))

    def rates(self, heldin: np.ndarray) -> np.ndarray:
        """Expected counts a bin of held-in, then held-out neurons, (trial, time, neuron)."""
        return self.readout.rates(self.latents(heldin))


def fit_gpfa_rates(
    heldin: np.ndarray,
    heldout: np.ndarray | None = None,
    *,
    latents: int = 8,
    iterations: int = 50,
    timescale: float = 5.0,
    penalty: float = 1e-4,
) -> GpfaRates:
    """The baseline of the tables.

    Args:
        heldin: (trial, time, neuron) counts of training trials; bins that were not observed have to be cut first.
        heldout: Those of held-out neurons, if there are any.
        latents: How many.
        iterations: Of expectation-maximisation, at most.
        timescale: Time constants start around it, bins.
        penalty: Of the regression.

    Raises:
        InputError: as `fit_gpfa`, or negative counts.
    """
    heldin = np.asarray(heldin, float)
    if (heldin < 0).any():
        raise InputError(f"expected counts >= 0; got {heldin.min():g}. Give spikes a bin.")
    model = fit_gpfa(np.sqrt(heldin), latents, iterations=iterations, timescale=timescale)
    everything = heldin if heldout is None else np.concatenate([heldin, heldout], -1)
    return GpfaRates(model, fit_poisson_readout(model.latents(np.sqrt(heldin)), everything, penalty))

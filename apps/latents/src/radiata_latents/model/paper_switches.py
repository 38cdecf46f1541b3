"""Every choice of the released LangevinFlow that is a trap, by name, in one frozen dataclass: the release is the default.

`PaperSwitches()` is the release; `CORRECTED` has each form that the equations of the paper or plain statistics ask for.
The two run through the same code (`paper_flow`, `paper_objective`), so a table can change one switch at a time.

    encoder     lagged, feed_last_bin, dropout, dropout_inside
    dynamics    step, gamma, balanced_noise, normalised_kernel, kernel_epsilon, kernel_spread
    decoder     tfixup
    loss        mean_against_sum, kl_weight, kl_ramp, transition_term, variance_as_log_variance, sample_as_mean,
                prior_variance, shown, pass_through
    prediction  geometric_mean, dropout_at_prediction

References:
    Song et al., "Langevin flows for modeling neural latent dynamics", 2025, https://arxiv.org/abs/2507.11531, and the
        program that its authors released (Algorithm 1 and program differ where said below).
"""

from dataclasses import dataclass

from radiata_core.errors import InputError
from radiata_core.specs import buildable

__all__ = ["CORRECTED", "PaperSwitches"]


@buildable("paper-switches")
@dataclass(frozen=True)
class PaperSwitches:
    """What the release does, unless said otherwise.

    Attributes:
        lagged: Bin t of the hidden state reads spikes of bin t - 1 (and the first bin twice). False: spikes of bin t, as
            Algorithm 1 of the paper has it.
        feed_last_bin: Forward bins read the last observed bin again and again. False: they read zeros.
        dropout: Probability that a unit is dropped, encoder and decoder, in [0, 1).
        dropout_inside: A dropped unit of the encoder is also missing in the next bin. False: dropout of the encoder's
            output, which one call of a fused GRU can follow; the same when nothing is dropped.
        step: Time step of the Hamiltonian half, one a bin. Far below the decay of one bin: nothing moves.
        gamma: Share of the velocity lost in a bin, in (0, 1]; 0.55, for DMFC 0.7.
        balanced_noise: False: noise of variance 2 gamma, so a free velocity rests at variance 2 / (2 - gamma). True:
            gamma (2 - gamma), which keeps variance 1: fluctuation and dissipation balance for a step of one bin.
        normalised_kernel: Each kernel of three taps is divided by its norm.
        kernel_epsilon: Least norm it is divided by; kernels begin at 0, where the first gradient is 1 / epsilon.
        kernel_spread: Standard deviation kernels begin with.
        tfixup: Scale three maps of the decoder by 0.67 · 3^(-1/4), the rule for a depth of three, though it has one.
        mean_against_sum: Mean negative log-likelihood against summed KL: relative to the bound of a trial a beta of
            kl_weight × bins × neurons, 10² to 10³. False: sum against sum, divided by the number of scored counts.
        kl_weight: Largest weight of the KL, >= 0.
        kl_ramp: Epochs over which it rises, >= 0.
        transition_term: Charge for velocities after the first bin. It is the KL of nothing inferred: prior and posterior
            share that noise. False: only the KL of the start.
        variance_as_log_variance: Hand the noise's variance to the KL as if it were its logarithm.
        sample_as_mean: Hand it the sampled velocity as if it were the mean of the transition.
        prior_variance: Of velocities after the first bin, > 0.
        shown: Probability that a held-in count is shown to the encoder (coordinated dropout), in (0, 1). The release calls
            it the rate of dropout, and keeps.
        pass_through: A count that is shown is scored with probability 1 - shown, so shown (1 - shown) of them leak. False:
            a count is shown or scored, never both.
        geometric_mean: Passes are averaged as log-rates. False: as rates, the mean of the predictive law.
        dropout_at_prediction: Dropout stays on in passes (the release never leaves training mode).
    """

    lagged: bool = True
    feed_last_bin: bool = True
    dropout: float = 0.05
    dropout_inside: bool = True
    step: float = 0.01
    gamma: float = 0.55
    balanced_noise: bool = False
    normalised_kernel: bool = True
    kernel_epsilon: float = 1e-12
    kernel_spread: float = 0.0
    tfixup: bool = True
    mean_against_sum: bool = True
    kl_weight: float = 0.1
    kl_ramp: int = 500
    transition_term: bool = True
    variance_as_log_variance: bool = True
    sample_as_mean: bool = True
    prior_variance: float = 0.1
    shown: float = 0.5
    pass_through: bool = True
    geometric_mean: bool = True
    dropout_at_prediction: bool = True

    def __post_init__(self) -> None:
        if not (0 <= self.dropout < 1 and 0 < self.gamma <= 1 and 0 < self.shown < 1):
            raise InputError(
                f"expected dropout in [0, 1), gamma in (0, 1], shown in (0, 1); got {self.dropout}, {self.gamma} and "
                f"{self.shown}."
            )
        if not (self.step > 0 and self.prior_variance > 0 and self.kernel_epsilon > 0):
            raise InputError(
                f"expected a step, a prior variance and a kernel epsilon > 0; got {self.step}, {self.prior_variance} and "
                f"{self.kernel_epsilon}."
            )
        if self.kl_weight < 0 or self.kl_ramp < 0 or self.kernel_spread < 0:
            raise InputError(
                f"expected kl_weight, kl_ramp and kernel_spread >= 0; got {self.kl_weight}, {self.kl_ramp} and "
                f"{self.kernel_spread}."
            )

    @property
    def noise_variance(self) -> float:
        """Variance of the noise that a velocity receives in a bin."""
        return self.gamma * (2 - self.gamma) if self.balanced_noise else 2 * self.gamma


CORRECTED = PaperSwitches(
    lagged=False,
    dropout_inside=False,
    balanced_noise=True,
    kernel_epsilon=1e-3,
    kernel_spread=0.1,
    tfixup=False,
    mean_against_sum=False,
    kl_weight=1.0,
    transition_term=False,
    variance_as_log_variance=False,
    sample_as_mean=False,
    pass_through=False,
    geometric_mean=False,
    dropout_at_prediction=False,
)
"""The same architecture without its traps; the dynamics stay overdamped (see `paper_potential`)."""

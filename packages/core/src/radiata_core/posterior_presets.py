r"""Presets: the published posterior samplers as points of one loop, and Radiata's own.

Each says its update (t = 0 is data; e the estimate, D the denoiser's, kappa = sigma/alpha, s the noise of y), where it is
from and where the authors' program does something else. A hyper-parameter of the literature is kept under a name that means
the same for any operator and any size of image: steps of gradients are in units of 1/|A A^T|.

| preset | evaluations usual | gradient of the network | exact for Gaussian data |
|---|---|---|---|
| `relaxed_prox` | 8-24 | no | no; a mean |
| `calibrated` | 12-50 | no | N(m, v I) |
| `flower` | 100 | no | N(m, I) with draws |
| `diffpir`, `ddnm`, `dds`, `ddrm`, `pnp_flow`, `flair`, `flowchef` | 20-200 | no | no |
| `dps` | 1000 | yes | no |
| `pigdm` | 100 | yes | N(m, v I) |
| `mmps` | 100 | yes | every Gaussian |

The numbers behind the last column are in docs/posterior.md.
"""

from radiata_core.data_steps import (
    DescentStep,
    KrylovStep,
    ProjectionStep,
    ProximalStep,
    Unmoved,
)
from radiata_core.posterior_spread import KappaSpread, Spread, UnitSpread
from radiata_core.posterior_walk import PosteriorMethod
from radiata_core.relaxation import CalibratedRelaxation, ConstantRelaxation
from radiata_core.renoising import (
    AncestralShare,
    FixedShare,
    MixedNoise,
    PathShare,
    Share,
    SpectralRenoising,
)
from radiata_core.steering_steps import MomentStep, ResidualNormStep, SteeringStep

__all__ = [
    "calibrated",
    "ddnm",
    "ddrm",
    "dds",
    "diffpir",
    "dps",
    "flair",
    "flowchef",
    "flower",
    "mmps",
    "pigdm",
    "pnp_flow",
    "relaxed_prox",
]


def relaxed_prox(weight: float = 0.5, spread: Spread | None = None) -> PosteriorMethod:
    """Radiata's mean: relaxed denoising, prox with the noise of the measurement, fresh noise; 8 to 24 evaluations.

        e <- e + w (D - e),   e <- argmin |A z - y|^2/(2 s^2) + |z - e|^2/(2 kappa^2),   x_s = alpha_s e + sigma_s z

    FLAIR without its calibration and its correlated noise, with a prox in place of a hard projection, so that noisy
    measurements need nothing else. Relaxation averages over the noise of the walk: the result is close to a mean and its
    spread says nothing about the error (`calibrated` is for that).

    Args:
        weight: w, in (0, 1]; the first step follows the denoiser.
        spread: r^2 of the prox; None: kappa^2.
    """
    prox = ProximalStep(KappaSpread() if spread is None else spread)
    return PosteriorMethod(prox, MixedNoise(FixedShare(1.0)), ConstantRelaxation(weight))


def calibrated(spread: Spread, share: Share | None = None, draw: bool = True) -> PosteriorMethod:
    """Radiata's samples: a draw of x_0 given both the state and the measurement, then fresh noise.

        e ~ N(D, r^2 I) given y,   x_s = alpha_s e + sigma_s (sqrt(1 - q) n + sqrt(q) z),   n = (x - alpha e)/sigma

    If e has the law of x_0 given x_t and y, x_s has the law of x_s given y, for any grid and any share q. With r^2 the
    measured error of the denoiser that holds where the posterior of the prior is round. Elsewhere fresh noise (q = 1)
    forgets the errors of earlier, noisier steps, as the noise level falls to where N(D, r^2 I) is right; ancestral noise
    keeps them, and a mean in place of the draw has too small a variance by an error of first order in the step.

    Args:
        spread: r^2, from `measured_spread`.
        share: q; None: 1.
        draw: Draw e; else take its mean.
    """
    noise = MixedNoise(FixedShare(1.0) if share is None else share, corrected=True)
    return PosteriorMethod(ProximalStep(spread, draw), noise)


def dps(scale: float = 1.0) -> PosteriorMethod:
    """Diffusion posterior sampling: x_s = ancestral step of D - scale grad_x |y - A D(x)|, through the network.

    The paper's zeta_i grad |y - A D|^2 with zeta_i = zeta'/|y - A D| is this with scale = 2 zeta'; the program takes the
    gradient of the norm, as here (0.3 for super-resolution and blur, 0.5 for inpainting, 1 for phase retrieval). The best
    scale moves by ten between tasks and with the number of steps: at 50 steps instead of 1000 it is 1 to 10.

    References:
        Chung et al. 2023, https://arxiv.org/abs/2209.14687, algorithm 1 (Gaussian noise), eq. 16.
    """
    return PosteriorMethod(ResidualNormStep(scale), MixedNoise(AncestralShare(1.0)))


def flowchef(step: float = 1.0, through_network: bool = False) -> PosteriorMethod:
    """FlowChef: x_s = Euler step of the flow + step A^T (y - A D)/|A|^2; the last step is unguided.

    Gradient skipping: d D/dx is replaced by 1, which is right as t tends to 0 or for a straight flow. The program's step 500
    on a loss averaged over the elements of y is 1000/numel(y) here, 0.08 for 3 x 64 x 64 images in 200 steps; on a prior
    that is not straight, 1 was best at 25 steps, 0.3 fits too little and 2 diverges. The program also draws the noise of
    the degradation anew inside the loss at every step, which is not copied.

    References:
        Patel et al. 2024, https://arxiv.org/abs/2412.00100, eq. 9 and algorithm 1 (time as here, the velocity
            with the other sign in the paper, as here in the program).
    """
    return PosteriorMethod(SteeringStep(step, through_network), MixedNoise(FixedShare(0.0)))


def flair(regularisation: float = 0.5, spread: Spread | None = None) -> PosteriorMethod:
    """FLAIR in the space of the data: relaxed denoising with calibrated weight, prox, correlated noise; starts at A^+ y.

        e <- e + (lambda(t)/t)(D - e),   e <- prox of the measurement with r^2 = kappa^2,
        x_s = (1 - s) e + s (a n + sqrt(1 - a^2) z),   a = 1 - s,   n = (x - alpha D)/sigma

    The paper's e <- e - lambda (v - u) is the first line, since v - u = (e - D)/t. Its data step is up to 15 gradient steps
    that stop at a squared residual of 1e-4 a pixel, a hard projection that would give back a noisy y; here it is the prox
    with the true noise. lambda is 0.5 or, with a measured spread, 0.5 times the calibrated weight; it is clipped so that e
    never overshoots D. The program stops at t = 0.18: end the grid there if the prior is the same.

    References:
        Erbach et al., "Solving inverse problems with FLAIR", 2025, https://arxiv.org/abs/2506.02680, algorithm 1.
    """
    return PosteriorMethod(
        ProximalStep(KappaSpread()),
        MixedNoise(PathShare()),
        CalibratedRelaxation(regularisation, spread),
        from_measurement=True,
    )


def ddnm(eta: float = 0.85) -> PosteriorMethod:
    """DDNM, and DDNM+ for noisy y: e = D + W A^+ (y - A D), x_s = alpha_s e + sigma_s (sqrt(1 - eta^2) n + eta z).

    Without noise W = 1 and A e = y holds at every step. With noise a direction of singular value c has
    w = min(1, eta sigma_s c/(alpha_s s)), and its fresh noise is reduced by what comes in with y; the last estimate is then
    D. The simplified form of the paper is used where singular vectors are not known. The paper travels back in time as well;
    that is a grid that goes up, which is not walked here.

    References:
        Wang, Yu & Zhang 2023, https://arxiv.org/abs/2212.00490, eqs. 13 (DDNM), 17 to 19 (DDNM+).
    """
    return PosteriorMethod(ProjectionStep(), MixedNoise(FixedShare(eta**2)))


def ddrm(eta: float = 0.85, eta_b: float = 1.0) -> PosteriorMethod:
    """DDRM: every singular direction of A is a problem of its own; see `SpectralRenoising` for the update.

    For operators whose singular vectors are known. (The implementation in deepinv scales the injected noise by 1/sqrt(2).)

    References:
        Kawar et al. 2022, https://arxiv.org/abs/2201.11793, eqs. 7 and 8.
    """
    return PosteriorMethod(Unmoved(), SpectralRenoising(eta, eta_b))


def dds(strength: float = 5.0, iterations: int = 5, eta: float = 0.85) -> PosteriorMethod:
    """DDS: a few conjugate gradients of (I + g A^T A) z = D + g A^T y from D, then DDIM with n from D.

    g = strength/|A|^2 at every step, whatever the noise of y: the strength is to be tuned to it. In 3-D the paper adds total
    variation across slices; compose that as a prior of one's own.

    References:
        Chung, Lee & Ye 2024, "Decomposed diffusion sampler for accelerating large-scale inverse problems",
            https://arxiv.org/abs/2303.05754, section 3 (noisy measurements: the proximal form).
    """
    return PosteriorMethod(KrylovStep(strength, iterations), MixedNoise(FixedShare(eta**2)))


def diffpir(strength: float = 1.0, zeta: float = 1.0) -> PosteriorMethod:
    """DiffPIR: prox with r^2 = kappa^2/lambda, then x_s = alpha_s e + sigma_s (sqrt(1 - zeta) n + sqrt(zeta) z).

    n = (x - alpha e)/sigma is what the corrected estimate leaves. The program's defaults, lambda = 7 and zeta = 0.1, lost
    2 dB to lambda = zeta = 1 on a small prior: tune them before comparing.

    Args:
        strength: lambda, of the prior.
        zeta: In [0, 1].

    References:
        Zhu et al. 2023, https://arxiv.org/abs/2305.08995, algorithm 1 (rho_t = lambda s^2/kappa^2).
    """
    return PosteriorMethod(
        ProximalStep(KappaSpread(1 / strength)), MixedNoise(FixedShare(zeta), corrected=True)
    )


def pigdm(spread: Spread | None = None, eta: float = 1.0) -> PosteriorMethod:
    """PiGDM: e = D + (sigma^2/alpha) J^T A^T (r^2 A A^T + s^2)^{-1} (y - A D), ancestral steps with n from e.

    This is E[x_0 | x_t, y] for a Gaussian posterior of covariance r^2 I. The paper's algorithm 1 adds
    alpha_t J^T A^+ (y - A D) to a DDIM state with n from D instead, which weighs the guidance by r^2 as a heuristic; for
    unit-variance data r^2 is the same, kappa^2/(1 + kappa^2).

    Args:
        spread: r^2; None: `UnitSpread()`.
        eta: In [0, 1]; 1 is ancestral.

    References:
        Song et al. 2023, https://openreview.net/forum?id=9_gsMA8MRKQ, section 3 and algorithm 1.
    """
    step = MomentStep(UnitSpread() if spread is None else spread)
    return PosteriorMethod(step, MixedNoise(AncestralShare(eta), corrected=True))


def mmps(iterations: int = 20, eta: float = 1.0) -> PosteriorMethod:
    """MMPS: e = D + C A^T (A C A^T + s^2)^{-1} (y - A D), C = (sigma^2/alpha) J the covariance itself; ancestral steps.

    Exact wherever the posterior of the prior is Gaussian; as many backward passes a step as conjugate gradients take.

    References:
        Rozet et al., "Learning diffusion priors from observations by expectation maximization", 2024,
            https://arxiv.org/abs/2405.13712, section 4 (moment matching posterior sampling).
    """
    return PosteriorMethod(MomentStep(None, iterations), MixedNoise(AncestralShare(eta), corrected=True))


def pnp_flow(power: float = 0.5, averages: int = 1) -> PosteriorMethod:
    """PnP-Flow: e <- e + t^power A^T (y - A e)/|A|^2, renoise with fresh noise, denoise (the mean of several).

    The order is that of the paper, turned in the circle: the last move is a denoising. It starts about A^+ y; the program
    starts at A^T 1. Its powers are 0.01 (random inpainting, blur) to 0.8 (denoising); the paper's step is in units of the
    squared noise, which cancels, for operators of norm 1.

    References:
        Martin et al., "PnP-Flow: plug-and-play image restoration with flow matching", 2025,
            https://arxiv.org/abs/2410.02423, algorithm 3 (their time runs the other way).
    """
    return PosteriorMethod(
        DescentStep(power), MixedNoise(FixedShare(1.0)), from_measurement=True, averages=averages
    )


def flower(draw: bool = False, data_variance: float = 1.0) -> PosteriorMethod:
    """Flower: prox (or a draw, its gamma = 1) with r^2 = kappa^2/(1 + kappa^2), fresh noise.

        x_s = alpha_s e + sigma_s z,   e ~ N(D, nu^2 I) given y,   nu^2 = t^2/(t^2 + (1 - t)^2)

    The draw is exact for data N(m, I): then every state has its right law, whatever the grid. The paper reports the mean of
    1 or 5 runs with gamma = 0.

    Args:
        draw: gamma = 1.
        data_variance: v of nu^2 = kappa^2 v/(kappa^2 + v); 1 in the paper.

    References:
        Pourya, El Rawas & Unser 2025, https://arxiv.org/abs/2509.26287, algorithm 1 (their time runs the other way).
    """
    return PosteriorMethod(ProximalStep(UnitSpread(data_variance), draw), MixedNoise(FixedShare(1.0)))

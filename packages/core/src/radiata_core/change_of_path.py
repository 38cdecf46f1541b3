r"""From one path to another: what two paths with the same log-SNR see differs by a scale only.

$$\bar x_s = c_s x_{t_s}, \qquad \lambda(t_s) = \bar\lambda(s)$$

References:
    Lipman et al., 2024, Flow Matching Guide and Code, https://arxiv.org/abs/2412.06264, section 4.9.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from radiata_core.coefficients import AnyTime, Path

__all__ = ["ScaleTime", "same_log_snr"]


@dataclass(frozen=True)
class ScaleTime:
    """The time on another path and the factor from its state to ours, float64, shaped like the time."""

    t: Tensor
    scale: Tensor


def same_log_snr(s: AnyTime, target: Path, source: Path) -> ScaleTime:
    r"""The time on `source` with the noise of `target` at time `s`, and the scale between their states.

    $$\bar x_s = c_s x_{t_s}, \qquad \lambda(t_s) = \bar\lambda(s), \qquad
      c_s = \bar\alpha_s/\alpha_{t_s} = \bar\sigma_s/\sigma_{t_s}$$

    So a denoiser D of `source` serves `target` as $\bar D(\bar x, s) = D(\bar x / c_s, t_s)$. Noise beyond
    the end of `source` is taken at its end.

    Args:
        s: Times on `target`, in [0, 1].

    References:
        Lipman et al., 2024, Flow Matching Guide and Code, https://arxiv.org/abs/2412.06264, section 4.9.
        Karras et al., 2022, https://arxiv.org/abs/2206.00364, appendix B.
    """
    t = source.time_of_log_snr(target.log_snr(s))
    ours, theirs = target.coefficients(s), source.coefficients(t)
    # The length of (alpha, sigma) keeps the ratio where one of the two vanishes.
    return ScaleTime(t, torch.hypot(ours.alpha, ours.sigma) / torch.hypot(theirs.alpha, theirs.sigma))

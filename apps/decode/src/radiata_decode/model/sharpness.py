r"""How sharp a prediction is: from the posterior mean to the full variance of the targets, without a look at the test set.

A ridge prediction is a posterior mean: its variance over stimuli is about $R^2$ of the target's variance, so pictures made
of it are grey and blurred. Brain-Diffuser restores the variance by z-scoring each predicted latent *over the test set*: each
output depends on all other test stimuli, and a single stimulus has no standard deviation. Here the factor comes from the
leave-one-out $R^2$ of training:

$$ \hat y' = \bar y + \max(R^2, \text{floor})^{-\text{sharpness}/2}\,(\hat y - \bar y),
   \qquad 0 \le \text{sharpness} \le 1 . $$

Sharpness 0 is the posterior mean, least in squared error; 1 restores the full variance; between, the variance is a share
$(R^2)^{1 - \text{sharpness}}$ of the target's. It trades error for identifiability. The floor keeps targets that are not
predicted at all from being blown up noise.

References:
    F. Ozcelik, R. VanRullen (2023), https://arxiv.org/abs/2303.05334 (the published code z-scores over test predictions).
    Y. Blau, T. Michaeli (2018). The perception-distortion tradeoff. https://arxiv.org/abs/1711.06077.
"""

import torch
from torch import Tensor

from radiata_core.errors import InputError

__all__ = ["restoring_factor", "sharpened"]


def restoring_factor(loo_r2: Tensor, sharpness: float, floor: float = 0.05) -> Tensor:
    """What the distance of each predicted target from its mean is multiplied by, in the shape of `loo_r2`, ≥ 1.

    Args:
        loo_r2: Leave-one-out R² of each target, ≤ 1.
        sharpness: 0 to 1.
        floor: Least R² that is believed, in (0, 1]; the factor is at most floor^(-1/2).

    Raises:
        InputError: sharpness or floor out of range.
    """
    if not 0 <= sharpness <= 1:
        raise InputError(f"expected sharpness from 0 (posterior mean) to 1 (full variance); got {sharpness}.")
    if not 0 < floor <= 1:
        raise InputError(f"expected a floor of R² in (0, 1]; got {floor}.")
    return loo_r2.clamp(floor, 1.0).pow(-0.5 * sharpness)


def sharpened(
    predicted: Tensor, mean: Tensor, loo_r2: Tensor, sharpness: float, floor: float = 0.05
) -> Tensor:
    """Predictions (m, ...) moved away from the training mean; each row depends on itself alone.

    Args:
        predicted: (m, t) or (m, tokens, dimensions).
        mean: Training mean of the targets, the same without m.
        loo_r2: Leave-one-out R², the same without m.
        sharpness: 0 to 1.
        floor: As in `restoring_factor`.
    """
    return torch.lerp(mean.expand_as(predicted), predicted, restoring_factor(loo_r2, sharpness, floor))

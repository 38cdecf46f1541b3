r"""A denoiser that cannot have curl: the gradient of a learned energy.

Any network gives a scalar $E_\theta(z)$; what the denoiser uses is its gradient,

$$D(x, t) = c_\text{skip}\, x + c_\text{out}\, F(c_\text{in} x), \qquad F(z) = \nabla_z E_\theta(z, \lambda_t),$$

$$c_\text{skip} = \alpha s^2/v, \quad c_\text{out} = \sigma s/\sqrt v, \quad c_\text{in} = 1/\sqrt v, \quad
  v = \alpha^2 s^2 + \sigma^2,$$

with s the sd of the data: Karras et al.'s preconditioning, in a form that is finite at alpha = 0 too. As
$J_D = c_\text{skip} I + c_\text{out} c_\text{in} \nabla^2 E$ is symmetric, the score $(\alpha D - x)/\sigma^2$ is a gradient
whatever the weights, and its potential is known:

$$\log p_t(x) + \text{const} = \frac{\alpha s}{\sigma} E(c_\text{in}x, \lambda) - \frac{\lvert x\rvert^2}{2v}.$$

A network with one number a row is the energy itself. One that answers with an event, as denoising networks do, is turned
into an energy by $E(z) = \tfrac12\langle z, f(z)\rangle$; a linear symmetric f is then its own gradient. The price is one
more backward pass: about three evaluations for one, and in training a second derivative (so smooth activations: SiLU, not
ReLU).

References:
    Salimans & Ho, "Should EBMs model the energy or the score?", 2021, https://openreview.net/forum?id=9AS-TF2jRNb.
    Horvat & Pfister, 2024, https://arxiv.org/abs/2402.03845 (when conservativity matters: neither necessary nor sufficient).
    Karras et al., 2022, https://arxiv.org/abs/2206.00364, table 1 (preconditioning).
"""

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from radiata_core.denoisers import UnitVariance
from radiata_core.errors import InputError
from radiata_core.paths import Path, expand
from radiata_core.predictions import Prediction
from radiata_core.specs import buildable
from radiata_core.types import Batch, Row, Time

__all__ = ["EnergyDenoiser"]


@buildable("energy-denoiser")
class EnergyDenoiser(nn.Module):
    """E[x_0 | x_t] whose score is the gradient of `log_density`; trains like any denoiser (`objectives.Regression`).

    Args:
        network: `network(z, noise_level, **conditions)` -> one number a row, (batch,) or (batch, 1), or an event like z.
            Twice differentiable in z.
        path: alpha and sigma of t.
        sigma_data: Sd of the data, > 0.
        limit: The log-SNR given to the network is clipped to [-limit, limit].
    """

    prediction = Prediction.X0

    def __init__(self, network: nn.Module, path: Path, sigma_data: float = 1.0, limit: float = 8.0) -> None:
        super().__init__()
        if not sigma_data > 0:
            raise InputError(f"expected sigma_data > 0; got {sigma_data}. Give the sd of the data.")
        self.network, self.path, self.sigma_data, self.limit = network, path, sigma_data, limit

    @property
    def options(self) -> dict[str, object]:
        """The arguments that rebuild this denoiser."""
        return {
            "network": self.network,
            "path": self.path,
            "sigma_data": self.sigma_data,
            "limit": self.limit,
        }

    def energy(self, z: Batch, level: Tensor, **conditions: Tensor | None) -> Row:
        """E(z), (batch,), of the scaled state.

        Raises:
            InputError: the network's answer is neither one number a row nor an event like z.
        """
        raw = self.network(z, level, **conditions)
        if raw.shape == z.shape and z[0].numel() > 1:
            return 0.5 * (z * raw).flatten(1).sum(1)
        if raw.numel() == len(z):
            return raw.reshape(len(z))
        raise InputError(
            f"expected one number a row or an event like the input {tuple(z.shape)} from the network; got "
            f"{tuple(raw.shape)}. Sum the output, or give the network the channels of its input."
        )

    def predict(self, x: Batch, t: Time, **conditions: Tensor | None) -> Batch:
        """D(x_t), the same as calling the denoiser. Differentiable: in the weights for training, in x for diagnostics."""
        scaled, level = self._scaled(x, t)

        def total(z: Tensor) -> Tensor:
            return self.energy(z, level, **conditions).sum()

        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
            force = torch.func.grad(total)(scaled)
        c = self.path.coefficients(t)
        variance = c.alpha.square() * self.sigma_data**2 + c.sigma.square()
        skip, out = c.alpha * self.sigma_data**2 / variance, c.sigma * self.sigma_data * variance.rsqrt()
        return expand(skip, x).to(x.dtype) * x + expand(out, x).to(x.dtype) * force

    def forward(self, x: Batch, t: Time, **conditions: Tensor | None) -> Batch:
        """E[x_0 | x_t], (batch, *event)."""
        return self.predict(x, t, **conditions)

    def log_density(self, x: Batch, t: Time, **conditions: Tensor | None) -> Row:
        """log p_t(x) up to a constant of t, (batch,): differences at one t are log ratios of densities.

        Raises:
            InputError: sigma is 0 at t.
        """
        c = self.path.coefficients(t)
        if bool((c.sigma == 0).any()):
            raise InputError(
                "expected a time with noise; got sigma = 0, where the score is infinite. Raise t."
            )
        scaled, level = self._scaled(x, t)
        variance = c.alpha.square() * self.sigma_data**2 + c.sigma.square()
        # The two factors of the score's potential: (alpha c_skip - 1) / sigma^2 and alpha c_out / (sigma^2 c_in).
        factor = (c.alpha * self.sigma_data / c.sigma).to(x.device, x.dtype)
        square = x.flatten(1).square().sum(1) / (2 * variance.to(x.device, x.dtype))
        return factor * self.energy(scaled, level, **conditions) - square

    def _scaled(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        scaled, level = UnitVariance(self.sigma_data, self.limit)(x, t, self.path)
        return scaled, level.to(x.device, torch.promote_types(x.dtype, torch.float32))

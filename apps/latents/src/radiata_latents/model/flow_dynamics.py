r"""The dynamics behind a population: oscillators in one bath, and two ablations of them with the same interface.

K oscillators share a bath of temperature 1; their positions q and velocities v follow

$$dq_k = v_k\,dt, \quad m_k\,dv_k = -\partial_k U(q)\,dt - \gamma_k m_k v_k\,dt + \sqrt{2\gamma_k m_k}\,dW_k, \qquad
  U = \tfrac12\lvert q\rvert^2 + \tfrac12 \lvert L q\rvert^2 + c\textstyle\sum_k h(q_k), \quad m_k = \omega_k^{-2},$$

with $h(q) = \frac{1}{2a}\big(q^2 - \frac1a\log(1 + a q^2)\big)$, a well $q^4/4$ that is quadratic beyond three standard
deviations.

Frequencies $\omega_k$ and damping $\zeta_k = \gamma_k / 2\omega_k$ are learned. L couples neighbours on a ring by a kernel
of three, so U is bounded below whatever is learned, and the law at rest is $e^{-U}$ (fluctuation and dissipation balance).
The quadratic part |q|²/2 is solved exactly over a bin (`radiata_core.oscillators`), coupling and wells kick it before and
after. Their stiffness s is bounded by what such kicks can hold at the top of the band, |cos t - s t/2 sin t| < 1 for
t = omega h, so no parameters make a path of the prior explode. Whatever is linear in that, and in a feedback of the state on
the noise, is one matrix (`flow_scan`).

    start (q, v / omega), noise of every bin  ->  q, v / omega of every bin

`FirstOrder` is the overdamped limit, in which nothing oscillates; `Independent` has new latents in every bin, no dynamics at
all; `Direct` has no latents: what the encoder says is read out as it is.

References:
    Song et al., "Langevin flows for modeling neural latent dynamics", 2025, https://arxiv.org/abs/2507.11531 (locally
        coupled oscillators as a prior; `paper_potential` has the potential that was released).
    Leimkuhler & Matthews, 2013, https://arxiv.org/abs/1203.5428 (the integrator).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from radiata_core.langevin import Bath, LinearStep, oscillator
from radiata_latents.model.flow_scan import BEND, linear_flow_scan, stiffening_flow_scan, stiffening_force

__all__ = ["Direct", "Dynamics", "FirstOrder", "Independent", "Modes", "Oscillators", "dynamics_of"]


class Dynamics(StrEnum):
    """How a latent goes on: underdamped, or, as ablations, overdamped, new in every bin, or no latent at all."""

    OSCILLATORS = "oscillators"
    FIRST_ORDER = "first-order"
    INDEPENDENT = "independent"
    NONE = "none"


@dataclass(frozen=True, eq=False)
class Modes:
    """Normal modes of the flow near q = 0, those that oscillate, slowest first.

    Attributes:
        frequency_hz: At which a mode swings, |Im log lambda| / (2 pi h) of an eigenvalue lambda of the map of one bin.
        decay_s: Time in which it falls to 1 / e.
    """

    frequency_hz: Float[Tensor, "mode"]
    decay_s: Float[Tensor, "mode"]


class Oscillators(nn.Module):
    """Underdamped Langevin dynamics of K coupled oscillators.

    Args:
        latents: K, >= 3.
        bin_s: Width of a bin, s.
        band_hz: Least and largest frequency that can be learned.
        coupled: Learn L and c; otherwise U is |q|^2 / 2.
    """

    draws = 2

    def __init__(self, latents: int, bin_s: float, band_hz: Sequence[float], coupled: bool) -> None:
        super().__init__()
        self.bin_s, self.coupled = bin_s, coupled
        self.band = (math.log(band_hz[0]), math.log(band_hz[1]))
        spread = torch.linspace(0.05, 0.95, latents)
        self.pitch = nn.Parameter(torch.log(spread / (1 - spread)))
        self.friction = nn.Parameter(torch.full((latents,), math.log(math.expm1(0.3))))
        self.kernel = nn.Parameter(0.05 * torch.randn(3))
        self.stiffening = nn.Parameter(torch.tensor(-1.4))
        turn = 2 * math.pi * band_hz[1] * bin_s
        self.stiffest = 0.9 * min(4.0, max(0.0, 2 / (turn * math.tan(turn / 2))))

    @property
    def frequency_hz(self) -> Float[Tensor, "latent"]:
        """Undamped frequency of each oscillator, were it alone."""
        low, high = self.band
        return torch.exp(low + (high - low) * torch.sigmoid(self.pitch))

    @property
    def damping(self) -> Float[Tensor, "latent"]:
        """Damping ratio gamma / (2 omega): below 1 it oscillates."""
        return functional.softplus(self.friction) + 0.01

    @property
    def hardness(self) -> Float[Tensor, ""]:
        """c >= 0 of the wells; 0 where nothing is coupled. Far out they add up to a quarter of the stiffness allowed."""
        return 0.25 * self.stiffest * BEND * torch.sigmoid(self.stiffening) * float(self.coupled)

    def force(self, q: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch latent"]:
        """-L^T L q - c h'(q), what U has beyond |q|^2 / 2 pulls with."""
        if not self.coupled:
            return torch.zeros_like(q)
        ring = self._ring()
        return -q @ ring.T @ ring + stiffening_force(q, self.hardness)

    def energy(self, q: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch"]:
        """U(q) in units of the temperature, >= 0."""
        quadratic = 0.5 * q.square().sum(1)
        if not self.coupled:
            return quadratic
        wells = 0.5 / BEND * (q.square() - torch.log1p(BEND * q.square()) / BEND).sum(1)
        return quadratic + 0.5 * (q @ self._ring().T).square().sum(1) + self.hardness * wells

    def step(self) -> LinearStep:
        """The exact step of |q|^2 / 2 over one bin, in q and v, float64."""
        omega = 2 * math.pi * self.frequency_hz
        return oscillator(self.bin_s, omega, Bath(2 * self.damping * omega, 1.0, omega**-2))

    def modes(self) -> Modes:
        """Normal modes of the coupled oscillators, linearised where the force is 0."""
        values = torch.linalg.eigvals(self._maps()[0].detach().double())
        logs = torch.log(values[values.imag > 1e-9])
        order = logs.imag.argsort()
        if isinstance(self, FirstOrder | Independent):  # nothing swings
            order = order[:0]
        return Modes(logs.imag[order] / (2 * math.pi * self.bin_s), -self.bin_s / logs.real[order])

    def run(
        self,
        start: Float[Tensor, "batch 2 latent"],
        noise: Float[Tensor, "batch steps draws latent"],
        steering: Float[Tensor, "batch steered draws latent"] | None = None,
        feedback: Float[Tensor, "draws 2 latent"] | None = None,
    ) -> tuple[Float[Tensor, "batch time 2 latent"], Float[Tensor, "batch steered draws latent"] | None]:
        """States (q, v / omega), one more than steps, and the mean of the noise along them.

        Args:
            start: The first state.
            noise: Standard normal for a path of the prior, or the deviation from the mean of a posterior.
            steering: In the first steps, the mean of the noise but for its feedback, which is added.
            feedback: K; the mean of the noise is `steering` - K (q, v / omega).
        """
        linear, spread, pull, kick = self._maps()
        first, rows = start.flatten(1), noise.flatten(2)
        if steering is None or feedback is None:
            return self._scanned(first, rows @ spread, linear, pull, kick), None
        back = _diagonals(-feedback.transpose(0, 1))
        steered = steering.shape[1]
        given = rows[:, :steered] + steering.flatten(2)
        states = self._scanned(first, given @ spread, linear + back @ spread, pull, kick)
        mean = steering + (states[:, :-1].flatten(2) @ back).unflatten(2, (self.draws, -1))
        if steered < rows.shape[1]:
            ahead = self._scanned(states[:, -1].flatten(1), rows[:, steered:] @ spread, linear, pull, kick)
            states = torch.cat([states, ahead[:, 1:]], 1)
        return states, mean

    def _scanned(self, first: Tensor, drive: Tensor, linear: Tensor, pull: Tensor, kick: Tensor) -> Tensor:
        if self.coupled:
            states = stiffening_flow_scan(first, drive, linear, pull, kick, self.hardness)
        else:
            states = linear_flow_scan(first, drive, linear)
        return states.unflatten(2, (2, -1))

    def _maps(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of one bin, applied from the right: of the state, of the noise, of the wells' force before; its kick after."""
        omega = 2 * math.pi * self.frequency_hz
        exact = self.step()
        unit = torch.stack([torch.ones_like(omega), omega])  # v = omega w
        turn = (exact.transition.to(omega) * unit / unit[:, None]).transpose(0, 1)
        gain = (exact.noise.to(omega) / unit[:, None]).transpose(0, 1)
        linear, spread = _diagonals(turn), _diagonals(gain)
        kick = 0.5 * self.bin_s * omega
        nothing = torch.zeros_like(torch.diag(kick))
        if self.coupled:
            ring = self._ring()
            eye = torch.eye(len(kick), dtype=kick.dtype, device=kick.device)
            bent = torch.cat([torch.cat([eye, -(ring.T @ ring) * kick], 1), torch.cat([nothing, eye], 1)])
            pull = torch.cat([nothing, torch.diag(kick)], 1) @ linear @ bent
            return bent @ linear @ bent, spread @ bent, pull, kick
        return linear, spread, nothing, kick

    def _ring(self) -> Tensor:
        """L: correlation with a kernel of three on a ring, |L|^2 below three quarters of the stiffness allowed."""
        eye = torch.eye(len(self.pitch), dtype=self.kernel.dtype, device=self.kernel.device)
        most = max(0.75 * self.stiffest, 1e-12)
        left, own, right = self.kernel / torch.sqrt(1 + self.kernel.abs().sum().square() / most)
        return left * eye.roll(-1, 1) + own * eye + right * eye.roll(1, 1)


def _diagonals(blocks: Float[Tensor, "source target latent"]) -> Float[Tensor, "in out"]:
    """The matrix, applied from the right, whose block (source, target) is diagonal."""
    return torch.cat([torch.cat([torch.diag(block) for block in row], 1) for row in blocks])


class FirstOrder(Oscillators):
    """q' = a q + (1 - a) F + sqrt(1 - a^2) xi with a = exp(-omega h / (2 zeta)): the overdamped limit; no velocity."""

    draws = 1

    def __init__(self, latents: int, bin_s: float, band_hz: Sequence[float], coupled: bool) -> None:
        super().__init__(latents, bin_s, band_hz, coupled)
        self.stiffest = min(
            self.stiffest, 0.9
        )  # a force is felt for a whole bin here, so 1 is where it overshoots

    def run(
        self,
        start: Float[Tensor, "batch 2 latent"],
        noise: Float[Tensor, "batch steps draws latent"],
        steering: Float[Tensor, "batch steered draws latent"] | None = None,
        feedback: Float[Tensor, "draws 2 latent"] | None = None,
    ) -> tuple[Float[Tensor, "batch time 2 latent"], Float[Tensor, "batch steered draws latent"] | None]:
        """As of `Oscillators`, with a velocity of 0."""
        rate = 2 * math.pi * self.frequency_hz * self.bin_s / (2 * self.damping)
        keep, gain = torch.exp(-rate), torch.sqrt(-torch.expm1(-2 * rate))
        q = start[:, 0]
        states, means = [q], []
        for k in range(noise.shape[1]):
            xi = noise[:, k, 0]
            if steering is not None and feedback is not None and k < steering.shape[1]:
                means.append(steering[:, k] - feedback[:, 0] * q[:, None])
                xi = xi + means[-1][:, 0]
            q = keep * q + (1 - keep) * self.force(q) + gain * xi
            states.append(q)
        path = torch.stack(states, 1)
        return torch.stack([path, torch.zeros_like(path)], 2), torch.stack(means, 1) if means else None


class Independent(Oscillators):
    """(q, v / omega)' = xi: what is left without dynamics."""

    def run(
        self,
        start: Float[Tensor, "batch 2 latent"],
        noise: Float[Tensor, "batch steps draws latent"],
        steering: Float[Tensor, "batch steered draws latent"] | None = None,
        feedback: Float[Tensor, "draws 2 latent"] | None = None,
    ) -> tuple[Float[Tensor, "batch time 2 latent"], Float[Tensor, "batch steered draws latent"] | None]:
        """As of `Oscillators`; there is nothing for a feedback to hold, so there is none."""
        if steering is None:
            return torch.cat([start[:, None], noise], 1), None
        ahead = noise.shape[1] - steering.shape[1]
        given = noise + torch.cat([steering, torch.zeros_like(noise[:, :ahead])], 1)
        return torch.cat([start[:, None], given], 1), steering


class Direct(Independent):
    """The mean in the place of a draw, in every bin: features of the encoder, no latents."""

    def run(
        self,
        start: Float[Tensor, "batch 2 latent"],
        noise: Float[Tensor, "batch steps draws latent"],
        steering: Float[Tensor, "batch steered draws latent"] | None = None,
        feedback: Float[Tensor, "draws 2 latent"] | None = None,
    ) -> tuple[Float[Tensor, "batch time 2 latent"], Float[Tensor, "batch steered draws latent"] | None]:
        """As of `Independent`, without its noise."""
        return super().run(start, torch.zeros_like(noise), steering, feedback)


def dynamics_of(
    word: Dynamics | str, latents: int, bin_s: float, band_hz: Sequence[float], coupled: bool
) -> Oscillators:
    """The dynamics that a word names."""
    kinds = {
        Dynamics.OSCILLATORS: Oscillators,
        Dynamics.FIRST_ORDER: FirstOrder,
        Dynamics.INDEPENDENT: Independent,
        Dynamics.NONE: Direct,
    }
    return kinds[Dynamics(word)](latents, bin_s, band_hz, coupled)

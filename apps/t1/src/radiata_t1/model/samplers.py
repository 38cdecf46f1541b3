"""Samplers by the names the command line knows, each a function from noise to heads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

import torch
from torch import Tensor

from radiata_core import tables
from radiata_core.aggregated_denoisers import AggregatedDenoiser
from radiata_core.denoisers import Guided, NetworkDenoiser
from radiata_core.errors import InputError
from radiata_core.flowmaps import NetworkFlowMap, sample_flow_map
from radiata_core.paths import Path
from radiata_core.runge_kutta import adaptive, heun
from radiata_core.seeds import generators_of, noise_of
from radiata_core.solvers import integrate
from radiata_core.times import Grid, LinearGrid, LogSNRGrid
from radiata_t1.model.parity import medforj_2025, medforj_2026

__all__ = ["GridName", "Sampler", "SamplerName", "start_state"]


class SamplerName(StrEnum):
    """Solvers of the core, the jumps of a distilled flow map, and MedForJ's two programs."""

    DPMPP_2M = "dpmpp-2m"
    UNIPC_2 = "unipc-2"
    DDIM = "ddim"
    DDPM = "ddpm"
    AB2 = "ab2"
    SDE_DPMPP_2M = "sde-dpmpp-2m"
    HEUN = "heun"
    ADAPTIVE = "adaptive"
    FLOW_MAP = "flow-map"
    MEDFORJ_2025 = "medforj-2025"
    MEDFORJ_2026 = "medforj-2026"


class GridName(StrEnum):
    """Where a solver evaluates: even in log-SNR, or even in the path's own time."""

    LOG_SNR = "log-snr"
    LINEAR = "linear"


_TABLES: dict[SamplerName, Callable[..., tables.MultistepTable]] = {
    SamplerName.DPMPP_2M: tables.dpmpp_2m,
    SamplerName.UNIPC_2: tables.unipc_2,
    SamplerName.DDIM: tables.ddim,
    SamplerName.DDPM: tables.ddpm,
    SamplerName.AB2: tables.ab2_velocity,
    SamplerName.SDE_DPMPP_2M: tables.sde_dpmpp_2m,
}
_PARITY_STEPS = {SamplerName.MEDFORJ_2025: 64, SamplerName.MEDFORJ_2026: 256}
_DEFAULT_STEPS = _PARITY_STEPS | {SamplerName.SDE_DPMPP_2M: 60, SamplerName.DDPM: 60, SamplerName.FLOW_MAP: 4}
_IN_TIME = (SamplerName.HEUN, SamplerName.FLOW_MAP)
_NOISE, _STEPS = 0, 1  # keys that keep a seed's initial noise apart from the noise of a stochastic solver


def start_state(
    denoiser: NetworkDenoiser | NetworkFlowMap, noise: Tensor, covariates: Tensor | None = None
) -> Tensor:
    """The state at t = 1: sigma eps, plus alpha times the mean head where the path ends above alpha = 0.

    MedForJ's discrete path keeps 0.00635 x_0 at its end. A network has always seen that much of a head there, so a start
    from noise alone is out of its training set: the anchor's mean is the best guess of what is missing.
    """
    c = denoiser.path.coefficients(torch.ones((), dtype=torch.float64))
    state = float(c.sigma) * noise
    if denoiser.anchor is not None and float(c.alpha) > 0:
        state = state + float(c.alpha) * denoiser.anchor.mean_given(covariates).to(noise)  # type: ignore[operator]
    return state


@dataclass(frozen=True)
class Sampler:
    """A solver, its grid and the guidance: everything about sampling but the seeds.

    Attributes:
        name: The solver.
        steps: Steps; None takes 20, 60 for stochastic solvers, what MedForJ's programs take. `adaptive` has none.
        grid: Where the solver evaluates; None takes log-SNR (linear for Heun and for flow maps, whose steps are in t).
        guidance: Weight of classifier-free guidance.
        fresh: Share of the noise that a flow map draws anew between two jumps (gamma), in [0, 1].
    """

    name: SamplerName = SamplerName.SDE_DPMPP_2M
    steps: int | None = None
    grid: GridName | None = None
    guidance: float = 1.0
    fresh: float = 0.0

    @property
    def parity(self) -> bool:
        """Whether this is one of MedForJ's programs."""
        return self.name in _PARITY_STEPS

    @property
    def count(self) -> int:
        """Number of steps."""
        return self.steps if self.steps is not None else _DEFAULT_STEPS.get(self.name, 20)

    def evaluations(self, conditional: bool) -> int:
        """Network evaluations a head, for the estimate; a guess (40) for the adaptive solver."""
        per_step = 2 if self.name is SamplerName.HEUN else 1
        total = 40 if self.name is SamplerName.ADAPTIVE else self.count * per_step
        return total * (2 if conditional and self.guidance != 1.0 else 1)

    def check(self, denoiser: NetworkDenoiser | NetworkFlowMap | AggregatedDenoiser) -> None:
        """Raise InputError if this sampler cannot serve that model."""
        if self.count < 1:
            raise InputError(f"expected --steps of at least 1; got {self.count}.")
        if self.parity and self.guidance != 1.0:
            raise InputError("expected no guidance with MedForJ's samplers (it has none); drop --guidance.")
        if isinstance(denoiser, AggregatedDenoiser) and (self.name not in _TABLES or self.guidance != 1.0):
            raise InputError(
                f"expected one of {', '.join(_TABLES)} without guidance for a model of heads and covariates; got "
                f"{self.name} with guidance {self.guidance:g}. Drop --sampler and --guidance."
            )
        jumps = isinstance(denoiser, NetworkFlowMap)
        if self.name is SamplerName.FLOW_MAP and not jumps:
            raise InputError(
                "expected a distilled flow map for the sampler flow-map; got a denoiser. Take another sampler or model."
            )
        if self.name is SamplerName.FLOW_MAP and self.guidance != 1.0:
            raise InputError(
                f"expected no guidance with flow-map (jumps are distilled without it); got {self.guidance}. Drop it."
            )

    def __call__(
        self,
        denoiser: NetworkDenoiser | NetworkFlowMap,
        seeds: Sequence[int],
        event: Sequence[int],
        *,
        device: str | torch.device = "cpu",
        callback: Callable[[Any], None] | None = None,
        **conditions: Any,
    ) -> Tensor:
        """Heads `(len(seeds), *event)`; row i depends on seed i alone."""
        noise = noise_of(generators_of(seeds, _NOISE), event, torch.float32, device)
        if self.name is SamplerName.MEDFORJ_2025:
            return medforj_2025(
                cast(NetworkDenoiser, denoiser), noise, self.count, callback=callback, **conditions
            )
        if self.name is SamplerName.MEDFORJ_2026:
            return medforj_2026(
                cast(NetworkDenoiser, denoiser), noise, self.count, callback=callback, **conditions
            )
        model = Guided(denoiser, self.guidance) if conditions and self.guidance != 1.0 else denoiser
        x = start_state(denoiser, noise, conditions.get("covariates"))
        if self.name is SamplerName.ADAPTIVE:
            return adaptive(model, x, denoiser.path, rtol=1e-3, atol=1e-3, **conditions).x
        times = self._grid()(self.count, denoiser.path)
        if self.name is SamplerName.FLOW_MAP:
            assert isinstance(denoiser, NetworkFlowMap)
            fresh = generators_of(seeds, _STEPS) if self.fresh else None
            return sample_flow_map(denoiser, x, times, gamma=self.fresh, generators=fresh, **conditions)
        if self.name is SamplerName.HEUN:
            return heun(model, x, times, denoiser.path, callback=callback, **conditions)
        table = self.table(denoiser.path)
        generators = generators_of(seeds, _STEPS) if table.stochastic else None
        return integrate(model, x, table, generators=generators, callback=callback, **conditions)

    def table(self, path: Path) -> tables.MultistepTable:
        """The solver's coefficients on a path; for the multistep solvers."""
        return _TABLES[self.name](self._grid()(self.count, path), path)

    def _grid(self) -> Grid:
        chosen = self.grid or (GridName.LINEAR if self.name in _IN_TIME else GridName.LOG_SNR)
        return LinearGrid() if chosen is GridName.LINEAR else LogSNRGrid()

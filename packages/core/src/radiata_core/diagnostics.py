r"""One report on what a denoiser has learned: how far from right, how far from a gradient, how far from straight.

    print(diagnose(denoiser, held_out, generators_of(range(len(held_out)))))

At each noise level, at draws $x_t = \alpha x_0 + \sigma\varepsilon$ of the given data (equations: `conservativity`):

| column | what | exact denoiser |
|---|---|---|
| error | root mean square of $D(x_t) - x_0$, units of the data | the least there is, not 0 |
| asym s, asym D | `conservativity.asymmetry` of the score and of the denoiser, in [0, 2] | 0 |
| block | the same of a k × k block without its diagonal, where both agree | 0 |
| loop | `loop_integral` around a circle on the shell of noise: RMS of work / absolute work, in [0, 1] | 0 |
| gap | difference of the work on two ways from draw to draw of one $x_0$, nats an element | 0 |

The score and the denoiser share their probes, as $J_s = (\alpha J_D - 1)/\sigma^2$. Loop and ways stay where the network was
trained: the circle is $\alpha x_0 + \sigma(\cos\theta\,\varepsilon_1 + \sin\theta\,\varepsilon_2)$ with orthogonal
noises of their mean length, each point of which is a typical state; the ways join three draws. Along the whole flow there
are `straightness` and curvature, and `measures` takes whatever else is one number a row; of `likelihood` and
`intrinsic_dimension`, say:

    def bits(denoiser, x0, generators, **conditions):
        return log_likelihood(denoiser, x0, hutchinson(x0, generators), **conditions).bits_per_dim

The report itself is in `diagnosis`. What such numbers mean, and do not: `gauge`. In float32 rounding ends the scale at
about 1e-11 for an asymmetry; loop and gap end where the quadrature resolves the field: more points tell.

References:
    Vuong, McCann, Santos & Lin, 2025, https://arxiv.org/abs/2509.00336.
    Horvat & Pfister, 2024, https://arxiv.org/abs/2402.03845.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from radiata_core.conservativity import loop_integral, path_integrals, random_plane, sub_jacobian
from radiata_core.denoisers import Denoiser
from radiata_core.diagnosis import Diagnosis, Level, Measure, mean_of, ratio_of, root_of
from radiata_core.errors import InputError
from radiata_core.finiteness import FiniteWatch
from radiata_core.jacobians import inner, jvp, rademacher, score_field, vjp
from radiata_core.paths import Path, add_noise
from radiata_core.seeds import noise_of
from radiata_core.straightness import curvature, straightness
from radiata_core.types import Batch, Times

__all__ = ["Diagnosis", "Level", "Measure", "Progress", "diagnose", "level_times"]

RowMeasure = Callable[..., Tensor]
KAPPAS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Noise levels sigma/alpha of a report, for data of sd about 1."""


@dataclass(frozen=True)
class Progress:
    """What a callback is told: `done` of `total` parts, and what the last one was."""

    done: int
    total: int
    part: str


def diagnose(
    denoiser: Denoiser,
    data: Batch,
    generators: Sequence[torch.Generator],
    *,
    times: Times | None = None,
    probes: int = 1,
    elements: Int[Tensor, "k"] | None = None,
    loop_points: int = 16,
    path_points: int = 8,
    steps: int = 20,
    measures: Mapping[str, RowMeasure] | None = None,
    rows: int | None = None,
    callback: Callable[[Progress], None] | None = None,
    **conditions: Any,
) -> Diagnosis:
    """The report of this module. Row i of every measurement depends on row i and generator i only.

    A row and level cost 1 + loop_points + 3 path_points evaluations, `probes` forward and reverse products and one forward
    product an element of the block (a product is two to three evaluations); the flow 2 `steps`. A network is put into
    evaluation mode meanwhile.

    Args:
        denoiser: E[x_0 | x_t] of Gaussian noise, any event rank.
        data: Held-out data (or samples of the model), (batch, *event), in the dtype of the network.
        generators: One a row.
        times: Noise levels inside (0, 1), (levels,); None: where sigma/alpha is 0.1, 0.3, 1, 3, 10.
        probes: Random directions a row and level, >= 1.
        elements: Indices of the block into the flattened event; None: 8 neighbours in its middle.
        loop_points: Points of the circle, >= 4.
        path_points: Quadrature nodes on each of three segments, >= 1.
        steps: Of the trajectories whose straightness is measured; 0: none. They start at t = 1.
        measures: Name -> `measure(denoiser, x0, generators, **conditions) -> (batch,)`.
        rows: Most rows the network sees at a time; None: all.
        callback: Called after each part.
        conditions: Passed to the denoiser; tensors have one row a sample.

    Raises:
        InputError: not one generator a row, a number or a time out of range, a condition of another length, noise that is
            not Gaussian, or a value that is not finite (its t is named).

    References:
        Vuong et al. 2025, https://arxiv.org/abs/2509.00336.
    """
    times = level_times(denoiser.path) if times is None else times
    _check(data, generators, times, probes, path_points, steps, rows, conditions)
    measures = dict(measures or {})
    size, stride = len(data), rows or len(data)
    elements = _middle(data[0].numel()) if elements is None else elements
    total = math.ceil(size / stride) * (len(times) + (steps > 0) + len(measures))
    found: dict[str, list[Tensor]] = {}
    done = 0

    def note(part: str, values: Mapping[str, Tensor]) -> None:
        nonlocal done
        done += 1
        for name, value in values.items():
            found.setdefault(name, []).append(value.detach().double().cpu())
        if callback is not None:
            callback(Progress(done, total, part))

    with _evaluating(denoiser):
        for first in range(0, size, stride):
            part = slice(first, first + stride)
            x0, own = data[part], generators[part]
            given = {k: v[part] if isinstance(v, Tensor) else v for k, v in conditions.items()}
            for index, t in enumerate(times):
                at = _Place(denoiser, x0, index, t, own, given)
                values = at.errors() | at.asymmetries(probes) | at.block(elements)
                values |= at.loop(loop_points) | at.gap(path_points)
                note(f"t = {float(t):.3g}", {f"{index} {name}": value for name, value in values.items()})
            if steps:
                note("straightness", _straight(denoiser, x0, own, steps, given))
            for name, measure in measures.items():
                value = measure(denoiser, x0, own, **given)
                if value.shape != x0.shape[:1]:
                    raise InputError(
                        f"expected one number a row, ({len(x0)},), from the measure {name!r}; got {tuple(value.shape)}. "
                        "Average over the event."
                    )
                note(name, {name: value})
    rows_of = {name: torch.cat(values) for name, values in found.items()}
    levels = tuple(_level(denoiser.path, t, i, rows_of, data[0].numel()) for i, t in enumerate(times))
    flow = {name: mean_of(value) for name, value in rows_of.items() if not name[0].isdigit()}
    return Diagnosis(levels, flow, size, data[0].numel())


def level_times(path: Path, kappas: Sequence[float] = KAPPAS) -> Times:
    """Times at which sigma/alpha has these values, (levels,), float64."""
    return path.time_of_log_snr(-torch.tensor(list(kappas), dtype=torch.float64).log())


@dataclass(frozen=True, eq=False)
class _Place:
    """Some rows at one noise level; each method answers with named numbers, (batch,) each."""

    denoiser: Denoiser
    x0: Tensor
    index: int
    t: Tensor
    generators: Sequence[torch.Generator]
    conditions: Mapping[str, Any]

    def draw(self) -> Tensor:
        noise = noise_of(self.generators, self.x0.shape[1:], self.x0.dtype, self.x0.device)
        return add_noise(self.denoiser.path, self.x0, noise, self.t)

    def at(self, x: Tensor) -> Tensor:
        return self.denoiser(x, self.t, **self.conditions)

    def errors(self) -> dict[str, Tensor]:
        with torch.no_grad():
            answer = self.at(self.draw())
        if answer.shape != self.x0.shape:
            raise InputError(
                f"expected E[x_0 | x_t] of the data's shape {tuple(self.x0.shape)}; got {tuple(answer.shape)}. "
                "Check the network's output channels."
            )
        FiniteWatch(deferred=False).see(answer, self.index, float(self.t))
        return {"error": (answer - self.x0).flatten(1).double().square().mean(1)}

    def asymmetries(self, probes: int) -> dict[str, Tensor]:
        """J_D v once for both: J_D v - v / alpha is sigma^2 / alpha J_s v, and the factor falls out of the ratio."""
        x, alpha = self.draw(), float(self.denoiser.path.coefficients(self.t).alpha)
        sums = [torch.zeros(len(x), dtype=torch.float64, device=x.device) for _ in range(3)]
        for _ in range(probes):
            v = rademacher(x, self.generators)
            ahead, back = jvp(self.at, x, v), vjp(self.at, x, v)
            parts = ((ahead - back,), (ahead, back), (ahead - v / alpha, back - v / alpha))
            for total, some in zip(sums, parts, strict=True):
                total += sum(inner(part, part) for part in some) / len(some)
        return dict(zip(("difference", "size D", "size s"), sums, strict=True))

    def block(self, elements: Tensor) -> dict[str, Tensor]:
        matrix = sub_jacobian(self.at, self.draw(), elements).matrix
        rest = matrix - torch.diag_embed(matrix.diagonal(dim1=1, dim2=2))
        # Far elements may not interact at all: what is left then is rounding, not asymmetry.
        floor = 100 * torch.finfo(matrix.dtype).eps * matrix.abs().amax((1, 2), keepdim=True)
        rest = torch.where(rest.abs().maximum(rest.mT.abs()) > floor, rest, 0.0)
        return {
            "block": (rest - rest.mT).square().sum((1, 2)),
            "size block": rest.square().sum((1, 2)),
        }

    def loop(self, points: int) -> dict[str, Tensor]:
        if self.x0[0].numel() < 2:  # a line has no loops
            return {"loop": torch.zeros(len(self.x0))}
        c = self.denoiser.path.coefficients(self.t)
        score = score_field(self.denoiser, self.t, **self.conditions)
        radius = float(c.sigma) * math.sqrt(self.x0[0].numel())
        plane = random_plane(self.x0, self.generators)
        return {"loop": loop_integral(score, float(c.alpha) * self.x0, plane, radius, points).rows}

    def gap(self, points: int) -> dict[str, Tensor]:
        score = score_field(self.denoiser, self.t, **self.conditions)
        return {"gap": path_integrals(score, self.draw(), self.draw(), self.draw(), points).gap}


def _straight(
    denoiser: Denoiser,
    x0: Tensor,
    generators: Sequence[torch.Generator],
    steps: int,
    conditions: Mapping[str, Any],
) -> dict[str, Tensor]:
    sigma = float(denoiser.path.coefficients(torch.ones((), dtype=torch.float64)).sigma)
    start = sigma * noise_of(generators, x0.shape[1:], x0.dtype, x0.device)
    with torch.no_grad():
        return {
            "straightness (per element)": straightness(denoiser, start, steps, **conditions) / x0[0].numel(),
            "curvature": curvature(denoiser, start, steps, **conditions),
        }


def _level(path: Path, t: Tensor, index: int, rows: Mapping[str, Tensor], elements: int) -> Level:
    c = path.coefficients(t)

    def of(name: str) -> Tensor:
        return rows[f"{index} {name}"]

    return Level(
        float(t),
        float(c.sigma / c.alpha),
        root_of(of("error")),
        ratio_of(of("difference"), 2 * of("size s")),
        ratio_of(of("difference"), 2 * of("size D")),
        ratio_of(of("block"), 2 * of("size block")),
        root_of(of("loop").square()),
        root_of((of("gap") / elements).square()),
    )


def _middle(elements: int, count: int = 8) -> Tensor:
    first = max(0, (elements - count) // 2)
    return torch.arange(first, min(elements, first + count))


@contextmanager
def _evaluating(denoiser: object) -> Iterator[None]:
    """Every network inside in evaluation mode, and back."""
    found: list[nn.Module] = []
    while denoiser is not None:
        if isinstance(denoiser, nn.Module):
            found += [module for module in denoiser.modules() if module.training]
        denoiser = None if isinstance(denoiser, nn.Module) else getattr(denoiser, "denoiser", None)
    try:
        for module in found:
            module.training = False
        yield
    finally:
        for module in found:
            module.training = True


def _check(
    data: Tensor,
    generators: Sequence[torch.Generator],
    times: Tensor,
    probes: int,
    path_points: int,
    steps: int,
    rows: int | None,
    conditions: Mapping[str, Any],
) -> None:
    if not len(data) or len(generators) != len(data):
        raise InputError(
            f"expected data and one generator a row; got {len(data)} rows and {len(generators)} generators. "
            "Use generators_of(range(len(data)))."
        )
    if times.ndim != 1 or not len(times) or not bool(((times > 0) & (times < 1)).all()):
        raise InputError(
            f"expected times inside (0, 1), (levels,); got {times.tolist()}. level_times(path) makes them."
        )
    if probes < 1 or path_points < 1 or steps < 0 or (rows is not None and rows < 1):
        raise InputError(
            f"expected probes, path_points and rows >= 1 and steps >= 0; got {probes}, {path_points}, {rows} and {steps}."
            " The defaults are 1, 8, None and 20."
        )
    for name, value in conditions.items():
        if isinstance(value, Tensor) and (not value.ndim or len(value) != len(data)):
            raise InputError(
                f"expected one row of {name} a sample, {len(data)}; got shape {tuple(value.shape)}. Expand it."
            )

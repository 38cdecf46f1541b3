r"""Numbers with their errors, and the report they make: what `diagnostics.diagnose` answers with.

Each number is a mean m over rows, with the standard error s/sqrt(n); a root of a mean, with s/(2 sqrt(n m)); or a ratio
R = mean(a)/mean(b), with that of the mean of (a - R b)/mean(b). The last two are the delta method, so they hold for many
rows.

References:
    Cochran, "Sampling techniques", 3rd ed., 1977 (the ratio estimate).
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from radiata_core.types import Row

__all__ = ["Diagnosis", "Level", "Measure", "mean_of", "ratio_of", "root_of"]


@dataclass(frozen=True)
class Measure:
    """A mean, or a ratio or root of means, over rows and its standard error (NaN for a single row)."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.3g}" if math.isnan(self.error) else f"{self.value:.3g} ± {self.error:.1g}"


@dataclass(frozen=True)
class Level:
    """What was measured at one noise level; see the module for the columns. kappa: sigma/alpha."""

    t: float
    kappa: float
    error: Measure
    score_asymmetry: Measure
    denoiser_asymmetry: Measure
    block: Measure
    loop: Measure
    gap: Measure


@dataclass(frozen=True)
class Diagnosis:
    """The report. levels: by noise; flow: name -> measure along the whole flow; rows, elements: size of the data."""

    levels: tuple[Level, ...]
    flow: Mapping[str, Measure]
    rows: int
    elements: int

    def table(self) -> str:
        """The report as text, one line a noise level."""
        names = ("error", "asym s", "asym D", "block", "loop", "gap/element")
        lines = [
            f"{self.rows} rows of {self.elements} elements; ± one standard error over rows",
            f"{'κ = σ/α':>8} {'t':>6}" + "".join(f"{name:>20}" for name in names),
        ]
        for level in self.levels:
            measures = [v for v in vars(level).values() if isinstance(v, Measure)]
            lines.append(f"{level.kappa:8.3g} {level.t:6.3f}" + "".join(f"{m!s:>20}" for m in measures))
        width = max((len(name) for name in self.flow), default=0)
        return "\n".join(lines + [f"{name:<{width}}  {measure}" for name, measure in self.flow.items()])

    def __str__(self) -> str:
        return self.table()

    def to_dict(self) -> dict[str, Any]:
        """Numbers, lists and dictionaries only; what is not finite becomes None, as JSON has it."""

        def plain(value: Any) -> Any:
            if dataclasses.is_dataclass(value):
                value = vars(value)
            if isinstance(value, Mapping):
                return {key: plain(item) for key, item in value.items()}
            if isinstance(value, tuple):
                return [plain(item) for item in value]
            return None if isinstance(value, float) and not math.isfinite(value) else value

        return plain(self)


def mean_of(rows: Row) -> Measure:
    """The mean."""
    return Measure(float(rows.mean()), _error(rows))


def root_of(squares: Row) -> Measure:
    """Root of the mean of squares >= 0."""
    root = math.sqrt(float(squares.mean()))
    return Measure(root, _error(squares) / (2 * root) if root else 0.0)


def ratio_of(top: Row, bottom: Row) -> Measure:
    """Ratio of the means; 0 where there is nothing to compare."""
    size = float(bottom.mean())
    if not size:
        return Measure(0.0, 0.0)
    ratio = float(top.mean()) / size
    return Measure(ratio, _error((top - ratio * bottom) / size))


def _error(rows: Row) -> float:
    return float(rows.std()) / math.sqrt(len(rows)) if len(rows) > 1 else math.nan

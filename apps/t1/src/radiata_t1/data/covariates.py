"""Covariates as a network sees them: standardised on the training set, NaN where not given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from radiata_core.errors import InputError

__all__ = ["CovariateScale"]


@dataclass(frozen=True)
class CovariateScale:
    """Names, mean, sd and range of the training set's covariates, in their own units."""

    names: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    sd: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @classmethod
    def of(cls, names: Sequence[str], values: np.ndarray) -> "CovariateScale":
        """The scale of `values` `(n, K)`; NaN are left out."""
        if not names:
            return cls()
        known = np.isfinite(values).any(0)
        if not known.all():
            missing = [name for name, some in zip(names, known, strict=True) if not some]
            raise InputError(
                f"expected at least one value of every covariate; got none of {', '.join(missing)}."
            )
        sd = np.nanstd(values, 0)
        return cls(
            tuple(names),
            *(
                tuple(float(x) for x in row)
                for row in (
                    np.nanmean(values, 0),
                    np.where(sd > 0, sd, 1.0),
                    np.nanmin(values, 0),
                    np.nanmax(values, 0),
                )
            ),
        )

    @classmethod
    def from_metadata(cls, record: Mapping[str, Any]) -> "CovariateScale":
        """The scale kept in a checkpoint; an empty one if the model knows no covariates."""
        kept = record.get("covariates") or {}
        return cls(**{key: tuple(kept[key]) for key in ("names", "mean", "sd", "low", "high") if key in kept})

    def standardise(self, values: np.ndarray) -> np.ndarray:
        """(values - mean) / sd, float32, `(..., K)`."""
        return ((values - np.array(self.mean)) / np.array(self.sd)).astype(np.float32)

    def row(self, given: Mapping[str, float]) -> np.ndarray:
        """Standardised row `(K,)` with NaN for what is not in `given`.

        Raises:
            InputError: a name the model does not know.
        """
        unknown = [name for name in given if name not in self.names]
        if unknown:
            raise InputError(
                f"expected conditions out of {', '.join(self.names) or '(this model has none)'}; got {unknown[0]!r}."
            )
        return self.standardise(np.array([given.get(name, np.nan) for name in self.names], dtype=np.float64))

    def outside(self, given: Mapping[str, float]) -> list[str]:
        """A sentence for each value outside the range seen in training."""
        said = []
        for name, low, high in zip(self.names, self.low, self.high, strict=True):
            if name in given and not low <= given[name] <= high:
                said.append(
                    f"{name} = {given[name]:g} lies outside the training range {low:.4g} to {high:.4g}"
                )
        return said

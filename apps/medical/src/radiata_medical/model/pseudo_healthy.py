r"""What a scan would look like without its lesion, and in how many ways it differs from that.

A prior of healthy heads that is told "this is a head in noise of level kappa" rebuilds what it knows and leaves out what it
does not:

    h = mean over n of D(alpha (x + kappa n)),      kappa large enough to drown a lesion, one evaluation a draw.

One jump from a high level beats a walk of several steps from a low one, which copies the lesion. What differs between x
and h is evidence of three kinds:

| evidence | |
|---|---|
| `residual` | x - h, units of the prior, signed |
| `features` | distance of the prior's activations for x and for h, each channel in its own standard deviations |
| `tissue` | total variation between the tissue probabilities of x and of h |

Any of them is large at edges of healthy tissue too; how large is learnt from healthy scans (`anomaly_calibration`). Research
only: the method finds a small part of what a radiologist finds, and marks healthy tissue.

References:
    Wolleb et al., "Diffusion models for medical anomaly detection", 2022, https://arxiv.org/abs/2203.04306.
    Bercea et al., "Mask, stitch, and re-sample" (autoDDPM), 2023, https://arxiv.org/abs/2305.19643.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from radiata_core.denoiser_features import DenoiserFeatures, on_grid
from radiata_core.errors import InputError
from radiata_core.seeds import generators_of, noise_of

__all__ = ["Evidence", "HealthyModel"]

Image = Float[Tensor, "batch 1 *grid"]

_NOISE, _FEATURES = 11, 12  # keys of the generators


@dataclass(frozen=True, eq=False)
class Evidence:
    """One image and what its healthy counterpart says of it; arrays of the image's grid, float32.

    Attributes:
        image: Units of the prior.
        healthy: The pseudo-healthy image.
        mask: Where it counts (the brain), bool.
        features: Distance of features, >= 0; None if not asked for.
        tissue: Total variation of tissue probabilities, in [0, 1]; None if not asked for.
    """

    image: np.ndarray
    healthy: np.ndarray
    mask: np.ndarray
    features: np.ndarray | None = None
    tissue: np.ndarray | None = None

    @property
    def residual(self) -> np.ndarray:
        """image - healthy."""
        return self.image - self.healthy


@dataclass(frozen=True, eq=False)
class HealthyModel:
    """A prior of healthy images, and how it is asked.

    Attributes:
        denoiser: The prior.
        level: kappa, units of the prior (whose data have a root mean square of .45), > 0.
        draws: Noises whose results are averaged, >= 1.
        feature_levels: Levels at which activations are compared; empty for none.
        feature_layers: Names of layers of the denoiser; empty for the levels of its decoder.
        segmenter: Images (batch, 1, *grid) to logits of tissues; None for none.

    Raises:
        InputError: a level or a number of draws out of range.
    """

    denoiser: Any
    level: float = 0.6
    draws: int = 4
    feature_levels: tuple[float, ...] = ()
    feature_layers: tuple[str, ...] = ()
    segmenter: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.level < float("inf") or self.draws < 1:
            raise InputError(f"expected a level > 0 and draws >= 1; got {self.level} and {self.draws}.")

    @torch.no_grad()
    def healthy(self, images: Image, seeds: Sequence[int], **conditions: Any) -> Image:
        """The pseudo-healthy images; row i by seed i alone.

        Args:
            images: Units of the prior.
            seeds: One a row.
            conditions: Passed to the prior.
        """
        path = self.denoiser.path
        t = path.time_of_log_snr(-torch.tensor(self.level, dtype=torch.float64).log())
        alpha = float(path.coefficients(t).alpha)
        generators = generators_of(seeds, _NOISE)
        total = torch.zeros_like(images)
        for _ in range(self.draws):
            noise = noise_of(generators, images.shape[1:], images.dtype, images.device)
            total += self.denoiser(alpha * (images + self.level * noise), t, **conditions)
        return total / self.draws

    @torch.no_grad()
    def evidence(
        self, images: Image, masks: Tensor, seeds: Sequence[int], **conditions: Any
    ) -> tuple[Evidence, ...]:
        """Evidence for each row.

        Args:
            images: Units of the prior.
            masks: Where it counts, bool (batch, *grid).
            seeds: One a row.
            conditions: Passed to the prior.
        """
        healthy = self.healthy(images, seeds, **conditions)
        features = self._features(images, healthy, masks, seeds, conditions) if self.feature_levels else None
        tissue = None
        if self.segmenter is not None:
            p, q = (self.segmenter(x).softmax(1) for x in (images, healthy))
            tissue = (p - q).abs().sum(1) / 2
        rows = range(len(images))

        def row(values: Tensor | None, i: int) -> np.ndarray | None:
            return None if values is None else values[i].float().cpu().numpy()

        return tuple(
            Evidence(
                images[i, 0].float().cpu().numpy(),
                healthy[i, 0].float().cpu().numpy(),
                masks[i].cpu().numpy().astype(bool),
                row(features, i),
                row(tissue, i),
            )
            for i in rows
        )

    def _features(
        self,
        images: Tensor,
        healthy: Tensor,
        masks: Tensor,
        seeds: Sequence[int],
        conditions: dict[str, Any],
    ) -> Tensor:
        """Root mean square over channels of the difference in standard deviations of the channel, (batch, *grid)."""
        reader = DenoiserFeatures(self.denoiser, self.feature_levels, self.feature_layers, estimate=False)
        pairs = zip(
            reader.maps(images, generators_of(seeds, _FEATURES), **conditions),
            reader.maps(healthy, generators_of(seeds, _FEATURES), **conditions),  # the same noise for both
            strict=True,
        )
        total, count = torch.zeros_like(images[:, 0]), 0
        for seen, known in pairs:
            inside = on_grid(masks[:, None].to(known), known.shape[2:]) > 0.5
            weight = inside.flatten(2).to(known)
            size = weight.sum(2, keepdim=True).clamp_min(1)
            flat = known.flatten(2)
            mean = (flat * weight).sum(2, keepdim=True) / size
            variance = ((flat - mean).square() * weight).sum(2, keepdim=True) / size
            distance = (seen - known).flatten(2).square() / (variance + 1e-6)
            coarse = distance.mean(1, keepdim=True).view(len(images), 1, *known.shape[2:])
            total += on_grid(coarse, images.shape[2:])[:, 0]
            count += 1
        return (total / max(count, 1)).sqrt()

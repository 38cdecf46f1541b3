r"""What a region of the brain would show if it alone were active: a synthetic response, decoded.

The response is `amplitude` in the voxels of a region and 0 (the training mean) elsewhere. With weights W = X̃ᵀC it moves the
predicted targets along

$$ f = (\text{roi} \circ q)\,W = \left((\text{roi} \circ q)\,\tilde X^\top\right) C, $$

which needs no stored weights. Only the direction of f means something: a whole region at one standard deviation is not a
response that any picture evokes. f is scaled to the distance that training pictures have from their mean on average,

$$ y = \bar y + \text{gain}\,\frac{f}{\lVert f\rVert}\sqrt{\textstyle\sum_k \sigma_k^2}, $$

for the latents and for each embedding by itself. The published code z-scores latents across the regions that were asked for,
so that each region's picture depends on the others in the list; here it depends on nothing but the region. It also cuts its
V1 to V4 from the file of face patches; labels are the reader's duty (`prepare`), names are checked here.

`kept` and `lesioned` answer the complementary question for measured responses: what is decoded from a region alone, or
without it.

References:
    F. Ozcelik, R. VanRullen (2023). https://arxiv.org/abs/2303.05334, section on region-of-interest analysis.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_decode.model.image_decoder import DecodedLatents, ImageDecoder
from radiata_decode.model.response_scale import ResponseScale

__all__ = ["kept", "lesioned", "roi_latents"]

Array = np.ndarray | Tensor


def roi_latents(
    decoder: ImageDecoder, rois: Mapping[str, Array], *, gain: float = 1.0, amplitude: Array | float = 1.0
) -> DecodedLatents:
    """Latents and embeddings that each region drives, one row a region in the order given.

    Args:
        decoder: A trained decoder.
        rois: Name → which voxels, (v,) bool, or weights ≥ 0 of a blend.
        gain: Distance from the mean in units of the training pictures' root mean square distance, > 0.
        amplitude: Response in the region, in units of the responses; one standard deviation of each voxel, (v,), where they
            are not z-scored. Negative shows what silences the region.

    Raises:
        InputError: no region, one without voxels or of another number of them, a region that drives nothing.
    """
    if not rois:
        raise InputError("expected at least one region; got none. Name some of voxels.tsv's roi_ columns.")
    if not gain > 0:
        raise InputError(f"expected gain > 0; got {gain}.")
    scale = decoder.ridge.scale
    unit = scale.weight * torch.as_tensor(amplitude, dtype=torch.float64)
    rows = torch.stack([_mask(name, roi, scale).double() * unit for name, roi in rois.items()])
    directions = decoder.ridge.towards(rows)
    values = decoder.ridge.target_mean.repeat(len(rows), 1)
    sizes = [decoder.latents, *(a * b for a, b in decoder.embeddings.values())]
    start = 0
    for size in sizes:
        part = slice(start, start + size)
        start += size
        if size:
            length = directions[:, part].norm(dim=1, keepdim=True)
            _check_driven(list(rois), length)
            values[:, part] += gain * decoder.sd[part].norm() * directions[:, part] / length
    return decoder.split(values)


def kept(responses: Array, scale: ResponseScale, roi: Array) -> Tensor:
    """Responses (m, v) with every voxel outside of a region at its training mean: the region alone decides.

    Raises:
        InputError: another number of voxels, or a region without any.
    """
    scale.check(responses)
    inside = _mask("to keep", roi, scale).bool()
    values = torch.tensor(np.asarray(responses), dtype=torch.float32)
    return torch.where(inside, values, scale.mean.float())


def lesioned(responses: Array, scale: ResponseScale, roi: Array) -> Tensor:
    """Responses (m, v) with the region at its training mean: all but the region decide.

    Raises:
        InputError: another number of voxels, or a region without any.
    """
    scale.check(responses)
    inside = _mask("to leave out", roi, scale).bool()
    values = torch.tensor(np.asarray(responses), dtype=torch.float32)
    return torch.where(inside, scale.mean.float(), values)


def _mask(name: str, roi: Array, scale: ResponseScale) -> Tensor:
    mask = torch.tensor(np.asarray(roi)).double()
    if mask.shape != scale.mean.shape:
        raise InputError(
            f"expected the region {name} over {len(scale.mean)} voxels; got {tuple(mask.shape)}. "
            "Use the subject that the model was trained with."
        )
    if not torch.isfinite(mask).all() or (mask < 0).any() or not (mask > 0).any():
        raise InputError(f"expected voxels in the region {name}; got none. Choose another region.")
    return mask


def _check_driven(names: list[str], length: Tensor) -> None:
    for name, value in zip(names, length[:, 0], strict=True):
        if not float(value) > 0:
            raise InputError(
                f"expected the region {name} to drive some target; its voxels have no weight. Choose another."
            )

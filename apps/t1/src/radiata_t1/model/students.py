"""Students of a trained T1 model: a flow map that jumps, or a flow that was straightened.

Both start from the teacher's weights and from a shorter version of its Gaussian anchor, whose exact flow is known: before
the first step of training a student already draws the Gaussian's head in one evaluation, and what is left to learn is what
the teacher learned beyond the Gaussian.
"""

from typing import Literal, TypeAlias

import torch

from radiata_core.anchors import PooledGaussian
from radiata_core.denoisers import NetworkDenoiser
from radiata_core.errors import InputError
from radiata_core.flowmaps import NetworkFlowMap
from radiata_core.nets.unet import UNet

__all__ = ["Student", "earlier_student", "student_of"]

Student: TypeAlias = NetworkFlowMap | NetworkDenoiser


def student_of(teacher: NetworkDenoiser, method: Literal["ctm", "reflow"], rank: int) -> Student:
    """An untrained student: the teacher's network (with a second time for `ctm`) and `rank` components of its anchor.

    Args:
        teacher: A denoiser with this house's U-Net and a Gaussian anchor.
        method: ctm gives a `NetworkFlowMap`, reflow a `NetworkDenoiser` whose anchor knows that noise and data are paired.
        rank: Components kept, 1 .. those of the teacher.

    Raises:
        InputError: a teacher of another network, without anchor, or with fewer components.
    """
    kept = getattr(teacher, "anchor", None)
    if not isinstance(teacher.network, UNet) or not isinstance(kept, PooledGaussian):
        raise InputError(
            f"expected a teacher with a U-Net and a Gaussian anchor; got {type(teacher.network).__name__} and "
            f"{type(kept).__name__}. Train one with radiata-t1 train."
        )
    anchor = kept.truncated(rank, coupled=method == "reflow")
    with torch.random.fork_rng(devices=[]):
        network = UNet(**teacher.network.options | {"destination": method == "ctm"})
    missing, unexpected = network.load_state_dict(teacher.network.state_dict(), strict=False)
    assert not unexpected and all(name.startswith("embed_destination") for name in missing)
    kind = NetworkFlowMap if method == "ctm" else NetworkDenoiser
    return kind(network, teacher.path, teacher.prediction, teacher.scaling, anchor)


def earlier_student(
    denoiser: torch.nn.Module, teacher: NetworkDenoiser, method: Literal["ctm", "reflow"]
) -> Student:
    """A student of an earlier run, to be trained further.

    Raises:
        InputError: a student of the other method, or on another path than the teacher's.
    """
    kind = NetworkFlowMap if method == "ctm" else NetworkDenoiser
    if not isinstance(denoiser, kind) or denoiser.path != teacher.path:
        raise InputError(
            f"expected a {kind.__name__} on {teacher.path} to go on with {method}; got {type(denoiser).__name__} on "
            f"{getattr(denoiser, 'path', None)}. Give a student of the same method and teacher."
        )
    return denoiser.train()

"""The joint denoiser of scans and their labels, with the labels as classes or as signed distances to their surfaces.

The core's `joint_denoisers` says what it is, `prior.build_joint` has the network; here the label field may be of distances
(`label_fields`), whose draws have surfaces between voxels and a spread in mm.
"""

from collections.abc import Sequence

from radiata_core.joint_denoisers import JointDenoiser, RealField
from radiata_medical.model import prior

__all__ = ["DISTANCE_RMS", "build_joint"]

DISTANCE_RMS = 0.85
"""Root mean square of signed distances over 5 mm, clipped, of the tissues of a head: most voxels are far from most."""


def build_joint(
    dims: int = 2,
    classes: int = 9,
    channels: Sequence[int] | None = None,
    seed: int = 0,
    *,
    distances: bool = False,
    covariates: int = 0,
) -> JointDenoiser:
    """An untrained joint denoiser, local and without attention, a function of the seed.

    Args:
        dims: 2 for slices, 3 for blocks.
        classes: Label classes, background among them.
        channels: Channels a level, finest first; None: those of the prior.
        seed: Of the initial weights.
        distances: Diffuse signed distances to the surfaces of the classes instead of the classes.
        covariates: Numbers that describe the contrast; 0 for none.

    Raises:
        InputError: other dimensions, or fewer than 2 classes.
    """
    joint = prior.build_joint(dims, classes, channels, covariates, seed)
    if not distances:
        return joint
    return JointDenoiser(joint.network, joint.path, joint.image, RealField(classes, DISTANCE_RMS))
